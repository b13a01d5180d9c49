//! The encoder on a GPU, held against the CPU in f32.
#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)] // They say what ran and what this machine lacks.

mod gpu_support;

use std::sync::Arc;

use gpu_support::{
    Model, POISON, POSITIONS, Shape, VOCABULARY, alone, attention, batch, bits, embedding,
    feed_forward, on_cpu, text,
};
use sela_compute::encode::{Encode, Forward, Pooling, Ragged, Ticket};
use sela_compute::gpu::encode::{GpuEncode, Variant, gpu_self_test, self_test_of};
use sela_compute::gpu::{Fault, Gpu, GpuOptions, adapters};
use sela_compute::{Arithmetic, Error};

/// The best GPU here, a software one if need be.
fn gpu(options: GpuOptions) -> Option<Gpu> {
    let facts = adapters();
    let Some(facts) = facts.first() else {
        println!("skipped: no GPU");
        return None;
    };
    println!("GPU: {} ({})", facts.name, facts.backend);
    Some(Gpu::open(0, options).unwrap())
}

/// Every encoder that the GPU can run.
fn encoders(gpu: &Gpu) -> Vec<GpuEncode> {
    let mut all = Vec::new();
    for arithmetic in [Arithmetic::F16, Arithmetic::F32] {
        let variants = Variant::preferred(gpu.facts(), arithmetic);
        for variant in Variant::ALL {
            if variants.contains(&variant) {
                all.push(GpuEncode::new(gpu.clone(), variant, arithmetic).unwrap());
            } else {
                println!("{variant} in {arithmetic}: skipped, this GPU lacks it");
            }
        }
    }
    all
}

/// The promise of an arithmetic: the least cosine to f32, and the largest difference.
fn promise(arithmetic: Arithmetic) -> (f64, f32) {
    match arithmetic {
        Arithmetic::F32 => (0.999_999, 1e-5),
        _ => (0.9999, f32::INFINITY),
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Holds `found` against `expected`, vectors of `shape.hidden` numbers.
fn hold(backend: &GpuEncode, shape: Shape, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let (least, most) = promise(backend.arithmetic());
    let what = format!(
        "{} in {}, {shape:?}",
        backend.variant(),
        backend.arithmetic()
    );
    let rows = found
        .chunks_exact(shape.hidden)
        .zip(expected.chunks_exact(shape.hidden));
    for (row, (found, expected)) in rows.enumerate() {
        let near = cosine(found, expected);
        assert!(near >= least, "{what}: cosine {near} of vector {row}");
        for (x, y) in found.iter().zip(expected) {
            assert!(
                (x - y).abs() <= most,
                "{what}: {x}, not {y}, in vector {row}"
            );
        }
    }
}

#[test]
fn every_variant_passes_its_self_test() {
    for checked in [false, true] {
        let options = GpuOptions {
            checked,
            ..GpuOptions::default()
        };
        let Some(gpu) = gpu(options) else { return };
        for encoder in encoders(&gpu) {
            gpu_self_test(&gpu, encoder.variant(), encoder.arithmetic()).unwrap();
        }
        gpu.faults().arm(Fault::WrongAnswer, 1);
        let error = gpu_self_test(&gpu, Variant::Plain, Arithmetic::F32).unwrap_err();
        assert!(matches!(error, Error::SelfTest(_)), "{error}");
    }
}

/// The kernels on matrix units, which few machines have: index for index the same, with the unit
/// played by plain code.
#[test]
fn matrix_kernels_are_right_without_matrix_units() {
    for variant in [Variant::Coop8, Variant::Coop16] {
        let Some(gpu) = gpu(GpuOptions::default()) else {
            return;
        };
        let Ok(backend) = GpuEncode::emulating(gpu, variant) else {
            println!("skipped: no f16");
            return;
        };
        self_test_of(&backend).unwrap();
        // And where the output must be scaled anew between keys.
        let mut shape = Shape::new(32, 48, 1);
        shape.heat = 4.0;
        let batch = batch(&[40]);
        let expected = on_cpu(shape, &batch, Pooling::Mean, true);
        let found = Model::new(&backend, shape).run(&backend, &batch);
        let near = cosine(&found, &expected);
        assert!(near >= 0.999, "{variant}: {near}");
    }
}

/// Heads of 16, 32, 48, 64 and 128 numbers, rows that do and do not fill their padding.
#[test]
fn vectors_are_those_of_the_cpu() {
    let lengths = [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130, 300];
    let small = &lengths[..8];
    for (checked, shape, lengths) in [
        (false, Shape::new(48, 96, 3), &lengths[..]),
        (true, Shape::new(48, 48, 3), small),
        (false, Shape::new(64, 80, 1), &lengths[4..11]),
        (true, Shape::new(64, 80, 1), &lengths[2..8]),
        (false, Shape::new(96, 144, 2), small),
        (false, Shape::new(128, 64, 1), small),
    ] {
        let options = GpuOptions {
            checked,
            ..GpuOptions::default()
        };
        let Some(gpu) = gpu(options) else { return };
        let batch = batch(lengths);
        let expected = on_cpu(shape, &batch, Pooling::Mean, true);
        for backend in encoders(&gpu) {
            let found = Model::new(&backend, shape).run(&backend, &batch);
            hold(&backend, shape, &found, &expected);
        }
    }
}

/// The width of the common small models, in enough text for the largest tiles.
#[test]
fn a_common_model_keeps_its_promise() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let shape = Shape::new(384, 384, 12);
    let batch = batch(&[33, 64, 100, 12]);
    let expected = on_cpu(shape, &batch, Pooling::Mean, true);
    for backend in encoders(&gpu) {
        let found = Model::new(&backend, shape).run(&backend, &batch);
        hold(&backend, shape, &found, &expected);
    }
}

/// Weights that leave the range of the first keys: the output must be scaled anew on the way.
#[test]
fn sharp_attention_stays_within_bounds() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let mut shape = Shape::new(64, 64, 2);
    shape.heat = 4.0;
    let batch = batch(&[300, 47, 130]);
    let expected = on_cpu(shape, &batch, Pooling::Mean, true);
    for backend in encoders(&gpu) {
        let found = Model::new(&backend, shape).run(&backend, &batch);
        let rows = found.chunks_exact(64).zip(expected.chunks_exact(64));
        for (found, expected) in rows {
            let near = cosine(found, expected);
            // Scores of some tens, from operands in f16: a weight may be off by a few percent.
            assert!(near >= 0.999, "{}: {near}", backend.variant());
        }
    }
}

