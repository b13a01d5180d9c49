//! How fast the device and the CPU search here, measured once at start.

use std::time::{Duration, Instant};

use super::pages::Pages;
use super::space::{Packed, index};
use super::units::{Asked, Layout, Once, cut};
use super::work::{Engine, Job};
use crate::cpu::scan::CpuScan;
use crate::error::Error;
use crate::inventory::GpuKind;
use crate::scan::{Block, Metric, PageId, Queries, Record, Scan, Scanning, Seqs};

/// Numbers of a vector, the commonest there is, and rows: 12 MiB of them.
const DIM: usize = 384;
const ROWS: u32 = 16 << 10;
/// Bytes of device memory that the measurement may take.
const CACHE_BYTES: u64 = 160 << 20;
/// Copies of the rows that a device of hardware ranks at once: with one alone, what a search costs
/// whatever its size would hide how fast rows are read.
const COPIES: u32 = 9;
/// Runs of which the best counts, and how long they go on on hardware: a GPU that was idle takes a
/// while to run at full speed.
const RUNS: usize = 3;
const WARM: Duration = Duration::from_millis(60);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// A search of next to nothing, waited for.
    pub round_trip: Duration,
    /// Bytes of rows that the device ranks for a query in a second.
    pub scan_bytes_per_s: f64,
    /// Bytes of rows that the device takes in in a second.
    pub upload_bytes_per_s: f64,
    /// Bytes of rows that the CPU searches for a query in a second.
    pub cpu_bytes_per_s: f64,
}

/// Measures. The engine's pages are others for that time.
pub(super) fn measure(engine: &Engine, cpu: &CpuScan, subgroup: bool) -> Result<Probe, Error> {
    let small = Pages::new(&engine.gpu, CACHE_BYTES);
    let old = std::mem::replace(&mut *engine.lock(), small);
    drop(old);
    let bytes: Vec<u8> = (0..ROWS as usize * DIM)
        // Halves between 0.25 and 1 that repeat after some thousand.
        .flat_map(|i| (0x3400 + (i * 193 % 2_047) as u16).to_le_bytes())
        .collect();
    let mut round_trip = Duration::MAX;
    for _ in 0..RUNS + 2 {
        let begun = Instant::now();
        engine.gpu.record("nothing")?.submit(&[])?.wait(|_| ())?;
        round_trip = round_trip.min(begun.elapsed());
    }
    let copies = match engine.gpu.facts().kind {
        GpuKind::Software => 1,
        _ => COPIES,
    };
    let many: Vec<Block<'_>> = (0..copies)
        .map(|page| block(&bytes, Some(PageId { owner: 0, page })))
        .collect();
    let nowhere = block(&bytes, None);
    let [mut one, mut all, mut upload] = [Duration::MAX; 3];
    let begun = Instant::now();
    let mut run = 0;
    while run <= RUNS || (copies > 1 && begun.elapsed() < WARM) {
        let times = [&many[..1], &many[..], &[nowhere]]
            .map(|blocks| on_device(engine, cpu, subgroup, blocks));
        let [found, found_all, brought] = times;
        let (found, found_all, brought) = (found?, found_all?, brought?);
        // The first run compiles and brings in.
        if run > 0 {
            one = one.min(found);
            all = all.min(found_all);
            upload = upload.min(brought);
        }
        run += 1;
    }
    let mut on_cpu = Duration::MAX;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let mut scanning = cpu.begin(QUERIES)?;
        scanning.scan(nowhere)?;
        scanning.submit()?;
        on_cpu = on_cpu.min(begun.elapsed());
    }
    if let Ok(mut spaces) = engine.spaces.lock() {
        spaces.clear();
    }
    let speed = |time: Duration| bytes.len() as f64 / time.as_secs_f64().max(1e-6);
    let (fixed, each) = match copies {
        1 => (round_trip, one.saturating_sub(round_trip)),
        copies => {
            let each = all.saturating_sub(one) / (copies - 1);
            (one.saturating_sub(each).max(round_trip), each)
        }
    };
    Ok(Probe {
        round_trip: fixed,
        scan_bytes_per_s: speed(each),
        upload_bytes_per_s: speed(upload.saturating_sub(one)),
        cpu_bytes_per_s: speed(on_cpu),
    })
}

const QUERIES: Queries<'static> = Queries {
    vectors: &[1.0; DIM],
    dim: DIM,
    metric: Metric::Dot,
    k: 10,
};

fn block(bytes: &Vec<u8>, page: Option<PageId>) -> Block<'_> {
    Block {
        rows: bytes,
        len: ROWS,
        chunk_rows: ROWS,
        record: Record::F16,
        page,
        live: None,
        seqs: Seqs::Run(0),
    }
}

/// The time of a search on the device.
fn on_device(
    engine: &Engine,
    cpu: &CpuScan,
    subgroup: bool,
    blocks: &[Block<'_>],
) -> Result<Duration, Error> {
    let mut units = [Vec::new(), Vec::new()];
    let layout = Layout {
        dim: DIM,
        record: Record::F16,
    };
    let rows_max = layout.rows_max(engine.lock().unit_bytes).max(128);
    let asked = Asked::default();
    let mut onces = Vec::with_capacity(blocks.len());
    for (number, block) in (0..).zip(blocks) {
        cut(
            number as usize,
            block,
            rows_max,
            &mut units[index(Record::F16)],
        );
        onces.push(Once {
            block: *block,
            number,
            asked: &asked,
        });
    }
    let packed = Packed::new(QUERIES, &[0]);
    let begun = Instant::now();
    engine.seen(&Job {
        blocks: &onces,
        units: &units,
        packed: &packed,
        k: QUERIES.k,
        matrix: None,
        subgroup,
        pool: cpu.pool(),
    })?;
    Ok(begun.elapsed())
}
