//! Sela turns text into vectors on this machine, keeps them safe and finds the nearest.

#![forbid(unsafe_code)]

mod error;
pub mod models;

pub use error::{Error, Result};
