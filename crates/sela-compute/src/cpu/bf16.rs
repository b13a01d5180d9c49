//! bf16 matrix products with f32 sums: on AMX tiles, by AVX-512 BF16, or emulated.
//!
//! Weights are packed once, in the order in which AMX reads a tile and AVX-512 a register: pairs of
//! neighbouring inputs of sixteen outputs side by side. Inputs are rounded to bf16 a call. A product
//! is worked off in blocks of 32 rows by 32 outputs. Each output is one chain of sums over the
//! depth, so its bits depend on its own row and column only.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod emulated;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::ops::Range;

use super::gemm::Rows;
use crate::inventory::Bf16Unit;
use crate::isa::Isa;

/// Rows of a block.
const BLOCK: usize = 32;
/// Outputs of a panel: a unit of work.
const WIDTH: usize = 32;
/// Inputs of a step: what a tile is deep.
const STEP: usize = 32;
/// Pairs of inputs of a step.
const PAIRS: usize = STEP / 2;
/// Lines of a step of a panel: those of two tiles.
const STEP_LINES: usize = 2 * PAIRS;

/// A pair of inputs for each of sixteen outputs (a row of a tile), or 32 inputs of a row of the left
/// side. The earlier of a pair is in the lower half.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// The sums of a block.
#[repr(C, align(64))]
struct Tile([[f32; WIDTH]; BLOCK]);

/// A left side and a panel whose product is part of a sum.
#[derive(Clone, Copy)]
#[repr(C)]
struct Term {
    /// The first of a block's rows; `BLOCK` rows can be read.
    left: *const Line,
    /// A panel: `steps * STEP_LINES` lines.
    panel: *const Line,
}

/// How f32 numbers become bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Rounded.
    One,
    /// `x = high + low` up to 2^-16 relative; the product is `low high + high low + high high`.
    Three,
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A unit of this CPU.
    Own(Bf16Unit),
    /// The registers of an instruction set.
    Emulated(Isa),
}

/// The fastest unit of this CPU.
pub(crate) fn unit() -> Option<Bf16Unit> {
    units().first().copied()
}

/// All units of this CPU, the fastest first.
fn units() -> Vec<Bf16Unit> {
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            (Bf16Unit::Amx, amx::is_available()),
            (Bf16Unit::Avx512Bf16, avx512::is_available()),
        ];
        let found = all.into_iter().filter(|(_, available)| *available);
        found.map(|(unit, _)| unit).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

impl Unit {
    /// The fastest that goes with the kernels of `isa`: a unit is used beside the instruction set
    /// that feeds it only.
    pub(crate) fn of(isa: Isa) -> Self {
        match unit() {
            Some(unit) if isa == Isa::Avx512 => Self::Own(unit),
            _ => Self::Emulated(isa),
        }
    }
}

/// The part of a product that differs from unit to unit.
///
/// # Safety
///
/// Both methods may only run on a CPU that has the unit, inside a function that enables it.
trait Kernel {
    /// The unit in working order, until it is dropped.
    type Ready;

    /// Puts the unit in working order.
    unsafe fn ready() -> Self::Ready;

    /// The sums of `terms` over the first `rows` rows of a block, at most `BLOCK`; the other rows of
    /// `sums` hold anything afterwards. Rows of the left side are `steps` lines long.
    ///
    /// # Safety
    ///
    /// The terms are as they say.
    unsafe fn block(rows: usize, steps: usize, terms: &[Term], sums: &mut Tile);
}

/// Weights of a linear layer, in panels of 32 outputs.
pub(crate) struct Packed {
    /// Upper halves, or all there is.
    high: Vec<Line>,
    /// What the upper halves leave, if split.
    low: Vec<Line>,
    bias: Vec<f32>,
    unit: Unit,
    split: Split,
    inputs: usize,
    pub(crate) outputs: usize,
}

/// The nearest bf16, ties to even. NaNs stay NaNs, as the kernels' own are quiet ones.
#[inline(always)]
fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// What [`rounded`] leaves of a number, rounded in turn.
#[inline(always)]
fn left_over(x: f32) -> u16 {
    rounded(x - f32::from_bits(u32::from(rounded(x)) << 16))
}

impl Packed {
    /// Packs `weight` (`outputs` x `inputs`) and `bias`.
    pub(crate) fn pack(
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        split: Split,
        unit: Unit,
    ) -> Self {
        let outputs = bias.len();
        assert_eq!(
            weight.len(),
            outputs * inputs,
            "weight and bias of one layer"
        );
        let pack = |part: fn(f32) -> u16| {
            let steps = inputs.div_ceil(STEP);
            let mut lines = vec![Line::default(); outputs.div_ceil(WIDTH) * steps * STEP_LINES];
            for (output, row) in weight.chunks_exact(inputs).enumerate() {
                let (panel, tile, column) = (output / WIDTH, output % WIDTH / 16, output % 16);
                for (input, &x) in row.iter().enumerate() {
                    let (step, pair, half) = (input / STEP, input % STEP / 2, input % 2);
                    let line = (panel * steps + step) * STEP_LINES + tile * PAIRS + pair;
                    lines[line].0[column] |= u32::from(part(x)) << (16 * half);
                }
            }
            lines
        };
        Self {
            high: pack(rounded),
            low: match split {
                Split::One => Vec::new(),
                Split::Three => pack(left_over),
            },
            bias: bias.to_vec(),
            unit,
            split,
            inputs,
            outputs,
        }
    }

    pub(crate) fn units(&self) -> usize {
        self.outputs.div_ceil(WIDTH)
    }

