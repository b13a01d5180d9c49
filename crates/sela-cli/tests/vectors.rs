//! The command with vectors alone: index, search, look after collections.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{Sela, committed, npy, vector};

#[test]
fn vectors_are_indexed_and_searched() {
    let sela = Sela::new();
    sela.write_vectors("rows", 1_000, 8);
    sela.write("query.npy", npy(&vector(5, 8), 1, 8));
    let index = [
        "index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids", "--json",
    ];
    let first = sela.ok(&[&index[..], &["--commit-every", "300"]].concat());
    assert_eq!(
        first,
        "{\"committed\":300}\n{\"committed\":600}\n{\"committed\":900}\n{\"committed\":1000}\n"
    );
    let again = sela.ok(&index);
    assert_eq!(
        again, "{\"committed\":1000}\n",
        "nothing to do, all of it acknowledged"
    );

    let hits = sela.ok(&[
        "search",
        "-c",
        "rows",
        "--vector",
        "query.npy",
        "-k",
        "3",
        "--json",
    ]);
    let hits: Vec<serde_json::Value> = hits
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(hits.len(), 3);
    assert_eq!(hits[0]["id"], 5);
    assert!(hits[0]["score"].as_f64().unwrap() > 0.999_999);
    assert!(
        sela.ok(&["search", "-c", "rows", "--vector", "query.npy"])
            .lines()
            .count()
            == 10
    );
}

#[test]
fn collections_are_looked_after() {
    let sela = Sela::new();
    sela.write_vectors("rows", 1_000, 8);
    sela.write("query.npy", npy(&vector(5, 8), 1, 8));
    sela.ok(&["index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids"]);
    let list: serde_json::Value =
        serde_json::from_str(&sela.ok(&["collection", "list", "--json"])).unwrap();
    assert_eq!(list[0]["name"], "rows");
    assert_eq!(list[0]["rows"], 1000);
    assert!(
        sela.ok(&["collection", "list"])
            .starts_with("rows  1,000 rows")
    );
    let info = sela.ok(&["collection", "info", "rows"]);
    assert!(
        info.contains("external:8") && info.contains("cosine"),
        "{info}"
    );
    assert!(
        sela.ok(&["collection", "verify", "rows"])
            .starts_with("ok: 1,000 rows")
    );

    let copy = sela.path("data/collections/copy");
    sela.ok(&["collection", "snapshot", "rows", copy.to_str().unwrap()]);
    let from_copy = sela.ok(&[
        "search",
        "-c",
        "copy",
        "--vector",
        "query.npy",
        "-k",
        "3",
        "--json",
    ]);
    assert!(from_copy.starts_with("{\"id\":5,"));
    sela.ok(&["collection", "delete", "rows"]);
    assert_eq!(
        sela.ok(&["collection", "list", "--json"])
            .matches("name")
            .count(),
        1
    );
}

#[test]
fn nothing_found_is_code_1() {
    let sela = Sela::new();
    sela.write_vectors("rows", 10, 4);
    sela.ok(&["index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids"]);
    let none = ["--filter", r#"{"eq": {"a": 1}}"#];
    let output = sela.run(&[&["search", "-c", "rows", "--vector", "rows.npy"][..], &none].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(sela.run(&["model", "path"]).status.code(), Some(1));
}

#[test]
fn objects_a_line_bring_vectors_payloads_and_ids() {
    let sela = Sela::new();
    let lines = [
        r#"{"id": 1, "vector": [1, 0], "payload": {"colour": "red"}}"#,
        r#"{"id": "two", "vector": [0, 1], "payload": {"colour": "blue"}, "text": "a text"}"#,
        r#"{"id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "vector": [1, 1]}"#,
    ];
    sela.write("rows.jsonl", lines.join("\n"));
    sela.write("query.npy", npy(&[0.0, 1.0], 1, 2));
    sela.ok(&["index", "-c", "rows", "-i", "rows.jsonl"]);
    let hit = sela.ok(&[
        "search",
        "-c",
        "rows",
        "--vector",
        "query.npy",
        "-k",
        "1",
        "--json",
    ]);
    assert_eq!(
        hit,
        "{\"id\":\"two\",\"payload\":{\"colour\":\"blue\"},\"score\":1.0,\"text\":\"a text\"}\n"
    );
    let red = ["--filter", r#"{"eq": {"colour": "red"}}"#, "--json"];
    let hit = sela.ok(&[&["search", "-c", "rows", "--vector", "query.npy"][..], &red].concat());
    assert_eq!(hit.lines().count(), 1);
    assert!(hit.starts_with("{\"id\":1,"));
}

#[test]
fn damage_is_code_1_and_named() {
    let sela = Sela::new();
    sela.write_vectors("rows", 20_000, 8);
    sela.ok(&["index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids"]);
    let segments = sela.path("data/collections/rows/segments");
    let segment = std::fs::read_dir(segments)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let output = sela.run(&["collection", "verify", "rows"]);
    assert_eq!(output.status.code(), Some(1));
    let named = String::from_utf8(output.stdout).unwrap();
    assert!(named.contains("block") && named.contains(".seg"), "{named}");
    let stderr = sela.fails(2, &["search", "-c", "rows", "--vector", "rows.npy"]);
    assert!(stderr.contains("block"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sela = Sela::new();
    sela.write_vectors("rows", 20_000, 4);
    sela.ok(&["index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids"]);
    // More than a pipe holds, and nobody reads it.
    let mut child = sela
        .command(&[
            "search", "-c", "rows", "--vector", "rows.npy", "-k", "10000", "--json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_at_a_commit_and_says_what_was_kept() {
    let sela = Sela::new();
    sela.write_vectors("rows", 100_000, 8);
    let index = [
        "index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids", "--json",
    ];
    let mut child = sela
        .command(&[&index[..], &["--commit-every", "50"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    stdout.read_to_string(&mut text).unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{stderr}");
    let kept = committed(&text);
    assert!(kept > 0 && kept < 100_000);
    assert!(
        stderr.contains("items are kept; run it again to go on"),
        "{stderr}"
    );
    let verified: serde_json::Value =
        serde_json::from_str(&sela.ok(&["collection", "verify", "rows", "--json"])).unwrap();
    assert_eq!(verified["rows"], kept);
    sela.ok(&index);
    assert!(
        sela.ok(&["collection", "verify", "rows"])
            .starts_with("ok: 100,000 rows")
    );
}
