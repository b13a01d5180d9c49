//! How fast exact search is on this CPU: milliseconds, GB/s of rows or of their codes read,
//! operations, and how many rows were scored canonically for each query.
//!
//!     cargo run --release -p sela-compute --example scan_speed -- [rows] [isa] [file of f32 rows]
//!
//! Each figure is the median of many runs.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use sela_compute::error::BoxError;
use sela_compute::scan::{Block, Metric, PageId, Queries, Record, Rows, Scan, Scanning, Seqs};
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

/// Unit vectors in clusters, as embeddings of texts are: a few directions that all share, a centre
/// for every 30 rows, and noise of each row's own.
fn clustered(n: usize) -> Vec<f32> {
    const EACH: usize = 30;
    let mut noise = numbers(usize::MAX);
    let mut vector = |scale: f32| -> Vec<f32> {
        (0..DIM)
            .map(|_| {
                // The sum of three looks like a normal distribution of variance 1.
                let sum: f32 = noise.by_ref().take(3).sum();
                sum * scale / (DIM as f32).sqrt()
            })
            .collect()
    };
    let themes: Vec<Vec<f32>> = (0..n.div_ceil(EACH).min(2_000))
        .map(|_| vector(0.5))
        .collect();
    let centres: Vec<Vec<f32>> = (0..n.div_ceil(EACH)).map(|_| vector(0.6)).collect();
    let mut rows = Vec::with_capacity(n * DIM);
    for row in 0..n {
        // Neighbours are far from each other in the table.
        let centre = row * 7_919 % centres.len();
        let (centre, theme) = (&centres[centre], &themes[centre % themes.len()]);
        let own = vector(0.5);
        let sum = |i: usize| centre[i] + theme[i] + own[i];
        let norm = (0..DIM).map(|i| sum(i).powi(2)).sum::<f32>().sqrt();
        rows.extend((0..DIM).map(|i| sum(i) / norm));
    }
    rows
}

/// One search, its rows in blocks as a collection has them.
fn search(scan: &CpuScan, rows: &Memory, record: Record, queries: Queries<'_>) {
    const PAGE_ROWS: usize = 21_824;
    let size = DIM * record.bytes();
    let pages = rows.bytes[rows.skip..].chunks(PAGE_ROWS * size);
    let pages: Vec<Page<'_>> = pages.map(Page).collect();
    let mut scanning = scan.begin(queries).expect("queries in order");
    for (number, page) in pages.iter().enumerate() {
        let len = (page.0.len() / size) as u32;
        let block = Block {
            rows: page,
            len,
            chunk_rows: len,
            record,
            page: Some(PageId {
                owner: record.bytes() as u64,
                page: number as u32,
            }),
            live: None,
            seqs: Seqs::Run((number * PAGE_ROWS) as u64),
        };
        scanning.scan(block).expect("a block in order");
    }
    let found = scanning.submit().expect("rows in memory");
    assert_eq!(found.len(), queries.vectors.len() / DIM);
}

/// The median time of a search, over half a second or five runs, and how many there were.
fn median(scan: &CpuScan, rows: &Memory, record: Record, queries: Queries<'_>) -> (Duration, u64) {
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || begun.elapsed() < Duration::from_millis(500) {
        let start = Instant::now();
        search(scan, rows, record, queries);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    (times[times.len() / 2], times.len() as u64)
}

/// Rows of one block.
struct Page<'a>(&'a [u8]);

impl Rows for Page<'_> {
    fn chunk(&self, _: u32) -> Result<&[u8], BoxError> {
        Ok(self.0)
    }
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
    let file = arguments.next();
    let open = |threads, codes| {
        let scan = CpuScan::new(isa, threads).expect("an instruction set of this CPU");
        scan.with_codes(codes)
    };
    println!(
        "{isa}, codes by {}, {DIM} numbers a vector, k 10",
        open(1, 0).code_kernels()
    );
    println!("   rows record metric  queries threads codes       ms    GB/s    GOP/s scored/query");
    for count in only.map_or(vec![10_000, 117_000, 1_000_000], |n| vec![n]) {
        let numbers = match &file {
            Some(file) => {
                let bytes = std::fs::read(file).expect("a file of rows");
                let numbers = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
                numbers.take(count * DIM).collect()
            }
            None => clustered(count),
        };
        let count = numbers.len() / DIM;
        // Queries near rows, but not on them.
        let at = |i: usize| &numbers[i * 97 % count * DIM..][..DIM];
        let vectors: Vec<f32> = (0..100)
            .flat_map(|i| at(i).iter().zip(at(i + 200)).map(|(x, y)| x + 0.3 * y))
            .collect();
        for record in [Record::F32, Record::F16] {
            let len = count * DIM * record.bytes();
            let rows = numbers.iter().copied();
            let rows = match record {
                Record::F32 => Memory::new(rows.flat_map(f32::to_le_bytes), len),
                Record::F16 => {
                    let halves = rows.map(half::f16::from_f32);
                    Memory::new(halves.flat_map(half::f16::to_le_bytes), len)
                }
            };
            for (threads, codes) in [(2, 0), (1, 4 << 30), (2, 4 << 30)] {
                let scan = open(threads, codes);
                for (metric, batch) in [
                    (Metric::Dot, 1),
                    (Metric::Cosine, 1),
                    (Metric::L2, 1),
                    (Metric::Cosine, 4),
                    (Metric::Dot, 100),
                    (Metric::Cosine, 100),
                    (Metric::L2, 100),
                ] {
                    let queries = Queries {
                        vectors: &vectors[..batch * DIM],
                        dim: DIM,
                        metric,
                        k: 10,
                    };
                    report(&scan, &rows, record, queries);
                }
            }
        }
    }
}

/// Measures one search and prints a line.
fn report(scan: &CpuScan, rows: &Memory, record: Record, queries: Queries<'_>) {
    let batch = queries.vectors.len() / DIM;
    let count = rows.len() / (DIM * record.bytes());
    // The codes are made.
    let one = Queries {
        vectors: &queries.vectors[..DIM],
        ..queries
    };
    search(scan, rows, record, one);
    search(scan, rows, record, one);
    let before = scan.code_stats();
    let (time, searches) = median(scan, rows, record, queries);
    let time = time.as_secs_f64();
    let after = scan.code_stats();
    let coded = before.budget > 0;
    let size = if coded { DIM } else { DIM * record.bytes() };
    println!(
        "{count:>7} {:<6} {:<7} {batch:>7} {:>7} {:>5} {:>8.3} {:>7.1} {:>8.1} {:>8}",
        format!("{record:?}"),
        format!("{:?}", queries.metric),
        scan.threads(),
        if coded { "int8" } else { "none" },
        time * 1e3,
        (count * size) as f64 / time / 1e9,
        (2 * count * DIM * batch) as f64 / time / 1e9,
        (after.rescored - before.rescored) / (searches * batch as u64),
    );
}
