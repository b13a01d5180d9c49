//! The GPU against the CPU: the same vectors, and the same answers to the last bit.

use sela_compute::DeviceChoice;
use sela_compute::inventory::GpuFacts;
use sela_encoder::Dtype;
use sela_store::{Id, Record};

use super::vectors::{Distance, name_of};
use super::{Check, Checks, Outcome, skipped, verdict};
use crate::collection::{Collection, CollectionOptions, Item};
use crate::device::NoGpu;
use crate::engine::{Engine, Options};
use crate::error::Result;
use crate::query::{Metric, Query, metric_name};
use crate::random::Random;
use crate::scratch::Scratch;

/// The least cosine of a vector by f16 on the GPU to that by f32 on the CPU.
const COSINE_MIN: f64 = 0.9999;
/// The largest difference of a number by f32 on the GPU to that on the CPU.
const DIFFERENCE_MAX: f32 = 1e-5;

const ROWS: usize = 1_500;
/// So many numbers that the rows are worth the GPU's while.
const DIMS: [usize; 3] = [65, 384, 1_025];
const QUERIES: usize = 3;

/// The kernels' own tests, run anew: before anything else, so that kernels which have gone wrong
/// are not used for the rest.
pub(super) fn kernels(engine: &Engine, checks: &mut Checks<'_>) -> Result<()> {
    let Some(gpu) = engine.device()? else {
        checks.run("kernels of the GPU are right", || skipped(lack(engine)?));
        return Ok(());
    };
    for test in engine.gpu_self_tests()? {
        let device = DeviceChoice::Number(gpu.index);
        checks.note(Check {
            name: format!("{} on {device}", test.what),
            outcome: match test.veto {
                None => verdict(true, "right answers"),
                Some(veto) => verdict(false, veto),
            },
            took: test.took,
        });
    }
    Ok(())
}

/// What the GPU answers.
pub(super) fn run(engine: &Engine, checks: &mut Checks<'_>) -> Result<()> {
    let gpu = engine.device()?;
    for dtype in [Dtype::F32, Dtype::Auto] {
        let name = format!("{} vectors of the GPU are the CPU's", name_of(dtype));
        checks.run(name, || match &gpu {
            Some(gpu) => vectors(engine, gpu, dtype),
            None => skipped(lack(engine)?),
        });
    }
    for record in [Record::F32, Record::F16] {
        let kind = format!("{record:?}").to_lowercase();
        let name = format!("searches of {kind} rows by the GPU give the CPU's answers");
        checks.run(name, || match &gpu {
            Some(gpu) => searches(engine, gpu, record),
            None => skipped(lack(engine)?),
        });
    }
    Ok(())
}

/// Why there is no GPU to check.
fn lack(engine: &Engine) -> Result<String> {
    Ok(match engine.no_gpu()? {
        Some(NoGpu { why, failed: true }) => format!("a GPU that opens: {why}"),
        Some(NoGpu { why, .. }) => format!("a GPU in use: everything is done by {why}"),
        None => "a GPU".to_owned(),
    })
}

/// An engine of its own on a device.
fn on(engine: &Engine, change: impl FnOnce(&mut Options)) -> Result<Engine> {
    let mut options = engine.options().clone();
    change(&mut options);
    Engine::open(options)
}

fn vectors(engine: &Engine, gpu: &GpuFacts, dtype: Dtype) -> Result<Outcome> {
    let texts = crate::golden::golden().texts;
    let cpu = on(engine, |options| {
        options.device = DeviceChoice::Cpu;
        options.dtype = Dtype::F32;
    })?;
    let gpu = on(engine, |options| {
        options.device = DeviceChoice::Number(gpu.index);
        options.dtype = dtype;
    })?;
    let expected = cpu.embed_batch(&texts)?;
    let before = gpu.stats();
    let found = gpu.embed_batch(&texts)?;
    if let Err(instead) = crate::bench::embedded_by_gpu(&before, &gpu.stats()) {
        return Ok(Outcome::Fail { found: instead });
    }
    let report = gpu.encoder()?.report();
    let off = Distance::between(&found.vectors, &expected.vectors, found.dim);
    let passed = match dtype {
        Dtype::F32 => off.largest <= DIFFERENCE_MAX,
        _ => off.least >= COSINE_MIN,
    };
    let variant = report.variant.unwrap_or_default();
    Ok(verdict(
        passed,
        format!(
            "{} texts by {}, {variant} kernels on {}: largest difference {:.1e}, cosine {:.7} at least",
            texts.len(),
            report.arithmetic,
            report.device,
            off.largest,
            off.least
        ),
    ))
}