#[test]
fn pooling_is_as_asked() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let shape = Shape::new(48, 96, 3);
    let batch = batch(&[1, 7, 40]);
    for backend in encoders(&gpu) {
        let mut model = Model::new(&backend, shape);
        for (pooling, unit) in [
            (Pooling::Mean, false),
            (Pooling::Cls, false),
            (Pooling::Cls, true),
        ] {
            (model.pooling, model.unit) = (pooling, unit);
            let found = model.run(&backend, &batch);
            let expected = on_cpu(shape, &batch, pooling, unit);
            // Not of length 1: f32 is held to a difference at the size of the numbers.
            let scale = expected.iter().fold(1f32, |most, x| most.max(x.abs()));
            let found: Vec<f32> = found.iter().map(|x| x / scale).collect();
            let expected: Vec<f32> = expected.iter().map(|x| x / scale).collect();
            hold(&backend, shape, &found, &expected);
        }
    }
}

#[test]
fn a_text_has_the_same_bits_in_any_batch() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let shape = Shape::new(48, 96, 3);
    let lengths: Vec<usize> = (0..40).map(|i| 1 + i * 37 % 70).collect();
    let all = batch(&lengths);
    let mut reversed = Ragged::new();
    for (salt, &len) in lengths.iter().enumerate().rev() {
        reversed.push(&text(len, salt));
    }
    for backend in encoders(&gpu) {
        let model = Model::new(&backend, shape);
        let found = model.run(&backend, &all);
        let vectors: Vec<&[f32]> = found.chunks_exact(shape.hidden).collect();
        let backwards = model.run(&backend, &reversed);
        for (a, b) in vectors
            .iter()
            .zip(backwards.chunks_exact(shape.hidden).rev())
        {
            assert_eq!(bits(a), bits(b), "{} in reverse", backend.variant());
        }
        for (i, vector) in vectors.iter().enumerate().step_by(7) {
            let one = model.run(&backend, &alone(&all.ids()[all.range(i)]));
            assert_eq!(bits(&one), bits(vector), "{}, text {i}", backend.variant());
        }
    }
}

#[test]
fn forwards_of_several_threads_do_not_meet() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let shape = Shape::new(48, 96, 3);
    let batches: Vec<Ragged> = (1..=4).map(|n| batch(&[n * 9, 3, n])).collect();
    for backend in encoders(&gpu) {
        let model = Model::new(&backend, shape);
        let expected: Vec<_> = batches
            .iter()
            .map(|b| bits(&model.run(&backend, b)))
            .collect();
        std::thread::scope(|scope| {
            for (batch, expected) in batches.iter().zip(&expected) {
                let (model, backend) = (&model, &backend);
                scope.spawn(move || {
                    let submit = |_| model.submit(backend, batch).unwrap();
                    let tickets: Vec<_> = (0..3).map(submit).collect();
                    // The last first: a ticket depends on no other. One is given up.
                    for ticket in tickets.into_iter().skip(1).rev() {
                        assert_eq!(bits(&ticket.wait().unwrap()), *expected);
                    }
                });
            }
        });
    }
}

