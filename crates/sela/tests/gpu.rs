//! The engine on a GPU: the CPU's answers, its work seen in the figures, and every failure survived.
#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)] // They say what this machine lacks.

// The small model of the encoder's tests: the real one takes minutes on a software adapter.
#[path = "../../sela-encoder/tests/common/mod.rs"]
mod small;

use std::path::Path;

use sela::bench::{BenchOptions, Workload};
use sela::{
    Collection, CollectionOptions, DeviceChoice, Dtype, Embeddings, Engine, Error, GpuKind, Hit,
    Id, Inventory, Item, Options, Query, Tier,
};
use sela_compute::gpu::{Fault, Faults, Gpu, GpuOptions};
use small::Folder;

/// The number of the first GPU, if there is one; says so if not.
fn gpu() -> Option<usize> {
    let found = Inventory::probe().gpus.first().map(|gpu| gpu.index);
    if found.is_none() {
        println!("skipped: no GPU");
    }
    found
}

/// Options of an engine with the data of `home`.
fn options(home: &Path, device: DeviceChoice) -> Options {
    let mut options = Options::new(home);
    options.device = device;
    options
}

/// As [`options`], with the small model in f16 on the GPU and f32 on the CPU.
fn with_model(home: &Path, model: &Folder, device: DeviceChoice) -> Options {
    let mut options = options(home, device);
    options.model = model.path("").display().to_string();
    options.dtype = match device {
        DeviceChoice::Cpu => Dtype::F32,
        _ => Dtype::Bf16,
    };
    options
}

/// An engine on a GPU that fails when it is told to.
fn with_faults(mut options: Options, number: usize) -> (Engine, Faults) {
    let faults = Faults::default();
    let opened = GpuOptions {
        faults: faults.clone(),
        ..GpuOptions::default()
    };
    options.gpu = Some(Gpu::open(number, opened).unwrap());
    (Engine::open(options).unwrap(), faults)
}

