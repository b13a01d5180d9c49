//! How fast exact search is on this GPU, and whether its answers are the CPU's: milliseconds a
//! search (median, least, and the 90th of a hundred) and GB/s of rows read.
//!
//!     cargo run --release -p sela-compute --example gpu_scan -- ROWS RECORD CACHE_GIB QUERIES...
//!
//! as in `10000000 f16 10 1 64`. Vectors have 384 numbers; `SELA_VARIANT=plain` or `subgroup` tries
//! lesser kernels, `SELA_GPU=1` another adapter.
#![allow(clippy::print_stdout)]

#[cfg(not(feature = "gpu"))]
fn main() {
    println!("built without GPU support");
}

#[cfg(feature = "gpu")]
fn main() {
    gpu::main();
}

#[cfg(feature = "gpu")]
mod gpu {
    use std::sync::Arc;
    use std::time::Instant;

    use sela_compute::error::BoxError;
    use sela_compute::gpu::scan::{GpuScan, GpuScanOptions, Variant};
    use sela_compute::gpu::{Gpu, GpuOptions};
    use sela_compute::scan::{
        Block, Found, Metric, PageId, Queries, Record, Rows, Scan, Scanning, Seqs,
    };
    use sela_compute::{CpuScan, Isa};

    const DIM: usize = 384;
    /// Bytes of a chunk and of a page at most, as the store and the index cut them.
    const CHUNK_BYTES: usize = 256 << 10;
    const PAGE_BYTES: usize = 32 << 20;

    /// A page of rows.
    struct Page {
        bytes: Vec<u8>,
        chunk_bytes: usize,
    }

