//! Known-answer test of the ranking kernels on the device itself: the best rank of every group,
//! held against exact ones. A self-test may only veto.

use super::RECORDS;
use super::kernels::Variant;
use super::pages::Pages;
use super::space::{Packed, index};
use super::units::{Asked, Layout, Once, cut};
use super::work::{Engine, Job, Seen};
use crate::cpu::scan::CpuScan;
use crate::error::Error;
use crate::gpu::Fault;
use crate::inventory::{GpuFacts, MatrixNumber};
use crate::scan::{Block, Metric, PageId, Queries, Record, Seqs};

/// Numbers of a vector: no whole pieces, neither of f32 nor of f16.
const DIM: usize = 49;
/// Rows: some tiles and a part of one.
const ROWS: usize = 1_000;
/// Bytes of device memory that the test may take.
const CACHE_BYTES: u64 = 8 << 20;

/// What the self-tests have left of the kernels.
pub(super) struct Passed {
    /// The matrices' side, if they pass.
    pub(super) matrix: Option<u32>,
    /// Whether subgroups do.
    pub(super) subgroup: bool,
    /// What did not, and why.
    pub(super) vetoes: Vec<String>,
}

/// The best kernels that pass, of what `most` allows. Fails when not even plain kernels do.
pub(super) fn best(engine: &Engine, cpu: &CpuScan, most: Variant) -> Result<Passed, Error> {
    let facts = engine.gpu.facts();
    let sizes = facts.subgroup.filter(|_| most <= Variant::Subgroup);
    let mut few = None;
    let (mut vetoed, mut vetoes) = (None, Vec::new());
    for with in [true, false] {
        if with && sizes.is_none_or(|(_, largest)| largest < 8) {
            continue;
        }
        match check(engine, cpu, None, with) {
            Ok(()) => {
                few = Some(with);
                break;
            }
            Err(veto @ Error::SelfTest(_)) => {
                tracing::warn!(gpu = %facts.name, %veto, "search kernels vetoed");
                vetoes.push(veto.to_string());
                vetoed = Some(veto);
            }
            // A kernel that does not compile is as good as one that is wrong.
            Err(Error::Device { reason, .. }) if with && !engine.gpu.is_lost() => {
                tracing::warn!(gpu = %facts.name, reason, "search kernels with subgroups fail");
                vetoes.push(format!("search kernels with subgroups: {reason}"));
            }
            Err(other) => return Err(other),
        }
    }
    let Some(subgroup) = few else {
        return Err(vetoed.unwrap_or_else(|| Error::SelfTest("search on a GPU".into())));
    };
    let side = side(facts).filter(|_| most == Variant::Matrix);
    let mut matrix = None;
    if let Some(side) = side {
        match check(engine, cpu, Some(side), subgroup) {
            Ok(()) => matrix = Some(side),
            Err(Error::Device { reason, .. }) if engine.gpu.is_lost() => {
                return Err(engine.gpu.error(reason));
            }
            Err(veto) => {
                tracing::warn!(gpu = %facts.name, %veto, "search kernels on matrices vetoed");
                vetoes.push(veto.to_string());
            }
        }
    }
    Ok(Passed {
        matrix,
        subgroup,
        vetoes,
    })
}

/// The side of the matrices of f16 with sums in f32, if there are any that the kernel can use.
fn side(facts: &GpuFacts) -> Option<u32> {
    let fits = |side: u32| {
        facts.matrix.iter().any(|shape| {
            (shape.m, shape.n, shape.k) == (side, side, side)
                && shape.operands == MatrixNumber::F16
                && shape.sums == MatrixNumber::F32
        })
    };
    let subgroups = facts
        .subgroup
        .is_some_and(|(least, most)| (least..=most).contains(&32));
    let side = [16, 8].into_iter().find(|side| fits(*side))?;
    (facts.f16 && subgroups).then_some(side)
}

/// Holds one variant against exact ranks, over all metrics and the records that it is for.
fn check(engine: &Engine, cpu: &CpuScan, matrix: Option<u32>, subgroup: bool) -> Result<(), Error> {
    let name = match (matrix, subgroup) {
        (Some(_), _) => Variant::Matrix,
        (None, true) => Variant::Subgroup,
        (None, false) => Variant::Plain,
    };
    if engine.gpu.faults().strike(Fault::WrongAnswer) {
        return Err(Error::SelfTest(format!(
            "{name} search kernels: a fault on demand"
        )));
    }
    let batches: &[usize] = if matrix.is_some() { &[65] } else { &[1, 8] };
    let small = Pages::new(&engine.gpu, CACHE_BYTES);
    let old = std::mem::replace(&mut *engine.lock(), small);
    drop(old);
    let result = RECORDS
        .into_iter()
        .filter(|record| matrix.is_none() || *record == Record::F16)
        .try_for_each(|record| {
            let rows = Rows::new(record);
            [Metric::Cosine, Metric::Dot, Metric::L2]
                .into_iter()
                .try_for_each(|metric| {
                    batches.iter().try_for_each(|queries| {
                        rows.check(engine, cpu, (matrix, subgroup), metric, *queries)
                    })
                })
        });
    // Bindings to slabs that go with the test's pages.
    if let Ok(mut spaces) = engine.spaces.lock() {
        spaces.clear();
    }
    result.map_err(|error| match error {
        Error::SelfTest(what) => Error::SelfTest(format!("{name} search kernels: {what}")),
        other => other,
    })
}

