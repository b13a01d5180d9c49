//! A searcher with a GPU: the CPU's answers, whatever fails. On whatever adapter this machine has,
//! a software one included; without any it says so and passes.
#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)]

use sela_compute::gpu::{Fault, Faults, Gpu, GpuOptions, adapters};
use sela_index::{
    BoxError, Hit, Metric, Part, Record, RouteChoice, SearchOptions, Searcher, SearcherOptions,
    Seqs, Source,
};

/// The first adapter, opened; `None`, said aloud, where there is none.
fn gpu(faults: &Faults) -> Option<Gpu> {
    let Some(facts) = adapters().into_iter().next() else {
        println!("skipped: no GPU");
        return None;
    };
    let options = GpuOptions {
        faults: faults.clone(),
        ..GpuOptions::default()
    };
    Some(Gpu::open(facts.index, options).unwrap())
}

fn searcher(gpu: Option<Gpu>, route: RouteChoice) -> Searcher {
    Searcher::new(SearcherOptions {
        threads: 2,
        gpu,
        gpu_cache: 64 << 20,
        route,
        ..SearcherOptions::default()
    })
    .unwrap()
}

/// Parts of f16 rows whose blocks are few in memory and many in number.
struct Repeated {
    blocks: Vec<Vec<u8>>,
    rows_per_block: u32,
    parts: Vec<u32>,
    identity: u64,
    filter: Option<Vec<u64>>,
}

impl Repeated {
    /// Blocks of random rows of `dim` numbers, repeated to parts of so many rows.
    fn new(dim: usize, rows_per_block: u32, distinct: u64, parts: Vec<u32>, identity: u64) -> Self {
        let block = |seed: u64| {
            let mut state = seed * 2 + 1;
            (0..rows_per_block as usize * dim)
                .flat_map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let x = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
                    half::f16::from_f32(x).to_le_bytes()
                })
                .collect()
        };
        Self {
            blocks: (1..=distinct).map(block).collect(),
            rows_per_block,
            parts,
            identity,
            filter: None,
        }
    }
}

impl Source for Repeated {
    fn parts(&self) -> usize {
        self.parts.len()
    }

    fn part(&self, part: usize) -> Result<Part<'_>, BoxError> {
        Ok(Part {
            identity: Some(self.identity + part as u64),
            rows: self.parts[part],
            rows_per_block: self.rows_per_block,
            record: Record::F16,
            seqs: Seqs::Run(part as u64 * 10_000_000),
            live: None,
            filter: self.filter.as_deref(),
        })
    }

    fn block(&self, part: usize, block: usize) -> Result<&[u8], BoxError> {
        let bytes = &self.blocks[(block * 7 + part) % self.blocks.len()];
        let size = bytes.len() / self.rows_per_block as usize;
        let before = block * self.rows_per_block as usize;
        let rows = (self.parts[part] as usize - before).min(self.rows_per_block as usize);
        Ok(&bytes[..rows * size])
    }
}

fn vectors(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 32.0)
        .collect()
}

fn bits(answers: &[Vec<Hit>]) -> Vec<Vec<(u32, u32, u32, u64)>> {
    let hit = |h: &Hit| (h.part, h.row, h.score.to_bits(), h.seq);
    answers
        .iter()
        .map(|hits| hits.iter().map(hit).collect())
        .collect()
}

fn assert_same(a: &Searcher, b: &Searcher, source: &Repeated, queries: &[f32], of: SearchOptions) {
    let (found, expected) = (a.search(source, queries, of), b.search(source, queries, of));
    assert_eq!(bits(&found.unwrap()), bits(&expected.unwrap()), "{of:?}");
}

/// 500 MiB of rows, 64 MiB of the GPU's memory; every row is there 30 times over, so that nearly
/// all places are ties.
#[test]
fn a_collection_larger_than_the_cache() {
    const DIM: usize = 512;
    let Some(gpu) = gpu(&Faults::default()) else {
        return;
    };
    let source = Repeated::new(DIM, 256, 64, vec![300_000, 200_037, 12_000], 100);
    let (cpu, gpu) = (
        searcher(None, RouteChoice::Cpu),
        searcher(Some(gpu), RouteChoice::Gpu),
    );
    let vectors = vectors(2 * DIM);
    for (metric, queries) in [(Metric::Cosine, 1), (Metric::L2, 2)] {
        let options = SearchOptions {
            dim: DIM,
            metric,
            k: 100,
        };
        assert_same(&gpu, &cpu, &source, &vectors[..queries * DIM], options);
    }
    let stats = gpu.stats();
    assert_eq!((stats.on_gpu, stats.on_cpu, stats.fallbacks), (2, 0, 0));
    assert_eq!((stats.gpu_queries, stats.gpu_left), (3, 0), "{stats:?}");
    let pages = stats.pages;
    assert!(pages.streamed > 0 && pages.hits > 0, "{pages:?}");
    assert!(
        pages.bytes <= pages.budget && pages.budget == 64 << 20,
        "{pages:?}"
    );
}

