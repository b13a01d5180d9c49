//! A small model: two layers of 32 numbers, the letters and a few words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Its folder's name, which is the model's.
pub const NAME: &str = "tiny";
/// Numbers in its vectors.
pub const DIM: usize = 32;
/// Most tokens of a text, special ones included.
pub const TOKENS_MAX: usize = 12;

const INNER: usize = 64;
const LAYERS: usize = 2;
const POSITIONS: usize = 24;

/// Writes it into a folder.
pub fn write(folder: &Path) {
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    for (name, value) in settings() {
        fs::write(folder.join(name), value.to_string()).unwrap();
    }
    fs::write(folder.join("model.safetensors"), weights()).unwrap();
}

fn vocabulary() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = ["river", "stone", "walk", "light", "query", "##s"];
    let rest = special.into_iter().chain(words).map(String::from);
    rest.chain(('a'..='z').map(String::from)).collect()
}

/// Numbers that look random and are the same everywhere, as a safetensors file.
fn weights() -> Vec<u8> {
    let mut shapes: Vec<(String, Vec<usize>, f32)> = Vec::new();
    let mut add = |name: &str, shape: &[usize], scale| {
        shapes.push((name.to_owned(), shape.to_vec(), scale));
    };
    add(
        "embeddings.word_embeddings.weight",
        &[vocabulary().len(), DIM],
        1.0,
    );
    add(
        "embeddings.position_embeddings.weight",
        &[POSITIONS, DIM],
        1.0,
    );
    add("embeddings.token_type_embeddings.weight", &[2, DIM], 1.0);
    let mut norms = vec!["embeddings".to_owned()];
    for layer in (0..LAYERS).map(|layer| format!("encoder.layer.{layer}")) {
        for (name, outputs, inputs) in [
            ("attention.self.query", DIM, DIM),
            ("attention.self.key", DIM, DIM),
            ("attention.self.value", DIM, DIM),
            ("attention.output.dense", DIM, DIM),
            ("intermediate.dense", INNER, DIM),
            ("output.dense", DIM, INNER),
        ] {
            let scale = 2.0 / (inputs as f32).sqrt();
            add(&format!("{layer}.{name}.weight"), &[outputs, inputs], scale);
            add(&format!("{layer}.{name}.bias"), &[outputs], 0.5);
        }
        norms.extend([
            format!("{layer}.attention.output"),
            format!("{layer}.output"),
        ]);
    }
    for norm in norms {
        add(&format!("{norm}.LayerNorm.weight"), &[DIM], 1.5);
        add(&format!("{norm}.LayerNorm.bias"), &[DIM], 0.3);
    }
    let mut state = 7u64;
    let (mut head, mut data) = (BTreeMap::new(), Vec::<u8>::new());
    for (name, shape, scale) in shapes {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            // A 64-bit linear congruential generator with Knuth's constants.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale;
            data.extend(number.to_le_bytes());
        }
        let offsets = [start, data.len()];
        head.insert(
            name,
            json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}),
        );
    }
    let mut head = serde_json::to_vec(&head).unwrap();
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend(head);
    file.extend(data);
    file
}

fn settings() -> [(&'static str, Value); 6] {
    [
        (
            "config.json",
            json!({
                "model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu",
                "hidden_size": DIM, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
                "num_attention_heads": 2, "vocab_size": vocabulary().len(),
                "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
                "layer_norm_eps": 1e-6, "position_embedding_type": "absolute",
            }),
        ),
        (
            "modules.json",
            json!([
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]),
        ),
        (
            "1_Pooling/config.json",
            json!({
                "word_embedding_dimension": DIM,
                "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true,
                "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false,
            }),
        ),
        (
            "sentence_bert_config.json",
            json!({"max_seq_length": TOKENS_MAX, "do_lower_case": false}),
        ),
        ("config_sentence_transformers.json", json!({"prompts": {}})),
        ("tokenizer.json", tokenizer()),
    ]
}

fn tokenizer() -> Value {
    let vocabulary = vocabulary();
    let by_word: BTreeMap<&str, usize> = (vocabulary.iter().enumerate())
        .map(|(id, word)| (word.as_str(), id))
        .collect();
    let special = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let defined = |name: &str| json!({"id": name, "ids": [by_word[name]], "tokens": [name]});
    let added = |(id, name): (usize, &String)| {
        json!({
            "id": id, "content": name, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.iter().enumerate().take(5).map(added).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]"),
            ],
            "pair": [],
            "special_tokens": {"[CLS]": defined("[CLS]"), "[SEP]": defined("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": by_word,
        },
    })
}
