//! The f32 matrix product: rows as they are times weights packed into panels.
//!
//! The classic register-tiled product (Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", 2008), without packing the left side: its rows are read by broadcast, which
//! costs nothing for the few hundred rows that a tile of text has.
//!
//! Each output is one chain of fused multiply-adds over `k = 0, 1, 2, ...`, begun with its
//! starting value. So its bits depend on its own row and column only, never on how many rows or
//! threads there are.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use super::lanes::{Lanes, bring_near};
use super::lined::Lined;

/// Rows of `k` that are worked off before the next panel. A panel's part (`K_BLOCK` x panel width x 4
/// bytes: 96 KiB for AVX-512) need not stay in the first-level cache: a row of it takes part in as many
/// multiply-adds as a tile has rows, which the second level keeps up with. With parts of 256 rows, sums
/// went to memory and back more often, and a single text's few rows took half as long again.
const K_BLOCK: usize = 768;

/// How many rows of a panel ahead of where it is read it is brought near.
const STREAM: usize = 48;

/// Weights of a linear layer, `inputs` x `outputs`, in panels of `width` columns: panel after
/// panel, each `inputs` x `width` row-major, the last one filled up with zeros.
pub(crate) struct Panels {
    data: Lined,
    /// Bias of each column, filled up with zeros.
    bias: Lined,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) width: usize,
}

impl Panels {
    /// Packs `weight` (`outputs` x `inputs`) and `bias` for panels of `width` columns.
    pub(crate) fn pack(weight: &[f32], bias: &[f32], inputs: usize, width: usize) -> Self {
        let outputs = bias.len();
        assert_eq!(
            weight.len(),
            outputs * inputs,
            "weight and bias of one layer"
        );
        let padded = outputs.next_multiple_of(width);
        let mut data = Lined::zeros(padded * inputs);
        for (panel, to) in data.chunks_exact_mut(inputs * width).enumerate() {
            for column in 0..width.min(outputs - panel * width) {
                let from = &weight[(panel * width + column) * inputs..][..inputs];
                for (x, row) in from.iter().zip(to.chunks_exact_mut(width)) {
                    row[column] = *x;
                }
            }
        }
        let mut padded_bias = Lined::zeros(padded);
        padded_bias[..outputs].copy_from_slice(bias);
        Self {
            data,
            bias: padded_bias,
            inputs,
            outputs,
            width,
        }
    }

    /// What a product reads of the weights once, at least.
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.data[..])
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.bias.len() / self.width
    }
}

/// What an output starts with.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Its column's number here (a bias, or zeros).
    Row(*const f32),
    /// What it holds.
    Keep,
    /// What it holds plus its column's number here.
    KeepPlus(*const f32),
}

/// A left side or an output: a pointer to its first number and the numbers between two rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows<P> {
    pub(crate) at: P,
    pub(crate) stride: usize,
}

/// What will be read next, to be brought near meanwhile. Any address will do: it is no access.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    at: *const u8,
    /// Bytes to move on by for each row of a panel.
    pace: usize,
}

impl Ahead {
    /// Nothing: always the same line. It is one that there is, as the search for another would not be
    /// free.
    pub(crate) fn none() -> Self {
        static NOTHING: u8 = 0;
        let at = &raw const NOTHING;
        Self { at, pace: 0 }
    }

    /// `bytes` from there on, spread over `steps` rows.
    fn new(at: *const u8, bytes: usize, steps: usize) -> Self {
        let pace = bytes.div_ceil(steps);
        Self { at, pace }
    }

    /// The same, `steps` rows later.
    fn after(self, steps: usize) -> Self {
        let at = self.at.wrapping_add(steps * self.pace);
        Self { at, ..self }
    }
}

/// `MR` rows times a panel of `NV` registers' width.
///
/// # Safety
///
/// As for [`Lanes`]; `a` holds `MR` rows of `k` numbers, `b` holds `k` rows of the panel's width,
/// `c` holds `MR` rows of the panel's width, and nothing else reads or writes `c` meanwhile.
#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const NV: usize>(
    k: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    start: Start,
    mut ahead: Ahead,
) {
    // SAFETY: the caller's promise; all offsets stay inside the announced shapes.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; MR];
        for r in 0..MR {
            for j in 0..NV {
                let held = c.at.add(r * c.stride + j * V::LANES);
                sums[r][j] = match start {
                    Start::Row(from) => V::load(from.add(j * V::LANES)),
                    Start::Keep => V::load(held),
                    Start::KeepPlus(from) => V::load(held).add(V::load(from.add(j * V::LANES))),
                };
            }
        }
        let mut at = b.at;
        let mut columns = [V::splat(0.0); NV];
        for p in 0..k {
            bring_near(ahead.at);
            ahead.at = ahead.at.wrapping_add(ahead.pace);
            for j in 0..NV {
                columns[j] = V::load(at.add(j * V::LANES));
            }
            for r in 0..MR {
                let x = V::splat(*a.at.add(r * a.stride + p));
                for j in 0..NV {
                    sums[r][j] = x.mla(columns[j], sums[r][j]);
                }
            }
            at = at.add(b.stride);
        }
        for r in 0..MR {
            for j in 0..NV {
                sums[r][j].store(c.at.add(r * c.stride + j * V::LANES));
            }
        }
    }
}

