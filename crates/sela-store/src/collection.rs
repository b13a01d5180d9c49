//! The door: a collection that is created, opened, written and read.

use std::path::Path;

use crate::bulk::Bulk;
use crate::error::Result;
use crate::filter::Filter;
use crate::id::Id;
use crate::model::{
    Fields, Info, Maintained, Op, Options, Page, Place, Report, Row, Schema, Written,
};
use crate::view::View;

/// A collection of rows in one folder.
#[derive(Debug)]
pub struct Collection {}

#[allow(unused_variables)]
impl Collection {
    /// Creates a collection in a new or empty folder and opens it for writing.
    pub fn create(dir: &Path, schema: &Schema, options: &Options) -> Result<Self> {
        unimplemented!()
    }
    /// Opens a collection.
    pub fn open(dir: &Path, options: &Options) -> Result<Self> {
        unimplemented!()
    }
    /// Its folder.
    pub fn dir(&self) -> &Path {
        unimplemented!()
    }
    /// What it holds.
    pub fn schema(&self) -> &Schema {
        unimplemented!()
    }
    /// Applies a batch, all or nothing.
    pub fn write(&self, ops: &[Op]) -> Result<Written> {
        unimplemented!()
    }
    /// Starts a bulk load.
    pub fn bulk(&self) -> Result<Bulk<'_>> {
        unimplemented!()
    }
    /// A consistent picture.
    pub fn view(&self) -> Result<View> {
        unimplemented!()
    }
    /// Rows by id.
    pub fn get(&self, ids: &[Id], what: Fields) -> Result<Vec<Option<Row>>> {
        unimplemented!()
    }
    /// Rows by place.
    pub fn fetch(&self, view: &View, places: &[Place], what: Fields) -> Result<Vec<Row>> {
        unimplemented!()
    }
    /// How many rows meet the condition.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        unimplemented!()
    }
    /// Rows by ascending sequence.
    pub fn scroll(
        &self,
        after: Option<u64>,
        limit: usize,
        filter: Option<&Filter>,
        what: Fields,
    ) -> Result<Page> {
        unimplemented!()
    }
    /// For each part, one bit per row: live and meeting the condition.
    pub fn select(&self, view: &View, filter: &Filter) -> Result<Vec<Vec<u64>>> {
        unimplemented!()
    }
    /// Moves fresh rows into a segment.
    pub fn seal(&self) -> Result<Maintained> {
        unimplemented!()
    }
    /// Rewrites segments with many dead rows.
    pub fn compact(&self) -> Result<Maintained> {
        unimplemented!()
    }
    /// Reads everything and names every fault.
    pub fn verify(&self) -> Result<Report> {
        unimplemented!()
    }
    /// Writes a second collection with the same contents.
    pub fn snapshot(&self, dest: &Path) -> Result<()> {
        unimplemented!()
    }
    /// How it stands.
    pub fn info(&self) -> Result<Info> {
        unimplemented!()
    }
    /// A digest of the contents.
    pub fn fingerprint(&self) -> Result<u128> {
        unimplemented!()
    }
}

/// Reads everything in a collection's folder, one that does not open included, and names every
/// fault.
#[allow(unused_variables)]
pub fn verify(dir: &Path, options: &Options) -> Result<Report> {
    unimplemented!()
}
