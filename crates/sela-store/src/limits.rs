//! Every limit of the store, in one place; reaching one is [`crate::Error::Limit`].

use serde_json::Value;

use crate::error::{Error, Result};

/// Most numbers in a vector.
pub const DIM_MAX: u32 = 65_536;
/// Most bytes in a string id.
pub const ID_BYTES_MAX: usize = 512;
/// Most bytes in a payload, written as JSON.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays and objects in a payload, itself counted, and in the provenance of a
/// schema. Readers of JSON give up at some depth, this store's own at 128.
pub const PAYLOAD_DEPTH_MAX: usize = 64;
/// Most bytes in a row's text.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// Most operations in one batch of [`crate::Collection::write`].
pub const BATCH_OPS_MAX: usize = 100_000;
/// Most bytes (vectors, ids, payloads and texts together) in one batch.
pub const BATCH_BYTES_MAX: usize = 512 << 20;
/// Most bytes of rows that [`crate::Collection::edit`] changes in one step.
pub const EDIT_BYTES_MAX: usize = 128 << 20;
/// Most rows that [`crate::Collection::edit`] deletes in one step.
pub const DELETE_ROWS_MAX: usize = 4 << 20;
/// Largest squared length of a vector: scores of two such vectors stay finite in `f32`.
pub const NORM_SQUARED_MAX: f64 = 5e37;
/// Most rows in one segment.
pub const SEGMENT_ROWS_MAX: usize = 4 << 20;
/// Most segments in a collection.
pub const SEGMENTS_MAX: usize = 65_536;
pub(crate) const SEGMENTS_WHAT: &str = "the number of segments";
/// Bytes of fresh vectors, which are in memory, that make the store seal them, however few rows
/// they are.
pub const FRESH_BYTES_MAX: usize = 256 << 20;
/// Most conditions in a filter.
pub const FILTER_NODES_MAX: usize = 256;
/// Most values (of `in` and `ids`) in a filter.
pub const FILTER_VALUES_MAX: usize = 100_000;
/// Deepest nesting of `and`, `or` and `not` in a filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Most steps (names, `[]` and `[n]`) of a [`crate::FieldPath`].
pub const FIELD_STEPS_MAX: usize = 64;
/// Most rows a page of [`crate::Collection::scroll`] holds, and most ids of one `get`.
pub const PAGE_ROWS_MAX: usize = 100_000;
/// Most bytes of what texts are searched for.
pub const TEXT_QUERY_BYTES_MAX: usize = 8 << 10;
/// Most words and phrases of what texts are searched for, equal ones counted once.
pub const TEXT_QUERY_TERMS_MAX: usize = 256;
/// Most bytes of a schema, written as JSON.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Refuses JSON that is nested too deeply; `outer` levels are around `values`.
pub(crate) fn check_depth<'a>(
    what: impl FnOnce() -> String,
    outer: usize,
    values: impl Iterator<Item = &'a Value>,
) -> Result<()> {
    let mut deepest = outer;
    // No recursion: there is no limit yet to how deep this goes.
    let mut open: Vec<(&Value, usize)> = values.map(|value| (value, outer)).collect();
    while let Some((value, depth)) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|item| (item, depth + 1))),
            _ => continue,
        }
        deepest = deepest.max(depth + 1);
    }
    if deepest > PAYLOAD_DEPTH_MAX {
        return Err(Error::limit(what(), deepest, PAYLOAD_DEPTH_MAX));
    }
    Ok(())
}

/// Fresh rows at which a collection seals: as many as asked for, or as fit into memory.
pub(crate) fn seal_rows(asked: usize, row_bytes: usize) -> usize {
    asked.min(FRESH_BYTES_MAX / row_bytes.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_vectors_are_sealed_sooner() {
        assert_eq!(seal_rows(65_536, 384 * 4), 65_536);
        assert_eq!(seal_rows(65_536, DIM_MAX as usize * 4), 1024);
        assert_eq!(seal_rows(1, DIM_MAX as usize * 4), 1);
    }
}
