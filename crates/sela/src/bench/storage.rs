//! Vectors onto the disk and back.

use super::{Bench, Figure, median, timed};
use crate::collection::{CollectionOptions, Item};
use crate::error::Result;
use crate::load::{Items, LoadOptions};
use crate::random::Random;
use sela_store::{Fields, Id};

pub(super) const DIM: usize = 384;
const NAME: &str = "storage";
const PAGE_ROWS: usize = 4_096;

/// Rows a second, written until they are durable, and read with their checksums compared.
pub(super) fn storage(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let rows = bench.options.storage_rows.max(1);
    let Some(side) = bench.sides.first() else {
        return Ok(Vec::new());
    };
    let numbers = Random::new(3).unit_rows(rows, DIM);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.repeat.max(1) {
        let collection = side
            .engine
            .create(NAME, &CollectionOptions::external(DIM))?;
        // Items are made beforehand: making them is not writing.
        let items: Vec<Item> = numbers
            .chunks_exact(DIM)
            .zip(0u64..)
            .map(|(vector, id)| Item::vector(Id::Num(id), vector))
            .collect();
        let mut items = Some(items);
        let mut open = || -> Result<Items<'static>> {
            Ok(Box::new(
                items.take().unwrap_or_default().into_iter().map(Ok),
            ))
        };
        let watch = &mut |_| std::ops::ControlFlow::Continue(());
        let options = LoadOptions::default();
        let (took, _) = timed(|| collection.load(NAME, &mut open, &options, watch))?;
        writes.push(rows as f64 / took.as_secs_f64());
        drop(collection);

        // Opened anew, so that every block is checked again.
        let collection = side.engine.collection_read_only(NAME)?;
        let fields = Fields {
            vector: true,
            payload: false,
            text: false,
        };
        let read = || -> Result<usize> {
            let (mut after, mut seen) = (None, 0);
            loop {
                let page = collection.scroll(after, PAGE_ROWS, None, fields)?;
                seen += page.rows.len();
                after = page.next;
                if after.is_none() {
                    return Ok(seen);
                }
            }
        };
        let (took, seen) = timed(read)?;
        reads.push(seen as f64 / took.as_secs_f64());
        drop(collection);
        side.engine.delete(NAME)?;
    }
    let figure = |name, values: &mut Vec<f64>| Figure {
        name,
        rows: Some(rows),
        rows_per_s: Some(median(values)),
        ..Figure::default()
    };
    Ok(vec![
        figure("storage_write", &mut writes),
        figure("storage_read", &mut reads),
    ])
}
