//! Vectors, payloads and texts that survive: immutable mapped segments and a SQLite catalog.

#[allow(unsafe_code)]
mod map;

mod bits;
mod bulk;
mod catalog;
mod collection;
pub mod disk;
mod error;
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
mod verify;
mod view;
mod write;

pub use bulk::Bulk;
pub use collection::Collection;
pub use error::{Cause, Damage, DamagePlace, Error, Result, VectorFault};
pub use filter::{Bounds, Filter, FilterError};
pub use id::{Id, IdError};
pub use model::{
    Fields, Info, Maintained, Op, Options, Page, Payload, Place, Record, Report, Row, Schema,
    Written,
};
pub use verify::verify;
pub use view::{Block, Part, Seqs, View};
