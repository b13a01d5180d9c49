//! A question's whole way: embedded, its nearest verses found, their texts fetched.

use super::sides::Uses;
use super::{Bench, Figure, Workload, millis, percentile, timed};
use crate::collection::{Collection, CollectionOptions};
use crate::demo::{self, QUESTIONS};
use crate::engine::Engine;
use crate::error::Result;
use crate::load::{Items, LoadOptions};
use crate::query::Query;

const NAME: &str = "verses";
/// Rounds of all questions; the first is a rehearsal.
const ROUNDS: usize = 20;

pub(super) fn rag(bench: &Bench<'_>, found: &mut dyn FnMut(Figure)) -> Result<()> {
    fill(bench)?;
    let k = bench.options.k;
    let rounds = ROUNDS * bench.options.repeat.max(1);
    for side in &bench.sides {
        let collection = side.engine.collection_read_only(NAME)?;
        let rows = usize::try_from(collection.info()?.rows_live).unwrap_or(usize::MAX);
        let measure = |_: &Engine| {
            let mut taken = Vec::new();
            for round in 0..=rounds {
                for question in QUESTIONS {
                    let query = Query::text(question).k(k);
                    let (took, _) = timed(|| collection.query(&query))?;
                    if round > 0 {
                        taken.push(millis(took));
                    }
                }
            }
            Ok(vec![Figure {
                name: Workload::Rag.name(),
                unit: Some("ms"),
                rows: Some(rows),
                p50: Some(percentile(&mut taken, 0.5)),
                p99: Some(percentile(&mut taken, 0.99)),
                ..Figure::default()
            }])
        };
        side.proven(Workload::Rag.name(), Uses::Both, measure)?
            .into_iter()
            .for_each(&mut *found);
    }
    Ok(())
}

/// Puts the verses where all sides see them: a copy of the demo's, if it is there and whole, else
/// embedded by the last side, which is the quickest if one is a GPU.
fn fill(bench: &Bench<'_>) -> Result<()> {
    let (count, Some(side)) = (bench.options.verses, bench.sides.last()) else {
        return Ok(());
    };
    let to = bench.scratch.path().join("collections").join(NAME);
    if let Some(demo) = demo_collection(bench.engine, count)? {
        return demo.snapshot(&to);
    }
    let collection = side.engine.create(NAME, &CollectionOptions::default())?;
    let mut open = || -> Result<Items<'static>> { Ok(Box::new(demo::items()?.take(count))) };
    let watch = &mut |_| std::ops::ControlFlow::Continue(());
    collection.load(NAME, &mut open, &LoadOptions::default(), watch)?;
    Ok(())
}

/// The demo's collection, if it holds just these verses in the engine's space.
fn demo_collection(engine: &Engine, count: usize) -> Result<Option<Collection>> {
    let Ok(demo) = engine.collection_read_only(demo::COLLECTION) else {
        return Ok(None);
    };
    let space = engine.encoder()?.space().to_string();
    let fits = demo.info()?.rows_live == count as u64 && demo.schema().space == space;
    Ok(fits.then_some(demo))
}
