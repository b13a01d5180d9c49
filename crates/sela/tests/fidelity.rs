//! The real model against sentence-transformers, and against itself: golden vectors of 2,138 texts,
//! the same bits alone, in any batch, in any order, from many threads.
#![allow(clippy::print_stdout)] // They say what ran and what this CPU lacks.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sela::{Arithmetic, DeviceChoice, Dtype, Inventory, Isa, Options};
use sela_encoder::{Encoder, EncoderOptions, ModelFiles};

const DIM: usize = 384;

/// The folder of the real model: where SELA_HOME has it, else fetched once for all tests.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let home = std::env::var_os("SELA_HOME").map_or_else(
            || Path::new(env!("CARGO_TARGET_TMPDIR")).join("sela-home"),
            PathBuf::from,
        );
        let engine = sela::Engine::open(Options::new(home)).unwrap();
        let found = engine
            .models()
            .find_or_pull("all-MiniLM-L6-v2", &mut |_| {});
        found
            .unwrap_or_else(|error| panic!("the model cannot be had: {error}"))
            .path
    })
}

fn open(options: &EncoderOptions) -> Encoder {
    let encoder = Encoder::open(&ModelFiles::read(model()).unwrap(), options).unwrap();
    let report = encoder.report();
    println!(
        "{} tier, {} kernels, {} products",
        report.tier, report.isa, report.arithmetic
    );
    encoder
}

#[derive(serde::Deserialize)]
struct GoldenText {
    text: String,
    group: String,
    tokens: usize,
    tokens_total: usize,
}

fn golden() -> (Vec<GoldenText>, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut lines = String::new();
    let packed = std::fs::File::open(folder.join("texts.jsonl.gz")).unwrap();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut lines)
        .unwrap();
    let texts: Vec<GoldenText> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let npy = std::fs::read(folder.join("vectors.npy")).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let numbers = npy[header..]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b));
    let vectors: Vec<f32> = numbers.collect();
    assert!(texts.len() >= 2000 && vectors.len() == texts.len() * DIM);
    (texts, vectors)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Largest difference of a number, least and mean cosine to the golden vectors of every `step`-th
/// text.
fn compare(encoder: &Encoder, step: usize) -> (f32, f64, f64) {
    let (texts, vectors) = golden();
    let picked: Vec<usize> = (0..texts.len()).step_by(step).collect();
    let input: Vec<&str> = picked.iter().map(|&i| texts[i].text.as_str()).collect();
    let found = encoder.embed(&input).unwrap();
    let (mut largest, mut least, mut sum) = (0f32, f64::INFINITY, 0.0);
    for (at, &i) in picked.iter().enumerate() {
        let GoldenText {
            group,
            tokens,
            tokens_total,
            ..
        } = &texts[i];
        let info = &found.info[at];
        assert_eq!(
            (info.tokens, info.tokens_total),
            (*tokens, *tokens_total),
            "text {i}, {group}"
        );
        assert_eq!(info.truncated, tokens < tokens_total);
        assert!(
            !info.degraded,
            "text {i}, {group}: not by {}",
            encoder.report().arithmetic
        );
        let (a, b) = (found.vector(at), &vectors[i * DIM..][..DIM]);
        assert!(a.iter().all(|x| x.is_finite()), "text {i}, {group}");
        largest = a
            .iter()
            .zip(b)
            .fold(largest, |m, (x, y)| m.max((x - y).abs()));
        let cosine = cosine(a, b);
        least = least.min(cosine);
        sum += cosine;
    }
    let mean = sum / picked.len() as f64;
    println!(
        "{} texts: max abs {largest:.2e}, cosine min {least:.7}, mean {mean:.7}",
        picked.len()
    );
    (largest, least, mean)
}

/// What is promised here is promised for the CPU; the GPU has its own test.
fn on_the_cpu() -> EncoderOptions {
    EncoderOptions {
        device: DeviceChoice::Cpu,
        ..EncoderOptions::default()
    }
}

