//! Vectors, payloads and texts that survive: immutable mapped segments and a SQLite catalog.
//!
//! A [`Collection`] is one folder. Rows go in by batches ([`Collection::write`]) or in bulk
//! ([`Collection::bulk`]), and are on stable storage once that returns. A [`View`] shows the
//! vectors as they were at one moment, in blocks that whoever searches can read as they lie.
//!
//! ```
//! use sela_store::{Collection, Filter, Op, Options, Row, Schema};
//!
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path().join("verses");
//! let verses = Collection::create(&dir, &Schema::new(2, "example"), &Options::default())?;
//! let mut row = Row::new(1, vec![0.6, 0.8]);
//! row.payload = serde_json::from_str(r#"{"book": "Ruth"}"#)?;
//! verses.write(&[Op::Upsert(row), Op::Upsert(Row::new(2, vec![1.0, 0.0]))])?;
//!
//! let view = verses.view()?;
//! for part in view.parts() {
//!     for block in 0..part.blocks() {
//!         assert_eq!(part.block(block)?.records.len(), 2 * part.row_bytes());
//!     }
//! }
//! assert_eq!(verses.count(Some(&Filter::eq("book", "Ruth")))?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[allow(unsafe_code)]
mod map;

mod bits;
mod bulk;
mod by_id;
mod catalog;
mod collection;
pub mod disk;
mod edit;
mod error;
mod field;
mod filter;
mod fresh;
mod id;
pub mod limits;
mod maintain;
mod model;
mod open;
mod read;
mod records;
mod segment;
mod shape;
mod snapshot;
mod sum;
mod text;
mod verify;
mod view;
mod write;

pub use bulk::Bulk;
pub use by_id::IdPage;
pub use collection::Collection;
pub use edit::{Edit, Edited, Which};
pub use error::{Cause, Damage, DamagePlace, Error, Result, VectorFault};
pub use field::{FieldPath, FieldPathError, keep_fields, leave_fields};
pub use filter::{Bounds, Filter, FilterError, Test, Words};
pub use id::{Id, IdError};
pub use model::{
    Fields, Info, Maintained, Op, Options, Page, Payload, Place, Record, Report, Row, Schema,
    Written,
};
pub use text::{TextHit, TextQuery, TextQueryError};
pub use verify::verify;
pub use view::{Block, Part, Seqs, View};