/// The test's rows.
struct Rows {
    record: Record,
    bytes: Vec<u8>,
    /// The same, exactly.
    numbers: Vec<f64>,
    live: Vec<u64>,
}

impl Rows {
    /// Rows of all sorts: random ones, copies, zeros, and f16 denormals, which a device may not
    /// take for zeros; two words of the bitmap dead and some bits.
    fn new(record: Record) -> Self {
        let mut state = 7u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut rows = Self {
            record,
            bytes: Vec::new(),
            numbers: Vec::new(),
            live: vec![!0u64; ROWS.div_ceil(64)],
        };
        for row in 0..ROWS {
            let scale = match row {
                70 => 0.0,
                192..256 => 4e-6,
                _ => 1.0,
            };
            for _ in 0..DIM {
                let x = number() * scale;
                match record {
                    Record::F32 => {
                        rows.bytes.extend(x.to_le_bytes());
                        rows.numbers.push(f64::from(x));
                    }
                    Record::F16 => {
                        let x = half::f16::from_f32(x);
                        rows.bytes.extend(x.to_le_bytes());
                        rows.numbers.push(x.to_f64());
                    }
                }
            }
        }
        rows.live[5] = 0;
        rows.live[6] = 0x0123_4567_89ab_cdef;
        rows
    }

    /// One batch of queries.
    fn check(
        &self,
        engine: &Engine,
        cpu: &CpuScan,
        (matrix, subgroup): (Option<u32>, bool),
        metric: Metric,
        queries: usize,
    ) -> Result<(), Error> {
        let block = Block {
            rows: &self.bytes,
            len: ROWS as u32,
            chunk_rows: ROWS as u32,
            record: self.record,
            page: Some(PageId {
                owner: index(self.record) as u64,
                page: 0,
            }),
            live: Some(&self.live),
            seqs: Seqs::Run(0),
        };
        let vectors: Vec<f32> = (0..queries * DIM)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0 + self.numbers[i % 900] as f32)
            .collect();
        let request = Queries {
            vectors: &vectors,
            dim: DIM,
            metric,
            k: ROWS,
        };
        let asked = Asked::default();
        let once = Once {
            block,
            number: 0,
            asked: &asked,
        };
        let layout = Layout {
            dim: DIM,
            record: self.record,
        };
        let mut units = [Vec::new(), Vec::new()];
        let rows_max = layout.rows_max(engine.lock().unit_bytes).max(128);
        cut(0, &block, rows_max, &mut units[index(self.record)]);
        let packed = Packed::new(request, &(0..queries).collect::<Vec<_>>());
        let job = Job {
            blocks: &[once],
            units: &units,
            packed: &packed,
            k: ROWS,
            matrix,
            subgroup,
            pool: cpu.pool(),
        };
        let slacks = packed.slacks(job.side().is_some());
        for (query, seen) in engine.seen(&job)?.into_iter().enumerate() {
            let vector = &vectors[query * DIM..][..DIM];
            let e = slacks[query].at(seen.square) / 2.0;
            let size = job.group_rows(index(self.record));
            self.check_query(metric, vector, size, (&seen, e))?;
        }
        Ok(())
    }

    /// Holds the best ranks of all groups for one query against exact ones.
    fn check_query(
        &self,
        metric: Metric,
        vector: &[f32],
        size: u32,
        (seen, e): (&Seen, f64),
    ) -> Result<(), Error> {
        let mut expected = 0;
        for first in (0..ROWS as u32).step_by(size as usize) {
            let best = self.best(metric, vector, first, size);
            let got = seen.groups.iter().find(|(_, pick)| pick.first == first);
            expected += usize::from(best.is_some());
            let off = match (best, got) {
                (None, None) => 0.0,
                (Some(best), Some((rank, _))) => (best - f64::from(*rank)).abs(),
                _ => f64::INFINITY,
            };
            if off.is_nan() || off > e {
                return Err(Error::SelfTest(format!(
                    "the best rank of rows {first}.. of {record:?} by {metric:?} is {got:?}, \
                     not {best:?} (within {e:e})",
                    record = self.record,
                    got = got.map(|(rank, _)| rank),
                )));
            }
        }
        match seen.groups.len() {
            found if found != expected => {
                Err(Error::SelfTest(format!("{found} groups of {expected}")))
            }
            _ => Ok(()),
        }
    }

    /// The exact best rank of a group's live rows.
    fn best(&self, metric: Metric, query: &[f32], first: u32, size: u32) -> Option<f64> {
        let rows = first as usize..((first + size) as usize).min(ROWS);
        let live = rows.filter(|row| self.live[row / 64] >> (row % 64) & 1 == 1);
        let rank = |row: usize| {
            let row = &self.numbers[row * DIM..][..DIM];
            let dot =
                |a: &[f64]| -> f64 { a.iter().zip(query).map(|(x, y)| x * f64::from(*y)).sum() };
            let square = |a: &[f64]| a.iter().map(|x| x * x).sum::<f64>();
            match metric {
                Metric::Dot => dot(row),
                Metric::L2 => 2.0 * dot(row) - square(row),
                Metric::Cosine if square(row) == 0.0 => 0.0,
                Metric::Cosine => dot(row) / square(row).sqrt() / super::space::norm(query),
            }
        };
        live.map(rank).max_by(f64::total_cmp)
    }
}
