//! What can go wrong between a model folder and a vector.

/// Errors of the encoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder is missing.
    #[error("the model has no file `{0}`")]
    MissingFile(String),
    /// A file of the model folder cannot be read.
    #[error("the model file `{name}` cannot be read")]
    ReadFile {
        /// Name of the file in the folder.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the model folder does not say what it should.
    #[error("the model file `{name}` is not valid: {reason}")]
    BadFile {
        /// Name of the file in the folder.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The model needs something this encoder does not do.
    #[error("the model's {what} is `{value}`, which is not supported")]
    Unsupported {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The weights lack a tensor.
    #[error("the weights have no tensor `{0}`")]
    MissingTensor(String),
    /// A text is over the limit.
    #[error("text {index} has {bytes} bytes, the limit is {limit}")]
    TextTooLong {
        /// Position of the text in the call.
        index: usize,
        /// Its length.
        bytes: usize,
        /// The limit, [`crate::TEXT_BYTES_MAX`].
        limit: usize,
    },
    /// The tokenizer refused a text.
    #[error("text {index} cannot be tokenized: {reason}")]
    Tokenize {
        /// Position of the text in the call.
        index: usize,
        /// Why.
        reason: String,
    },
    /// The model has no prompt of that name.
    #[error("the model has no prompt `{0}`")]
    UnknownPrompt(String),
    /// The vector of a text is not finite in any arithmetic.
    #[error("the vector of text {index} is not finite")]
    NotFinite {
        /// Position of the text in the call.
        index: usize,
    },
    /// No arithmetic of the wanted precision passed its self-test.
    #[error("no arithmetic for `{dtype}` passed its self-test: {reason}")]
    Vetoed {
        /// The precision asked for.
        dtype: String,
        /// What failed.
        reason: String,
    },
    /// The kernels refused.
    #[error(transparent)]
    Compute(#[from] sela_compute::Error),
}

impl Error {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingFile(_) | Self::MissingTensor(_) | Self::ReadFile { .. } => Some(
                "the folder must be a complete sentence-transformers model; check it with \
                 `sela model verify`"
                    .into(),
            ),
            Self::BadFile { .. } => {
                Some("fetch the model again with `sela model pull --force`".into())
            }
            Self::Unsupported { .. } => Some(
                "supported are BERT encoders with absolute positions, GELU, and mean or CLS pooling"
                    .into(),
            ),
            Self::TextTooLong { .. } => Some("split the text into smaller passages".into()),
            Self::Vetoed { .. } => Some("`sela doctor` shows every self-test".into()),
            _ => None,
        }
    }
}
