//! The model, written once over the silicon border.

use sela_compute::encode::{Encode, Forward, Pooling, Ragged, Share};

use crate::config::Config;
use crate::error::Error;
use crate::files::{ModelFiles, WEIGHTS};
use crate::weights::with_weights;

/// A BERT encoder with its pooling, its weights laid out for the backend `E`.
pub(crate) struct Bert<E: Encode> {
    backend: E,
    embedding: E::Embedding,
    layers: Vec<(E::Attention, E::FeedForward)>,
    pooling: Pooling,
    normalize: bool,
}

impl<E: Encode> Bert<E> {
    pub(crate) fn load(backend: E, files: &ModelFiles, config: &Config) -> Result<Self, Error> {
        with_weights(files, config, |weights| {
            let layers = (0..config.layers).map(|layer| {
                let place = format!("encoder.layer.{layer}");
                let attention = backend.attention(weights.attention(layer)?);
                let attention = attention.map_err(|e| refused(&place, e))?;
                let feed_forward = backend.feed_forward(weights.feed_forward(layer)?);
                let feed_forward = feed_forward.map_err(|e| refused(&place, e))?;
                Ok((attention, feed_forward))
            });
            let layers = layers.collect::<Result<_, Error>>()?;
            let embedding = backend.embedding(weights.embedding()?);
            let embedding = embedding.map_err(|e| refused("embeddings", e))?;
            let Config {
                pooling, normalize, ..
            } = *config;
            Ok(Self {
                embedding,
                layers,
                backend,
                pooling,
                normalize,
            })
        })
    }

    pub(crate) fn backend(&self) -> &E {
        &self.backend
    }

    /// Starts a forward: one vector a sequence, row after row.
    pub(crate) fn submit(&self, batch: &Ragged, share: Share) -> Result<E::Ticket, Error> {
        let mut forward = self.backend.begin(batch)?;
        forward.share(share);
        forward.embed(&self.embedding)?;
        for (attention, feed_forward) in &self.layers {
            forward.attend(attention)?;
            forward.feed_forward(feed_forward)?;
        }
        forward.pool(self.pooling, self.normalize)?;
        Ok(forward.submit()?)
    }
}

/// A kernel's refusal of weights, with their place in the file.
fn refused(place: &str, error: sela_compute::Error) -> Error {
    match error {
        sela_compute::Error::NotFinite { .. } => Error::BadFile {
            name: WEIGHTS.into(),
            reason: format!("{place}: {error}"),
        },
        other => other.into(),
    }
}
