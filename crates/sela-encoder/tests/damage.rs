//! Damaged model files: whatever their bytes, opening and embedding give an answer or an error,
//! never a panic.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Folder, options, safetensors, weights};
use safetensors::Dtype;
use sela_encoder::{Encoder, ModelFiles};
use serde_json::{Value, json};

const WEIGHTS: &str = "model.safetensors";
const TEXTS: [&str; 4] = [
    "",
    "river stone",
    "Query: walks !",
    "a z a z a z a z a z a z a z",
];

/// Opens the folder and embeds; fails on a panic, saying what was done to the folder.
fn try_all(folder: &Folder, damage: &str) -> Result<(), String> {
    let all = || folder.open().and_then(|encoder| encoder.embed(&TEXTS));
    match catch_unwind(AssertUnwindSafe(all)) {
        Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
        Err(_) => panic!("a panic after {damage}"),
    }
}

#[test]
fn shortened_weights_are_refused() {
    let whole = safetensors(&weights(), Dtype::F32);
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let folder = Folder::new();
    for len in
        (0..whole.len()).filter(|len| *len < 16 || len.abs_diff(header) < 4 || len % 509 == 0)
    {
        folder.write(WEIGHTS, &whole[..len]);
        let refusal = try_all(&folder, &format!("cutting the weights to {len} bytes")).unwrap_err();
        let expected = "the model file `model.safetensors` is not valid: ";
        assert!(refusal.starts_with(expected), "{len} bytes: {refusal}");
    }
}

#[test]
fn a_garbled_header_makes_no_panic() {
    let whole = safetensors(&weights(), Dtype::F32);
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let folder = Folder::new();
    for at in (0..16).chain((16..header).step_by(23)) {
        let mut bytes = whole.clone();
        // Another digit, another letter, another bracket.
        bytes[at] ^= 1 << (at % 7);
        folder.write(WEIGHTS, &bytes);
        let _ = try_all(&folder, &format!("garbling byte {at} of the header"));
    }
}

/// Every value inside `value`, as a path of JSON pointers.
fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                pointers(inner, &format!("{path}/{}", escape(key)), found);
            }
        }
        Value::Array(list) => {
            for (at, inner) in list.iter().enumerate() {
                pointers(inner, &format!("{path}/{at}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn no_value_in_any_setting_makes_a_panic() {
    let odd = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1e300),
        json!("B"),
        json!([]),
        json!({}),
    ];
    let folder = Folder::new();
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "tokenizer.json",
    ] {
        let whole = folder.json(name);
        let mut paths = Vec::new();
        pointers(&whole, "", &mut paths);
        // One word and one special token stand for their like.
        paths.retain(|path| !path.starts_with("/model/vocab/") || path.ends_with("/river"));
        paths.retain(|path| {
            !path.starts_with("/added_tokens/") || path.starts_with("/added_tokens/1")
        });
        for path in paths {
            for value in &odd {
                let mut changed = whole.clone();
                *changed.pointer_mut(&path).unwrap() = value.clone();
                folder.write(name, changed.to_string());
                let _ = try_all(&folder, &format!("setting {name}{path} to {value}"));
            }
        }
        folder.write(name, whole.to_string());
    }
    try_all(&folder, "nothing").unwrap();
}

/// Bytes that are all there for the first `left` questions and gone afterwards, as those of a
/// mapped file are that somebody shortens.
struct Vanishing {
    bytes: Vec<u8>,
    left: AtomicUsize,
}

impl AsRef<[u8]> for Vanishing {
    fn as_ref(&self) -> &[u8] {
        let take = |left: usize| left.checked_sub(1);
        match self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
        {
            Ok(_) => &self.bytes,
            Err(_) => &[],
        }
    }
}

/// The files of the whole model, with weights that vanish after `left` questions.
fn vanishing(left: usize) -> (ModelFiles, Arc<Vanishing>) {
    let folder = Folder::new();
    let mut files = ModelFiles::read(&folder.path("")).unwrap();
    let weights = Arc::new(Vanishing {
        bytes: std::fs::read(folder.path(WEIGHTS)).unwrap(),
        left: AtomicUsize::new(left),
    });
    files.insert(WEIGHTS, weights.clone());
    (files, weights)
}

#[test]
fn weights_shortened_while_they_are_read_are_refused() {
    let (files, weights) = vanishing(usize::MAX);
    Encoder::open(&files, &options(1)).unwrap();
    let questions = usize::MAX - weights.left.load(Ordering::SeqCst);
    assert!(questions < 200, "{questions} system calls to open a model");
    for left in 0..questions {
        let refusal = Encoder::open(&vanishing(left).0, &options(1))
            .err()
            .unwrap()
            .to_string();
        let expected = match left {
            0 => "the model file `model.safetensors` is not valid: header too small",
            _ => {
                "the model file `model.safetensors` is not valid: it became shorter while it was read"
            }
        };
        assert_eq!(refusal, expected, "after {left} of {questions} questions");
    }
}

#[test]
fn weights_shortened_while_the_encoder_is_open_are_refused() {
    let (files, weights) = vanishing(usize::MAX);
    let encoder = Encoder::open(&files, &options(2)).unwrap();
    let before = weights.left.load(Ordering::SeqCst);
    encoder.embed(&TEXTS).unwrap();
    let asked = before - weights.left.load(Ordering::SeqCst);
    assert_eq!(asked, 1, "the file is asked once a forward");
    weights.left.store(0, Ordering::SeqCst);
    let error = encoder.embed(&TEXTS).unwrap_err();
    let expected = "tensor in a file that has become shorter: expected 1280 numbers, found 0";
    assert_eq!(error.to_string(), expected);
}
