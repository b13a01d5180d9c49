//! Elementwise and row kernels of the encoder: GELU, softmax, layer normalisation, pooling.

use super::lanes::Lanes;

/// `erf(z) / z` as a ratio of polynomials in `z^2`, fitted for the least relative error on
/// `|z| <= 3.92` (2e-9 before rounding); beyond that erf is 1 to f32 precision.
// The first coefficient only happens to be near 2 / sqrt(pi); all are f32 values as printed.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
const ERF_P: [f32; 7] = [
    1.128_379_2,
    0.185_168_91,
    0.054_274_749,
    0.003_843_364,
    0.000_377_936_67,
    4.640_435_2e-6,
    -1.296_706e-8,
];
#[allow(clippy::excessive_precision)]
const ERF_Q: [f32; 6] = [
    1.0,
    0.497_435_1,
    0.113_910_943,
    0.015_443_706,
    0.001_304_060_9,
    6.269_250_3e-5,
];
const ERF_LIMIT: f32 = 3.92;

/// The polynomial with coefficients `c`, lowest first, at `x`.
///
/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
unsafe fn horner<V: Lanes, const N: usize>(c: [f32; N], x: V) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = V::splat(c[N - 1]);
        for i in (0..N - 1).rev() {
            sum = sum.mla(x, V::splat(c[i]));
        }
        sum
    }
}

/// `x / 2 * (1 + erf(x / sqrt 2))`, the exact GELU, to about 1e-6 absolute.
///
/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn gelu<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        let z = x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
        let z = z.max(V::splat(-ERF_LIMIT)).min(V::splat(ERF_LIMIT));
        let w = z.mul(z);
        let erf = z.mul(horner(ERF_P, w)).div(horner(ERF_Q, w));
        let half = x.mul(V::splat(0.5));
        half.mla(erf.max(V::splat(-1.0)).min(V::splat(1.0)), half)
    }
}

/// `(cdf(x) - 1/2) / x` of the normal distribution as a polynomial in `x^2`, fitted so that the
/// GELU's largest error on `|x| <= 4.2` is least and that it is exact at the end; beyond that the
/// distribution is taken for 0 or 1.
#[allow(clippy::excessive_precision)]
const CDF: [f32; 8] = [
    0.39846575260162354,
    -0.0655280202627182,
    0.009298142045736313,
    -0.0009506374481134117,
    6.68882203171961e-05,
    -3.037763917745906e-06,
    7.940751345358876e-08,
    -9.016696278507652e-10,
];
const CDF_LIMIT: f32 = 4.2;
/// The same on `|x| <= 3.4`, of which the limit is short by as much as keeps the distribution within 0 and 1.
#[allow(clippy::excessive_precision)]
const ROUGH_CDF: [f32; 5] = [
    0.39385836827785575,
    -0.05938711420525428,
    0.006586689065535423,
    -0.0004009213730037675,
    1.0015580776191543e-05,
];
const ROUGH_CDF_LIMIT: f32 = 3.3999;

/// GELU to 9e-5 absolute, and beyond 4.2 to 2e-6 of `x`: less than what rounding to bf16 takes from numbers
/// above 0.05.
///
/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn gelu_coarse<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's promise.
    unsafe { gelu_by(x, CDF, CDF_LIMIT) }
}

/// GELU to 1.2e-3 absolute, and beyond 3.4 to 2e-6 of `x`: less than half a step of int8 where GELUs of a row
/// lie more than 0.6 apart, as there are 254 steps between the least and the largest.
///
/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn gelu_rough<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's promise.
    unsafe { gelu_by(x, ROUGH_CDF, ROUGH_CDF_LIMIT) }
}

/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
unsafe fn gelu_by<V: Lanes, const N: usize>(x: V, cdf: [f32; N], limit: f32) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        let z = x.within(V::splat(limit));
        let cdf = z.mla(horner(cdf, z.mul(z)), V::splat(0.5));
        x.mul(cdf)
    }
}

/// `e^x` for `x <= 0`, to about 2e-7 relative; `x` below -87 gives a value below 2e-38.
///
/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn exp<V: Lanes>(x: V) -> V {
    // ln 2 in two parts, the first with few enough bits for `n * LN2_HIGH` to be exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // The Taylor series: on |r| <= ln 2 / 2 the first dropped term is below 6e-9.
    const SERIES: [f32; 8] = [
        1.0,
        1.0,
        0.5,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5040.0,
    ];
    // SAFETY: the caller's promise; n stays within -126..=0.
    unsafe {
        let x = x.max(V::splat(-87.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mla(V::splat(-LN2_HIGH), x);
        let r = n.mla(V::splat(-LN2_LOW), r);
        horner(SERIES, r).mul(n.exp2_int())
    }
}

/// `2^x` as a polynomial, fitted for the least relative error on `|x| <= 1/2`.
#[allow(clippy::excessive_precision)]
const EXP2_FIT: [f32; 5] = [
    0.999_999_26,
    0.693_121_8,
    0.240_247_45,
    0.055_917_87,
    0.009_570_1,
];

/// `2^x` for `x <= 0`, to 3e-6 relative: a thousandth of what rounding to bf16 takes. `x` below -126
/// gives 2^-126.
///
/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
unsafe fn exp2_coarse<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's promise; n stays within -126..=0.
    unsafe {
        let x = x.max(V::splat(-126.0));
        let n = x.round();
        horner(EXP2_FIT, x.sub(n)).mul(n.exp2_int())
    }
}

/// Applies GELU to `n` numbers, a multiple of the register width.
///
/// # Safety
///
/// As for [`Lanes`]; `at` holds `n` numbers that nothing else touches.
#[inline(always)]
pub(crate) unsafe fn gelu_slice<V: Lanes>(at: *mut f32, n: usize) {
    debug_assert_eq!(n % V::LANES, 0);
    for i in (0..n).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe { gelu(V::load(at.add(i))).store(at.add(i)) };
    }
}