    impl Rows for Page {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            let start = chunk as usize * self.chunk_bytes;
            let end = (start + self.chunk_bytes).min(self.bytes.len());
            Ok(&self.bytes[start..end])
        }
    }

    /// Numbers of all signs and some sizes, eight bytes at a time (xorshift).
    fn fill(bytes: &mut [u8], record: Record, seed: u64) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for eight in bytes.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let numbers = match record {
                // Exponents from 2^-8 to 2^-1.
                Record::F16 => state & 0x9fff_9fff_9fff_9fff | 0x2000_2000_2000_2000,
                Record::F32 => state & 0x83ff_ffff_83ff_ffff | 0x3c00_0000_3c00_0000,
            };
            *eight = numbers.to_le_bytes();
        }
    }

    fn pages(rows: usize, record: Record) -> Vec<Page> {
        let size = DIM * record.bytes();
        let chunk_rows = CHUNK_BYTES / size / 64 * 64;
        let page_rows = PAGE_BYTES / size / chunk_rows * chunk_rows;
        let mut pages: Vec<Page> = (0..rows.div_ceil(page_rows))
            .map(|page| Page {
                bytes: vec![0; page_rows.min(rows - page * page_rows) * size],
                chunk_bytes: chunk_rows * size,
            })
            .collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = pages.len().div_ceil(threads);
        std::thread::scope(|scope| {
            for (t, pages) in pages.chunks_mut(share).enumerate() {
                scope.spawn(move || {
                    for (i, page) in pages.iter_mut().enumerate() {
                        fill(&mut page.bytes, record, (t * share + i + 1) as u64);
                    }
                });
            }
        });
        pages
    }

    fn search(
        scan: &impl Scan,
        pages: &[Page],
        record: Record,
        queries: Queries<'_>,
    ) -> Vec<Vec<Found>> {
        let size = DIM * record.bytes();
        let mut scanning = scan.begin(queries).expect("queries in order");
        let mut first = 0;
        for (number, page) in pages.iter().enumerate() {
            let len = (page.bytes.len() / size) as u32;
            let block = Block {
                rows: page,
                len,
                chunk_rows: (page.chunk_bytes / size) as u32,
                record,
                page: Some(PageId {
                    owner: 1,
                    page: number as u32,
                }),
                live: None,
                seqs: Seqs::Run(first),
            };
            first += u64::from(len);
            scanning.scan(block).expect("a block in order");
        }
        scanning.submit().expect("a device in order")
    }

    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let rows: usize = arguments
            .first()
            .map_or(100_000, |n| n.parse().expect("rows"));
        let record = match arguments.get(1).map(String::as_str) {
            Some("f32") => Record::F32,
            _ => Record::F16,
        };
        let cache: f64 = arguments.get(2).map_or(2.0, |n| n.parse().expect("GiB"));
        let mut batches: Vec<usize> = arguments
            .iter()
            .skip(3)
            .map(|n| n.parse().expect("n"))
            .collect();
        if batches.is_empty() {
            batches = vec![1, 64];
        }
        let variant = match std::env::var("SELA_VARIANT").as_deref() {
            Ok("plain") => Variant::Plain,
            Ok("subgroup") => Variant::Subgroup,
            _ => Variant::Matrix,
        };
        let index = std::env::var("SELA_GPU").map_or(0, |n| n.parse().expect("an adapter"));
        let gpu = Gpu::open(index, GpuOptions::default()).expect("a GPU");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = CpuScan::new(Isa::available()[0], threads).expect("this CPU");
        let cpu = Arc::new(cpu);
        let begun = Instant::now();
        let options = GpuScanOptions {
            cache_bytes: (cache * f64::from(1 << 30)) as u64,
            variant,
            ..GpuScanOptions::default()
        };
        let scan = GpuScan::new(&gpu, cpu.clone(), options).expect("kernels that are right");
        println!(
            "{}, {} kernels, ready in {:.0} ms; {threads} CPU threads",
            gpu.facts().name,
            scan.variant(),
            begun.elapsed().as_secs_f64() * 1e3
        );
        println!("{:?}", scan.probe());
        for veto in scan.vetoes() {
            println!("veto: {veto}");
        }
        let begun = Instant::now();
        let pages = pages(rows, record);
        let bytes: usize = pages.iter().map(|page| page.bytes.len()).sum();
        println!(
            "{rows} {record:?} rows of {DIM}, {:.2} GB, made in {:.1} s",
            bytes as f64 / 1e9,
            begun.elapsed().as_secs_f64()
        );
        let most = batches.iter().copied().max().unwrap_or(1);
        let mut vectors = vec![0u8; most * DIM * 4];
        fill(&mut vectors, Record::F32, 77);
        let vectors: Vec<f32> = vectors
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for batch in &batches {
                let queries = Queries {
                    vectors: &vectors[..batch * DIM],
                    dim: DIM,
                    metric,
                    k: 10,
                };
                measure(&scan, &cpu, &pages, record, queries);
            }
        }
        println!("{:#?}", scan.stats());
    }

    /// Times a search, having held it against the CPU's.
    fn measure(
        scan: &GpuScan,
        cpu: &CpuScan,
        pages: &[Page],
        record: Record,
        queries: Queries<'_>,
    ) {
        let batch = queries.vectors.len() / DIM;
        let begun = Instant::now();
        let found = search(scan, pages, record, queries);
        let first = begun.elapsed().as_secs_f64() * 1e3;
        let checked = Queries {
            vectors: &queries.vectors[..batch.min(2) * DIM],
            ..queries
        };
        let begun = Instant::now();
        let exact = search(cpu, pages, record, checked);
        let on_cpu = begun.elapsed().as_secs_f64() * 1e3;
        assert_eq!(found[..exact.len()], exact[..], "the CPU's answers");
        let mut times = Vec::new();
        let begun = Instant::now();
        while times.len() < 100 && (times.len() < 5 || begun.elapsed().as_secs() < 3) {
            let begun = Instant::now();
            let again = search(scan, pages, record, queries);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(again, found, "the same answers");
        }
        times.sort_by(f64::total_cmp);
        let middle = times[times.len() / 2];
        let bytes: usize = pages.iter().map(|page| page.bytes.len()).sum();
        println!(
            "{:?} {batch:>4} queries: {middle:.3} ms ({:.3} least, {:.3} the 90th), {:.0} GB/s; \
             first {first:.1} ms; {} on the CPU {on_cpu:.1} ms",
            queries.metric,
            times[0],
            times[times.len() * 9 / 10],
            bytes as f64 / middle / 1e6,
            exact.len(),
        );
    }
}