fn searches(engine: &Engine, gpu: &GpuFacts, record: Record) -> Result<Outcome> {
    let scratch = Scratch::new(&engine.options().home, "validate")?;
    let with = |device| {
        on(engine, |options| {
            options.device = device;
            options.data = scratch.path().to_owned();
        })
    };
    let (cpu, gpu) = (
        with(DeviceChoice::Cpu)?,
        with(DeviceChoice::Number(gpu.index))?,
    );
    let mut compared = 0;
    for dim in DIMS {
        let name = format!("rows-{dim}");
        drop(filled(&cpu, &name, record, dim)?);
        let (by_cpu, by_gpu) = (
            cpu.collection_read_only(&name)?,
            gpu.collection_read_only(&name)?,
        );
        let queries = Random::new(dim as u64 + 7).numbers(QUERIES * dim);
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for k in [1, 10, 1_000] {
                for query in queries.chunks_exact(dim) {
                    let query = Query::vector(query).k(k).metric(metric);
                    let (expected, found) = (bits(&by_cpu, &query)?, bits(&by_gpu, &query)?);
                    if found != expected {
                        let metric = metric_name(metric);
                        let found = format!("another answer for {metric}, {dim} numbers, k {k}");
                        return Ok(Outcome::Fail { found });
                    }
                    compared += found.len();
                }
            }
        }
    }
    let searches = gpu.stats().searches;
    if searches.on_cpu > 0 || searches.gpu_queries == 0 {
        let why = searches.last.unwrap_or_default();
        let found = format!("the CPU did {} of the searches: {why}", searches.on_cpu);
        return Ok(Outcome::Fail { found });
    }
    let all = searches.gpu_queries + searches.gpu_left;
    Ok(verdict(
        compared > 0,
        format!(
            "{compared} hits compared bit for bit; the GPU answered {} of {all} queries",
            searches.gpu_queries
        ),
    ))
}

/// Ids with scores to the last bit.
fn bits(collection: &Collection, query: &Query) -> Result<Vec<(Id, u32)>> {
    let mut query = query.clone();
    query.with_document = false;
    let hits = collection.query(&query)?;
    Ok(hits
        .into_iter()
        .map(|hit| (hit.id, hit.score.to_bits()))
        .collect())
}

/// A collection with copies, opposites and near copies among its rows, dead rows, and rows that
/// are not in a segment yet.
fn filled(engine: &Engine, name: &str, record: Record, dim: usize) -> Result<Collection> {
    let options = CollectionOptions {
        record,
        ..CollectionOptions::external(dim)
    };
    let collection = engine.create(name, &options)?;
    let mut random = Random::new(dim as u64);
    let mut rows: Vec<Vec<f32>> = (0..ROWS).map(|_| random.numbers(dim)).collect();
    for at in (7..ROWS).step_by(7) {
        let copy = rows[at - 7].clone();
        rows[at] = match at % 3 {
            0 => copy,
            1 => copy.iter().map(|x| -x).collect(),
            _ => copy
                .iter()
                .map(|x| f32::from_bits(x.to_bits() ^ 1))
                .collect(),
        };
    }
    let items: Vec<Item> = rows
        .into_iter()
        .zip(0u64..)
        .map(|(row, id)| Item::vector(id, row))
        .collect();
    let sealed = ROWS - 100;
    collection.upsert(&items[..sealed])?;
    collection.store().seal()?;
    collection.upsert(&items[sealed..])?;
    collection.delete(&[Id::Num(5), Id::Num(700)])?;
    Ok(collection)
}
