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
//! # The look
//!
//! It is in f32. A row may reach the threshold `T` if
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
//! # Ranges
//!
//! Rows that pass get the least and the largest rank they can have ([`Range`]), in f32 as well. With
//! `U, L = A s <d, c> ± (B |r| + C |x|)` and `C = |e|`, `<q, x>` lies within `L` and `U`:
//!
//! - dot: they are the range, with `c |q|` added to `C`;
//! - cosine: the constants are divided by `|q|`; the range is `L / |x| - k` to `U / |x| + k`;
//! - L2: `-sqrt((|q|^2 + |x|^2 - 2 L)(1 + 2g))` to `-sqrt((|q|^2 + |x|^2 - 2 U)(1 - 2g))`.
//!
//! No range takes more than twelve roundings either; `ETA` covers them as above, and the doubled `g`
//! covers those of the root.
//!
//! A second int8 plane for `e` would halve a range, and was taken out again: products of a row with
//! it read more memory than the canonical score does, for a sixth fewer rows to be scored.

use super::codes::{Coded, NORM_MAX, NORM_MIN, STRIP, Side};
use crate::reference::LANES;
use crate::scan::Metric;

/// Rounding in f32, relative to each term.
const ETA: f64 = 1.0 / (1u64 << 19) as f64;
/// More than all that can vanish in a canonical sum, and no denormal: those cost a hundred cycles.
const SMALL: f64 = 1e-30;

/// A query in codes.
pub(super) struct Query {
    metric: Metric,
    /// The norm, rounded up.
    norm: f64,
    scale: f64,
    /// The norm of what the codes leave.
    left: f64,
    /// `c` of the page's head.
    canonical: f64,
}

/// The constants of the look for one query and threshold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) a: f32,
    pub(super) b: f32,
    pub(super) c: f32,
    pub(super) d: f32,
    pub(super) f: f32,
}

impl Query {
    /// A query of `dim` numbers by its codes; `None` if its norm is beyond what codes are for.
    pub(super) fn new(metric: Metric, dim: usize, coded: Coded) -> Option<Self> {
        if !(NORM_MIN..=NORM_MAX).contains(&coded.norm) {
            return None;
        }
        let chain = (dim.div_ceil(LANES) + 8) as f64 * 2f64.powi(-24);
        Some(Self {
            metric,
            norm: coded.norm * (1.0 + 1e-9),
            scale: f64::from(coded.scale),
            left: f64::from(coded.residual),
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
        Look {
            a: a as f32,
            b: raise(b + 2.0 * ETA * product).max(1e-30),
            c: raise(c + 2.0 * ETA * product),
            d: d as f32,
            f: raise(f),
        }
    }

    /// What tells between which ranks a row lies.
    pub(super) fn range(&self) -> Range {
        let (q, e) = (self.norm, self.left);
        let product = q + e;
        let [unit, more, margin] = match self.metric {
            Metric::Dot => [1.0, self.canonical * q, 0.0],
            Metric::Cosine => [q, 0.0, self.cosine() + 1e-6],
            Metric::L2 => [1.0, 0.0, 2.0 * self.distance()],
        };
        let square = |sign: f64| (q * q * (1.0 + sign * 2.0 * ETA)) as f32;
        Range {
            metric: self.metric,
            a: (self.scale / unit) as f32,
            b: raise((product + 2.0 * ETA * product) / unit),
            c: raise((e + more + 2.0 * ETA * product) / unit),
            squares: [square(-1.0), square(1.0)],
            margin: raise(margin),
        }
    }
}

/// Rounds up.
fn raise(x: f64) -> f32 {
    (x + ETA * x.abs()) as f32
}

/// The constants of a query's ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    metric: Metric,
    a: f32,
    b: f32,
    c: f32,
    /// The square of the query's norm, rounded down and up.
    squares: [f32; 2],
    margin: f32,
}

impl Range {
    /// [`Self::of`] for all rows of a strip: the least, then the largest ranks.
    #[inline(always)]
    pub(super) fn of_strip(&self, products: &[i32; STRIP], side: &Side) -> [[f32; STRIP]; 2] {
        #[inline(always)]
        fn all(range: Range, products: &[i32; STRIP], side: &Side) -> [[f32; STRIP]; 2] {
            let (mut least, mut most) = ([0.0; STRIP], [0.0; STRIP]);
            for i in 0..STRIP {
                let (scale, residual, norm) = (side.scale[i], side.residual[i], side.norm[i]);
                [least[i], most[i]] = range.of(products[i], scale, residual, norm);
            }
            [least, most]
        }
        // A loop for each metric, so that nothing branches in it.
        match self.metric {
            metric @ Metric::Dot => all(Self { metric, ..*self }, products, side),
            metric @ Metric::Cosine => all(Self { metric, ..*self }, products, side),
            metric @ Metric::L2 => all(Self { metric, ..*self }, products, side),
        }
    }

