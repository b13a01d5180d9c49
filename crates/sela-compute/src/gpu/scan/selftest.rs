//! Known-answer test of the ranking kernels on the device itself: the best rank of every group,
//! held against exact ones. A self-test may only veto.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::RECORDS;
use super::kernels::{Kernels, Key, MATRIX_QUERIES, Variant};
use super::pages::Pages;
use super::space::{Packed, index};
use super::units::{Asked, Layout, Once, cut};
use super::work::{Engine, Job, Seen};
use crate::cpu::scan::CpuScan;
use crate::error::Error;
use crate::gpu::{Fault, Gpu, Proof, Subject};
use crate::inventory::{GpuFacts, MatrixNumber};
use crate::scan::{Block, Metric, PageId, Queries, Record, Seqs};

/// Numbers of a vector: no whole pieces, neither of f32 nor of f16.
const DIM: usize = 49;
/// Rows: some tiles and a part of one.
const ROWS: usize = 1_000;
/// Groups that are asked for where not all are.
const K_FEW: usize = 3;
/// Bytes of device memory that the test may take.
const CACHE_BYTES: u64 = 8 << 20;
/// Queries of a batch: every kernel for few of them, and the matrix kernel with one column of
/// matrices up to as many as it takes.
const BATCHES_FEW: [usize; 4] = [1, 2, 3, 8];
const BATCHES_MATRIX: [usize; 3] = [17, 33, 65];
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

/// What the self-tests have left of the kernels.
pub(super) struct Passed {
    /// The matrices' side, if they pass.
    pub(super) matrix: Option<u32>,
    /// Whether subgroups do.
    pub(super) subgroup: bool,
    /// What did not, and why.
    pub(super) vetoes: Vec<String>,
    /// Whether all that is used was tested now or some of it earlier.
    pub(super) proof: Proof,
}

/// How the self-test of a variant of search kernels ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// The variant.
    pub variant: Variant,
    /// How long it took, compiling included.
    pub took: Duration,
    /// What was wrong; nothing when the ranks were right.
    pub veto: Option<String>,
}

/// Runs the self-test of every variant that a GPU should be able to run, remembered or not. No
/// search is made ready for it, and none under way is in its way.
pub fn self_tests(gpu: &Gpu, cpu: &CpuScan) -> Vec<Tested> {
    let engine = bare(gpu);
    let subgroup = has_subgroups(gpu.facts());
    let matrix = side(gpu.facts()).map(|side| (Variant::Matrix, Some(side), subgroup));
    let few = subgroup.then_some((Variant::Subgroup, None, true));
    let plain = (Variant::Plain, None, false);
    let all = [matrix, few, Some(plain)].into_iter().flatten();
    all.map(|(variant, matrix, subgroup)| {
        let began = Instant::now();
        let result = prove(&engine, cpu, (matrix, subgroup), true);
        Tested {
            variant,
            took: began.elapsed(),
            veto: result.err().map(|veto| veto.to_string()),
        }
    })
    .collect()
}

/// All that a test needs.
fn bare(gpu: &Gpu) -> Engine {
    Engine {
        gpu: gpu.clone(),
        kernels: Kernels::new(gpu),
        turn: Mutex::default(),
        pages: Mutex::new(Pages::new(gpu, CACHE_BYTES)),
        spaces: Mutex::default(),
        ranks_on_cpu_max: 0,
    }
}

