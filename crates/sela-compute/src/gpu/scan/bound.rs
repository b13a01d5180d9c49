//! How far a rank computed on the device can be from the canonical one.
//!
//! A row is among the `k` nearest only if its canonical rank reaches the k-th best of all. With
//! |rank on the device - canonical rank| <= e for every row, and `T` a rank that k rows reach on
//! the device, every nearest row has a rank of at least `T - 2e` there: `k` rows have canonical
//! ranks of at least `T - e`, so the k-th best has, and so have all that reach it, equals included.
//!
//! # Where e comes from
//!
//! `γ(n, u) = nu / (1 - nu)` bounds the relative error of a product that takes part in `n`
//! roundings of relative size `u`, in whatever order sums are added and whether or not
//! multiplications are fused. `Σ|q_i r_i| <= |q||r|` (Cauchy–Schwarz), so a dot product is wrong by
//! at most `γ |q||r|`. Below `n` is the number of numbers, `R` the largest norm of the rows
//! scanned, `γ' = γ(n + 8, 2^-23)` for the device (an ulp, for WGSL may round to either
//! neighbour) and `c = γ(n/16 + 8, 2^-24)` for the canonical score, whose longest chain is `n/16`
//! fused multiply-adds and a tree of four additions.
//!
//! - **dot**: `(γ' + c) |q| R`.
//! - **cosine**, where the device has `q/|q|`, rounded once: `γ'` for the product; `γ'/2` for the
//!   square root of the row's squared norm; `2^-23` for the query; 8 ulps for `inverseSqrt` (2),
//!   products and the host's division; `c` for the canonical product and `c` for its two norms;
//!   `2^-22` for its own root, product and division. The sum times 1.05 covers products of errors,
//!   as each of them is below 0.01 (`n <= DIM_MAX_GPU`).
//! - **L2**: the device computes `2 q.r - |r|^2`, which is `|q|^2 - d^2` for the distance `d`:
//!   `(γ' + 4 ulps)(2 |q| R + R^2)`. The canonical score is `sqrt(S)` with `S` within
//!   `(c + 2^-22) d^2` of `d^2`. Ranks are compared by the root: roots round to the same number
//!   for values of `S` that differ by up to `5 * 2^-24 S`, so rows that tie with the k-th lie that
//!   much further away. All of it is at most `(c + 2^-20)(|q| + R)^2`.
//!
//! The **matrix** kernel rounds the scaled query to f16, which is wrong by `2^-11 |q_i|` at most,
//! and by `2^-24` where that is denormal: as the largest number is scaled to 2^9 or more,
//! `2^-11 + sqrt(n) 2^-33` of `|q|`. How its sums are rounded no standard says. Known units align
//! the products of a step and cut them off at 24 bits or more, which loses at most as much as
//! `n + n/8` roundings of an ulp; `γ(2n + 64, 2^-23)` allows for nearly twice that.
//!
//! **Small numbers.** A denormal number or product may count as zero: `n 2^-125 (1 + |q| + R)` more.
//! Cosine divides by norms, so a row whose largest number is below [`ROW_MIN`], but not zero, marks
//! its whole unit; so does a norm beyond [`NORM_MAX_GPU`]; such units are the CPU's, and so are
//! queries beyond [`QUERY_MIN`] and [`NORM_MAX_GPU`]. Rows in f16 are widened exactly: the self-test
//! shows that the device keeps f16's denormals.

use crate::scan::Metric;

/// Largest number of a row below which squares may vanish in f32. Rows of f16 have none but zeros.
pub(super) const ROW_MIN: f32 = 1e-12;
/// Shortest query that is not zero for which norms stay far from what f32 cannot hold.
pub(super) const QUERY_MIN: f64 = 1e-12;
/// Longest query or row whose squares and products stay finite.
pub(super) const NORM_MAX_GPU: f64 = 1e18;
/// Most numbers of a vector: `γ` stays below 0.01.
pub(super) const DIM_MAX_GPU: usize = 16_384;

/// Twice the bound e, as a polynomial of the largest norm `R` of the rows: `a + b R + c R^2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slack {
    pub(super) a: f32,
    pub(super) b: f32,
    pub(super) c: f32,
}

