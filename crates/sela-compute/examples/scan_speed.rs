//! How fast exact search is on this CPU: milliseconds, GB/s of rows read, and the share of the
//! fused multiply-adds that the batch gets done.
//!
//!     cargo run --release -p sela-compute --example scan_speed -- [rows] [isa]
//!
//! Each figure is the best of many runs.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use sela_compute::error::BoxError;
use sela_compute::scan::{Block, Metric, Queries, Record, Rows, Scan, Scanning, Seqs};
use sela_compute::{CpuScan, Isa};

const DIM: usize = 384;

/// Rows that begin at a cache line, as a store's blocks do.
struct Memory {
    bytes: Vec<u8>,
    skip: usize,
}

impl Memory {
    fn new(rows: impl Iterator<Item = u8>, len: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 64);
        let skip = bytes.as_ptr().align_offset(64);
        bytes.resize(skip, 0);
        bytes.extend(rows);
        Self { bytes, skip }
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.skip
    }
}

impl Rows for Memory {
    fn chunk(&self, _: u32) -> Result<&[u8], BoxError> {
        Ok(&self.bytes[self.skip..])
    }
}

/// Numbers in -1..1 (xorshift).
fn numbers(n: usize) -> impl Iterator<Item = f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..n).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The best time of a search, over half a second or five runs.
fn best(scan: &CpuScan, rows: &Memory, record: Record, queries: Queries<'_>) -> Duration {
    let len = (rows.len() / (DIM * record.bytes())) as u32;
    let begun = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || begun.elapsed() < Duration::from_millis(1_000) {
        let start = Instant::now();
        let block = Block {
            rows,
            len,
            chunk_rows: len,
            record,
            page: None,
            live: None,
            seqs: Seqs::Run(0),
        };
        let mut scanning = scan.begin(queries).expect("queries in order");
        scanning.scan(block).expect("a block in order");
        let found = scanning.submit().expect("rows in memory");
        best = best.min(start.elapsed());
        assert_eq!(found.len(), queries.vectors.len() / DIM);
        runs += 1;
    }
    best
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only: Option<usize> = arguments
        .next()
        .map(|n| n.parse().expect("a number of rows"));
    let name = arguments.next();
    let isa = Isa::available()
        .into_iter()
        .find(|isa| name.as_ref().is_none_or(|name| isa.name() == name))
        .expect("an instruction set of this CPU");
    println!("{isa}, {DIM} numbers a vector, k 10");
    println!("   rows record metric  queries threads       ms    GB/s  GFLOP/s");
    let vectors: Vec<f32> = numbers(100 * DIM).collect();
    let scans: Vec<CpuScan> = [1, 2]
        .map(|threads| CpuScan::new(isa, threads).expect("an instruction set of this CPU"))
        .into();
    for count in only.map_or(vec![10_000, 117_000, 1_000_000], |n| vec![n]) {
        for record in [Record::F32, Record::F16] {
            let rows = numbers(count * DIM);
            let len = count * DIM * record.bytes();
            let rows = match record {
                Record::F32 => Memory::new(rows.flat_map(f32::to_le_bytes), len),
                Record::F16 => {
                    let halves = rows.map(half::f16::from_f32);
                    Memory::new(halves.flat_map(half::f16::to_le_bytes), len)
                }
            };
            for (metric, batch) in [
                (Metric::Dot, 1),
                (Metric::Cosine, 1),
                (Metric::L2, 1),
                (Metric::Dot, 100),
                (Metric::Cosine, 100),
                (Metric::L2, 100),
            ] {
                for scan in &scans {
                    let queries = Queries {
                        vectors: &vectors[..batch * DIM],
                        dim: DIM,
                        metric,
                        k: 10,
                    };
                    let time = best(scan, &rows, record, queries).as_secs_f64();
                    println!(
                        "{count:>7} {:<6} {:<7} {batch:>7} {:>7} {:>8.2} {:>7.1} {:>8.1}",
                        format!("{record:?}"),
                        format!("{metric:?}"),
                        scan.threads(),
                        time * 1e3,
                        rows.len() as f64 / time / 1e9,
                        (2 * count * DIM * batch) as f64 / time / 1e9,
                    );
                }
            }
        }
    }
}
