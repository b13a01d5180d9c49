//! Model folders that are refused, each with the words the reader gets.

mod common;

use common::{Folder, HIDDEN, weights};
use safetensors::Dtype;
use serde_json::{Value, json};

/// A way to break a folder, and what its refusal says.
type Case = (fn(&Folder), &'static str);

/// What opening the folder answers when it refuses.
fn refusal(folder: &Folder) -> Option<String> {
    folder.open().err().map(|error| error.to_string())
}

fn assert_refused(cases: &[Case]) {
    for (breaks, expected) in cases {
        let folder = Folder::new();
        breaks(&folder);
        assert_eq!(refusal(&folder).as_deref(), Some(*expected));
    }
}

fn set(folder: &Folder, file: &str, key: &str, value: Value) {
    folder.edit(file, |found| found[key] = value);
}

fn config(folder: &Folder, key: &str, value: Value) {
    set(folder, "config.json", key, value);
}

fn modules(folder: &Folder, kinds: &[&str]) {
    let module = |kind: &&str| json!({"type": format!("sentence_transformers.models.{kind}")});
    let list: Value = kinds.iter().map(module).collect();
    folder.write("modules.json", list.to_string());
}

fn pooling(folder: &Folder, file: Value) {
    folder.write("1_Pooling/config.json", file.to_string());
}

#[test]
fn missing_files_are_named() {
    assert_refused(&[
        (
            |f| f.remove("config.json"),
            "the model has no file `config.json`",
        ),
        (
            |f| f.remove("tokenizer.json"),
            "the model has no file `tokenizer.json`",
        ),
        (
            |f| f.remove("model.safetensors"),
            "the model has no file `model.safetensors`",
        ),
        (
            |f| f.remove("1_Pooling/config.json"),
            "the model has no file `1_Pooling/config.json`",
        ),
    ]);
}

#[test]
fn other_architectures_are_named() {
    assert_refused(&[
        (
            |f| config(f, "model_type", json!("roberta")),
            "the model's model_type is `roberta`, which is not supported",
        ),
        (
            |f| {
                config(f, "model_type", json!(null));
                config(f, "architectures", json!(["MPNetModel"]));
            },
            "the model's architecture is `MPNetModel`, which is not supported",
        ),
        (
            |f| config(f, "hidden_act", json!("gelu_new")),
            "the model's hidden_act is `gelu_new`, which is not supported",
        ),
        (
            |f| config(f, "position_embedding_type", json!("relative_key")),
            "the model's position_embedding_type is `relative_key`, which is not supported",
        ),
        (
            |f| modules(f, &["Pooling"]),
            "the model's first module is `Pooling`, which is not supported",
        ),
        (
            |f| modules(f, &[]),
            "the model's first module is `none`, which is not supported",
        ),
        (
            |f| modules(f, &["Transformer"]),
            "the model's pooling is `none`, which is not supported",
        ),
        (
            |f| modules(f, &["Transformer", "Pooling", "Dense"]),
            "the model's module is `Dense`, which is not supported",
        ),
        (
            |f| modules(f, &["Transformer", "Normalize", "Pooling"]),
            "the model's module is `Normalize`, which is not supported",
        ),
        (
            |f| modules(f, &["Transformer", "Pooling", "Pooling"]),
            "the model's module is `Pooling`, which is not supported",
        ),
    ]);
}

#[test]
fn other_poolings_are_named() {
    assert_refused(&[
        (
            |f| pooling(f, json!({"pooling_mode_max_tokens": true})),
            "the model's pooling is `max_tokens`, which is not supported",
        ),
        (
            |f| {
                pooling(
                    f,
                    json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}),
                );
            },
            "the model's pooling is `cls_token + mean_tokens`, which is not supported",
        ),
        (
            |f| pooling(f, json!({"pooling_mode": "lasttoken"})),
            "the model's pooling is `lasttoken`, which is not supported",
        ),
        (
            |f| pooling(f, json!({"pooling_mode": ["cls", "mean"]})),
            "the model's pooling is `[\"cls\",\"mean\"]`, which is not supported",
        ),
        (
            |f| pooling(f, json!({})),
            "the model's pooling is `none`, which is not supported",
        ),
        (
            |f| set(f, "1_Pooling/config.json", "include_prompt", json!(false)),
            "the model's include_prompt is `false`, which is not supported",
        ),
    ]);
}

#[test]
fn impossible_numbers_are_named() {
    for size in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
    ] {
        let folder = Folder::new();
        config(&folder, size, json!(0));
        let expected = format!("the model file `config.json` is not valid: {size} is 0");
        assert_eq!(refusal(&folder), Some(expected));
    }
    assert_refused(&[
        (
            |f| config(f, "num_attention_heads", json!(5)),
            "the model file `config.json` is not valid: hidden_size 32 is not a multiple of \
             num_attention_heads 5",
        ),
        (
            |f| config(f, "num_attention_heads", json!(4)),
            "head size (a multiple of 16): expected 16 numbers, found 8",
        ),
        (
            |f| config(f, "layer_norm_eps", json!(-0.5)),
            "the model file `config.json` is not valid: layer_norm_eps is -0.5",
        ),
        (
            |f| config(f, "layer_norm_eps", json!(1e300)),
            "the model file `config.json` is not valid: layer_norm_eps is 1e300",
        ),
        (
            |f| config(f, "num_hidden_layers", json!(1u64 << 60)),
            "the weights have no tensor `encoder.layer.2.attention.self.query.weight`",
        ),
        (
            |f| set(f, "sentence_bert_config.json", "max_seq_length", json!(2)),
            "the model's max_seq_length is `2`, which is not supported",
        ),
        (
            |f| {
                f.write(
                    "config_sentence_transformers.json",
                    r#"{"default_prompt_name": "query"}"#,
                );
            },
            "the model file `config_sentence_transformers.json` is not valid: \
             default_prompt_name is `query`, which is none of its prompts",
        ),
    ]);
}