/// Replaces `n` scores by `exp(scale * (score - largest))` and returns 1 over their sum.
///
/// Numbers behind the scores, up to the next multiple of 16, are overwritten with zeros. The order
/// of the sum depends on `n` only. `COARSE` takes the exponential that is good enough beside products
/// of bf16.
///
/// # Safety
///
/// As for [`Lanes`]; `at` holds `n` numbers, `n > 0`, and room up to the next multiple of 16, that
/// nothing else touches.
#[inline(always)]
pub(crate) unsafe fn softmax<V: Lanes, const COARSE: bool>(
    at: *mut f32,
    n: usize,
    scale: f32,
) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let padded = n.next_multiple_of(16);
        for i in n..padded {
            *at.add(i) = -1e30;
        }
        let mut largest = V::load(at);
        for i in (V::LANES..padded).step_by(V::LANES) {
            largest = largest.max(V::load(at.add(i)));
        }
        let largest = V::splat(largest.max_lane());
        let factor = match COARSE {
            true => V::splat(scale * std::f32::consts::LOG2_E),
            false => V::splat(scale),
        };
        let mut sum = V::splat(0.0);
        for i in (0..padded).step_by(V::LANES) {
            let x = V::load(at.add(i)).sub(largest).mul(factor);
            let e = if COARSE { exp2_coarse(x) } else { exp(x) };
            sum = sum.add(e);
            e.store(at.add(i));
        }
        for i in n..padded {
            *at.add(i) = 0.0;
        }
        // What the padding added is below 16 * 3e-38 and vanishes against the largest term, 1.
        1.0 / sum.sum()
    }
}

/// Normalises a row of `n` numbers to mean 0 and variance 1, then scales and shifts it.
///
/// # Safety
///
/// As for [`Lanes`]; `row`, `weight` and `bias` hold `n` numbers, `n` is a multiple of the register
/// width, and nothing else touches `row`.
#[inline(always)]
pub(crate) unsafe fn layer_norm<V: Lanes>(
    row: *mut f32,
    n: usize,
    weight: *const f32,
    bias: *const f32,
    epsilon: f32,
) {
    /// Registers a turn: chains that do not wait for each other.
    const CHAINS: usize = 4;
    let turn = CHAINS * V::LANES;
    let whole = n / turn * turn;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [V::splat(0.0); CHAINS];
        for i in (0..whole).step_by(turn) {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(row.add(i + j * V::LANES)));
            }
        }
        for i in (whole..n).step_by(V::LANES) {
            sums[0] = sums[0].add(V::load(row.add(i)));
        }
        let [a, b, c, d] = sums;
        let mean = V::splat(a.add(b).add(c.add(d)).sum() / n as f32);
        let mut squares = [V::splat(0.0); CHAINS];
        for i in (0..whole).step_by(turn) {
            for (j, sum) in squares.iter_mut().enumerate() {
                let d = V::load(row.add(i + j * V::LANES)).sub(mean);
                *sum = d.mla(d, *sum);
            }
        }
        for i in (whole..n).step_by(V::LANES) {
            let d = V::load(row.add(i)).sub(mean);
            squares[0] = d.mla(d, squares[0]);
        }
        let [a, b, c, d] = squares;
        let squares = a.add(b).add(c.add(d));
        let factor = V::splat(1.0 / (squares.sum() / n as f32 + epsilon).sqrt());
        for i in (0..n).step_by(V::LANES) {
            let d = V::load(row.add(i)).sub(mean).mul(factor);
            d.mla(V::load(weight.add(i)), V::load(bias.add(i)))
                .store(row.add(i));
        }
    }
}

/// `out = factor * out` over `n` numbers, a multiple of the register width.
///
/// # Safety
///
/// As for [`Lanes`]; `out` holds `n` numbers that nothing else touches.
#[inline(always)]
pub(crate) unsafe fn scale<V: Lanes>(out: *mut f32, n: usize, factor: f32) {
    for i in (0..n).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe { V::load(out.add(i)).mul(V::splat(factor)).store(out.add(i)) };
    }
}