impl Slack {
    /// For a query of norm `norm` among vectors of `dim` numbers.
    pub(super) fn of(metric: Metric, dim: usize, norm: f64, matrix: bool) -> Self {
        let n = dim as f64;
        let ulp = 2f64.powi(-23);
        let gamma = |n: f64, u: f64| n * u / (1.0 - n * u);
        let device = gamma(n + 8.0, ulp);
        let canonical = gamma((n / 16.0).ceil() + 8.0, ulp / 2.0);
        let product = match matrix {
            true => {
                gamma(2.0 * n + 64.0, ulp)
                    + (2f64.powi(-11) + n.sqrt() * 2f64.powi(-33)) * (1.0 + 0.01)
            }
            false => device,
        };
        let small = n * 2f64.powi(-125);
        let [a, b, c] = match metric {
            Metric::Dot => [
                small * (1.0 + norm),
                (product + canonical) * norm + small,
                0.0,
            ],
            Metric::Cosine => {
                let sum = product + device / 2.0 + 9.0 * ulp + 2.0 * canonical + 2.0 * ulp;
                [1.05 * sum + n * 2f64.powi(-60), 0.0, 0.0]
            }
            Metric::L2 => {
                let exact = canonical + 8.0 * ulp;
                [
                    small * (1.0 + norm) + exact * norm * norm,
                    2.0 * (product + 4.0 * ulp + exact) * norm + small,
                    device + 4.0 * ulp + exact,
                ]
            }
        };
        // 1.02 covers the rounding of the bound itself, here and where it is subtracted, together
        // with 2^-20 of the largest rank there is.
        let scale = match metric {
            Metric::Cosine => [1.0, 0.0, 0.0],
            Metric::Dot => [0.0, norm, 0.0],
            Metric::L2 => [0.0, 2.0 * norm, 1.0],
        };
        let up = |e: f64, rank: f64| {
            let twice = (2.0 * e + rank * 2f64.powi(-20)) * 1.02;
            (twice as f32).max(f32::MIN_POSITIVE)
        };
        Self {
            a: up(a, scale[0]),
            b: up(b, scale[1]),
            c: up(c, scale[2]),
        }
    }

    /// Twice the bound for rows of squared norms up to `square`.
    pub(super) fn at(self, square: f32) -> f64 {
        let norm = f64::from(square).sqrt() * 1.001;
        f64::from(self.a) + norm * (f64::from(self.b) + norm * f64::from(self.c))
    }
}

/// Whether rows with norms up to this squared one, as the device has computed it, can be ranked.
pub(super) fn is_sound(square: f32) -> bool {
    f64::from(square) <= NORM_MAX_GPU * NORM_MAX_GPU
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    /// Ranks in f32 by plain loops, the worst order of summation, stay within the bound, and the
    /// bound stays within reason.
    #[test]
    fn plain_sums_stay_within_it() {
        for dim in [1usize, 3, 16, 100, 384, 4_096] {
            let mut state = dim as u32;
            let mut number = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            for _ in 0..20 {
                let query: Vec<f32> = (0..dim).map(|_| number()).collect();
                let row: Vec<f32> = query.iter().map(|x| x + number() * 0.01).collect();
                let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                let plain: f32 = query.iter().zip(&row).map(|(x, y)| x * y).sum();
                let square: f32 = row.iter().map(|x| x * x).sum();
                let off = |metric: Metric, rank: f64, canonical: f64| {
                    let slack = Slack::of(metric, dim, norm(&query), false).at(square);
                    let e = (rank - canonical).abs();
                    assert!(2.0 * e <= slack, "{metric:?} {dim}: {e} beyond {slack}");
                    let scale = (norm(&query) + norm(&row)).powi(2).max(1.0);
                    assert!(slack < 0.01 * scale, "{metric:?} {dim}: {slack}");
                };
                let dot = f64::from(reference::dot(&query, &row));
                off(Metric::Dot, f64::from(plain), dot);
                let unit = f64::from(plain) / norm(&query) / f64::from(square).sqrt();
                off(
                    Metric::Cosine,
                    unit,
                    f64::from(reference::cosine(&query, &row)),
                );
                let rank = 2.0 * plain - square;
                let distance = f64::from(reference::l2(&query, &row));
                let shifted = norm(&query).powi(2) - distance.powi(2);
                off(Metric::L2, f64::from(rank), shifted);
            }
        }
    }

    /// A matrix unit's bound is larger, and each grows with the vector and the norm.
    #[test]
    fn it_grows() {
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let at = |dim, norm, matrix| Slack::of(metric, dim, norm, matrix).at(1.0);
            assert!(at(384, 1.0, false) < at(384, 1.0, true));
            assert!(at(384, 1.0, false) < at(768, 1.0, false));
            assert!(at(384, 1.0, false) <= at(384, 2.0, false));
            assert!(at(384, 1.0, true) < 4e-3, "it keeps most groups out");
        }
        assert!(!is_sound(f32::MAX) && !is_sound(f32::INFINITY) && is_sound(1e30));
    }
}
