//! The command with texts and the real model.

#![allow(clippy::print_stdout)] // Figures, and what was skipped.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::Sela;

fn read_npy(path: &std::path::Path) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(
        std::fs::File::open(path)
            .map(std::io::BufReader::new)
            .unwrap(),
    )
    .unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

#[test]
fn lines_become_rows_of_an_array() {
    let sela = Sela::with_model();
    // Three texts, one of them empty, split at line feeds only.
    sela.write(
        "texts.txt",
        "a shepherd and his sheep\r\n\nwater\u{2028}and wine\n",
    );
    sela.ok(&[
        "embed",
        "-i",
        "texts.txt",
        "-o",
        "out.npy",
        "--dtype",
        "f32",
    ]);
    let (shape, numbers) = read_npy(&sela.path("out.npy"));
    assert_eq!(shape, [3, 384]);
    for row in numbers.chunks(384) {
        let norm: f32 = row.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5);
    }

    let lines = sela.ok(&["embed", "-i", "texts.txt", "--dtype", "f32"]);
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["text"], "");
    assert_eq!(lines[1]["tokens"], 2);
    assert_eq!(lines[2]["text"], "water\u{2028}and wine");
    let embedding: Vec<f32> = serde_json::from_value(lines[2]["embedding"].clone()).unwrap();
    assert_eq!(
        embedding,
        numbers[2 * 384..],
        "the same bits in either form"
    );

    sela.write("none.txt", "");
    sela.ok(&["embed", "-i", "none.txt", "-o", "none.npy"]);
    assert_eq!(read_npy(&sela.path("none.npy")).0, [0, 384]);
}

#[test]
fn standard_input_is_read_and_cuts_are_told() {
    let sela = Sela::with_model();
    let mut child = sela
        .command(&["embed"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let long = "word ".repeat(400);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("short\n{long}").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["tokens"], &last["tokens_total"]),
        (&256.into(), &402.into())
    );
    assert_eq!(
        (&last["truncated"], &last["degraded"]),
        (&true.into(), &false.into())
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "2 texts embedded; 1 were longer than 256 tokens and were cut\n"
    );
}

#[test]
fn an_output_is_whole_or_as_it_was() {
    let sela = Sela::with_model();
    sela.write("bad.txt", b"good\nb\xffd\n");
    sela.write("texts.txt", "a dog\n");
    for name in ["out.jsonl", "out.npy"] {
        let part = format!("{name}.part");
        sela.write(name, "what was there");
        let stderr = sela.fails(2, &["embed", "-i", "bad.txt", "-o", name]);
        assert_eq!(stderr, "error: `bad.txt`, line 2: is not UTF-8\n");
        let kept = std::fs::read_to_string(sela.path(name)).unwrap();
        assert_eq!(kept, "what was there");
        assert!(!sela.path(&part).exists());

        // As an interrupted run leaves it, and longer than what is written now.
        sela.write(&part, vec![b'x'; 100_000]);
        sela.ok(&["embed", "-i", "texts.txt", "-o", name]);
        assert!(!sela.path(&part).exists());
    }
    assert_eq!(read_npy(&sela.path("out.npy")).0, [1, 384]);
    let lines = std::fs::read_to_string(sela.path("out.jsonl")).unwrap();
    assert_eq!(lines, sela.ok(&["embed", "-i", "texts.txt"]));
}

#[test]
fn a_line_that_is_too_long_is_named() {
    let sela = Sela::with_model();
    // More short lines than are embedded together, so that the long one is in the second stretch.
    let long = "x".repeat((16 << 20) + 1);
    sela.write("long.txt", "a\n".repeat(1_025) + &long);
    let stderr = sela.fails(2, &["embed", "-i", "long.txt", "-o", "out.npy"]);
    assert_eq!(
        stderr,
        "error: `long.txt`, line 1026: the text has 16777217 bytes, the limit is 16777216\n\
         hint: split the text into smaller passages\n"
    );
}

