//! Every limit of the store, in one place; reaching one is [`crate::Error::Limit`].

/// Most numbers in a vector.
pub const DIM_MAX: u32 = 65_536;
/// Most bytes in a string id.
pub const ID_BYTES_MAX: usize = 512;
/// Most bytes in a payload, written as JSON.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Most bytes in a row's text.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// Most operations in one batch of [`crate::Collection::write`].
pub const BATCH_OPS_MAX: usize = 100_000;
/// Most bytes (vectors, ids, payloads and texts together) in one batch.
pub const BATCH_BYTES_MAX: usize = 512 << 20;
/// Largest squared length of a vector: scores of two such vectors stay finite in `f32`.
pub const NORM_SQUARED_MAX: f64 = 5e37;
/// Most rows in one segment.
pub const SEGMENT_ROWS_MAX: usize = 4 << 20;
/// Most segments in a collection.
pub const SEGMENTS_MAX: usize = 65_536;
/// Most conditions in a filter.
pub const FILTER_NODES_MAX: usize = 256;
/// Most values (of `in` and `ids`) in a filter.
pub const FILTER_VALUES_MAX: usize = 100_000;
/// Deepest nesting of `and`, `or` and `not` in a filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Most rows a page of [`crate::Collection::scroll`] holds, and most ids of one `get`.
pub const PAGE_ROWS_MAX: usize = 100_000;
/// Most bytes of a schema, written as JSON.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;
