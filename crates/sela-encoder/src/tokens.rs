//! Text to token ids: the model's own tokenizer, cut at the model's length, the cut reported.

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::Error;
use crate::files::{ModelFiles, TOKENIZER};

/// Splits text into word pieces and frames them with the model's special tokens.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    tokens_max: usize,
    lowercase: bool,
    /// Special tokens after the text, which a cut must keep.
    suffix: Vec<u32>,
}

/// The token ids of one text, ready to be encoded.
#[derive(Clone, Debug)]
pub struct Tokenized {
    pub(crate) ids: Vec<u32>,
    /// Tokens before the cut.
    pub(crate) total: usize,
}

fn bad(reason: impl ToString) -> Error {
    Error::BadFile {
        name: TOKENIZER.into(),
        reason: reason.to_string(),
    }
}

/// Refuses a template of a single text that names an undefined special token or a second text:
/// the tokenizer would panic.
fn check_templates(processor: &Value) -> Result<(), Error> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for part in list(&processor["processors"]) {
        check_templates(&part)?;
    }
    for piece in list(&processor["single"]) {
        let (special, text) = (&piece["SpecialToken"]["id"], &piece["Sequence"]["id"]);
        let undefined = special
            .as_str()
            .is_some_and(|id| processor["special_tokens"].get(id).is_none());
        if undefined || text == "B" {
            return Err(bad(format!("its template has the undefined piece {piece}")));
        }
    }
    Ok(())
}

impl Tokens {
    /// The tokenizer of a model; padding and truncation in its file are ignored.
    pub(crate) fn read(
        files: &ModelFiles,
        tokens_max: usize,
        lowercase: bool,
        vocabulary: usize,
    ) -> Result<Self, Error> {
        let bytes = files.get(TOKENIZER)?;
        let mut tokenizer = Tokenizer::from_bytes((*bytes).as_ref()).map_err(bad)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(bad)?;
        let size = tokenizer.get_vocab_size(true);
        if size > vocabulary {
            return Err(bad(format!(
                "it has {size} tokens, but the model's vocab_size is {vocabulary}"
            )));
        }
        check_templates(&serde_json::to_value(tokenizer.get_post_processor()).map_err(bad)?)?;
        // The frame of a text: what an empty one becomes, split where a word would stand.
        let empty = tokenizer.encode_fast("", true).map_err(bad)?;
        let word = tokenizer.encode_fast("a", true).map_err(bad)?;
        let (empty, word) = (empty.get_ids(), word.get_ids());
        let prefix = empty.iter().zip(word).take_while(|(a, b)| a == b).count();
        let suffix = empty[prefix..].to_vec();
        if empty.is_empty() || word.len() <= empty.len() || !word.ends_with(&suffix) {
            return Err(bad("a frame of special tokens around the text is needed"));
        }
        if let Some(id) = empty.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(bad(format!(
                "a special token has id {id}, but the model's vocab_size is {vocabulary}"
            )));
        }
        if tokens_max <= empty.len() {
            return Err(Error::Unsupported {
                what: "max_seq_length",
                value: tokens_max.to_string(),
            });
        }
        Ok(Self {
            tokenizer,
            tokens_max,
            lowercase,
            suffix,
        })
    }

    /// The ids of `text` with `prompt` before it.
    pub(crate) fn encode_after(
        &self,
        prompt: &str,
        text: &str,
        index: usize,
    ) -> Result<Tokenized, Error> {
        if prompt.is_empty() {
            return self.encode(text, index);
        }
        self.encode(&format!("{prompt}{text}"), index)
    }

    /// The ids of `text`, at most the model's length, with special tokens.
    pub(crate) fn encode(&self, text: &str, index: usize) -> Result<Tokenized, Error> {
        let lowered;
        let text = if self.lowercase {
            lowered = text.to_lowercase();
            &lowered
        } else {
            text
        };
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|e| Error::Tokenize {
                index,
                reason: e.to_string(),
            })?;
        let mut ids = encoding.get_ids().to_vec();
        let total = ids.len();
        if total > self.tokens_max {
            ids.truncate(self.tokens_max - self.suffix.len());
            ids.extend_from_slice(&self.suffix);
        }
        Ok(Tokenized { ids, total })
    }
}