#[test]
fn a_text_that_is_not_finite_harms_no_other() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let shape = Shape::new(48, 96, 3);
    let mut sick = text(20, 1);
    sick[5] = POISON;
    let mut among = Ragged::new();
    for ids in [&text(17, 0), &sick, &text(33, 2)] {
        among.push(ids);
    }
    for backend in encoders(&gpu) {
        let model = Model::new(&backend, shape);
        let found = model.run(&backend, &among);
        let vectors: Vec<&[f32]> = found.chunks_exact(shape.hidden).collect();
        assert!(vectors[1].iter().any(|x| !x.is_finite()));
        // After it, its rows are still in memory.
        for (i, ids) in [(0, text(17, 0)), (2, text(33, 2))] {
            let one = model.run(&backend, &alone(&ids));
            assert!(one.iter().all(|x| x.is_finite()));
            assert_eq!(bits(&one), bits(vectors[i]), "{}", backend.variant());
        }
    }
}

#[test]
fn words_too_many_for_a_binding_are_sent_along() {
    let shape = Shape::new(48, 96, 3);
    let batch = batch(&[5, 40]);
    // Rows of 128 numbers: the table takes 75 KiB in f16, everything else less.
    let binding_bytes_max = Some(70 << 10);
    let small = GpuOptions {
        binding_bytes_max,
        ..GpuOptions::default()
    };
    let mut found = Vec::new();
    for options in [GpuOptions::default(), small] {
        let Some(gpu) = gpu(options) else { return };
        let backend = GpuEncode::new(gpu, Variant::Plain, Arithmetic::F16);
        let Ok(backend) = backend else {
            println!("skipped: no f16");
            return;
        };
        found.push(bits(&Narrow::run(&backend, shape, &batch)));
    }
    assert_eq!(found[0], found[1]);
}

/// A model of embeddings only, whose other weights are smaller than its word table.
struct Narrow;

impl Narrow {
    fn run(backend: &GpuEncode, shape: Shape, batch: &Ragged) -> Vec<f32> {
        let mut tensors = embedding(shape);
        // Fewer positions than words, in f32.
        let short = sela_compute::encode::Tensor::from_f32(
            &tensors.position.to_f32()[..40 * shape.hidden],
            [40, shape.hidden],
        );
        tensors.position = short.unwrap();
        let weights = backend.embedding(tensors).unwrap();
        let mut forward = backend.begin(batch).unwrap();
        forward.embed(&weights).unwrap();
        forward.pool(Pooling::Mean, true).unwrap();
        forward.submit().unwrap().wait().unwrap()
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let backend = GpuEncode::new(gpu.clone(), Variant::Plain, Arithmetic::F32).unwrap();
    let shape = Shape::new(48, 96, 3);
    let weights = backend.embedding(embedding(shape)).unwrap();
    let many = alone(&vec![0; POSITIONS + 1]);
    let strange = alone(&[VOCABULARY as u32]);
    let mut crowd = Ragged::new();
    for _ in 0..65_536 {
        crowd.push(&[1]);
    }
    for (batch, expected) in [
        (&many, "number of tokens of a text is 321, the limit is 320"),
        (&strange, "token id is 300, the limit is 299"),
        (
            &crowd,
            "number of tokens of a batch is 65536, the limit is 65535",
        ),
    ] {
        let error = backend.begin(batch).unwrap().embed(&weights).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let wide = backend.attention(attention(Shape::new(144, 16, 1), 0));
    let wide = wide.err().unwrap().to_string();
    assert_eq!(
        wide,
        "numbers of an attention head is 144, the limit is 128"
    );
    let odd = backend.feed_forward(feed_forward(Shape::new(48, 40, 3), 0));
    let odd = odd.err().unwrap().to_string();
    assert_eq!(
        odd,
        "inner size (a multiple of 16): expected 48 numbers, found 40"
    );
    let other = backend
        .attention(attention(Shape::new(64, 16, 1), 0))
        .unwrap();
    let batch = batch(&[3]);
    let mut forward = backend.begin(&batch).unwrap();
    forward.embed(&weights).unwrap();
    assert!(matches!(forward.attend(&other), Err(Error::Shape { .. })));
    assert!(GpuEncode::new(gpu, Variant::Plain, Arithmetic::Bf16).is_err());
}

#[test]
fn faults_on_demand_happen_once() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let backend = Arc::new(GpuEncode::new(gpu.clone(), Variant::Plain, Arithmetic::F32).unwrap());
    let model = Model::new(&*backend, Shape::new(48, 96, 3));
    let batch = batch(&[4, 9]);
    let healthy = bits(&model.run(&backend, &batch));
    gpu.faults().arm(Fault::NotFinite, 1);
    let sick = model.run(&backend, &batch);
    assert!(sick[..48].iter().all(|x| x.is_nan()) && sick[48..].iter().all(|x| x.is_finite()));
    gpu.faults().arm(Fault::Unfinished, 1);
    let error = model.submit(&backend, &batch).unwrap().wait().unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert_eq!(bits(&model.run(&backend, &batch)), healthy);
    gpu.faults().arm(Fault::Lost, 1);
    let lost = model.submit(&backend, &batch);
    assert!(matches!(lost, Err(Error::Device { .. })));
    // Lost for good, and said so every time.
    assert!(matches!(
        model.submit(&backend, &batch),
        Err(Error::Device { .. })
    ));
}
