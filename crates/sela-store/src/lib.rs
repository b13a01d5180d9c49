//! Vectors, payloads and texts that survive: immutable mapped segments and a SQLite catalog.

#[allow(unsafe_code)]
mod map;

pub mod disk;
