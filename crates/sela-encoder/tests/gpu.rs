//! The encoder on a GPU: like the CPU's vectors, the same alone and in company, and no text lost
//! whatever fails. Any adapter will do, a software one included.

#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)]

mod common;

use common::Folder;
use sela_compute::gpu::{Fault, Gpu, GpuOptions, adapters};
use sela_compute::{DeviceChoice, Tier};
use sela_encoder::{Dtype, Embeddings, Encoder, EncoderOptions};

/// The first adapter, opened; `None`, said aloud, where there is none.
fn gpu() -> Option<Gpu> {
    let Some(facts) = adapters().into_iter().next() else {
        println!("skipped: no GPU");
        return None;
    };
    println!("gpu:{} {} ({})", facts.index, facts.name, facts.backend);
    Some(Gpu::open(facts.index, GpuOptions::default()).unwrap())
}

fn on(gpu: &Gpu, dtype: Dtype) -> EncoderOptions {
    EncoderOptions {
        device: DeviceChoice::Number(gpu.facts().index),
        gpu: Some(gpu.clone()),
        dtype,
        ..EncoderOptions::default()
    }
}

fn open(folder: &Folder, options: &EncoderOptions) -> Encoder {
    let files = sela_encoder::ModelFiles::read(&folder.path("")).unwrap();
    Encoder::open(&files, options).unwrap()
}

/// More texts than are tokenised at once, of many lengths.
fn texts() -> Vec<String> {
    let words = ["stone", "a", "river", "b"];
    (0..1500)
        .map(|i| {
            let word = |at: usize| words[(i + at * at) % words.len()];
            (0..i % 23 + 1).map(word).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn cpu(folder: &Folder, texts: &[String]) -> Embeddings {
    folder.open().unwrap().embed(texts).unwrap()
}

fn assert_alike(found: &Embeddings, expected: &Embeddings, what: &str) {
    assert_eq!(found.vectors.len(), expected.vectors.len());
    for (i, (a, b)) in found
        .vectors
        .chunks_exact(found.dim)
        .zip(expected.vectors.chunks_exact(found.dim))
        .enumerate()
    {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine >= 0.9999, "{what}: text {i} has cosine {cosine}");
    }
}

#[test]
fn a_gpu_gives_the_cpus_vectors() {
    let Some(gpu) = gpu() else { return };
    let folder = Folder::new();
    let texts = texts();
    let expected = cpu(&folder, &texts);
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let encoder = open(&folder, &on(&gpu, dtype));
        let found = encoder.embed(&texts).unwrap();
        assert_alike(&found, &expected, &format!("{dtype:?}"));
        let report = encoder.report();
        assert_ne!(report.tier, Tier::Cpu);
        assert_eq!(report.device, format!("gpu:{}", gpu.facts().index));
        assert_eq!(report.device_name.as_ref(), Some(&gpu.facts().name));
        assert!(report.variant.is_some() && report.fallbacks == 0);
        assert!(found.info.iter().all(|info| !info.degraded));
        assert_eq!(found.info, expected.info);
        for i in [0, 7, 1023, 1024, 1499] {
            let alone = encoder.embed(&texts[i..=i]).unwrap();
            assert_eq!(alone.vector(0), found.vector(i), "text {i} alone");
        }
    }
}

#[test]
fn threads_share_an_encoder_on_a_gpu() {
    let Some(gpu) = gpu() else { return };
    let folder = Folder::new();
    let encoder = open(&folder, &on(&gpu, Dtype::Bf16));
    let texts = &texts()[..200];
    let expected = encoder.embed(texts).unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (encoder, expected) = (&encoder, &expected);
            scope.spawn(move || {
                let texts = &texts[part * 50..][..50];
                let found = encoder.embed(texts).unwrap();
                let expected = &expected.vectors[part * 50 * found.dim..][..50 * found.dim];
                assert_eq!(found.vectors, expected);
            });
        }
    });
}

