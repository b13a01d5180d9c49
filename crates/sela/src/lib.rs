//! Sela turns text into vectors on this machine, keeps them safe and finds the nearest.
//!
//! ```no_run
//! use sela::{CollectionOptions, Engine, Item, Options, Query};
//!
//! let engine = Engine::open(Options::new("/var/lib/sela"))?;
//! engine.models().find_or_pull("all-MiniLM-L6-v2", &mut |_| {})?;
//! let notes = engine.collection_or_create("notes", &CollectionOptions::default())?;
//! notes.upsert(&[Item::text(1, "The meeting is moved to Thursday.")])?;
//! for hit in notes.query(&Query::text("When do we meet?").k(3))? {
//!     println!("{:.3} {:?}", hit.score, hit.text);
//! }
//! # Ok::<(), sela::Error>(())
//! ```
//!
//! The library is silent: it prints nothing, reads no environment variables, starts no runtime,
//! and asks the network for nothing but what [`models`] is told to fetch.

#![forbid(unsafe_code)]

pub mod bench;
mod checkup;
mod collection;
mod database;
pub mod demo;
mod device;
mod engine;
mod error;
mod golden;
mod histogram;
mod load;
pub mod models;
mod names;
mod query;
mod random;
mod schedule;
mod scratch;
mod search;
mod stats;
pub mod validate;

pub use checkup::{GpuProbe, GpuTest};
pub use collection::{Collection, CollectionOptions, IntoId, Item, Upserted, Vectors};
pub use database::{DATABASE_BYTES_MAX, Database, Found};
pub use device::NoGpu;
pub use engine::{Engine, GPU_CACHE, Options, SCAN_CACHE};
pub use error::{Error, Result};
pub use histogram::{Sizes, Times};
pub use load::{Items, LoadEvent, LoadOptions, LoadWatch, Loaded, source_name};
pub use names::NAME_MAX;
pub use query::{Hit, Metric, Near, Query, metric_name, metric_named};
pub use schedule::{EmbedOptions, Lane, QueueOptions, Ticket};
pub use sela_compute::inventory::{GpuFacts, GpuKind, MatrixNumber, MatrixShape, MetalFacts};
pub use sela_compute::{
    Arithmetic, DeviceChoice, Inventory, Isa, Tier, UnknownDevice, scan_self_test, self_test,
};
pub use sela_encoder::Error as EncoderError;
pub use sela_encoder::{Dtype, Embeddings, Encoder, Report as EncoderReport, SelfTest, TextInfo};
pub use sela_index::Error as IndexError;
pub use sela_store::Error as StoreError;
pub use sela_store::{
    Bounds, Damage, Edit, Edited, FieldPath, FieldPathError, Fields, Filter, FilterError, Id,
    IdError, IdPage, Info, Maintained, Page, Payload, Record, Report as VerifyReport, Row, Schema,
    Test, TextQuery, TextQueryError, Which, Words, Written, keep_fields, leave_fields,
};
pub use stats::{Capabilities, Codes, GpuMemory, LaneStats, Pages, SearchStats, Stats};