#[test]
fn a_query_that_is_cut_is_told() {
    let sela = Sela::with_model();
    sela.write("texts.txt", "a dog\n");
    sela.ok(&["index", "-c", "notes", "-i", "texts.txt"]);
    let long = "word ".repeat(400);
    let stderr_of = |more: &[&str]| {
        let output = sela.run(&[&["search", "-c", "notes", &long], more].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        stderr_of(&[]),
        "the text is longer than the model reads: the first 256 of its 402 tokens were looked for\n"
    );
    assert_eq!(stderr_of(&["--quiet"]), "");
}

#[test]
fn texts_are_indexed_and_found_by_meaning() {
    let sela = Sela::with_model();
    sela.write(
        "texts.txt",
        "The king rode to war.\nBread is made of flour and water.\n\nSheep graze on the hill.\n",
    );
    sela.ok(&["index", "-c", "notes", "-i", "texts.txt"]);
    let hits = sela.ok(&["search", "-c", "notes", "how do I bake?", "--json"]);
    let first: serde_json::Value = serde_json::from_str(hits.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["id"], &first["text"]),
        (&2.into(), &"Bread is made of flour and water.".into())
    );
    assert_eq!(hits.lines().count(), 4, "the empty line is a text");

    // Its words decide where meaning leaves a choice.
    let mode = ["--mode", "hybrid", "--json"];
    let hits = sela.ok(&[&["search", "-c", "notes", "hill"][..], &mode].concat());
    let hits: Vec<serde_json::Value> = hits
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&hits[0]["id"], &hits[0]["text_rank"]),
        (&4.into(), &1.into())
    );
    assert!(hits[0]["vector_score"].is_f64() && hits[0]["text_score"].is_f64());
    assert!(hits[3]["vector_rank"].is_u64() && hits[3]["text_rank"].is_null());

    // The same file again does nothing; a changed line is stored again.
    assert_eq!(
        sela.ok(&["index", "-c", "notes", "-i", "texts.txt", "--json"]),
        "{\"committed\":4}\n"
    );
    sela.write(
        "texts.txt",
        "The queen sailed home.\nBread is made of flour and water.\n\nSheep graze on the hill.\n",
    );
    let output = sela.run(&["index", "-c", "notes", "-i", "texts.txt"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "4 items in `notes`, 3 of them unchanged, 1 rows replaced\n"
    );
    let first = sela.ok(&["search", "-c", "notes", "a voyage by ship", "-k", "1"]);
    assert!(first.contains("The queen sailed home."), "{first}");
}

#[test]
fn vectors_declared_to_be_of_the_model_can_be_asked_with_texts() {
    let sela = Sela::with_model();
    sela.write("texts.txt", "a dog\na mountain\n");
    sela.write("texts.ids", "dog\nmountain\n");
    sela.ok(&["embed", "-i", "texts.txt", "-o", "rows.npy"]);
    sela.ok(&[
        "index",
        "-c",
        "rows",
        "-i",
        "rows.npy",
        "--ids",
        "texts.ids",
        "--declare",
    ]);
    let hit = sela.ok(&["search", "-c", "rows", "puppy", "-k", "1", "--json"]);
    assert!(hit.starts_with("{\"id\":\"dog\""), "{hit}");
}

#[test]
fn a_collection_of_another_model_is_refused_by_name() {
    let sela = Sela::with_model();
    sela.write("texts.txt", "a dog\n");
    sela.ok(&["index", "-c", "notes", "-i", "texts.txt"]);
    // The same weights pooled in another way give another space.
    let other = sela.path("other-model");
    std::fs::create_dir_all(other.join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        std::fs::copy(common::model().join(name), other.join(name)).unwrap();
    }
    let pooling = std::fs::read_to_string(common::model().join("1_Pooling/config.json")).unwrap();
    let cls = pooling
        .replace(
            "\"pooling_mode_mean_tokens\": true",
            "\"pooling_mode_mean_tokens\": false",
        )
        .replace(
            "\"pooling_mode_cls_token\": false",
            "\"pooling_mode_cls_token\": true",
        );
    assert_ne!(pooling, cls);
    std::fs::write(other.join("1_Pooling/config.json"), cls).unwrap();
    let stderr = sela.fails(
        2,
        &[
            "search",
            "-c",
            "notes",
            "puppy",
            "--model",
            other.to_str().unwrap(),
            // Where bf16 is used, the log tells that this model's vectors are none of its golden ones.
            "--quiet",
        ],
    );
    assert_eq!(
        stderr,
        "error: collection `notes` was built with `all-MiniLM-L6-v2`, but the model in use is `other-model`\n\
         hint: use `--model all-MiniLM-L6-v2`, or another collection\n"
    );
}

#[test]
fn validation_passes_here() {
    let sela = Sela::with_model();
    let checks = sela.ok(&["validate", "--json"]);
    for line in checks.lines() {
        let check: serde_json::Value = serde_json::from_str(line).unwrap();
        if check["outcome"] == "skipped" {
            println!("skipped: {} lacks {}", check["name"], check["lacks"]);
        }
        assert_ne!(check["outcome"], "fail", "{line}");
    }
    assert!(checks.lines().count() >= 8);
}
