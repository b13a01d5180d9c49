//! What a model folder says, and the vectors that follow from it.

mod common;

use common::twin::{self, Shape};
use common::{Folder, HIDDEN, POSITIONS, TOKENS_MAX, WORDS, Weights, assert_close, ids, weights};
use proptest::prelude::*;
use safetensors::Dtype;
use sela_encoder::{Encoder, Error, Share, TextInfo};
use serde_json::json;

/// Texts of whole words, from none to as many as are encoded.
const TEXTS: [&str; 5] = [
    "",
    "river",
    "stone walk",
    "light river a z : query",
    "walk walk stone a river light z z a stone",
];

fn set_cls(folder: &Folder) {
    folder.edit("1_Pooling/config.json", |file| {
        file["pooling_mode_mean_tokens"] = json!(false);
        file["pooling_mode_cls_token"] = json!(true);
    });
}

fn set_raw(folder: &Folder) {
    folder.edit("modules.json", |file| {
        file.as_array_mut().unwrap().pop();
    });
}

#[test]
fn every_pooling_meets_the_plain_twin() {
    for (cls, normalize) in [(false, true), (false, false), (true, true), (true, false)] {
        let folder = Folder::new();
        if cls {
            set_cls(&folder);
        }
        if !normalize {
            set_raw(&folder);
        }
        let shape = Shape { cls, normalize };
        let space = folder.open().unwrap().space();
        assert_eq!(space.pooling, if cls { "cls" } else { "mean" });
        assert_eq!(space.normalized, normalize);
        for (text, found) in TEXTS.iter().zip(folder.embed(&TEXTS)) {
            let expected = twin::vector(&weights(), &ids(text), shape);
            assert_close(&found, &expected, 1e-5, &format!("{shape:?} of `{text}`"));
        }
    }
}

#[test]
fn raw_and_unit_vectors_differ_by_the_norm_alone() {
    let folder = Folder::new();
    let unit = folder.embed(&TEXTS);
    set_raw(&folder);
    for (unit, raw) in unit.iter().zip(folder.embed(&TEXTS)) {
        let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(norm > 1.5, "the raw vector is no unit vector: {norm}");
        let scaled: Vec<f32> = unit.iter().map(|x| x * norm).collect();
        assert_close(&scaled, &raw, 1e-6, "unit vector times norm");
    }
}

#[test]
fn both_spellings_of_a_pooling_mode_mean_the_same() {
    for (mode, cls) in [("cls", true), ("mean", false), ("cls_token", true)] {
        let folder = Folder::new();
        folder.write(
            "1_Pooling/config.json",
            json!({"pooling_mode": mode}).to_string(),
        );
        let newer = folder.embed(&TEXTS);
        let folder = Folder::new();
        if cls {
            set_cls(&folder);
        }
        assert_eq!(newer, folder.embed(&TEXTS), "{mode}");
    }
}

#[test]
fn without_a_list_of_modules_vectors_are_raw_means() {
    let folder = Folder::new();
    set_raw(&folder);
    let raw = folder.embed(&TEXTS);
    folder.remove("modules.json");
    folder.remove("1_Pooling/config.json");
    assert_eq!(folder.embed(&TEXTS), raw);
}

/// The weights as a file of `dtype` holds them.
fn rounded(dtype: Dtype) -> Weights {
    let round = |x: f32| match dtype {
        Dtype::F16 => half::f16::from_f32(x).to_f32(),
        _ => half::bf16::from_f32(x).to_f32(),
    };
    let mut all = weights();
    for (_, numbers) in all.values_mut() {
        numbers.iter_mut().for_each(|x| *x = round(*x));
    }
    all
}

#[test]
fn half_weights_are_widened_exactly() {
    let folder = Folder::new();
    let whole = folder.embed(&TEXTS);
    // The tolerances are what rounding the weights costs in two layers.
    for (dtype, tolerance) in [(Dtype::F16, 3e-3), (Dtype::BF16, 3e-2)] {
        folder.store(&weights(), dtype);
        let half = folder.embed(&TEXTS);
        for ((text, half), whole) in TEXTS.iter().zip(&half).zip(&whole) {
            assert_close(half, whole, tolerance, &format!("{dtype:?} of `{text}`"));
        }
        assert_ne!(half, whole, "{dtype:?} rounds");
        folder.store(&rounded(dtype), Dtype::F32);
        assert_eq!(half, folder.embed(&TEXTS), "{dtype:?} to the bit");
    }
}