/// Filters, parts too small for the device, and a request for more than it finds.
#[test]
fn parts_filters_and_large_requests() {
    const DIM: usize = 40;
    let Some(gpu) = gpu(&Faults::default()) else {
        return;
    };
    let mut source = Repeated::new(DIM, 192, 9, vec![9_000, 1, 300, 5_001, 0], 200);
    let (cpu, gpu) = (
        searcher(None, RouteChoice::Cpu),
        searcher(Some(gpu), RouteChoice::Gpu),
    );
    let vectors = vectors(17 * DIM);
    for filter in [None, Some(0x1111_1111_1111_1111u64), Some(0)] {
        source.filter = filter.map(|word| vec![word; 200]);
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for (queries, k) in [(1, 10), (17, 3), (1, 1_500)] {
                let options = SearchOptions {
                    dim: DIM,
                    metric,
                    k,
                };
                assert_same(&gpu, &cpu, &source, &vectors[..queries * DIM], options);
            }
        }
    }
    let stats = gpu.stats();
    assert!(stats.gpu_left > 0 && stats.gpu_queries > 0, "{stats:?}");
    // What asks for more than the GPU finds was given to it and done by the CPU, whole; so was what
    // a filter lets nothing through of.
    assert_eq!((stats.on_gpu, stats.on_cpu), (12, 15), "{stats:?}");
}

/// Failures of the device cost no search: each is counted, and a device that is lost or fails
/// three times in a row is left alone.
#[test]
fn failures_fall_to_the_cpu() {
    const DIM: usize = 40;
    let source = Repeated::new(DIM, 192, 9, vec![30_000], 300);
    let cpu = searcher(None, RouteChoice::Cpu);
    let vectors = vectors(DIM);
    let options = SearchOptions {
        dim: DIM,
        metric: Metric::Dot,
        k: 10,
    };
    let faults = Faults::default();
    for (fault, times, on_gpu) in [
        (Fault::OutOfMemory, 1, true),
        (Fault::Unfinished, 2, true),
        (Fault::Unfinished, 3, false),
        (Fault::Lost, 1, false),
    ] {
        let Some(gpu) = gpu(&faults) else { return };
        let searcher = searcher(Some(gpu), RouteChoice::Gpu);
        faults.arm(fault, times);
        for _ in 0..times {
            assert_same(&searcher, &cpu, &source, &vectors, options);
        }
        let stats = searcher.stats();
        assert_eq!(
            (stats.fallbacks, stats.on_cpu),
            (u64::from(times), u64::from(times))
        );
        assert!(
            stats.last_fallback.is_some() && stats.on_gpu == 0,
            "{stats:?}"
        );
        // Afterwards a device that lives works again, unless it is given up.
        assert_same(&searcher, &cpu, &source, &vectors, options);
        let stats = searcher.stats();
        assert_eq!(stats.on_gpu, u64::from(on_gpu), "{fault:?}: {stats:?}");
        let decision = searcher.explain(&source, &vectors, options).unwrap();
        assert_eq!(decision.gpu, on_gpu, "{decision:?}");
    }
}

/// A device whose kernels are all wrong is not used, and the searcher says why.
#[test]
fn a_device_without_right_kernels_is_not_used() {
    const DIM: usize = 8;
    let faults = Faults::default();
    let Some(gpu) = gpu(&faults) else { return };
    faults.arm(Fault::WrongAnswer, 10);
    let searcher = searcher(Some(gpu), RouteChoice::Gpu);
    let source = Repeated::new(DIM, 64, 2, vec![100_000], 400);
    let options = SearchOptions {
        dim: DIM,
        metric: Metric::L2,
        k: 1,
    };
    let vectors = vectors(DIM);
    searcher.search(&source, &vectors, options).unwrap();
    let stats = searcher.stats();
    assert_eq!((stats.fallbacks, stats.on_cpu, stats.device), (1, 1, None));
    let decision = searcher.explain(&source, &vectors, options).unwrap();
    assert!(
        !decision.gpu && decision.reason.contains("self-test"),
        "{decision:?}"
    );
}

/// By itself a searcher sends little to the CPU and can say why; told to use the CPU, it has no
/// device.
#[test]
fn a_search_is_routed_with_a_reason() {
    const DIM: usize = 16;
    let Some(gpu) = gpu(&Faults::default()) else {
        return;
    };
    let source = Repeated::new(DIM, 64, 2, vec![100], 500);
    let options = SearchOptions {
        dim: DIM,
        metric: Metric::Dot,
        k: 3,
    };
    let vectors = vectors(DIM);
    let auto = searcher(Some(gpu.clone()), RouteChoice::Auto);
    let decision = auto.explain(&source, &vectors, options).unwrap();
    assert!(
        !decision.gpu && decision.reason.contains("ms on the GPU"),
        "{decision:?}"
    );
    auto.search(&source, &vectors, options).unwrap();
    let stats = auto.stats();
    assert_eq!(
        (stats.on_gpu, stats.on_cpu, stats.last),
        (0, 1, Some(decision.to_string()))
    );
    assert_eq!(stats.device, Some(format!("gpu:{}", gpu.facts().index)));
    assert_eq!(stats.device_name.as_ref(), Some(&gpu.facts().name));
    let never = searcher(Some(gpu), RouteChoice::Cpu);
    never.search(&source, &vectors, options).unwrap();
    assert_eq!((never.stats().device, never.stats().on_cpu), (None, 1));
}
