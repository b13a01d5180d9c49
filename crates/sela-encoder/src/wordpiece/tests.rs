//! Our tokenizer against the library's.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::WordPiece;

const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];

/// A `tokenizer.json` whose vocabulary is the special tokens and then `tokens`.
fn file(tokens: &[String]) -> Value {
    let special = SPECIAL.iter().map(|s| (*s).to_owned());
    let mut vocab = serde_json::Map::new();
    for token in special.chain(tokens.iter().cloned()) {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| json!(id));
    }
    let added = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let own = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"[CLS]": own("[CLS]", 2), "[SEP]": own("[SEP]", 3)}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 12, "vocab": vocab},
    })
}

/// Both tokenizers of a file.
fn both(file: &Value) -> (WordPiece, Tokenizer) {
    let bytes = file.to_string().into_bytes();
    let ours = WordPiece::read(&bytes).expect("a file of BERT's form");
    (ours, Tokenizer::from_bytes(&bytes).unwrap())
}

fn library(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer
        .encode_fast(text, true)
        .unwrap()
        .get_ids()
        .to_vec()
}

/// The normaliser's switches in all ways a vocabulary can be cased.
fn switches() -> impl Iterator<Item = (bool, bool, Option<bool>, bool)> {
    [
        (true, true, None, true),
        (true, true, None, false),
        (true, false, Some(false), true),
        (false, true, Some(true), false),
        (false, false, Some(false), false),
    ]
    .into_iter()
}

fn switched(
    mut file: Value,
    (clean, chinese, strip, lower): (bool, bool, Option<bool>, bool),
) -> Value {
    file["normalizer"] = json!({"type": "BertNormalizer", "clean_text": clean,
        "handle_chinese_chars": chinese, "strip_accents": strip, "lowercase": lower});
    file
}

/// A vocabulary in which every character up to Chinese is a piece of its own.
fn characters() -> Vec<String> {
    let all = (0x21..0x3000).filter_map(char::from_u32);
    all.flat_map(|c| [c.to_string(), format!("##{c}")])
        .collect()
}

#[test]
fn every_character_is_the_librarys() {
    let file = file(&characters());
    let mut left = 0;
    for (n, switches) in switches().enumerate() {
        let (ours, theirs) = both(&switched(file.clone(), switches));
        let last = if n == 0 { '\u{10FFFF}' } else { '\u{33FF}' };
        let all: Vec<char> = ('\0'..=last).collect();
        for some in all.chunks(64) {
            // Within a word, at its begin, at its end, and alone.
            let text: String = some
                .iter()
                .map(|c| format!("x{c}y {c}y x{c} {c} "))
                .collect();
            let one = |c: &char| {
                let text = format!("x{c}y {c}y x{c} {c} ");
                match ours.framed(&text) {
                    Some(ids) => assert_eq!(ids, library(&theirs, &text), "{c:?} {switches:?}"),
                    None => left += 1,
                }
            };
            match ours.framed(&text) {
                Some(ids) if ids == library(&theirs, &text) => {}
                _ => some.iter().for_each(one),
            }
        }
    }
    // Marks that stay and are put in order: some forty characters, under three of the switches.
    assert!((1..200).contains(&left), "{left}");
}

#[test]
fn words_as_long_as_a_model_takes_and_longer() {
    let (ours, theirs) = both(&file(&characters()));
    for word in [
        "aaaaaaaaaaa",
        "aaaaaaaaaaaa",
        "aaaaaaaaaaaaa",
        "ββββββββββββ",
        "βββββββββββββ",
    ] {
        for text in [word.to_owned(), format!("{word} a"), format!("a,{word}")] {
            assert_eq!(
                ours.framed(&text).unwrap(),
                library(&theirs, &text),
                "{text}"
            );
        }
    }
}