#[test]
fn files_that_do_not_parse_are_named() {
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "tokenizer_config.json",
        "tokenizer.json",
    ] {
        for bytes in ["", "{", "7", "\"\\ud800\"", "[[[[[["] {
            let folder = Folder::new();
            folder.write(name, bytes);
            let refusal = refusal(&folder).unwrap_or_default();
            let expected = format!("the model file `{name}` is not valid: ");
            assert!(
                refusal.starts_with(&expected),
                "{name} of `{bytes}`: {refusal}"
            );
        }
    }
}

/// Replaces a piece of the template of the tokenizer.
fn template(folder: &Folder, at: usize, piece: Value) {
    folder.edit("tokenizer.json", |file| {
        file["post_processor"]["single"][at] = piece;
    });
}

#[test]
fn tokenizers_that_do_not_fit_are_named() {
    const FRAME: &str = "the model file `tokenizer.json` is not valid: \
                         a frame of special tokens around the text is needed";
    assert_refused(&[
        (
            |f| set(f, "tokenizer.json", "post_processor", json!(null)),
            FRAME,
        ),
        (
            |f| template(f, 1, json!({"SpecialToken": {"id": "[SEP]", "type_id": 0}})),
            FRAME,
        ),
        (
            |f| template(f, 0, json!({"SpecialToken": {"id": "[BOS]", "type_id": 0}})),
            "the model file `tokenizer.json` is not valid: its template has the undefined piece \
             {\"SpecialToken\":{\"id\":\"[BOS]\",\"type_id\":0}}",
        ),
        (
            |f| template(f, 1, json!({"Sequence": {"id": "B", "type_id": 0}})),
            "the model file `tokenizer.json` is not valid: its template has the undefined piece \
             {\"Sequence\":{\"id\":\"B\",\"type_id\":0}}",
        ),
        (
            |f| {
                f.edit("tokenizer.json", |file| {
                    file["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([102]);
                });
            },
            "the model file `tokenizer.json` is not valid: a special token has id 102, but the \
             model's vocab_size is 40",
        ),
        (
            |f| config(f, "vocab_size", json!(39)),
            "the model file `tokenizer.json` is not valid: it has 40 tokens, but the model's \
             vocab_size is 39",
        ),
    ]);
}

#[test]
fn a_token_without_a_row_is_named_when_a_text_has_it() {
    let folder = Folder::new();
    folder.edit("tokenizer.json", |file| {
        file["model"]["vocab"]["river"] = json!(40);
    });
    let encoder = folder.open().unwrap();
    assert!(encoder.embed(&["stone"]).is_ok());
    let error = encoder.embed(&["stone", "a river"]).unwrap_err();
    assert_eq!(error.to_string(), "token id is 40, the limit is 39");
}

#[test]
fn a_missing_tensor_is_named() {
    for name in weights().keys() {
        let folder = Folder::new();
        folder.reweigh(|weights| drop(weights.remove(name)));
        let expected = format!("the weights have no tensor `{name}`");
        assert_eq!(refusal(&folder), Some(expected));
    }
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    for (name, (shape, _)) in weights() {
        let expected = match *shape.as_slice() {
            [cols] => [1, cols],
            [rows, cols] => [rows, cols],
            _ => unreachable!("tensors have one or two dimensions"),
        };
        let wider: Vec<usize> = shape.iter().map(|n| n + 1).collect();
        for found in [vec![], vec![0, HIDDEN], vec![2, 2, 2], wider] {
            let folder = Folder::new();
            let numbers = vec![0.5; found.iter().product()];
            folder.reweigh(|weights| drop(weights.insert(name.clone(), (found.clone(), numbers))));
            let expected = format!(
                "the model file `model.safetensors` is not valid: {name} has shape {found:?}, not \
                 {expected:?}"
            );
            assert_eq!(refusal(&folder), Some(expected));
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_named_with_its_place() {
    for name in weights().keys() {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let folder = Folder::new();
            folder.reweigh(|weights| weights.get_mut(name).unwrap().1[17] = value);
            let Some(refusal) = refusal(&folder) else {
                // The one table that is too large to be read at open.
                assert_eq!(name, "embeddings.word_embeddings.weight", "{value}");
                continue;
            };
            let place = match name.find("layer.") {
                Some(at) => &name[..at + "layer.0".len()],
                None => "embeddings",
            };
            let start = format!("the model file `model.safetensors` is not valid: {place}: ");
            let end = format!(" holds {value} at position 17");
            assert!(
                refusal.starts_with(&start) && refusal.ends_with(&end),
                "{name}: {refusal}"
            );
        }
    }
}

#[test]
fn numbers_of_another_type_are_named() {
    let folder = Folder::new();
    folder.store(&weights(), Dtype::F64);
    assert_eq!(
        refusal(&folder).unwrap(),
        "the model's type of weights is `F64 of encoder.layer.0.attention.self.query.weight`, \
         which is not supported"
    );
}

#[test]
fn refusals_give_advice() {
    let folder = Folder::new();
    config(&folder, "hidden_act", json!("relu"));
    let hint = folder.open().err().and_then(|error| error.hint());
    assert!(hint.unwrap().contains("GELU"));
    folder.remove("config.json");
    let hint = folder.open().err().and_then(|error| error.hint());
    assert!(
        hint.unwrap()
            .contains("complete sentence-transformers model")
    );
}