    /// The least and the largest canonical rank that a row can have whose codes' product with the
    /// query's is `product`.
    #[inline(always)]
    pub(super) fn of(&self, product: i32, scale: f32, residual: f32, norm: f32) -> [f32; 2] {
        let middle = self.a * (scale * product as f32);
        let wide = self.b * residual + self.c * norm + SMALL as f32;
        let [low, high] = [middle - wide, middle + wide];
        match self.metric {
            Metric::Dot => [low, high],
            Metric::Cosine => {
                let inverse = 1.0 / norm;
                let range = [low * inverse - self.margin, high * inverse + self.margin];
                // Of zeros; a row of which nothing is known has no residual that is finite.
                let zeros = (norm == 0.0) & (residual == 0.0);
                range.map(|rank| if zeros { 0.0 } else { rank })
            }
            Metric::L2 => {
                let square = norm * norm;
                let [less, more] = [1.0 - 2.0 * ETA as f32, 1.0 + 2.0 * ETA as f32];
                let near = (self.squares[0] + square * less - 2.0 * high).max(0.0);
                let far = (self.squares[1] + square * more - 2.0 * low).max(0.0);
                let [near, far] = [near * (1.0 - self.margin), far * (1.0 + self.margin)];
                [-far.sqrt(), -near.sqrt()]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codes::code;
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

    /// The range of a row.
    fn range(query: &Query, product: i32, row: Coded) -> [f32; 2] {
        query
            .range()
            .of(product, row.scale, row.residual, row.norm as f32)
    }

    /// Random rows, near copies of the query, rows whose residual lies along the query, scaled rows:
    /// the canonical rank lies within the range, and the look lets a row through that reaches
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
                let (mut codes, mut coded_query) = (vec![0; dim], vec![0; dim]);
                let coded = code(&row, &mut codes);
                for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                    let q = Query::new(metric, dim, code(&query, &mut coded_query)).unwrap();
                    let product = product(&coded_query, &codes);
                    let norm = coded.norm as f32;
                    let rank = canonical(metric, &query, &row);
                    let [low, high] = range(&q, product, coded);
                    let what = format!("{metric:?} {dim} {case}: {low} {rank} {high}");
                    assert!(low <= rank && rank <= high, "{what}");
                    let Look { a, b, c, d, f } = q.look(rank);
                    let value = a * (coded.scale * product as f32)
                        + b * coded.residual
                        + norm * (c + d * norm)
                        + f;
                    assert!(value >= 0.0, "{what}: {value}");
                    let exact = Coded {
                        residual: 0.0,
                        ..coded
                    };
                    let [none, some] = range(&q, product, exact);
                    disorder += u32::from(rank < none || rank > some);
                }
            }
        }
        assert!(disorder > 100, "the residual is needed: {disorder}");
    }

    /// It is narrow enough to be of use: some hundredths for unit vectors.
    #[test]
    fn it_is_narrow() {
        let dim = 384;
        let row: Vec<f32> = (0..dim)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 560.0)
            .collect();
        let (mut codes, mut coded_query) = (vec![0; dim], vec![0; dim]);
        let coded = code(&row, &mut codes);
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let q = Query::new(metric, dim, code(&row, &mut coded_query)).unwrap();
            let [low, high] = range(&q, product(&coded_query, &codes), coded);
            let wide = match metric {
                Metric::L2 => low * low - high * high,
                _ => high - low,
            };
            assert!(wide < 0.04, "{metric:?} {low} {high}");
            let unknown = Coded {
                scale: 0.0,
                residual: f32::INFINITY,
                norm: 0.0,
            };
            let [low, high] = range(&q, 0, unknown);
            // No rank by distance is above 0.
            let [least, most] = [f32::NEG_INFINITY, f32::INFINITY];
            let most = if metric == Metric::L2 { 0.0 } else { most };
            assert_eq!([low, high], [least, most], "{metric:?}");
        }
    }
}
