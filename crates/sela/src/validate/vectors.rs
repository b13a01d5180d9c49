//! Vectors against those of sentence-transformers, and the same text in many batches.

use sela_compute::Arithmetic;
use sela_encoder::Dtype;

use super::{Checks, Outcome, skipped, verdict};
use crate::engine::{Engine, Options};
use crate::error::Result;

pub(super) fn run(engine: &Engine, checks: &mut Checks<'_>) -> Result<()> {
    let model = engine.models().find(&engine.options().model)?;
    checks.run("model files are as they were fetched", || {
        let verified = engine.models().verify(&engine.options().model)?;
        let bad: Vec<_> = verified
            .iter()
            .filter_map(|f| f.problem.as_deref())
            .collect();
        let found = match bad.is_empty() {
            true => format!("{} files, {} bytes", verified.len(), model.bytes()),
            false => bad.join("; "),
        };
        Ok(verdict(bad.is_empty(), found))
    });
    let golden = crate::golden::of(&model)?;
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8, Dtype::Auto] {
        let name = format!(
            "{} vectors are those of sentence-transformers",
            name_of(dtype)
        );
        let golden = golden.as_ref();
        checks.run(name, || match golden {
            None => skipped("golden vectors of this model"),
            Some(_) if dtype == Dtype::Bf16 && !has_16_bits(engine)? => skipped(
                "a GPU with f16 or a CPU with a unit for bf16 products (AMX or AVX-512 BF16)",
            ),
            Some(golden) => fidelity(engine, golden, dtype),
        });
    }
    checks.run(
        "a text has the same bits alone, in any batch and from any thread",
        || batch_invariance(engine),
    );
    Ok(())
}

pub(super) fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Auto => "auto",
        Dtype::F32 => "f32",
        Dtype::Bf16 => "bf16",
        Dtype::Int8 => "int8",
    }
}

/// Whether the device has a unit for numbers of 16 bits.
fn has_16_bits(engine: &Engine) -> Result<bool> {
    let has = engine.capabilities()?;
    Ok(has.inventory.cpu.bf16.is_some() || has.gpu.is_some_and(|gpu| gpu.f16))
}

fn with_dtype(engine: &Engine, dtype: Dtype) -> Result<Engine> {
    if engine.options().dtype == dtype {
        return Ok(engine.clone());
    }
    Engine::open(Options {
        dtype,
        ..engine.options().clone()
    })
}

fn fidelity(engine: &Engine, golden: &sela_encoder::Golden, dtype: Dtype) -> Result<Outcome> {
    let engine = with_dtype(engine, dtype)?;
    let report = engine.encoder()?.report();
    let arithmetic = report.arithmetic;
    if dtype == Dtype::Int8 && arithmetic != Arithmetic::Int8 {
        // Vectors of another arithmetic say nothing of int8.
        let veto = report.self_tests.into_iter().find_map(|test| test.veto);
        return match veto {
            Some(found) => Ok(Outcome::Fail { found }),
            None => skipped(format!("int8 products in use: it computes in {arithmetic}")),
        };
    }
    let found = engine.embed_batch(&golden.texts)?;
    let texts = golden.texts.len();
    let degraded = found.info.iter().filter(|i| i.degraded).count();
    if degraded > 0 {
        // Right as they may be, they say nothing of this arithmetic.
        return Ok(Outcome::Fail {
            found: format!(
                "{degraded} of {texts} vectors by {arithmetic} were not finite, or their device failed, and were computed again"
            ),
        });
    }
    let off = Distance::between(&found.vectors, &golden.vectors, found.dim);
    let Distance {
        largest,
        least,
        mean,
    } = off;
    let text = format!(
        "{texts} texts by {arithmetic}: largest difference {largest:.1e}, cosine {least:.7} at least, {mean:.7} in the mean"
    );
    Ok(verdict(off.keeps(dtype), text))
}

