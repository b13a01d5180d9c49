//! What can go wrong in the kernels.

/// An error of a caller's own code, passed through.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Data does not have the shape that was announced.
    #[error("{what}: expected {expected} numbers, found {found}")]
    Shape {
        /// What was looked at.
        what: String,
        /// Numbers announced.
        expected: usize,
        /// Numbers found.
        found: usize,
    },
    /// A number that is not finite.
    #[error("{what} holds {value} at position {position}")]
    NotFinite {
        /// What was looked at.
        what: String,
        /// Index of the number.
        position: usize,
        /// The number.
        value: f32,
    },
    /// A value beyond a documented limit.
    #[error("{what} is {value}, the limit is {limit}")]
    Limit {
        /// What was looked at.
        what: &'static str,
        /// The value.
        value: usize,
        /// The limit.
        limit: usize,
    },
    /// The machine lacks what was asked for.
    #[error("this machine has no {0}")]
    Missing(String),
    /// A kernel gave a wrong answer.
    #[error("self-test of {0}")]
    SelfTest(String),
    /// A device failed: it is gone, out of memory, or refuses what every device should do. The
    /// request may be served by another.
    #[error("{what}: {reason}")]
    Device {
        /// The device.
        what: String,
        /// What it said.
        reason: String,
    },
    /// The rows of a block could not be read.
    #[error("chunk {chunk} of block {block} could not be read")]
    Rows {
        /// Number of the block.
        block: usize,
        /// Number of the chunk in the block.
        chunk: u32,
        /// Why.
        source: BoxError,
    },
}
