//! Between which two numbers a row's canonical rank lies, by its codes.
//!
//! A row is `x = s c + r` and a query `q = t d + e`, with integers `c` and `d`, so that
//!
//! `<q, x> = t s <d, c> + <e, s c> + <q, r>`,
//!
//! where `<d, c>` is exact. By Cauchy–Schwarz the rest is at most `|e| |s c| + |q| |r|`, and
//! `|s c| <= |x| + |r|`. So `<q, x>` is within
//!
//! `w = |e| |x| + (|q| + |e|) |r|`
//!
//! of `p = t s <d, c>`. Norms are computed in f64 and residuals rounded up.
//!
//! # The canonical score
//!
//! Let `R` be the canonical rank and `c = γ(n/16 + 8, 2^-24)` for `n` numbers, with
//! `γ(n, u) = nu / (1 - nu)`; the search by a GPU derives it alike.
//!
//! - **dot**: `|R - <q, x>| <= c |q||x|`.
//! - **cosine**: `|R - <q, x> / |q||x|| <= k`, `k = 1.05 (2c + 2^-21)`: `c` for the product, `c/2`
//!   for either norm, four more roundings; 1.05 covers products of errors. Exactly 0 for a row of
//!   zeros.
//! - **L2**: `R = -sqrt(S)`, `S` within `(c + 2^-22) d^2` of the squared distance
//!   `d^2 = |q|^2 + |x|^2 - 2 <q, x>`; with the root's own rounding, `R^2` within `g d^2`,
//!   `g = c + 2^-20`.
//!
//! **Small numbers.** Norms are 0 or within 1e-12 and 1e12, or else the row is always a candidate
//! and the query is not searched by codes. A product that is denormal loses 2^-149 at most, all of
//! a sum `n 2^-148`, which is below 2^-130; against products of norms of 1e-24 or more that is less
//! than 2^-50 of them. `SMALL` adds it where it is not covered.
//!
//! # Two looks
//!
//! The first look takes int8 for `d` and f32 for the bound. A row may reach the threshold `T` if
//!
//! `A s <d, c> + B |r| + C |x| + D |x|^2 + F >= 0`
//!
//! with constants of the query, which follow from the above and from `R >= T`:
//!
//! - dot: `A = t`, `B = |q| + |e|`, `C = |e| + c |q|`, `D = 0`, `F = -T`;
//! - cosine: the same but `C = |e| + (k - T) |q|`, `F = 0`;
//! - L2: `A`, `B` and `C = |e|` doubled, `D = -1`, `F = T^2 (1 + 2g) - |q|^2`.
//!
//! The expression takes part in at most twelve roundings of 2^-24, so that [`ETA`] of the absolute
//! values of its terms covers them; `|A s <d, c>|` is at most `A' = (|q| + |e|)(|x| + |r|)`.
//!
//! The second look, for rows that pass, adds a second int8 plane for `e` (`e = t' d' + e'`), so
//! that little but `|q| |r|` is left, and computes in f64 ([`Query::range`]).

use super::codes::{self, NORM_MAX, NORM_MIN, code};
use crate::reference::LANES;
use crate::scan::Metric;

/// Rounding of the first look, relative to each of its terms.
const ETA: f64 = 1.0 / (1u64 << 19) as f64;
/// More than all that can vanish in a canonical sum, and no denormal: those cost a hundred cycles.
const SMALL: f64 = 1e-30;

/// A query in codes.
pub(super) struct Query {
    metric: Metric,
    /// The norm, rounded up.
    norm: f64,
    scale: f64,
    /// The norm of what the first plane leaves.
    left: f64,
    second_scale: f64,
    /// The norm of what both leave.
    second_left: f64,
    /// `c` of the page's head.
    canonical: f64,
}

/// The constants of the first look for one query and threshold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) a: f32,
    pub(super) b: f32,
    pub(super) c: f32,
    pub(super) d: f32,
    pub(super) f: f32,
}