/// The best kernels that pass, of what `most` allows. Fails when not even plain kernels do.
pub(super) fn best(engine: &Engine, cpu: &CpuScan, most: Variant) -> Result<Passed, Error> {
    let facts = engine.gpu.facts();
    let subgroups = has_subgroups(facts) && most <= Variant::Subgroup;
    let mut few = None;
    let (mut vetoed, mut vetoes) = (None, Vec::new());
    for with in [true, false] {
        if with && !subgroups {
            continue;
        }
        match prove(engine, cpu, (None, with), false) {
            Ok(proof) => {
                few = Some((with, proof));
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
    let Some((subgroup, mut proof)) = few else {
        return Err(vetoed.unwrap_or_else(|| Error::SelfTest("search on a GPU".into())));
    };
    let side = side(facts).filter(|_| most == Variant::Matrix);
    let mut matrix = None;
    if let Some(side) = side {
        match prove(engine, cpu, (Some(side), subgroup), false) {
            Ok(tested) => {
                matrix = Some(side);
                if tested == Proof::Passed {
                    proof = tested;
                }
            }
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
        proof,
    })
}

/// Whether its subgroups are large enough for the kernels.
fn has_subgroups(facts: &GpuFacts) -> bool {
    facts.subgroup.is_some_and(|(_, largest)| largest >= 8)
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

/// The variant that goes over matrices of that side, or does not.
fn name((matrix, subgroup): (Option<u32>, bool)) -> Variant {
    match (matrix, subgroup) {
        (Some(_), _) => Variant::Matrix,
        (None, true) => Variant::Subgroup,
        (None, false) => Variant::Plain,
    }
}

/// Tests one variant, unless it is remembered that it has passed and it is not to be tested anew.
fn prove(
    engine: &Engine,
    cpu: &CpuScan,
    (matrix, subgroup): (Option<u32>, bool),
    anew: bool,
) -> Result<Proof, Error> {
    let choosing = Key::choosing(engine.gpu.facts());
    let keys = keys(matrix, subgroup, choosing);
    let texts: Result<Vec<String>, Error> = keys.map(Key::wgsl).collect();
    let what = format!("{} search kernels", name((matrix, subgroup)));
    let subject = Subject::new(what, texts?);
    let test = || check(engine, cpu, matrix, subgroup);
    engine.gpu.prove(&subject, anew, test)
}

/// The kernels that the test of a variant runs.
fn keys(matrix: Option<u32>, subgroup: bool, threads: u32) -> impl Iterator<Item = Key> {
    let records = records(matrix).map(|record| Layout { dim: DIM, record });
    let mut keys = vec![Key::Choose { threads }, Key::Coarse, Key::Fine, Key::Pick];
    for layout in records {
        let (record, chunks) = (layout.record, layout.chunks());
        keys.push(Key::Norms { record, chunks });
        for metric in METRICS {
            match matrix {
                Some(side) => {
                    let all = 1..=MATRIX_QUERIES as u32 / side;
                    keys.extend(all.map(|cols| Key::Matrix {
                        side,
                        cols,
                        metric,
                        chunks,
                    }));
                }
                None => keys.extend([1, 2, 4, 8].map(|queries| Key::Few {
                    subgroup,
                    record,
                    metric,
                    chunks,
                    queries,
                })),
            }
        }
    }
    keys.into_iter()
}

/// The records that a variant is for.
fn records(matrix: Option<u32>) -> impl Iterator<Item = Record> {
    let suits = move |record: &Record| matrix.is_none() || *record == Record::F16;
    RECORDS.into_iter().filter(suits)
}

/// Holds one variant against exact ranks, over all metrics and the records that it is for.
fn check(engine: &Engine, cpu: &CpuScan, matrix: Option<u32>, subgroup: bool) -> Result<(), Error> {
    let name = name((matrix, subgroup));
    if engine.gpu.faults().strike(Fault::WrongAnswer) {
        return Err(Error::SelfTest(format!(
            "{name} search kernels: a fault on demand"
        )));
    }
    let batches: &[usize] = match matrix {
        Some(_) => &BATCHES_MATRIX,
        None => &BATCHES_FEW,
    };
    let small = Pages::new(&engine.gpu, CACHE_BYTES);
    let old = std::mem::replace(&mut *engine.lock(), small);
    drop(old);
    let result = records(matrix).try_for_each(|record| {
        let rows = Rows::new(record);
        METRICS.into_iter().try_for_each(|metric| {
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
        let once = [Once {
            block,
            number: 0,
            asked: &asked,
        }];
        let layout = Layout {
            dim: DIM,
            record: self.record,
        };
        let mut units = [Vec::new(), Vec::new()];
        let rows_max = layout.rows_max(engine.lock().unit_bytes).max(128);
        cut(0, &block, rows_max, &mut units[index(self.record)]);
        let packed = Packed::new(request, &(0..queries).collect::<Vec<_>>());
        // All groups, which kernels that count choose, and few, which one workgroup chooses.
        for k in [ROWS, K_FEW] {
            let job = Job {
                blocks: &once,
                units: &units,
                packed: &packed,
                k,
                matrix,
                subgroup,
                pool: cpu.pool(),
            };
            let slacks = packed.slacks(job.side().is_some());
            for (query, seen) in engine.seen(&job)?.into_iter().enumerate() {
                let vector = &vectors[query * DIM..][..DIM];
                let e = slacks[query].at(seen.square) / 2.0;
                let size = job.group_rows(index(self.record));
                self.check_query((metric, k), vector, size, (&seen, e))?;
            }
        }
        Ok(())
    }

    /// Holds the best ranks of the groups that were chosen for one query against exact ones, and
    /// those that were not against the k-th.
    fn check_query(
        &self,
        (metric, k): (Metric, usize),
        vector: &[f32],
        size: u32,
        (seen, e): (&Seen, f64),
    ) -> Result<(), Error> {
        let firsts = || (0..ROWS as u32).step_by(size as usize);
        let exact = firsts().map(|first| self.best(metric, vector, first, size));
        let exact: Vec<Option<f64>> = exact.collect();
        let mut ranks: Vec<f64> = exact.iter().flatten().copied().collect();
        ranks.sort_by(|a, b| b.total_cmp(a));
        // Whoever is no less than this is to be there.
        let least = ranks.get(k - 1).copied().unwrap_or(f64::NEG_INFINITY);
        let (mut needed, mut found) = (0, 0);
        for (first, best) in firsts().zip(exact) {
            let got = seen.groups.iter().find(|(_, pick)| pick.first == first);
            needed += usize::from(best.is_some_and(|best| best >= least));
            found += usize::from(got.is_some());
            let off = match (best, got) {
                (None, None) => 0.0,
                (Some(best), Some((rank, _))) => (best - f64::from(*rank)).abs(),
                (Some(best), None) if best < least => 0.0,
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
        // Each once, and none that is not there.
        match seen.groups.len() {
            all if all != found || all < needed => {
                Err(Error::SelfTest(format!("{all} groups, {needed} needed")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    /// What is remembered is the kernels' texts: all those that the test has compiled, and no
    /// others.
    #[test]
    fn the_tested_kernels_are_those_that_are_proven() {
        let Some(gpu) = crate::gpu::tests::gpu() else {
            return;
        };
        let cpu = CpuScan::new(Isa::Plain, 1).unwrap();
        let subgroup = has_subgroups(gpu.facts());
        for (matrix, subgroup) in [
            (None, false),
            (None, subgroup),
            (side(gpu.facts()), subgroup),
        ] {
            let engine = bare(&gpu);
            check(&engine, &cpu, matrix, subgroup).unwrap();
            let threads = Key::choosing(engine.gpu.facts());
            let proven = keys(matrix, subgroup, threads);
            let compiled = engine.kernels.compiled();
            let proven: Vec<Key> = proven.collect();
            for key in &compiled {
                assert!(proven.contains(key), "{key:?} is compiled");
            }
            for key in &proven {
                // On small matrices only some numbers of columns are tried.
                let tried = compiled.contains(key) || matches!(key, Key::Matrix { side: 8, .. });
                assert!(tried, "{key:?} is not tested");
            }
        }
    }
}