#[test]
fn no_text_is_lost_when_the_gpu_fails() {
    let Some(first) = gpu() else { return };
    let folder = Folder::new();
    let texts = texts();
    let expected = cpu(&folder, &texts);
    for fault in [Fault::Unfinished, Fault::OutOfMemory, Fault::Lost] {
        let gpu = Gpu::open(first.facts().index, GpuOptions::default()).unwrap();
        let encoder = open(&folder, &on(&gpu, Dtype::Bf16));
        // The first call takes what buffers it needs for small batches only.
        encoder.embed(&texts[..1]).unwrap();
        gpu.faults().arm(fault, 1);
        let found = encoder.embed(&texts).unwrap();
        assert_eq!(gpu.faults().armed(fault), 0, "{fault:?} did not strike");
        assert_alike(&found, &expected, &format!("{fault:?}"));
        let report = encoder.report();
        assert!(report.fallbacks >= 1, "{fault:?} was not counted");
        let said = report.last_fallback.expect("what the GPU said");
        assert!(said.starts_with(&gpu.facts().name), "{said}");
        let degraded = found.info.iter().filter(|info| info.degraded).count();
        assert_eq!(report.degraded, degraded as u64);
        assert!(degraded > 0, "{fault:?}");
        // A GPU that is there again is used again; one that is gone is not asked.
        let after = encoder.embed(&texts).unwrap();
        let again = encoder.report().fallbacks - report.fallbacks;
        assert_eq!(after.info[0].degraded, fault == Fault::Lost, "{fault:?}");
        assert_eq!(again, 0, "{fault:?}: batches failed once more");
        assert_alike(&after, &expected, &format!("after {fault:?}"));
    }
}

#[test]
fn a_gpu_that_fails_again_and_again_is_given_up() {
    let Some(gpu) = gpu() else { return };
    let folder = Folder::new();
    let encoder = open(&folder, &on(&gpu, Dtype::Bf16));
    gpu.faults().arm(Fault::Unfinished, 100);
    for _ in 0..10 {
        encoder.embed(&["a stone"]).unwrap();
    }
    assert_eq!(encoder.report().fallbacks, 3);
    assert_eq!(gpu.faults().armed(Fault::Unfinished), 97);
}

#[test]
fn a_vector_that_is_not_finite_is_computed_again() {
    let Some(gpu) = gpu() else { return };
    let folder = Folder::new();
    let texts = &texts()[..40];
    let expected = cpu(&folder, texts);
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let encoder = open(&folder, &on(&gpu, dtype));
        gpu.faults().arm(Fault::NotFinite, 1);
        let found = encoder.embed(texts).unwrap();
        assert_eq!(gpu.faults().armed(Fault::NotFinite), 0);
        assert_alike(&found, &expected, "not finite");
        let degraded = found.info.iter().filter(|info| info.degraded).count();
        assert_eq!((degraded, encoder.report().degraded), (1, 1));
    }
}

#[test]
fn a_wrong_self_test_moves_to_the_next_variant_and_at_last_to_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let folder = Folder::new();
    let texts = &texts()[..40];
    let expected = cpu(&folder, texts);
    let best = open(&folder, &on(&gpu, Dtype::Bf16)).report();
    gpu.faults().arm(Fault::WrongAnswer, 1);
    let second = open(&folder, &on(&gpu, Dtype::Bf16));
    let report = second.report();
    assert_ne!(
        (&report.variant, report.arithmetic),
        (&best.variant, best.arithmetic)
    );
    assert_ne!(report.tier, Tier::Cpu);
    let test = &report.self_tests[0];
    assert!(test.veto.is_some() && test.what.contains(&gpu.facts().name));
    assert_eq!(test.outcome(), "failed");
    assert_alike(&second.embed(texts).unwrap(), &expected, "second variant");
    gpu.faults().arm(Fault::WrongAnswer, 100);
    let last = open(&folder, &on(&gpu, Dtype::Bf16));
    gpu.faults().arm(Fault::WrongAnswer, 0);
    let report = last.report();
    assert_eq!((report.tier, report.device.as_str()), (Tier::Cpu, "cpu"));
    assert!(report.reasons.iter().any(|r| r.contains("self-test")));
    assert_alike(&last.embed(texts).unwrap(), &expected, "the CPU");
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let folder = Folder::new();
    let files = sela_encoder::ModelFiles::read(&folder.path("")).unwrap();
    let options = EncoderOptions {
        device: DeviceChoice::Number(99),
        ..EncoderOptions::default()
    };
    let error = Encoder::open(&files, &options).err().expect("an error");
    assert!(error.to_string().contains("no GPU number 99"), "{error}");
}