impl Query {
    /// Codes a query into two planes; `None` if its norm is beyond what codes are for.
    pub(super) fn new(
        metric: Metric,
        query: &[f32],
        first: &mut [i8],
        second: &mut [i8],
    ) -> Option<Self> {
        let coded = code(query, first);
        if !(NORM_MIN..=NORM_MAX).contains(&coded.norm) {
            return None;
        }
        let scale = f64::from(coded.scale);
        let second_scale = scale / 254.0;
        let mut squares = 0f64;
        for ((x, first), second) in query.iter().zip(first).zip(second) {
            let left = f64::from(*x) - scale * f64::from(*first);
            let near = codes::integer((left / second_scale) as f32).clamp(-127.0, 127.0);
            let near = f64::from(near);
            *second = near as i8;
            squares += (left - second_scale * near).powi(2);
        }
        let chain = (query.len().div_ceil(LANES) + 8) as f64 * 2f64.powi(-24);
        Some(Self {
            metric,
            norm: coded.norm * (1.0 + 1e-9),
            scale,
            left: f64::from(coded.residual),
            second_scale,
            second_left: f64::from(codes::up(squares.sqrt())),
            canonical: chain / (1.0 - chain),
        })
    }

    fn cosine(&self) -> f64 {
        1.05 * (2.0 * self.canonical + 2f64.powi(-21))
    }

    fn distance(&self) -> f64 {
        self.canonical + 2f64.powi(-20)
    }

    /// What tells whether a row may have a rank of at least `threshold`.
    pub(super) fn look(&self, threshold: f32) -> Look {
        let (q, e, t) = (self.norm, self.left, f64::from(threshold));
        let product = q + e;
        let [a, b, c, d, f] = match self.metric {
            Metric::Dot => [
                self.scale,
                product,
                e + self.canonical * q,
                0.0,
                SMALL - t.max(-1e37),
            ],
            Metric::Cosine => {
                let t = t.max(-2.0);
                let c = e + (self.cosine() - t) * q + ETA * (t.abs() + 1.0) * q;
                [self.scale, product, c, 0.0, SMALL]
            }
            Metric::L2 => {
                let square = (t * t).min(1e37);
                let f = square * (1.0 + 2.0 * self.distance()) - q * q * (1.0 - 1e-8);
                let f = f + ETA * (square + q * q);
                [
                    2.0 * self.scale,
                    2.0 * product,
                    2.0 * e,
                    -1.0 + ETA,
                    f + SMALL,
                ]
            }
        };
        // `a s <d, c>` is at most `2 (|q| + |e|)(|x| + |r|)`, and is rounded too.
        let raise = |x: f64| (x + ETA * x.abs()) as f32;
        Look {
            a: a as f32,
            b: raise(b + 2.0 * ETA * product).max(1e-30),
            c: raise(c + 2.0 * ETA * product),
            d: d as f32,
            f: raise(f),
        }
    }

    /// The least and the largest canonical rank that a row can have whose codes' products with the
    /// two planes are `first` and `second`.
    pub(super) fn range(
        &self,
        [first, second]: [i32; 2],
        scale: f32,
        residual: f32,
        norm: f32,
    ) -> [f32; 2] {
        if residual.is_infinite() {
            return [f32::NEG_INFINITY, f32::INFINITY];
        }
        let (x, r, q) = (
            f64::from(norm) * (1.0 + 2e-7),
            f64::from(residual),
            self.norm,
        );
        let product = self.scale * f64::from(first) + self.second_scale * f64::from(second);
        let middle = f64::from(scale) * product;
        // In f64 a relative 1e-9 is far more than all roundings of this function.
        let wide = (self.second_left * x + (q + self.second_left) * r) * (1.0 + 1e-9)
            + 1e-9 * (q + self.left) * (x + r);
        let [low, high] = match self.metric {
            Metric::Dot => {
                let wide = wide + self.canonical * q * x + SMALL;
                [middle - wide, middle + wide]
            }
            Metric::Cosine if norm == 0.0 => [0.0, 0.0],
            Metric::Cosine => {
                let (wide, norms) = (wide / (q * x) * (1.0 + 1e-6), q * x);
                let wide = wide + self.cosine() + 1e-6;
                [middle / norms - wide, middle / norms + wide]
            }
            Metric::L2 => {
                let square = q * q + x * x - 2.0 * middle;
                let wide = 2.0 * wide + 1e-6 * (q * q + x * x) + SMALL;
                let root = |square: f64, g: f64| -(square.max(0.0) * (1.0 + g)).sqrt();
                let g = 2.0 * self.distance();
                [root(square + wide, g), root(square - wide, -g)]
            }
        };
        [lower(low), higher(high)]
    }
}