/// The mean of `rows` rows of `n` numbers, into `out`.
///
/// # Safety
///
/// As for [`Lanes`]; `from` holds `rows > 0` rows of `n` numbers, `n` is a multiple of the register
/// width, and nothing else touches `out`, which holds `n`.
#[inline(always)]
pub(crate) unsafe fn mean<V: Lanes>(from: *const f32, rows: usize, n: usize, out: *mut f32) {
    let factor = 1.0 / rows as f32;
    for i in (0..n).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = V::load(from.add(i));
            for r in 1..rows {
                sum = sum.add(V::load(from.add(r * n + i)));
            }
            sum.mul(V::splat(factor)).store(out.add(i));
        }
    }
}

/// Scales `n` numbers to Euclidean length 1; a length below 1e-12 counts as 1e-12.
///
/// # Safety
///
/// As for [`scale`].
#[inline(always)]
pub(crate) unsafe fn normalize<V: Lanes>(out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut squares = V::splat(0.0);
        for i in (0..n).step_by(V::LANES) {
            let x = V::load(out.add(i));
            squares = x.mla(x, squares);
        }
        scale::<V>(out, n, 1.0 / squares.sum().sqrt().max(1e-12));
    }
}

#[cfg(test)]
mod tests {
    use super::{exp, exp2_coarse, gelu, gelu_coarse, gelu_rough, softmax};
    use crate::cpu::lanes::Lanes;
    use crate::cpu::lanes::plain::Plain;

    #[test]
    fn both_exponentials_keep_their_promises() {
        for i in 0..=40_000 {
            let x = -87.0 * (i as f32 / 40_000.0);
            let mut found = [[0f32; 4]; 2];
            // SAFETY: plain lanes run everywhere; four numbers are four lanes.
            unsafe {
                exp(Plain::splat(x)).store(found[0].as_mut_ptr());
                let x = x * std::f32::consts::LOG2_E;
                exp2_coarse(Plain::splat(x)).store(found[1].as_mut_ptr());
            }
            let y = f64::from(x).exp();
            // The coarse one's argument is rounded first: half a unit of up to 126.
            for (found, most) in [(found[0][0], 3e-7), (found[1][0], 3e-6 + 4e-6)] {
                let off = (f64::from(found) - y).abs() / y;
                assert!(off <= most, "e^{x}: {found}, not {y}: {off:e}");
            }
        }
    }

    #[test]
    fn all_gelus_keep_their_promises() {
        let fine = (-60_000..=60_000).map(|i| i as f32 * 1e-4);
        let far = (-1000..=1000).map(|i| i as f32 * 0.1);
        let ends = [-4.2, 4.2, -3.3999, 3.3999, f32::MIN, f32::MAX, -0.0];
        for x in fine.chain(far).chain(ends) {
            let mut found = [[0f32; 4]; 3];
            // SAFETY: plain lanes run everywhere; four numbers are four lanes.
            unsafe {
                let x = Plain::splat(x);
                gelu_rough(x).store(found[2].as_mut_ptr());
                gelu(x).store(found[0].as_mut_ptr());
                gelu_coarse(x).store(found[1].as_mut_ptr());
            }
            let y = crate::reference::gelu(x);
            for (found, most) in found.iter().zip([2e-6, 9e-5, 1.2e-3]) {
                let x = f64::from(x);
                // Beyond what is fitted the distribution is 0 or 1 up to a few roundings.
                let beyond = if x.abs() > 3.39 { 2e-6 * x.abs() } else { 0.0 };
                let most = most + beyond;
                let off = (f64::from(found[0]) - f64::from(y)).abs();
                assert!(off <= most, "GELU of {x}: {}, not {y}", found[0]);
            }
        }
    }

    #[test]
    fn softmax_at_lengths_around_a_register() {
        for n in [1_usize, 2, 15, 16, 17, 31, 32, 33, 48, 251] {
            let scores: Vec<f32> = (0..n)
                .map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.9)
                .collect();
            let largest = scores.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = (scores.iter())
                .map(|x| (f64::from(x - largest) * 0.25).exp())
                .collect();
            let sum: f64 = e.iter().sum();
            for coarse in [false, true] {
                let mut at = scores.clone();
                at.resize(n.next_multiple_of(16), 7.0);
                // SAFETY: plain lanes run everywhere; there is room up to a multiple of 16.
                let factor = unsafe {
                    match coarse {
                        true => softmax::<Plain, true>(at.as_mut_ptr(), n, 0.25),
                        false => softmax::<Plain, false>(at.as_mut_ptr(), n, 0.25),
                    }
                };
                let most = if coarse { 1e-5 } else { 1e-6 };
                for (x, e) in at.iter().zip(&e) {
                    let off = (f64::from(x * factor) - e / sum).abs();
                    assert!(off <= most, "{n} scores, coarse: {coarse}: {off:e}");
                }
                assert!(at[n..].iter().all(|&x| x == 0.0), "zeros behind {n} scores");
            }
        }
    }
}