/// All rows times one panel, `MR` at a time and the rest by smaller tiles.
///
/// # Safety
///
/// As for [`tile`], with `rows` rows.
#[inline(always)]
pub(crate) unsafe fn panel<V: Lanes, const MR: usize, const NV: usize>(
    rows: usize,
    k: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    start: Start,
    mut ahead: Ahead,
) {
    const { assert!(MR <= 12, "there is a tile for each number of rows but 7") };
    let mut row = 0;
    while row < rows {
        // SAFETY: the caller's promise, moved on by `row` rows.
        unsafe {
            let a = Rows {
                at: a.at.add(row * a.stride),
                ..a
            };
            let c = Rows {
                at: c.at.add(row * c.stride),
                ..c
            };
            match (rows - row).min(MR) {
                n if n == MR => tile::<V, MR, NV>(k, a, b, c, start, ahead),
                // A text of so many tokens reads its weights once.
                11 => tile::<V, 11, NV>(k, a, b, c, start, ahead),
                10 => tile::<V, 10, NV>(k, a, b, c, start, ahead),
                9 => tile::<V, 9, NV>(k, a, b, c, start, ahead),
                8 => tile::<V, 8, NV>(k, a, b, c, start, ahead),
                6..8 => tile::<V, 6, NV>(k, a, b, c, start, ahead),
                5 => tile::<V, 5, NV>(k, a, b, c, start, ahead),
                4 => tile::<V, 4, NV>(k, a, b, c, start, ahead),
                3 => tile::<V, 3, NV>(k, a, b, c, start, ahead),
                2 => tile::<V, 2, NV>(k, a, b, c, start, ahead),
                _ => tile::<V, 1, NV>(k, a, b, c, start, ahead),
            }
            row += match (rows - row).min(MR) {
                n if n == MR => MR,
                6..8 => 6,
                n => n,
            };
            ahead = ahead.after(k);
        }
    }
}

/// `rows` rows of `a` times the panels `range` of `weights`, into the same columns of `c`.
///
/// With `keep`, the product is added to what `c` holds; the bias is added either way.
///
/// # Safety
///
/// As for [`Lanes`]; `a` holds `rows` rows of `weights.inputs` numbers, `c` holds `rows` rows of
/// the outputs, which are a multiple of 16, and nothing else touches these columns of `c`
/// meanwhile. `weights.width` is `NV * V::LANES`, `N16` is `16 / V::LANES`.
#[inline(always)]
pub(crate) unsafe fn product<V: Lanes, const MR: usize, const NV: usize, const N16: usize>(
    rows: usize,
    a: Rows<*const f32>,
    weights: &Panels,
    range: std::ops::Range<usize>,
    c: Rows<*mut f32>,
    keep: bool,
) {
    let width = NV * V::LANES;
    const {
        let half = 2 * N16;
        assert!(NV <= half, "a last panel is whole or sixteen columns wide");
    }
    assert!(
        weights.width == width
            && weights.outputs.is_multiple_of(16)
            && range.end <= weights.count(),
        "panels of this kernel"
    );
    let row_bytes = width * size_of::<f32>();
    let mut from = 0;
    while from < weights.inputs {
        let k = K_BLOCK.min(weights.inputs - from);
        for p in range.clone() {
            // SAFETY: the caller's promise; panel `p` and its bias exist.
            unsafe {
                let bias = weights.bias.as_ptr().add(p * width);
                let start = match (from, keep) {
                    (0, false) => Start::Row(bias),
                    (0, true) => Start::KeepPlus(bias),
                    _ => Start::Keep,
                };
                let a = Rows {
                    at: a.at.add(from),
                    ..a
                };
                let at = (p * weights.inputs + from) * width;
                let b = Rows {
                    at: weights.data.as_ptr().add(at),
                    stride: width,
                };
                let c = Rows {
                    at: c.at.add(p * width),
                    ..c
                };
                let ahead = match rows.div_ceil(MR) {
                    // Each row of the panel is read once at most.
                    0 | 1 => Ahead::new(b.at.wrapping_add(STREAM * width).cast(), k * row_bytes, k),
                    // While one panel is multiplied, each tile brings its share of the next.
                    tiles if p + 1 < range.end => {
                        let next = b.at.wrapping_add(weights.inputs * width);
                        Ahead::new(next.cast(), k * row_bytes, tiles * k)
                    }
                    _ => Ahead::none(),
                };
                // The columns that fill up a last panel belong to others in `c`.
                if weights.outputs - p * width >= width {
                    panel::<V, MR, NV>(rows, k, a, b, c, start, ahead);
                } else {
                    panel::<V, MR, N16>(rows, k, a, b, c, start, ahead);
                }
            }
        }
        from += k;
    }
}
