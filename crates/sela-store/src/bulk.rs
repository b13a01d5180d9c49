//! Bulk loading: rows stream into segments.

use crate::collection::Collection;
use crate::error::Result;
use crate::model::{Row, Written};

/// A bulk load under way; rows not committed when it is dropped are lost, cleanly.
#[derive(Debug)]
pub struct Bulk<'a> {
    #[allow(dead_code)]
    collection: &'a Collection,
}

#[allow(unused_variables)]
impl Bulk<'_> {
    /// Adds a row; when the segment under way is full it is sealed and committed, and what was
    /// written so far is returned.
    pub fn push(&mut self, row: Row) -> Result<Option<Written>> {
        unimplemented!()
    }
    /// Seals and commits what is left; rows of the whole load are counted.
    pub fn commit(self) -> Result<Written> {
        unimplemented!()
    }
    /// What is committed so far.
    pub fn written(&self) -> Written {
        unimplemented!()
    }
}