/// All texts where the GPU is one, a few where the CPU plays one.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_keeps_the_same_promises() {
    use sela_compute::inventory::GpuKind;

    let Some(facts) = sela_compute::gpu::adapters().into_iter().next() else {
        println!("GPU: skipped, this machine has no GPU");
        return;
    };
    let software = facts.kind == GpuKind::Software;
    for (dtype, step) in [(Dtype::Bf16, 240), (Dtype::F32, 480)] {
        let encoder = open(&EncoderOptions {
            device: DeviceChoice::Number(facts.index),
            dtype,
            ..EncoderOptions::default()
        });
        let report = encoder.report();
        assert_eq!(
            report.device_name.as_ref(),
            Some(&facts.name),
            "{:?}",
            report.reasons
        );
        let (variant, arithmetic) = (report.variant.unwrap_or_default(), report.arithmetic);
        println!("{arithmetic} by {variant} kernels on gpu:{}", facts.index);
        let (largest, least, mean) = compare(&encoder, if software { step } else { 1 });
        assert!(least >= 0.9999 && mean >= 0.99999, "{least} {mean}");
        assert!(dtype != Dtype::F32 || largest <= 1e-5, "{largest}");
        assert_eq!(encoder.report().fallbacks, 0);
    }
}

#[test]
fn f32_is_within_1e_5_of_sentence_transformers() {
    let encoder = open(&EncoderOptions {
        dtype: Dtype::F32,
        ..on_the_cpu()
    });
    let (largest, least, _) = compare(&encoder, 1);
    assert!(largest <= 1e-5, "{largest}");
    assert!(least >= 0.999_999, "{least}");
}

#[test]
fn every_instruction_set_is_within_1e_5() {
    for isa in Isa::available() {
        let options = EncoderOptions {
            isa: Some(isa),
            arithmetic: Some(Arithmetic::F32),
            ..on_the_cpu()
        };
        let (largest, ..) = compare(&open(&options), 40);
        assert!(largest <= 1e-5, "{isa}: {largest}");
    }
}

#[test]
fn split_bf16_is_f32_grade() {
    let encoder = open(&EncoderOptions {
        arithmetic: Some(Arithmetic::Bf16x3),
        ..on_the_cpu()
    });
    let (largest, ..) = compare(&encoder, 40);
    assert!(largest <= 1e-5, "{largest}");
}

/// Whether this CPU has a bf16 unit; says so.
fn has_bf16_unit() -> bool {
    let unit = Inventory::probe_cpu().cpu.bf16;
    match unit {
        Some(unit) => println!("bf16 by {unit}"),
        None => println!("bf16 unit: skipped, this CPU lacks it; emulated on fewer texts"),
    }
    unit.is_some()
}

#[test]
fn bf16_keeps_its_promise() {
    let step = if has_bf16_unit() { 1 } else { 8 };
    let encoder = open(&EncoderOptions {
        dtype: Dtype::Bf16,
        ..on_the_cpu()
    });
    let (_, least, mean) = compare(&encoder, step);
    assert!(least >= 0.999, "{least}");
    assert!(mean >= 0.9999, "{mean}");
}

/// Whether this CPU has an int8 unit; says so.
fn has_int8_unit() -> bool {
    let cpu = Inventory::probe_cpu().cpu;
    let unit = cpu.int8.iter().find(|unit| unit.isa() == cpu.isas[0]);
    match unit {
        Some(unit) => println!("int8 by {unit}"),
        None => println!("int8 unit: skipped, this CPU lacks one; emulated on fewer texts"),
    }
    unit.is_some()
}

#[test]
fn int8_keeps_its_promise() {
    let (step, emulated) = match has_int8_unit() {
        true => (1, None),
        false => (8, Some(Arithmetic::Int8)),
    };
    let encoder = open(&EncoderOptions {
        dtype: Dtype::Int8,
        arithmetic: emulated,
        ..on_the_cpu()
    });
    assert_eq!(encoder.report().arithmetic, Arithmetic::Int8);
    let (_, least, mean) = compare(&encoder, step);
    assert!(least >= 0.99, "{least}");
    assert!(mean >= 0.995, "{mean}");
}

