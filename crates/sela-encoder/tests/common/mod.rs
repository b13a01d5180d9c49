//! A small model in a temporary folder: whole, until a test changes one of its files.

#![allow(dead_code, unreachable_pub)]

pub mod twin;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sela_compute::{Arithmetic, DeviceChoice};
use sela_encoder::{Encoder, EncoderOptions, Error, ModelFiles};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const HIDDEN: usize = 32;
pub const INNER: usize = 64;
pub const HEADS: usize = 2;
pub const LAYERS: usize = 2;
pub const POSITIONS: usize = 24;
pub const TOKENS_MAX: usize = 12;
pub const EPSILON: f32 = 1e-6;

/// Whole words of the vocabulary, which are one token each; all letters are tokens too.
pub const WORDS: [&str; 8] = ["river", "stone", "walk", "light", "query", "a", "z", ":"];

/// The vocabulary in the order of its ids.
pub fn vocabulary() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = ["river", "stone", "walk", "light", "query", ":"];
    let pieces = ["##s", "##ing", "##er"];
    let letters = ('a'..='z').map(String::from);
    let rest = special.into_iter().chain(words).chain(pieces);
    rest.map(String::from).chain(letters).collect()
}

/// Ids of a text of whole words, with the special tokens around it.
pub fn ids(text: &str) -> Vec<u32> {
    let vocabulary = vocabulary();
    let id = |word: &str| vocabulary.iter().position(|w| w == word).unwrap() as u32;
    let words = text.split_whitespace().map(id);
    [id("[CLS]")]
        .into_iter()
        .chain(words)
        .chain([id("[SEP]")])
        .collect()
}

/// Tensors by name: shape and numbers.
pub type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The weights of the whole model: numbers that look random and are the same everywhere.
pub fn weights() -> Weights {
    let mut state = 7u64;
    let mut noise = |n: usize, scale: f32| -> Vec<f32> {
        let step = |_| {
            // A 64-bit linear congruential generator with Knuth's constants.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        };
        (0..n).map(step).collect()
    };
    let mut all = Weights::new();
    let mut add = |name: String, shape: &[usize], scale: f32| {
        let numbers = noise(shape.iter().product(), scale);
        all.insert(name, (shape.to_vec(), numbers));
    };
    for (table, rows) in [
        ("word", vocabulary().len()),
        ("position", POSITIONS),
        ("token_type", 2),
    ] {
        add(
            format!("embeddings.{table}_embeddings.weight"),
            &[rows, HIDDEN],
            1.0,
        );
    }
    let mut norms = vec!["embeddings".to_owned()];
    for layer in 0..LAYERS {
        let layer = format!("encoder.layer.{layer}");
        for (name, outputs, inputs) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INNER, HIDDEN),
            ("output.dense", HIDDEN, INNER),
        ] {
            let scale = 2.0 / (inputs as f32).sqrt();
            add(format!("{layer}.{name}.weight"), &[outputs, inputs], scale);
            add(format!("{layer}.{name}.bias"), &[outputs], 0.5);
        }
        norms.extend([
            format!("{layer}.attention.output"),
            format!("{layer}.output"),
        ]);
    }
    for name in norms {
        add(format!("{name}.LayerNorm.weight"), &[HIDDEN], 1.5);
        add(format!("{name}.LayerNorm.bias"), &[HIDDEN], 0.3);
    }
    all
}

/// A weights file with all numbers stored as `dtype`.
pub fn safetensors(weights: &Weights, dtype: Dtype) -> Vec<u8> {
    let store = |x: &f32| -> Vec<u8> {
        match dtype {
            Dtype::F32 => x.to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(*x).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(*x).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(*x).to_le_bytes().to_vec(),
            other => panic!("the tests store no {other:?}"),
        }
    };
    let stored = |(name, (shape, numbers)): (&String, &(Vec<usize>, Vec<f32>))| {
        let bytes: Vec<u8> = numbers.iter().flat_map(store).collect();
        (name.clone(), shape.clone(), bytes)
    };
    let stored: Vec<_> = weights.iter().map(stored).collect();
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The files of the whole model that are JSON.
fn settings() -> [(&'static str, Value); 6] {
    [
        (
            "config.json",
            json!({
                "model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu",
                "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS, "vocab_size": vocabulary().len(),
                "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
                "layer_norm_eps": EPSILON, "position_embedding_type": "absolute",
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
                "word_embedding_dimension": HIDDEN,
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

/// Word pieces as BERT has them. Its truncation and padding must be ignored.
fn tokenizer() -> Value {
    let vocabulary = vocabulary();
    let by_word: BTreeMap<&str, usize> = vocabulary
        .iter()
        .enumerate()
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
        "version": "1.0",
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
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

/// A model folder that goes with the test.
pub struct Folder(TempDir);

impl Folder {
    /// The whole model.
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("1_Pooling")).unwrap();
        for (name, value) in settings() {
            folder.write(name, value.to_string());
        }
        folder.store(&weights(), Dtype::F32);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// Changes a JSON file.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.json(name);
        change(&mut value);
        self.write(name, value.to_string());
    }

    /// Replaces the weights.
    pub fn store(&self, weights: &Weights, dtype: Dtype) {
        self.write("model.safetensors", safetensors(weights, dtype));
    }

    /// Replaces the weights by changed ones.
    pub fn reweigh(&self, change: impl FnOnce(&mut Weights)) {
        let mut weights = weights();
        change(&mut weights);
        self.store(&weights, Dtype::F32);
    }

    pub fn open(&self) -> Result<Encoder, Error> {
        self.open_on(2)
    }

    pub fn open_on(&self, threads: usize) -> Result<Encoder, Error> {
        Encoder::open(&ModelFiles::read(self.0.path())?, &options(threads))
    }

    /// The vectors of `texts`, each a row.
    pub fn embed(&self, texts: &[&str]) -> Vec<Vec<f32>> {
        let found = self.open().unwrap().embed(texts).unwrap();
        found
            .vectors
            .chunks_exact(HIDDEN)
            .map(<[f32]>::to_vec)
            .collect()
    }
}

/// One arithmetic on every machine, so that tolerances mean the same everywhere.
pub fn options(threads: usize) -> EncoderOptions {
    EncoderOptions {
        device: DeviceChoice::Cpu,
        arithmetic: Some(Arithmetic::F32),
        threads: Some(threads),
        ..EncoderOptions::default()
    }
}

/// Fails unless the numbers are alike to `tolerance`.
pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!(
            (x - y).abs() <= tolerance,
            "{what}: number {i} is {x}, not {y}"
        );
    }
}
