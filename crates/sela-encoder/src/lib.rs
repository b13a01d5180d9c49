//! Text to vectors, with the semantics of sentence-transformers.
//!
//! [`Encoder::open`] takes the files of a model folder and [`Encoder::embed`] turns texts into
//! vectors. Sequences are packed end to end and never padded, so a text's vector has the same bits
//! alone, in any batch, in any order and from any thread.
//!
//! ```no_run
//! use sela_encoder::{Encoder, EncoderOptions, ModelFiles};
//!
//! let files = ModelFiles::read(std::path::Path::new("models/all-MiniLM-L6-v2"))?;
//! let encoder = Encoder::open(&files, &EncoderOptions::default())?;
//! let found = encoder.embed(&["The LORD is my shepherd"])?;
//! assert_eq!(found.vector(0).len(), encoder.dim());
//! # Ok::<(), sela_encoder::Error>(())
//! ```
#![forbid(unsafe_code)]

mod bert;
mod config;
mod encoder;
mod error;
mod files;
mod tokens;
mod weights;
mod wordpiece;

pub use encoder::{
    Dtype, Embeddings, Encoder, EncoderOptions, Flight, Golden, Report, SelfTest, Space, TextInfo,
};
pub use error::Error;
pub use files::ModelFiles;
pub use sela_compute::Isa;
pub use sela_compute::encode::Share;
pub use tokens::Tokenized;

/// Longest text in bytes; a longer one is refused by name.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
