//! Every JSON type of the wire, and nothing else.

pub(crate) mod documents;
pub(crate) mod error;
pub(crate) mod health;
pub(crate) mod metal4;
pub(crate) mod openai;
pub(crate) mod qdrant;
pub(crate) mod rows;
