//! The command with vectors: index, search, look after collections, and keep vectors of different
//! models apart.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;

use common::{Sela, committed, npy, vector};

#[test]
fn rows_are_found_by_the_words_of_their_texts() {
    let sela = Sela::new();
    let lines = [
        r#"{"id": 1, "text": "green pastures and still waters", "vector": [1, 0]}"#,
        r#"{"id": 2, "text": "the valley of the shadow", "vector": [0, 1]}"#,
        r#"{"id": "three", "text": "green is the valley", "vector": [1, 1], "payload": {"a": 1}}"#,
    ];
    sela.write("rows.jsonl", lines.join("\n"));
    sela.ok(&["index", "-c", "rows", "-i", "rows.jsonl"]);
    // No model is fetched for it, and none is here.
    let search =
        |more: &[&str]| sela.ok(&[&["search", "-c", "rows", "--mode", "text"][..], more].concat());
    insta::assert_snapshot!("by-words", search(&["green valley"]));
    insta::assert_snapshot!("by-words-json", search(&["green valley", "--json"]));
    assert!(search(&["green -valley"]).contains("still waters"));
    let filter = r#"{"eq": {"a": 1}}"#;
    let found = search(&["\"green is\" past*", "--filter", filter, "--json"]);
    assert!(found.starts_with("{\"id\":\"three\""), "{found}");
    assert_eq!(found.lines().count(), 1);
    let output = sela.run(&["search", "-c", "rows", "--mode", "text", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    sela.ok(&["collection", "reindex", "rows"]);
    assert_eq!(
        sela.ok(&["collection", "reindex", "rows", "--json"]),
        "{\"reindexed\":\"rows\"}\n"
    );
    assert!(search(&["green -valley"]).contains("still waters"));
}

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

#[test]
fn vectors_do_not_slip_into_a_models_collection() {
    let sela = Sela::with_model();
    sela.write("texts.txt", "a dog\na mountain\n");
    sela.write("rows.ids", "10\n11\n");
    sela.ok(&["index", "-c", "notes", "-i", "texts.txt"]);
    sela.ok(&["embed", "-i", "texts.txt", "-o", "rows.npy"]);
    let index = [
        "index", "-c", "notes", "-i", "rows.npy", "--ids", "rows.ids",
    ];
    let stderr = sela.fails(2, &index);
    assert_eq!(
        stderr,
        "error: item `10` brings a vector, but collection `notes` holds those of \
         `all-MiniLM-L6-v2`, and this one is not declared to be of it\n\
         hint: if `all-MiniLM-L6-v2` made it, say so with `--declare`; vectors made elsewhere go \
         into a collection of their own\n"
    );

    // Nor behind a text.
    let vector = serde_json::to_string(&vector(1, 384)).unwrap();
    let lines =
        format!("{{\"id\": 20, \"text\": \"a river\"}}\n{{\"id\": 21, \"vector\": {vector}}}\n");
    sela.write("mixed.jsonl", lines);
    for name in ["notes", "fresh"] {
        let stderr = sela.fails(2, &["index", "-c", name, "-i", "mixed.jsonl"]);
        assert!(stderr.contains("item `21` brings a vector"), "{stderr}");
    }

    // The model in use is another one: it cannot have made what the collection holds.
    let other = other_model(&sela);
    let other = ["--declare", "--model", other.to_str().unwrap()];
    let stderr = sela.fails(2, &[&index[..], &other].concat());
    assert_eq!(
        stderr,
        "error: collection `notes` was built with `all-MiniLM-L6-v2`, but the model in use is \
         `other-model`\n\
         hint: use `--model all-MiniLM-L6-v2`, or another collection\n"
    );

    let rows = || {
        let list = sela.ok(&["collection", "info", "notes", "--json"]);
        let info: serde_json::Value = serde_json::from_str(&list).unwrap();
        info["info"]["rows_live"].as_u64().unwrap()
    };
    assert_eq!(rows(), 2, "nothing was stored");
    sela.ok(&[&index[..], &["--declare"]].concat());
    assert_eq!(rows(), 4);
}

#[test]
fn vectors_from_elsewhere_are_declared_in_another_collection() {
    let sela = Sela::with_model();
    sela.write("texts.txt", "a dog\na mountain\n");
    sela.write("rows.ids", "dog\nmountain\n");
    sela.ok(&["embed", "-i", "texts.txt", "-o", "rows.npy"]);
    let index =
        |name: &'static str| vec!["index", "-c", name, "-i", "rows.npy", "--ids", "rows.ids"];
    sela.ok(&index("rows"));
    let stderr = sela.fails(2, &["search", "-c", "rows", "puppy"]);
    assert!(
        stderr.contains("index them into another collection with `--declare`"),
        "{stderr}"
    );
    let stderr = sela.fails(2, &[&index("rows")[..], &["--declare"]].concat());
    assert_eq!(
        stderr,
        "error: collection `rows` was created for vectors made elsewhere: they cannot be declared \
         later\n\
         hint: index them with `--declare` under another name, or delete this collection first \
         with `sela collection delete rows`\n"
    );
    // Both pieces of advice work.
    let ask = |name: &str| sela.ok(&["search", "-c", name, "puppy", "-k", "1", "--json"]);
    sela.ok(&[&index("other")[..], &["--declare"]].concat());
    assert!(ask("other").starts_with("{\"id\":\"dog\""));
    sela.ok(&["collection", "delete", "rows"]);
    sela.ok(&[&index("rows")[..], &["--declare"]].concat());
    assert!(ask("rows").starts_with("{\"id\":\"dog\""));
}

/// The real model with another tokenizer, in a folder called `other-model`.
fn other_model(sela: &Sela) -> PathBuf {
    let other = sela.path("other-model");
    std::fs::create_dir_all(other.join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        std::fs::copy(common::model().join(name), other.join(name)).unwrap();
    }
    let tokenizer = std::fs::read_to_string(other.join("tokenizer.json")).unwrap();
    std::fs::write(other.join("tokenizer.json"), tokenizer + "\n").unwrap();
    other
}
