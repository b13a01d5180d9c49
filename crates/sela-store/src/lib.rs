//! Vectors, payloads and texts that survive: immutable mapped segments and a SQLite catalog.

#[allow(unsafe_code)]
mod map;

mod bulk;
mod collection;
pub mod disk;
mod error;
mod filter;
mod id;
pub mod limits;
mod model;
mod view;

pub use bulk::Bulk;
pub use collection::{Collection, verify};
pub use error::{Cause, Damage, DamagePlace, Error, Result, VectorFault};
pub use filter::{Bounds, Filter, FilterError};
pub use id::{Id, IdError};
pub use model::{
    Fields, Info, Maintained, Op, Options, Page, Payload, Place, Record, Report, Row, Schema,
    Written,
};
pub use view::{Block, Part, Seqs, View};