/// Whether int16 is not emulated here; says so.
fn has_int16_unit() -> bool {
    let cpu = Inventory::probe_cpu().cpu;
    let unit = cpu.int16.iter().find(|unit| unit.isa() == cpu.isas[0]);
    match unit {
        Some(unit) => println!("int16 by {unit}"),
        None if cpu.isas[0] == Isa::Avx2 => println!("int16 by avx2, no faster than f32"),
        None => println!("int16 unit: skipped, this CPU lacks one; emulated on fewer texts"),
    }
    unit.is_some() || cpu.isas[0] == Isa::Avx2
}

#[test]
fn int16_is_closer_than_auto_promises() {
    let step = if has_int16_unit() { 1 } else { 8 };
    let encoder = open(&EncoderOptions {
        dtype: Dtype::Bf16,
        arithmetic: Some(Arithmetic::Int16),
        ..on_the_cpu()
    });
    let (_, least, mean) = compare(&encoder, step);
    assert!(least >= 0.9999, "{least}");
    assert!(mean >= 0.99999, "{mean}");
}

/// Texts of many lengths with their own vectors, embedded alone.
fn alone(encoder: &Encoder) -> Vec<(String, Vec<f32>)> {
    let (texts, _) = golden();
    let some = texts.into_iter().step_by(23).map(|t| t.text);
    some.map(|text| {
        let vector = encoder.embed(&[&text]).unwrap().vectors;
        (text, vector)
    })
    .collect()
}

fn assert_same_bits(expected: &[f32], found: &[f32], what: &str) {
    let same = expected
        .iter()
        .zip(found)
        .all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same && expected.len() == found.len(), "other bits: {what}");
}

#[test]
fn a_text_has_the_same_bits_alone_in_any_batch_and_order_and_from_eight_threads() {
    // The emulation's bits are held by the tests of its products.
    let mut arithmetics = vec![(Dtype::F32, None)];
    arithmetics.extend(has_bf16_unit().then_some((Dtype::Bf16, None)));
    arithmetics.extend(has_int16_unit().then_some((Dtype::Bf16, Some(Arithmetic::Int16))));
    arithmetics.extend(has_int8_unit().then_some((Dtype::Int8, None)));
    for (dtype, arithmetic) in arithmetics {
        let options = EncoderOptions {
            dtype,
            arithmetic,
            ..on_the_cpu()
        };
        let encoder = open(&options);
        let alone = alone(&encoder);
        check_orders(&encoder, &alone);
        check_threads(&encoder, &alone);
        let single = open(&EncoderOptions {
            threads: Some(1),
            ..options
        });
        for (text, vector) in alone.iter().step_by(5) {
            assert_same_bits(vector, &single.embed(&[text]).unwrap().vectors, text);
        }
    }
}

/// All texts in one batch: as they are, shuffled, backwards.
fn check_orders(encoder: &Encoder, alone: &[(String, Vec<f32>)]) {
    let n = alone.len();
    for stride in [1, 7, n - 1] {
        let order: Vec<usize> = (0..n).map(|i| i * stride % n).collect();
        assert!(
            (0..n).all(|i| order.contains(&i)),
            "{stride} leaves texts out"
        );
        let batch: Vec<&str> = order.iter().map(|&i| alone[i].0.as_str()).collect();
        let found = encoder.embed(&batch).unwrap();
        for (at, &i) in order.iter().enumerate() {
            assert_same_bits(&alone[i].1, found.vector(at), &alone[i].0);
        }
    }
}

/// Eight threads at once, each with batches of its own.
fn check_threads(encoder: &Encoder, alone: &[(String, Vec<f32>)]) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for size in [1, 2, 3, 5, 9] {
                    let mine = &alone[thread * size..thread * size + size];
                    let texts: Vec<&str> = mine.iter().map(|(text, _)| text.as_str()).collect();
                    let found = encoder.embed(&texts).unwrap();
                    for (at, (text, vector)) in mine.iter().enumerate() {
                        assert_same_bits(vector, found.vector(at), text);
                    }
                }
            });
        }
    });
}
