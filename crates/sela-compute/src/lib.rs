//! Runs the two heavy kinds of work, embedding and search, on the best silicon present.

pub mod error;
pub mod isa;
pub mod reference;
pub mod scan;

#[allow(unsafe_code)]
mod cpu;

pub use error::Error;
pub use isa::Isa;