/// How far vectors are from those they should be; NaN wherever one of their numbers is.
pub(super) struct Distance {
    pub(super) largest: f32,
    pub(super) least: f64,
    mean: f64,
}

impl Distance {
    pub(super) fn between(found: &[f32], golden: &[f32], dim: usize) -> Self {
        // `max` and `min` of the standard library pass over NaNs.
        let largest = found
            .iter()
            .zip(golden)
            .map(|(x, y)| (x - y).abs())
            .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
        let cosines: Vec<f64> = found
            .chunks_exact(dim)
            .zip(golden.chunks_exact(dim))
            .map(|(a, b)| cosine(a, b))
            .collect();
        let least = cosines.iter().fold(
            f64::INFINITY,
            |a, &b| if b < a || b.is_nan() { b } else { a },
        );
        Self {
            largest,
            least,
            mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
        }
    }

    /// Whether the promise of a precision is kept; a NaN keeps none.
    fn keeps(&self, dtype: Dtype) -> bool {
        match dtype {
            Dtype::F32 => self.largest <= 1e-5 && self.least >= 0.999_999,
            Dtype::Bf16 | Dtype::Auto => self.least >= 0.999 && self.mean >= 0.9999,
            Dtype::Int8 => self.least >= 0.99 && self.mean >= 0.995,
        }
    }
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

fn batch_invariance(engine: &Engine) -> Result<Outcome> {
    const THREADS: usize = 4;
    let texts = crate::golden::golden().texts;
    let expected = engine.embed_batch(&texts)?;
    let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let expected: Vec<_> = expected
        .vectors
        .chunks_exact(expected.dim)
        .map(bits)
        .collect();
    let mut differs = None;
    let mut compare = |how: &str, order: &[usize], vectors: &[f32], dim: usize| {
        for (at, vector) in order.iter().zip(vectors.chunks_exact(dim)) {
            if bits(vector) != expected[*at] {
                differs = Some(format!("text {at} {how}"));
            }
        }
    };
    for (at, text) in texts.iter().enumerate() {
        let alone = engine.embed_batch(&[text])?.vectors;
        compare("alone", &[at], &alone, alone.len());
    }
    let backwards: Vec<usize> = (0..texts.len()).rev().collect();
    let reversed: Vec<&String> = backwards.iter().map(|&i| &texts[i]).collect();
    let all = std::thread::scope(|scope| {
        let embed = || engine.embed_batch(&reversed);
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(embed)).collect();
        threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    for result in all {
        let Ok(embedded) = result else {
            return Ok(Outcome::Fail {
                found: "a thread panicked".to_owned(),
            });
        };
        let embedded = embedded?;
        compare(
            "backwards, by threads at once",
            &backwards,
            &embedded.vectors,
            embedded.dim,
        );
    }
    Ok(match differs {
        Some(found) => Outcome::Fail {
            found: format!("other bits: {found}"),
        },
        None => Outcome::Pass {
            found: format!(
                "{} texts alone, and backwards from {THREADS} threads at once",
                texts.len()
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{Distance, Dtype};

    #[test]
    fn a_nan_keeps_no_promise_wherever_it_is() {
        let golden = [0.6f32, 0.8, 1.0, 0.0, 0.0, 1.0];
        let keeps = |found: &[f32]| {
            let off = Distance::between(found, &golden, 2);
            [Dtype::F32, Dtype::Bf16, Dtype::Int8, Dtype::Auto].map(|dtype| off.keeps(dtype))
        };
        assert_eq!(keeps(&golden), [true; 4]);
        for at in 0..golden.len() {
            let mut found = golden;
            found[at] = f32::NAN;
            assert_eq!(keeps(&found), [false; 4], "number {at}");
        }
        // A vector of zeros has no direction, though every number is finite.
        assert_eq!(keeps(&[0.6, 0.8, 0.0, 0.0, 0.0, 1.0]), [false; 4]);
    }
}