#[test]
fn what_only_the_library_can_tell_is_left_to_it() {
    let (ours, _) = both(&file(&characters()));
    // A special token spelt out, and marks that stay and would change places.
    for text in ["a [SEP] b", "[CLS]", "a\u{302e}b"] {
        assert_eq!(ours.framed(text), None, "{text:?}");
    }
    assert!(ours.framed("a [sep] [b").is_some());
}

#[test]
fn files_of_another_form_are_not_read() {
    let whole = file(&["a".into(), "##b".into()]);
    assert!(WordPiece::read(whole.to_string().as_bytes()).is_some());
    let another = |path: &str, value: Value| {
        let mut file = whole.clone();
        *file.pointer_mut(path).unwrap() = value;
        let read = WordPiece::read(file.to_string().as_bytes());
        assert!(read.is_none(), "{path}");
    };
    another("/normalizer", json!(null));
    another("/normalizer", json!({"type": "Lowercase"}));
    another("/normalizer/lowercase", json!(1));
    another("/pre_tokenizer", json!({"type": "Whitespace"}));
    another("/post_processor", json!(null));
    another("/post_processor/single", json!([]));
    another("/post_processor/single/1/Sequence/id", json!("B"));
    another("/post_processor/single/0/SpecialToken/id", json!("[X]"));
    another("/model/type", json!("BPE"));
    another("/model/unk_token", json!("[X]"));
    another("/model/continuing_subword_prefix", json!("x"));
    another("/model/continuing_subword_prefix", json!("#"));
    another("/model/max_input_chars_per_word", json!(1_000_000));
    another("/added_tokens/0/normalized", json!(true));
    another("/added_tokens/0/id", json!(7));
    another("/added_tokens/0/content", json!(""));
    let mut file = whole;
    file["model"]["fuse_unk"] = json!(true);
    assert!(WordPiece::read(file.to_string().as_bytes()).is_none());
    assert!(WordPiece::read(b"").is_none());
    assert!(WordPiece::read(&[0xff, 0xfe]).is_none());
    let twice = br#"{"model": {"vocab": {"a": 0, "a": 1}}}"#;
    assert!(WordPiece::read(twice).is_none());
}

/// Texts of everything that is treated in its own way, and of anything.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[a-c]{1,14}",
        2 => "[A-Za-zÀ-ÿ]{1,6}",
        2 => Just(" ".to_owned()),
        1 => "[!-/:-@\\[-`{-~]{1,3}",
        1 => "[\u{4e00}-\u{4e10}\u{f900}-\u{f910}ぁ-ん가-힣]{1,3}",
        1 => "[\u{300}-\u{36f}\u{302e}\u{5b0}-\u{5c0}]{1,3}",
        1 => "[\u{0}-\u{20}\u{7f}-\u{a0}\u{200b}-\u{200f}\u{2028}\u{3000}\u{feff}\u{fffd}]{1,2}",
        1 => "[İıßΣσςÅﬁ①½\u{1e9e}\u{1f600}]{1,3}",
        1 => Just("[SEP]".to_owned()),
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Pieces of few letters, so that long ones and their parts compete.
fn pieces() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("(##)?[abcé]{1,5}", 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn words_fall_into_the_librarys_pieces(pieces in pieces(), words in "[abcé ]{0,60}") {
        // As stored: accents are in the vocabulary.
        let file = switched(file(&pieces), (true, true, Some(false), false));
        let (ours, theirs) = both(&file);
        prop_assert_eq!(ours.framed(&words).unwrap(), library(&theirs, &words));
    }

    #[test]
    fn texts_fall_into_the_librarys_pieces(pieces in pieces(), text in texts(), n in 0usize..5) {
        let mut all = pieces;
        all.extend(('!'..='~').map(String::from));
        all.extend(["a", "b", "e", "ss"].map(|s| format!("##{s}")));
        let (ours, theirs) = both(&switched(file(&all), switches().nth(n).unwrap()));
        if let Some(ids) = ours.framed(&text) {
            prop_assert_eq!(ids, library(&theirs, &text));
        }
    }
}
