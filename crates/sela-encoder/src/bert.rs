//! The model, written once over the silicon border.

use sela_compute::encode::{Encode, Forward, Pooling, Ragged, Ticket};

use crate::config::Config;
use crate::error::Error;
use crate::files::ModelFiles;
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
                let attention = backend.attention(weights.attention(layer)?)?;
                Ok((
                    attention,
                    backend.feed_forward(weights.feed_forward(layer)?)?,
                ))
            });
            let layers = layers.collect::<Result<_, Error>>()?;
            let embedding = backend.embedding(weights.embedding()?)?;
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

    /// One vector a sequence, row after row.
    pub(crate) fn forward(&self, batch: &Ragged) -> Result<Vec<f32>, Error> {
        let mut forward = self.backend.begin(batch)?;
        forward.embed(&self.embedding)?;
        for (attention, feed_forward) in &self.layers {
            forward.attend(attention)?;
            forward.feed_forward(feed_forward)?;
        }
        forward.pool(self.pooling, self.normalize)?;
        Ok(forward.submit()?.wait()?)
    }
}
