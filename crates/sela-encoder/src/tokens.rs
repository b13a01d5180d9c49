//! Text to token ids: the model's own tokenizer, cut at the model's length, the cut reported.

use std::sync::OnceLock;

use sela_compute::encode::SharedBytes;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::Error;
use crate::files::{ModelFiles, TOKENIZER};
use crate::wordpiece::WordPiece;

/// Splits text into word pieces and frames them with the model's special tokens.
pub(crate) struct Tokens {
    /// Our own tokenizer, when the model's is of BERT's form.
    pieces: Option<WordPiece>,
    library: Library,
    tokens_max: usize,
    lowercase: bool,
    /// Special tokens after the text, which a cut must keep.
    suffix: Vec<u32>,
}

/// The tokenizers library, which reads every form: loaded when something is left to it, as loading
/// takes longer than all else at the start.
struct Library {
    file: SharedBytes,
    loaded: OnceLock<Result<Tokenizer, String>>,
}

impl Library {
    fn get(&self) -> Result<&Tokenizer, &str> {
        let load = || {
            let file: &[u8] = (*self.file).as_ref();
            let mut tokenizer = Tokenizer::from_bytes(file).map_err(|e| e.to_string())?;
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
            Ok(tokenizer)
        };
        self.loaded
            .get_or_init(load)
            .as_ref()
            .map_err(String::as_str)
    }
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

/// The frame of a text as the library makes it: what an empty one becomes, split where a word would
/// stand.
fn library_frame(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), Error> {
    check_templates(&serde_json::to_value(tokenizer.get_post_processor()).map_err(bad)?)?;
    let empty = tokenizer.encode_fast("", true).map_err(bad)?;
    let word = tokenizer.encode_fast("a", true).map_err(bad)?;
    let (empty, word) = (empty.get_ids(), word.get_ids());
    let prefix = empty.iter().zip(word).take_while(|(a, b)| a == b).count();
    let suffix = empty[prefix..].to_vec();
    if word.len() <= empty.len() || !word.ends_with(&suffix) {
        return Err(frameless());
    }
    Ok((empty[..prefix].to_vec(), suffix))
}

fn frameless() -> Error {
    bad("a frame of special tokens around the text is needed")
}

impl Tokens {
    /// The tokenizer of a model; padding and truncation in its file are ignored.
    pub(crate) fn read(
        files: &ModelFiles,
        tokens_max: usize,
        lowercase: bool,
        vocabulary: usize,
    ) -> Result<Self, Error> {
        let file = files.get(TOKENIZER)?;
        let pieces = WordPiece::read((*file).as_ref());
        let library = Library {
            file,
            loaded: OnceLock::new(),
        };
        let size = match &pieces {
            Some(pieces) => pieces.vocabulary,
            None => library.get().map_err(bad)?.get_vocab_size(true),
        };
        if size > vocabulary {
            return Err(bad(format!(
                "it has {size} tokens, but the model's vocab_size is {vocabulary}"
            )));
        }
        let (prefix, suffix) = match &pieces {
            Some(pieces) => (pieces.prefix.clone(), pieces.suffix.clone()),
            None => library_frame(library.get().map_err(bad)?)?,
        };
        let frame = prefix.len() + suffix.len();
        if frame == 0 {
            return Err(frameless());
        }
        let outside = |&&id: &&u32| id as usize >= vocabulary;
        if let Some(id) = prefix.iter().chain(&suffix).find(outside) {
            return Err(bad(format!(
                "a special token has id {id}, but the model's vocab_size is {vocabulary}"
            )));
        }
        if tokens_max <= frame {
            return Err(Error::Unsupported {
                what: "max_seq_length",
                value: tokens_max.to_string(),
            });
        }
        Ok(Self {
            pieces,
            library,
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
        let mut ids = match self.pieces.as_ref().and_then(|pieces| pieces.framed(text)) {
            Some(ids) => ids,
            None => self
                .by_library(text)
                .map_err(|reason| Error::Tokenize { index, reason })?,
        };
        let total = ids.len();
        if total > self.tokens_max {
            ids.truncate(self.tokens_max - self.suffix.len());
            ids.extend_from_slice(&self.suffix);
        }
        Ok(Tokenized { ids, total })
    }

    fn by_library(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.library.get()?.encode_fast(text, true);
        Ok(encoding.map_err(|e| e.to_string())?.get_ids().to_vec())
    }
}
