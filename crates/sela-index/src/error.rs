//! What can go wrong in a search, told to a reader: values inside, causes kept, advice apart.

pub use sela_compute::error::BoxError;

/// What went wrong in a search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The queries are no whole vectors.
    #[error("{found} numbers are no whole queries of {dim} numbers each")]
    Queries {
        /// Numbers in a vector.
        dim: usize,
        /// Numbers given.
        found: usize,
    },
    /// A query holds a number that is not finite.
    #[error("{query} holds {value} at position {position}")]
    NotFinite {
        /// Which query.
        query: String,
        /// Index of the number in the query.
        position: usize,
        /// The number.
        value: f32,
    },
    /// A value is outside its documented limits.
    #[error("{what} is {value}, the limit is {limit}")]
    Limit {
        /// What was looked at.
        what: &'static str,
        /// The value.
        value: usize,
        /// The limit.
        limit: usize,
    },
    /// The searcher cannot run on this machine as asked.
    #[error("this machine has no {0}")]
    Missing(String),
    /// The source could not describe a part.
    #[error("part {part} could not be opened")]
    Part {
        /// Number of the part.
        part: usize,
        /// Why.
        source: BoxError,
    },
    /// A part is not what it says it is.
    #[error("part {part} has {rows} rows but {what} for {found} rows")]
    PartShape {
        /// Number of the part.
        part: usize,
        /// Rows of the part.
        rows: usize,
        /// What is too short.
        what: &'static str,
        /// Rows that it would do for.
        found: usize,
    },
    /// The rows of a block could not be read.
    #[error("block {block} of part {part} could not be read")]
    Block {
        /// Number of the part.
        part: usize,
        /// Number of the block in its part.
        block: usize,
        /// Why.
        source: BoxError,
    },
    /// A kernel failed in a way that has no name here.
    #[error("the search failed")]
    Kernel(#[source] BoxError),
}

impl Error {
    /// What a reader might do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Queries { .. } => {
                Some("embed the query with the model that the stored vectors come from")
            }
            Self::NotFinite { .. } => Some("vectors hold finite numbers only, no NaN or infinity"),
            Self::Limit { .. } => Some("stay between 1 and the limit"),
            Self::Missing(_) => Some("leave the choice of instruction set to the machine"),
            Self::Part { .. } | Self::Block { .. } => {
                Some("verify the stored data, and restore what is damaged from a snapshot")
            }
            Self::PartShape { .. } | Self::Kernel(_) => None,
        }
    }
}

/// Errors of the kernels that concern the request, in this crate's words.
impl From<sela_compute::Error> for Error {
    fn from(error: sela_compute::Error) -> Self {
        match error {
            sela_compute::Error::NotFinite {
                what,
                position,
                value,
            } => Self::NotFinite {
                query: what,
                position,
                value,
            },
            sela_compute::Error::Limit { what, value, limit } => Self::Limit { what, value, limit },
            sela_compute::Error::Missing(what) => Self::Missing(what),
            other => Self::Kernel(Box::new(other)),
        }
    }
}

/// A block that is shorter or longer than its rows.
#[derive(Debug, thiserror::Error)]
#[error("it should hold {expected} bytes, but holds {found}")]
pub(crate) struct BlockLength {
    pub(crate) expected: usize,
    pub(crate) found: usize,
}
