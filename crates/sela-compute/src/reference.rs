//! The plain scalar twin of every kernel: slow, obvious, never optimised.
//!
//! The canonical scores here *define* what a search returns; every fast kernel must give the
//! same bits. The encoder passes here define what the fast passes approximate, within the
//! tolerance that their tests state.

/// Number of virtual lanes of a canonical sum.
pub const LANES: usize = 16;

/// Adds 16 lanes by a fixed tree: lane `i` plus lane `i + 8`, then `+ 4`, `+ 2`, `+ 1`.
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The canonical sum of `term(a[i], b[i], accumulator)`: element `i` goes to lane `i % 16`, in
/// order; a last group shorter than 16 is filled up with zeros on both sides.
fn lanes_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut lanes = [0f32; LANES];
    for i in 0..a.len().next_multiple_of(LANES) {
        let x = a.get(i).copied().unwrap_or(0.0);
        let y = b.get(i).copied().unwrap_or(0.0);
        lanes[i % LANES] = term(x, y, lanes[i % LANES]);
    }
    tree(lanes)
}

/// Canonical dot product: 16 lanes of fused multiply-adds, then a fixed tree.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes_of(a, b, f32::mul_add)
}

/// Canonical Euclidean norm: the square root of [`dot`] of a vector with itself.
pub fn norm(a: &[f32]) -> f32 {
    dot(a, a).sqrt()
}

/// Canonical cosine: `dot / (norm(a) * norm(b))`, and 0 when that product of norms is 0.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let norms = norm(a) * norm(b);
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// Canonical Euclidean distance: differences squared by fused multiply-add in 16 lanes, the fixed
/// tree, the square root.
pub fn l2(a: &[f32], b: &[f32]) -> f32 {
    lanes_of(a, b, |x, y, sum| {
        let d = x - y;
        d.mul_add(d, sum)
    })
    .sqrt()
}

/// `c = a w^T + b` for one row: `w` holds a row an output.
pub fn linear(a: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let rows = w.chunks_exact(a.len());
    rows.zip(b)
        .map(|(row, bias)| {
            let sum: f64 = a
                .iter()
                .zip(row)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum();
            (sum + f64::from(*bias)) as f32
        })
        .collect()
}

/// Error function by its Maclaurin series near zero and a continued fraction beyond, in f64.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let z = x.abs();
    let fraction = (1..60).rev().fold(z, |sum, n| z + f64::from(n) / 2.0 / sum);
    let tail = (-z * z).exp() / (fraction * std::f64::consts::PI.sqrt());
    (1.0 - tail).copysign(x)
}

/// Exact GELU: `x / 2 (1 + erf(x / sqrt 2))`.
pub fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

/// Layer normalisation of one row.
pub fn layer_norm(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let n = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = row
        .iter()
        .map(|x| (f64::from(*x) - mean).powi(2))
        .sum::<f64>()
        / n;
    let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
    for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
        *x = ((f64::from(*x) - mean) * factor * f64::from(*w) + f64::from(*b)) as f32;
    }
}

/// `softmax(q k^T / sqrt(dim)) v` for one head of one sequence, `len` rows of `dim` each.
pub fn attention(query: &[f32], key: &[f32], value: &[f32], dim: usize) -> Vec<f32> {
    let scale = 1.0 / (dim as f64).sqrt();
    let mut out = Vec::with_capacity(query.len());
    for q in query.chunks_exact(dim) {
        let scores: Vec<f64> = key
            .chunks_exact(dim)
            .map(|k| {
                q.iter()
                    .zip(k)
                    .map(|(x, y)| f64::from(*x) * f64::from(*y))
                    .sum::<f64>()
                    * scale
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for i in 0..dim {
            let values = value.iter().skip(i).step_by(dim);
            let dot: f64 = weights
                .iter()
                .zip(values)
                .map(|(w, v)| w * f64::from(*v))
                .sum();
            out.push((dot / sum) as f32);
        }
    }
    out
}