fn texts(count: usize) -> Vec<String> {
    let words = small::WORDS;
    let text = |n: usize| {
        let words = (0..1 + n % 9).map(|i| words[(n * 5 + i * i + i) % words.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}

/// The least cosine of vectors of length 1.
fn least_cosine(a: &Embeddings, b: &Embeddings) -> f32 {
    assert_eq!(a.vectors.len(), b.vectors.len());
    a.vectors
        .chunks_exact(a.dim)
        .zip(b.vectors.chunks_exact(a.dim))
        .map(|(a, b)| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>())
        .fold(f32::INFINITY, f32::min)
}

/// Row `n`: no row is another's copy.
fn item(n: u64, dim: usize) -> Item {
    let number = |i: usize| {
        let hash = (n * 65_537 + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    Item::vector(n, (0..dim).map(number).collect::<Vec<f32>>())
}

/// A collection `rows` with two segments, dead rows and fresh rows.
fn fill(engine: &Engine, dim: usize) -> Collection {
    let rows = engine
        .create("rows", &CollectionOptions::external(dim))
        .unwrap();
    for range in [0..9_000, 9_000..18_000] {
        let mut open = || -> sela::Result<sela::Items<'static>> {
            Ok(Box::new(range.clone().map(move |n| Ok(item(n, dim)))))
        };
        let name = format!("{range:?}");
        let watch = &mut |_| std::ops::ControlFlow::Continue(());
        rows.load(&name, &mut open, &sela::LoadOptions::default(), watch)
            .unwrap();
    }
    rows.upsert(&(18_000..18_050).map(|n| item(n, dim)).collect::<Vec<_>>())
        .unwrap();
    rows.delete(&[Id::Num(3), Id::Num(10_000)]).unwrap();
    rows
}

/// A collection that is closed leaves nothing of its rows on the GPU.
#[test]
fn a_closed_collection_leaves_the_gpu() {
    let Some(number) = gpu() else { return };
    let home = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(home.path(), DeviceChoice::Number(number))).unwrap();
    let rows = fill(&engine, 64);
    ask(&rows, 64);
    assert!(engine.stats().searches.pages.bytes > 0);
    let other = rows.clone();
    drop(rows);
    assert!(
        engine.stats().searches.pages.bytes > 0,
        "one still has it open"
    );
    drop(other);
    assert_eq!(engine.stats().searches.pages.bytes, 0);
}

fn ask(rows: &Collection, dim: usize) -> Vec<(Id, u32)> {
    let mut all = Vec::new();
    for seed in 0..4 {
        let query: Vec<f32> = (0..dim)
            .map(|i| ((seed * 57 + i * 13) % 97) as f32 - 48.0)
            .collect();
        for k in [1, 10, 300] {
            let hits = rows.query(&Query::vector(query.clone()).k(k)).unwrap();
            all.extend(
                hits.into_iter()
                    .map(|hit: Hit| (hit.id, hit.score.to_bits())),
            );
        }
    }
    all
}

#[test]
fn the_gpu_embeds_as_the_cpu_does() {
    let Some(number) = gpu() else { return };
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let texts = texts(60);
    let on = |device| Engine::open(with_model(home.path(), &model, device)).unwrap();
    let expected = on(DeviceChoice::Cpu).embed_batch(&texts).unwrap();

    let engine = on(DeviceChoice::Number(number));
    let found = engine.embed_batch(&texts).unwrap();
    let cosine = least_cosine(&found, &expected);
    assert!(cosine >= 0.9999, "{cosine}");
    let stats = engine.stats();
    assert_ne!(stats.tier, Some(Tier::Cpu));
    assert_eq!(stats.device, Some(format!("gpu:{number}")));
    assert!(stats.device_name.is_some());
    assert!(stats.variant.is_some());
    assert_eq!((stats.texts, stats.degraded, stats.fallbacks), (60, 0, 0));
    let has = engine.capabilities().unwrap();
    assert_eq!(has.gpu.unwrap().index, number);
    println!(
        "{} by {}, least cosine {cosine}",
        has.report.arithmetic, has.report.device
    );
}

#[test]
fn the_gpu_searches_as_the_cpu_does_to_the_last_bit() {
    let Some(number) = gpu() else { return };
    for dim in [32, 384] {
        let home = tempfile::tempdir().unwrap();
        let cpu = Engine::open(options(home.path(), DeviceChoice::Cpu)).unwrap();
        let expected = ask(&fill(&cpu, dim), dim);

        let engine = Engine::open(options(home.path(), DeviceChoice::Number(number))).unwrap();
        let rows = engine.collection_read_only("rows").unwrap();
        assert!(ask(&rows, dim) == expected, "{dim} numbers");
        let searches = engine.stats().searches;
        assert_eq!(
            (searches.on_gpu, searches.on_cpu),
            (12, 0),
            "{:?}",
            searches.last
        );
        assert!(
            searches.pages.page_ins > 0 && searches.pages.bytes > 0,
            "{searches:?}"
        );
        let before = searches.pages;
        // Asked again, sealed rows are there already: other views, the same segments.
        assert!(ask(&rows, dim) == expected);
        let after = engine.stats().searches.pages;
        assert!(after.hits >= before.hits + 24, "{before:?} {after:?}");
    }
}

#[test]
fn a_gpu_lost_midway_is_replaced_by_the_cpu_and_counted() {
    let Some(number) = gpu() else { return };
    let home = tempfile::tempdir().unwrap();
    let (dim, model) = (32, Folder::new());
    let cpu = Engine::open(with_model(home.path(), &model, DeviceChoice::Cpu)).unwrap();
    let expected = ask(&fill(&cpu, dim), dim);
    let texts = texts(20);
    let vectors = cpu.embed_batch(&texts).unwrap();

    let options = with_model(home.path(), &model, DeviceChoice::Number(number));
    let (engine, faults) = with_faults(options, number);
    let rows = engine.collection_read_only("rows").unwrap();
    assert!(ask(&rows, dim) == expected);
    let first = engine.embed_batch(&texts).unwrap();
    assert_eq!(engine.stats().fallbacks, 0);

    faults.arm(Fault::Lost, 1);
    let second = engine.embed_batch(&texts).unwrap();
    for found in [first, second] {
        let cosine = least_cosine(&found, &vectors);
        assert!(cosine >= 0.999, "{cosine}");
    }
    assert!(ask(&rows, dim) == expected);
    let stats = engine.stats();
    assert!(
        stats.fallbacks >= 2,
        "the encoder's and the searcher's: {stats:?}"
    );
    assert_eq!(stats.degraded, 20);
    assert!(
        stats.searches.on_cpu > 0 && stats.searches.fallbacks > 0,
        "{stats:?}"
    );
    assert!(stats.last_fallback.is_some());
}

#[test]
fn a_search_that_the_gpu_fails_is_done_by_the_cpu() {
    let Some(number) = gpu() else { return };
    for fault in [Fault::OutOfMemory, Fault::Unfinished, Fault::Lost] {
        let home = tempfile::tempdir().unwrap();
        let dim = 32;
        let cpu = Engine::open(options(home.path(), DeviceChoice::Cpu)).unwrap();
        let expected = ask(&fill(&cpu, dim), dim);
        let options = options(home.path(), DeviceChoice::Number(number));
        let (engine, faults) = with_faults(options, number);
        let rows = engine.collection_read_only("rows").unwrap();
        // The searcher is made, and its self-tests pass, before anything fails.
        let query = Query::vector(vec![0.5; dim]).k(1);
        if fault != Fault::OutOfMemory {
            rows.query(&query).unwrap();
        }
        faults.arm(fault, 1);
        assert!(ask(&rows, dim) == expected, "{fault:?}");
        assert_eq!(faults.armed(fault), 0, "{fault:?} did not strike");
    }
}

#[test]
fn auto_is_the_cpu_where_there_is_no_gpu_of_hardware() {
    let gpus = Inventory::probe().gpus;
    if gpus.iter().any(|gpu| gpu.kind != GpuKind::Software) {
        println!("skipped: this machine has a GPU");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let model = Folder::new();
    let engine = Engine::open(with_model(home.path(), &model, DeviceChoice::Auto)).unwrap();
    assert_eq!(engine.device().unwrap(), None);
    let has = engine.capabilities().unwrap();
    assert_eq!((has.report.tier, has.gpu), (Tier::Cpu, None));
    assert!(
        has.report.reasons[0].contains("CPU"),
        "{:?}",
        has.report.reasons
    );
    assert_eq!(has.searches.device, None);
    assert_eq!(engine.stats().fallbacks, 0);
}

#[test]
fn a_gpu_that_is_not_there_is_refused_by_name() {
    let gpus = Inventory::probe().gpus;
    let home = tempfile::tempdir().unwrap();
    let model = Folder::new();
    let engine = Engine::open(with_model(home.path(), &model, DeviceChoice::Number(99))).unwrap();
    // What needs no device goes on.
    let rows = engine
        .create("rows", &CollectionOptions::external(2))
        .unwrap();
    rows.upsert(&[Item::vector(1, vec![1.0, 0.0])]).unwrap();
    let refused = [
        engine.device().map(drop),
        engine.encoder().map(drop),
        rows.query(&Query::vector(vec![1.0, 0.0])).map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NoDevice { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("`gpu:99`"), "{said}");
        for gpu in &gpus {
            assert!(said.contains(&gpu.name), "{said}");
        }
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_validation_holds_the_gpu_against_the_cpu() {
    let Some(number) = gpu() else { return };
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let options = with_model(home.path(), &model, DeviceChoice::Number(number));
    let engine = Engine::open(options).unwrap();
    let checks = sela::validate::run(&engine, &mut |_| {}).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check.is_failure()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let of_gpu: Vec<_> = checks.iter().filter(|c| c.name.contains("GPU")).collect();
    assert_eq!(of_gpu.len(), 4);
    for check in of_gpu {
        let passed = matches!(check.outcome, sela::validate::Outcome::Pass { .. });
        assert!(passed, "{check:?}");
    }
    // On the CPU they are left out, with the reason.
    let engine = Engine::open(with_model(home.path(), &model, DeviceChoice::Cpu)).unwrap();
    let checks = sela::validate::run(&engine, &mut |_| {}).unwrap();
    let skipped = |c: &&sela::validate::Check| match &c.outcome {
        sela::validate::Outcome::Skipped { lacks } => {
            lacks.contains("the CPU because it was asked for")
        }
        _ => false,
    };
    assert_eq!(checks.iter().filter(skipped).count(), 5, "{checks:?}");
}

fn bench(device: DeviceChoice, only: &[Workload]) -> BenchOptions {
    BenchOptions {
        only: only.to_vec(),
        devices: vec![DeviceChoice::Cpu, device],
        verses: 2_000,
        k: 3,
        ..BenchOptions::default()
    }
}

#[test]
fn a_bench_tells_both_figures_and_the_speedup() {
    let Some(number) = gpu() else { return };
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let device = DeviceChoice::Number(number);
    let engine = Engine::open(with_model(home.path(), &model, device)).unwrap();
    let options = bench(device, &[Workload::Single, Workload::Batch, Workload::Rag]);
    let report = sela::bench::run(&engine, &options, &mut |_, _| {}).unwrap();
    let figures: Vec<_> = report
        .results
        .iter()
        .map(|f| (f.name, f.device.as_deref().unwrap()))
        .collect();
    let gpu = device.to_string();
    let expected: Vec<_> = ["single", "batch100", "rag"]
        .iter()
        .flat_map(|name| [(*name, "cpu"), (*name, gpu.as_str())])
        .collect();
    assert_eq!(figures, expected);
    assert_eq!(report.speedups.len(), 3);
    let met = report.targets.iter().filter(|t| t.met.is_some());
    assert_eq!(met.count(), 3);
    let used = &report.machine.devices[1];
    assert_eq!(used.device, gpu);
    assert!(used.driver.is_some() && used.variant.is_some());
    assert!(!home.path().join("scratch").exists(), "nothing is left");
}

#[test]
fn a_bench_tells_no_figure_of_a_gpu_that_did_not_do_the_work() {
    let Some(number) = gpu() else { return };
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let device = DeviceChoice::Number(number);
    for workload in [Workload::Single, Workload::Rag] {
        let (engine, faults) = with_faults(with_model(home.path(), &model, device), number);
        faults.arm(Fault::Lost, 1);
        let mut told = Vec::new();
        let ended = sela::bench::run(&engine, &bench(device, &[workload]), &mut |_, figure| {
            told.extend(figure.and_then(|f| f.device.clone()));
        });
        let report = ended.unwrap();
        let why = &report.not_measured;
        assert!(why.len() == 1 && why[0].contains("gpu:"), "{why:?}");
        assert!(told.iter().all(|device| device == "cpu"), "{told:?}");
    }
}
