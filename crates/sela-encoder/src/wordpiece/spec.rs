//! `tokenizer.json` of BERT's plain form. Whatever else stands in it, even what might not matter,
//! makes it another form.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::chars::{Chars, Kind, kind};
use super::trie::Trie;
use super::{WordPiece, ascii};

/// Longer words than models allow for; pieces are at most as long, which bounds the trie.
const WORD_CHARS_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(default, rename = "version")]
    _version: IgnoredAny,
    // Ours to choose, whatever the file says.
    #[serde(default, rename = "truncation")]
    _truncation: IgnoredAny,
    #[serde(default, rename = "padding")]
    _padding: IgnoredAny,
    #[serde(default, rename = "decoder")]
    _decoder: IgnoredAny,
    #[serde(borrow)]
    added_tokens: Vec<Added<'a>>,
    normalizer: Normalizer,
    pre_tokenizer: PreTokenizer,
    #[serde(borrow)]
    post_processor: PostProcessor<'a>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added<'a> {
    id: u32,
    #[serde(borrow)]
    content: Cow<'a, str>,
    normalized: bool,
    // They matter only where the token is spelt out, and such texts are the library's.
    #[serde(default, rename = "single_word")]
    _single_word: IgnoredAny,
    #[serde(default, rename = "lstrip")]
    _lstrip: IgnoredAny,
    #[serde(default, rename = "rstrip")]
    _rstrip: IgnoredAny,
    special: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum Normalizer {
    BertNormalizer {
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: Option<bool>,
        lowercase: bool,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum PreTokenizer {
    BertPreTokenizer {},
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum PostProcessor<'a> {
    TemplateProcessing {
        #[serde(borrow)]
        single: Vec<Piece<'a>>,
        #[serde(rename = "pair")]
        _pair: IgnoredAny,
        special_tokens: std::collections::BTreeMap<String, Special>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum Piece<'a> {
    SpecialToken {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(rename = "type_id")]
        _type_id: IgnoredAny,
    },
    Sequence {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(rename = "type_id")]
        _type_id: IgnoredAny,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Special {
    #[serde(rename = "id")]
    _id: IgnoredAny,
    ids: Vec<u32>,
    #[serde(rename = "tokens")]
    _tokens: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    unk_token: Cow<'a, str>,
    #[serde(borrow)]
    continuing_subword_prefix: Cow<'a, str>,
    max_input_chars_per_word: usize,
    #[serde(borrow)]
    vocab: Vocab<'a>,
}

/// The vocabulary in the order of the file.
struct Vocab<'a>(Vec<(Cow<'a, str>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(Cow<'de, str>, u32)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some((Key(token), id)) = map.next_entry()? {
                    all.push((token, id));
                }
                Ok(all)
            }
        }
        from.deserialize_map(Entries).map(Vocab)
    }
}

/// A key that is borrowed where the file spells it plainly.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn read(json: &[u8]) -> Option<WordPiece> {
    let file: File<'_> = serde_json::from_slice(json).ok()?;
    let model = file.model;
    let mut all = model.vocab.0;
    let vocabulary = all.len();
    all.sort_unstable();
    let id = |token: &str| {
        let place = all.binary_search_by(|(t, _)| t.as_ref().cmp(token)).ok()?;
        Some(all[place].1)
    };
    let mark = model.continuing_subword_prefix.as_ref();
    let plain = model.kind == "WordPiece"
        && all.windows(2).all(|two| two[0].0 != two[1].0)
        && (1..=WORD_CHARS_MAX).contains(&model.max_input_chars_per_word)
        // So no word begins with the mark of pieces that go on.
        && mark.chars().next().is_some_and(|c| kind(c) == Kind::Punctuation)
        && mark.chars().count() > 1;
    let special = |added: &Added<'_>| {
        added.special
            && !added.normalized
            && !added.content.is_empty()
            && id(&added.content) == Some(added.id)
    };
    if !plain || !file.added_tokens.iter().all(special) {
        return None;
    }
    let (prefix, suffix) = frame(&file.post_processor)?;
    let Normalizer::BertNormalizer {
        clean_text,
        handle_chinese_chars,
        strip_accents,
        lowercase,
    } = file.normalizer;
    let PreTokenizer::BertPreTokenizer {} = file.pre_tokenizer;
    let chars = Chars {
        clean: clean_text,
        chinese: handle_chinese_chars,
        strip: strip_accents.unwrap_or(lowercase),
        lower: lowercase,
    };
    let (mut words, mut rests) = (Vec::new(), Vec::new());
    for (token, id) in &all {
        let (piece, list) = match token.strip_prefix(mark) {
            Some(rest) => (rest, &mut rests),
            None => (token.as_ref(), &mut words),
        };
        if !piece.is_empty() && piece.len() <= 4 * model.max_input_chars_per_word {
            list.push((piece.as_bytes(), *id));
        }
    }
    Some(WordPiece {
        chars,
        ascii: ascii(chars),
        trie: Trie::new(words, rests),
        unknown: id(&model.unk_token)?,
        word_chars_max: model.max_input_chars_per_word,
        special: file
            .added_tokens
            .iter()
            .map(|a| a.content.to_string())
            .collect(),
        prefix,
        suffix,
        vocabulary,
    })
}

/// Ids before and after a text: special tokens around it, once.
fn frame(post: &PostProcessor<'_>) -> Option<(Vec<u32>, Vec<u32>)> {
    let PostProcessor::TemplateProcessing {
        single,
        special_tokens,
        ..
    } = post;
    let (mut prefix, mut suffix) = (Vec::new(), None);
    for piece in single {
        match piece {
            Piece::SpecialToken { id, .. } => {
                let ids = &special_tokens.get(id.as_ref())?.ids;
                suffix
                    .as_mut()
                    .unwrap_or(&mut prefix)
                    .extend_from_slice(ids);
            }
            Piece::Sequence { id, .. } if id == "A" && suffix.is_none() => {
                suffix = Some(Vec::new());
            }
            Piece::Sequence { .. } => return None,
        }
    }
    Some((prefix, suffix?))
}