#[test]
fn older_names_of_tensors_are_known() {
    let folder = Folder::new();
    let newer = folder.embed(&TEXTS);
    let older = |name: &str| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta")
    };
    let prefixed = |name: &str| format!("bert.{name}");
    let both = |name: &str| prefixed(&older(name));
    let renames: [&dyn Fn(&str) -> String; 3] = [&older, &prefixed, &both];
    for rename in renames {
        folder.reweigh(|weights| {
            *weights = std::mem::take(weights)
                .into_iter()
                .map(|(name, tensor)| (rename(&name), tensor))
                .collect();
            // Heads of a pretraining that nobody needs.
            weights.insert("cls.predictions.bias".into(), (vec![3], vec![0.0; 3]));
        });
        assert_eq!(folder.embed(&TEXTS), newer);
    }
}

#[test]
fn every_text_has_token_type_0() {
    let folder = Folder::new();
    let whole = folder.embed(&TEXTS);
    let change = |row: usize| {
        folder.reweigh(|weights| {
            let table = "embeddings.token_type_embeddings.weight";
            let (_, numbers) = weights.get_mut(table).unwrap();
            numbers[row * HIDDEN..][..HIDDEN].reverse();
        });
        folder.embed(&TEXTS)
    };
    assert_eq!(change(1), whole);
    assert_ne!(change(0), whole);
}

#[test]
fn a_part_of_the_device_gives_the_same_bits() {
    let folder = Folder::new();
    // Texts for a single tile, for one after another, and for many at once.
    for (threads, times) in [(1, 1), (2, 1), (3, 8), (2, 100), (3, 100)] {
        let encoder = folder.open_on(threads).unwrap();
        let texts = TEXTS.repeat(times);
        let whole = encoder.embed(&texts).unwrap();
        for share in [Share::Whole, Share::Part] {
            let flight = encoder.start(encoder.tokenize(None, &texts).unwrap(), share);
            let mut vectors = vec![Vec::new(); texts.len()];
            let each = |i: usize, found: Result<(&[f32], TextInfo), Error>| {
                vectors[i] = found.unwrap().0.to_vec();
            };
            encoder.finish(flight, each).unwrap();
            assert_eq!(vectors.concat(), whole.vectors, "{share:?} of {threads}");
        }
    }
}

#[test]
fn a_prompt_stands_before_the_text() {
    let folder = Folder::new();
    let texts = ["river", "a stone"];
    let plain = folder.embed(&texts);
    let prefixed = folder.embed(&["query: river", "query: a stone"]);
    let prompts = json!({"query": "query: ", "none": ""});
    let write = |default: Option<&str>| {
        let file = json!({"prompts": prompts, "default_prompt_name": default});
        folder.write("config_sentence_transformers.json", file.to_string());
        folder.open().unwrap()
    };
    let encoder = write(None);
    assert_eq!(encoder.prompts().collect::<Vec<_>>(), ["none", "query"]);
    assert_eq!(encoder.embed(&texts).unwrap().vectors, plain.concat());
    let with = |name: &str| encoder.embed_with_prompt(name, &texts).map(|e| e.vectors);
    assert_eq!(with("none").unwrap(), plain.concat());
    assert_eq!(with("query").unwrap(), prefixed.concat());
    let unknown = with("document").unwrap_err();
    assert_eq!(unknown.to_string(), "the model has no prompt `document`");

    let encoder = write(Some("query"));
    assert_eq!(encoder.embed(&texts).unwrap().vectors, prefixed.concat());
    let none = encoder.embed_with_prompt("none", &texts).unwrap();
    assert_eq!(none.vectors, plain.concat());
}

#[test]
fn either_file_may_ask_for_lower_case() {
    let folder = Folder::new();
    let lower = folder.embed(&["river a b"]);
    assert_eq!(folder.embed(&["RIVER A B"]), lower, "by the tokenizer");
    folder.edit("tokenizer.json", |file| {
        file["normalizer"]["lowercase"] = json!(false);
    });
    assert_ne!(folder.embed(&["RIVER A B"]), lower, "by neither");
    folder.edit("sentence_bert_config.json", |file| {
        file["do_lower_case"] = json!(true);
    });
    assert_eq!(folder.embed(&["RIVER A B"]), lower, "by the encoder");
}

#[test]
fn truncation_and_padding_of_the_tokenizer_are_ignored() {
    let folder = Folder::new();
    let encoder = folder.open().unwrap();
    let found = encoder.embed(&TEXTS).unwrap();
    let tokens: Vec<usize> = found.info.iter().map(|info| info.tokens).collect();
    assert_eq!(tokens, TEXTS.map(|text| ids(text).len()));
    folder.edit("tokenizer.json", |file| {
        file["truncation"] = json!(null);
        file["padding"] = json!(null);
    });
    assert_eq!(folder.embed(&TEXTS).concat(), found.vectors);
}