fn lower(x: f64) -> f32 {
    (x as f32).next_down()
}

fn higher(x: f64) -> f32 {
    (x as f32).next_up()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    fn canonical(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
        match metric {
            Metric::Cosine => reference::cosine(query, row),
            Metric::Dot => reference::dot(query, row),
            Metric::L2 => -reference::l2(query, row),
        }
    }

    fn product(a: &[i8], b: &[i8]) -> i32 {
        a.iter()
            .zip(b)
            .map(|(a, b)| i32::from(*a) * i32::from(*b))
            .sum()
    }

    /// Random rows, near copies of the query, rows whose residual lies along the query, scaled rows:
    /// the canonical rank lies within the range, and the first look lets a row through that reaches
    /// the threshold to the bit. Without the width, ranks by codes are not even in order.
    #[test]
    fn ranks_lie_within_it() {
        let mut state = 5u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut disorder = 0;
        for dim in [1usize, 2, 17, 64, 384, 1_000] {
            for case in 0..120 {
                let query: Vec<f32> = (0..dim).map(|_| number()).collect();
                let scale = 10f32.powi(case % 13 - 6);
                let row: Vec<f32> = match case % 4 {
                    0 => query.iter().map(|_| number() * scale).collect(),
                    1 => query.iter().map(|x| x + number() * 1e-3).collect(),
                    // Half a step off, always in the query's direction; one number sets the scale.
                    2 => (0..dim)
                        .map(|i| {
                            if i == 0 {
                                127.0
                            } else {
                                0.499 * query[i].signum()
                            }
                        })
                        .collect(),
                    _ => query.iter().map(|x| x * scale).collect(),
                };
                let (mut codes, mut first, mut second) = (vec![0; dim], vec![0; dim], vec![0; dim]);
                let coded = code(&row, &mut codes);
                for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                    let q = Query::new(metric, &query, &mut first, &mut second).unwrap();
                    let products = [product(&first, &codes), product(&second, &codes)];
                    let norm = coded.norm as f32;
                    let rank = canonical(metric, &query, &row);
                    let [low, high] = q.range(products, coded.scale, coded.residual, norm);
                    let what = format!("{metric:?} {dim} {case}: {low} {rank} {high}");
                    assert!(low <= rank && rank <= high, "{what}");
                    let Look { a, b, c, d, f } = q.look(rank);
                    let value = a * (coded.scale * products[0] as f32)
                        + b * coded.residual
                        + norm * (c + d * norm)
                        + f;
                    assert!(value >= 0.0, "{what}: {value}");
                    let [none, some] = q.range(products, coded.scale, 0.0, norm);
                    disorder += u32::from(rank < none || rank > some);
                }
            }
        }
        assert!(disorder > 100, "the residual is needed: {disorder}");
    }

    /// It is narrow enough to be of use: some thousandths for unit vectors.
    #[test]
    fn it_is_narrow() {
        let dim = 384;
        let row: Vec<f32> = (0..dim)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 560.0)
            .collect();
        let (mut codes, mut first, mut second) = (vec![0; dim], vec![0; dim], vec![0; dim]);
        let coded = code(&row, &mut codes);
        let q = Query::new(Metric::Cosine, &row, &mut first, &mut second).unwrap();
        let products = [product(&first, &codes), product(&second, &codes)];
        let [low, high] = q.range(products, coded.scale, coded.residual, coded.norm as f32);
        assert!(high - low < 0.02, "{low} {high}");
        let [low, high] = q.range(products, 0.0, f32::INFINITY, 0.0);
        assert!(low == f32::NEG_INFINITY && high == f32::INFINITY);
    }
}