    pub(crate) const fn unit(&self) -> usize {
        WIDTH
    }

    /// `c (+)= a W^T + b` over `rows` rows and the columns of `units`.
    ///
    /// # Safety
    ///
    /// `a` holds `rows` rows of the layer's inputs and `c` `rows` rows of its outputs; nothing else
    /// touches these columns of `c` meanwhile.
    pub(crate) unsafe fn apply(
        &self,
        rows: usize,
        a: Rows<*const f32>,
        units: Range<usize>,
        c: Rows<*mut f32>,
        keep: bool,
    ) {
        let run = match self.unit {
            #[cfg(target_arch = "x86_64")]
            Unit::Own(Bf16Unit::Amx) => amx::run,
            #[cfg(target_arch = "x86_64")]
            Unit::Own(Bf16Unit::Avx512Bf16) => avx512::run,
            #[cfg(target_arch = "x86_64")]
            Unit::Emulated(Isa::Avx512) => emulated::run_avx512,
            #[cfg(target_arch = "x86_64")]
            Unit::Emulated(Isa::Avx2) => emulated::run_avx2,
            #[cfg(target_arch = "aarch64")]
            Unit::Emulated(Isa::Neon) => emulated::run_neon,
            _ => emulated::run_plain,
        };
        assert!(units.end <= self.units(), "panels of this layer");
        // SAFETY: the caller's promise; units and instruction sets were found on this CPU.
        unsafe { run(self, rows, a, units, c, keep) };
    }
}

/// The left side of a product in bf16: whole blocks of rows, each row in whole lines.
#[derive(Default)]
struct Left {
    high: Vec<Line>,
    low: Vec<Line>,
}

/// Rounds `rows` rows of `inputs` numbers. Lines behind the last row keep what they held: their
/// products go nowhere.
///
/// # Safety
///
/// `a` holds the rows.
#[inline(always)]
unsafe fn round_rows(
    lines: &mut Vec<Line>,
    rows: usize,
    a: Rows<*const f32>,
    inputs: usize,
    part: impl Fn(f32) -> u16 + Copy,
) {
    let steps = inputs.div_ceil(STEP);
    let needed = rows.next_multiple_of(BLOCK) * steps;
    if lines.len() < needed {
        lines.resize(needed, Line::default());
    }
    for (r, to) in lines.chunks_exact_mut(steps).take(rows).enumerate() {
        // SAFETY: the caller's promise; a line is 32 numbers of 16 bits.
        unsafe {
            let from = std::slice::from_raw_parts(a.at.add(r * a.stride), inputs);
            let to = std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u16>(), steps * STEP);
            for (x, to) in from.iter().zip(&mut *to) {
                *to = part(*x);
            }
            to[inputs..].fill(0);
        }
    }
}

/// Adds bias (and, with `keep`, what `c` holds) to the first `rows` rows of `sums` and stores the
/// columns that there are.
///
/// # Safety
///
/// `c` holds the rows, nothing else touches these columns meanwhile.
#[inline(always)]
unsafe fn finish(rows: usize, sums: &Tile, bias: &[f32], c: Rows<*mut f32>, keep: bool) {
    for (r, sums) in sums.0.iter().enumerate().take(rows) {
        // SAFETY: the caller's promise.
        let to = unsafe { std::slice::from_raw_parts_mut(c.at.add(r * c.stride), bias.len()) };
        for ((x, sum), b) in to.iter_mut().zip(sums).zip(bias) {
            *x = if keep { *x + (sum + b) } else { sum + b };
        }
    }
}

/// A product by one kind of kernel; each kind instantiates it where its instructions are enabled.
///
/// # Safety
///
/// As for [`Packed::apply`] and [`Kernel`].
#[inline(always)]
unsafe fn run<K: Kernel>(
    packed: &Packed,
    rows: usize,
    a: Rows<*const f32>,
    units: Range<usize>,
    c: Rows<*mut f32>,
    keep: bool,
) {
    thread_local!(static LEFT: Cell<Left> = Cell::default());
    let steps = packed.inputs.div_ceil(STEP);
    let mut left = LEFT.take();
    let mut sums = Tile([[0.0; WIDTH]; BLOCK]);
    // SAFETY: the caller's promise; blocks start inside the rounded rows, which are whole blocks,
    // and panels inside the layer.
    unsafe {
        round_rows(&mut left.high, rows, a, packed.inputs, rounded);
        if packed.split == Split::Three {
            round_rows(&mut left.low, rows, a, packed.inputs, left_over);
        }
        let _ready = K::ready();
        for unit in units {
            let columns = unit * WIDTH..packed.outputs.min((unit + 1) * WIDTH);
            let bias = &packed.bias[columns.clone()];
            for row in (0..rows).step_by(BLOCK) {
                let n = BLOCK.min(rows - row);
                let term = |left: &[Line], panels: &[Line]| Term {
                    left: left.as_ptr().add(row * steps),
                    panel: panels.as_ptr().add(unit * steps * STEP_LINES),
                };
                let whole = term(&left.high, &packed.high);
                match packed.split {
                    Split::One => K::block(n, steps, &[whole], &mut sums),
                    Split::Three => {
                        let small = term(&left.low, &packed.high);
                        let terms = [small, term(&left.high, &packed.low), whole];
                        K::block(n, steps, &terms, &mut sums);
                    }
                }
                let at = c.at.add(row * c.stride + columns.start);
                finish(n, &sums, bias, Rows { at, ..c }, keep);
            }
        }
    }
    LEFT.set(left);
}
