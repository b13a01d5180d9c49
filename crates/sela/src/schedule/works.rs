//! What a lane drives: the encoder, or a stand-in that tests control.

use sela_encoder::{Encoder, Flight, Share, TextInfo, Tokenized};

use crate::error::Result;

/// Takes a text's place in a batch, and its vector or why there is none.
pub(crate) type Each<'a> = dyn FnMut(usize, Result<(&[f32], TextInfo)>) + 'a;

/// Turns batches of texts into vectors.
pub(crate) trait Works: Send + Sync + 'static {
    /// A text made ready.
    type Text: Send + 'static;
    /// A batch under way.
    type Flight;

    /// Numbers of a vector.
    fn dim(&self) -> usize;
    /// Most tokens of a batch.
    fn tokens_max(&self) -> usize;
    /// Batches that a lane keeps under way.
    fn flights_max(&self) -> usize;
    /// Refuses, cheaply, what `tokenize` would.
    fn check(&self, prompt: Option<&str>, texts: &[String]) -> Result<()>;
    fn tokenize(&self, prompt: Option<&str>, texts: &[String]) -> Result<Vec<Self::Text>>;
    fn tokens(text: &Self::Text) -> usize;
    fn start(&self, texts: Vec<Self::Text>, share: Share) -> Self::Flight;
    /// Waits for a batch. An error is the whole batch's, and nothing has been handed out then.
    fn finish(&self, flight: Self::Flight, each: &mut Each<'_>) -> Result<()>;
}

impl Works for Encoder {
    type Text = Tokenized;
    type Flight = Flight;

    fn dim(&self) -> usize {
        self.dim()
    }

    fn tokens_max(&self) -> usize {
        self.flight_tokens_max()
    }

    fn flights_max(&self) -> usize {
        self.flights_max()
    }

    fn check(&self, prompt: Option<&str>, texts: &[String]) -> Result<()> {
        Ok(self.check(prompt, texts)?)
    }

    fn tokenize(&self, prompt: Option<&str>, texts: &[String]) -> Result<Vec<Tokenized>> {
        Ok(self.tokenize(prompt, texts)?)
    }

    fn tokens(text: &Tokenized) -> usize {
        text.tokens()
    }

    fn start(&self, texts: Vec<Tokenized>, share: Share) -> Flight {
        self.start(texts, share)
    }

    fn finish(&self, flight: Flight, each: &mut Each<'_>) -> Result<()> {
        Ok(self.finish(flight, |i, found| each(i, found.map_err(Into::into)))?)
    }
}
