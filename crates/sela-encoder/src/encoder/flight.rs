//! One forward at a time, for callers that put their own batches together: tokenise, start, finish.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sela_compute::encode::Share;

use super::backend::Waiting;
use super::work::{Batch, Part, TOKENS_AT_ONCE, in_order, tokenize};
use super::{Encoder, TextInfo};
use crate::error::Error;
use crate::tokens::Tokenized;

/// Bytes of text below which waking other threads takes longer than tokenising.
const TOKENIZE_ALONE: usize = 8 << 10;

/// A forward under way; [`Encoder::finish`] brings its vectors.
///
/// Dropping it leaves them to nobody.
pub struct Flight {
    batch: Batch,
    /// `None` when the GPU was given up before: the CPU does it in [`Encoder::finish`].
    waiting: Option<Result<Waiting, Error>>,
}

impl Tokenized {
    /// Tokens that will be encoded, special ones included.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Encoder {
    /// Whether texts may be tokenised after that prompt: what [`Encoder::tokenize`] asks first.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPrompt`]; [`Error::TextTooLong`] with the place of the text.
    pub fn check<T: AsRef<str>>(&self, prompt: Option<&str>, texts: &[T]) -> Result<(), Error> {
        self.check_lengths(self.prompt_or_default(prompt)?, texts)
    }

    /// Token ids of texts, each after the prompt of that name, or after the model's default prompt
    /// if there is one; for [`Encoder::start`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPrompt`]; [`Error::TextTooLong`] and [`Error::Tokenize`] with the place of
    /// the text in `texts`.
    pub fn tokenize<T: AsRef<str> + Sync>(
        &self,
        prompt: Option<&str>,
        texts: &[T],
    ) -> Result<Vec<Tokenized>, Error> {
        let prompt = self.prompt_or_default(prompt)?;
        self.check_lengths(prompt, texts)?;
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        if bytes > TOKENIZE_ALONE {
            return tokenize(&self.backend, &self.tokens, prompt, texts, 0);
        }
        let one = |(i, text): (usize, &T)| self.tokens.encode_after(prompt, text.as_ref(), i);
        texts.iter().enumerate().map(one).collect()
    }

    /// Most tokens of one forward.
    pub fn flight_tokens_max(&self) -> usize {
        TOKENS_AT_ONCE.min(self.backend.tokens_max())
    }

    /// Forwards that a caller should keep under way: the CPU is done when [`Encoder::start`]
    /// returns, while a GPU works on one as the next is brought and the one before is read back.
    pub fn flights_max(&self) -> usize {
        self.backend.depth()
    }

    /// Starts a forward over texts of at most [`Encoder::flight_tokens_max`] tokens together.
    ///
    /// What goes wrong is told by [`Encoder::finish`].
    pub fn start(&self, texts: Vec<Tokenized>, share: Share) -> Flight {
        let part = Arc::new(Part { first: 0, texts });
        let order = in_order(&part.texts);
        let batch = Batch { part, order };
        let given_up = self.health.given_up.load(Ordering::Relaxed);
        let waiting = (!given_up).then(|| self.backend.submit(&batch.ragged(), share));
        Flight { batch, waiting }
    }

    /// Waits for a forward and hands out each text's vector by its place among those that were
    /// started. A vector that is finite in no arithmetic is an error of its text alone.
    ///
    /// # Errors
    ///
    /// What befalls all texts; none has been handed out then.
    pub fn finish(
        &self,
        flight: Flight,
        mut each: impl FnMut(usize, Result<(&[f32], TextInfo), Error>),
    ) -> Result<(), Error> {
        let Flight { batch, waiting } = flight;
        let (mut vectors, degraded) = match waiting {
            Some(waiting) => self.settle(&batch, waiting.and_then(Waiting::wait))?,
            None => (self.stand_in(&batch)?, true),
        };
        let vectors = vectors.chunks_exact_mut(self.dim());
        for (&i, vector) in batch.order.iter().zip(vectors) {
            let counted = self.judge(i, &batch.part.texts[i], vector, degraded);
            each(i, counted.map(|info| (&*vector, info)));
        }
        Ok(())
    }
}