#[test]
fn a_text_over_the_models_length_is_cut_and_says_so() {
    let encoder = Folder::new().open().unwrap();
    let room = TOKENS_MAX - 2;
    let words = |n: usize| ["stone", "a", "river"].repeat(n)[..n].join(" ");
    let texts = [words(room - 1), words(room), words(room + 1), words(500)];
    let found = encoder.embed(&texts).unwrap();
    let expected = [room - 1, room, room + 1, 500].map(|n| TextInfo {
        tokens: n.min(room) + 2,
        tokens_total: n + 2,
        truncated: n > room,
        degraded: false,
    });
    assert_eq!(found.info, expected);
    assert_ne!(found.vector(0), found.vector(1));
    assert_eq!(found.vector(2), found.vector(1));
    assert_eq!(found.vector(3), found.vector(1));
    assert_eq!(encoder.count_tokens(&texts[3]).unwrap(), 502);
    let report = encoder.report();
    assert_eq!((report.texts, report.truncated), (4, 2));
    assert_eq!(report.tokens, 4 * TOKENS_MAX as u64 - 1);
}

#[test]
fn the_models_length_comes_from_the_first_file_that_names_it() {
    for (sentence, tokenizer, expected) in [
        (
            json!({"max_seq_length": 7}),
            json!({"model_max_length": 9}),
            7,
        ),
        (
            json!({"max_seq_length": null}),
            json!({"model_max_length": 9}),
            9,
        ),
        (json!({}), json!({"model_max_length": 1e30}), POSITIONS),
        (json!({}), json!({}), POSITIONS),
        (json!({"max_seq_length": 512}), json!({}), POSITIONS),
    ] {
        let folder = Folder::new();
        folder.write("sentence_bert_config.json", sentence.to_string());
        folder.write("tokenizer_config.json", tokenizer.to_string());
        let encoder = folder.open().unwrap();
        assert_eq!(encoder.tokens_max(), expected, "{sentence} {tokenizer}");
        let long = encoder.embed(&["a ".repeat(600)]).unwrap();
        assert_eq!(long.info[0].tokens, expected);
    }
}

#[test]
fn only_three_files_are_needed() {
    let folder = Folder::new();
    set_raw(&folder);
    folder.edit("sentence_bert_config.json", |file| *file = json!({}));
    let whole = folder.embed(&TEXTS);
    for (name, required) in sela_encoder::ModelFiles::names() {
        if !required && folder.path(name).exists() {
            folder.remove(name);
        }
    }
    assert_eq!(folder.embed(&TEXTS), whole);
}

#[test]
fn no_texts_give_no_vectors() {
    let found = Folder::new().open().unwrap().embed::<&str>(&[]).unwrap();
    assert!(found.vectors.is_empty() && found.info.is_empty());
    assert_eq!(found.dim, HIDDEN);
}

#[test]
fn a_word_with_a_bad_row_refuses_its_texts_alone() {
    let folder = Folder::new();
    let stone = ids("stone")[1] as usize;
    folder.reweigh(|weights| {
        let (_, numbers) = weights
            .get_mut("embeddings.word_embeddings.weight")
            .unwrap();
        numbers[stone * HIDDEN] = f32::NAN;
    });
    let encoder = folder.open().unwrap();
    assert!(encoder.embed(&["river", "walk"]).is_ok());
    let error = encoder.embed(&["river", "stone", "walk"]).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index: 1 }), "{error}");
}

/// Embeds each text alone.
fn alone(encoder: &Encoder, texts: &[String]) -> Vec<f32> {
    let one = |text: &String| encoder.embed(&[text]).unwrap().vectors;
    texts.iter().flat_map(one).collect()
}

#[test]
fn a_text_has_the_same_bits_in_a_batch_of_thousands() {
    let text = |i: usize| {
        let words = (0..i % 13).map(|j| WORDS[(i * 7 + j * j) % WORDS.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..2500).map(text).collect();
    let folder = Folder::new();
    let one = folder.open_on(1).unwrap();
    let all = one.embed(&texts).unwrap();
    assert_eq!(
        folder.open_on(3).unwrap().embed(&texts).unwrap().vectors,
        all.vectors
    );
    for i in (0..texts.len()).step_by(97) {
        assert_eq!(
            one.embed(&texts[i..=i]).unwrap().vectors,
            all.vector(i),
            "text {i}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_text_has_the_same_bits_in_any_batch(
        texts in prop::collection::vec(
            prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..14),
            1..40,
        ),
    ) {
        let folder = Folder::new();
        let encoder = folder.open().unwrap();
        let mut texts: Vec<String> = texts.iter().map(|words| words.join(" ")).collect();
        let expected = alone(&encoder, &texts);
        prop_assert_eq!(&encoder.embed(&texts).unwrap().vectors, &expected);
        texts.reverse();
        let mut found = encoder.embed(&texts).unwrap().vectors;
        let (rows, _) = found.as_chunks_mut::<HIDDEN>();
        rows.reverse();
        prop_assert_eq!(found, expected);
    }
}
