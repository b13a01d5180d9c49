//! Known-answer test of the encoder's kernels on a GPU.

use super::{LENGTHS, Model, Shape, batch, same_bits};
use crate::error::Error;
use crate::gpu::encode::{GpuEncode, Variant};
use crate::gpu::{Fault, Gpu, Proof, Subject};
use crate::plan::Arithmetic;

/// Heads of 32 numbers, as the small models have, and of 64, as the larger ones; neither hidden
/// nor inner states fill their padded rows.
const SHAPES: [Shape; 2] = [
    Shape {
        hidden: 96,
        inner: 144,
        heads: 3,
    },
    Shape {
        hidden: 128,
        inner: 80,
        heads: 2,
    },
];

/// For matrix units played by plain code, which is slow.
const BRIEF: ([Shape; 1], [usize; 2]) = (
    [Shape {
        hidden: 32,
        inner: 48,
        heads: 1,
    }],
    [5, 33],
);

/// Largest difference of a number; the vectors have length 1.
fn tolerance(arithmetic: Arithmetic) -> f32 {
    match arithmetic {
        Arithmetic::F32 => 2e-5,
        _ => 1e-2,
    }
}

/// Holds the kernels of `variant` in `arithmetic` on `gpu` against the reference, each sequence
/// alone against itself in a batch, and each tile of the products against the others, bit for bit.
/// An error is a veto.
///
/// Takes some milliseconds once the kernels are compiled.
pub fn gpu_self_test(gpu: &Gpu, variant: Variant, arithmetic: Arithmetic) -> Result<(), Error> {
    prove(gpu, variant, arithmetic, true).map(|_| ())
}

/// The same, unless it is remembered that it was passed.
pub fn gpu_self_test_once(
    gpu: &Gpu,
    variant: Variant,
    arithmetic: Arithmetic,
) -> Result<Proof, Error> {
    prove(gpu, variant, arithmetic, false)
}

fn prove(gpu: &Gpu, variant: Variant, arithmetic: Arithmetic, anew: bool) -> Result<Proof, Error> {
    let backend = GpuEncode::new(gpu.clone(), variant, arithmetic)?;
    let heads = SHAPES.map(|shape| shape.hidden / shape.heads);
    let widths = SHAPES.map(|shape| shape.hidden);
    let what = format!("{variant} kernels in {arithmetic}");
    let subject = Subject::new(what, backend.texts(&widths, &heads)?);
    gpu.prove(&subject, anew, || self_test_of(&backend))
}

/// The test of an encoder, which keeps the kernels compiled for it.
pub fn self_test_of(backend: &GpuEncode) -> Result<(), Error> {
    let (variant, arithmetic) = (backend.variant(), backend.arithmetic());
    let what = format!(
        "{variant} kernels in {arithmetic} on {}",
        backend.gpu().facts().name
    );
    if backend.gpu().faults().strike(Fault::WrongAnswer) {
        return Err(Error::SelfTest(format!("{what}: a fault on demand")));
    }
    let (shapes, lengths): (&[Shape], &[usize]) = match backend.is_emulated() {
        true => (&BRIEF.0, &BRIEF.1),
        false => (&SHAPES, &LENGTHS),
    };
    let batch = batch(lengths);
    for &shape in shapes {
        let model = Model::new(backend, shape)?;
        let found = model.check(shape, &batch, tolerance(arithmetic), &what)?;
        for (tile, other) in backend.with_each_tile(|| model.run(&batch))? {
            if !same_bits(&found, &other) {
                return Err(Error::SelfTest(format!(
                    "{what}: other bits in {tile} tiles"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is remembered is the kernels' texts: all those that the test has compiled.
    #[test]
    fn the_texts_of_all_tested_kernels_are_part_of_what_is_proven() {
        let Some(gpu) = crate::gpu::tests::gpu() else {
            return;
        };
        for variant in Variant::preferred(gpu.facts(), Arithmetic::F32) {
            let backend = GpuEncode::new(gpu.clone(), variant, Arithmetic::F32).unwrap();
            self_test_of(&backend).unwrap();
            let heads = SHAPES.map(|shape| shape.hidden / shape.heads);
            let texts = backend.texts(&SHAPES.map(|shape| shape.hidden), &heads);
            let (texts, compiled) = (texts.unwrap(), backend.compiled().unwrap());
            assert!(compiled.len() > 5);
            for text in compiled {
                assert!(texts.contains(&text), "{variant}: {text}");
            }
        }
    }
}
