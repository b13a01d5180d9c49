//! bf16 matrix products with f32 sums: on AMX tiles, by AVX-512 BF16, or emulated.
//!
//! Weights are packed once, in the order in which AMX reads a tile and AVX-512 a register: pairs of
//! neighbouring inputs of sixteen outputs side by side. The left side is rounded to bf16 once, by
//! whoever makes it, and read by all products over it. A product is worked off in blocks of 32 rows
//! by 32 outputs. Each output is one chain of sums over the depth, so its bits depend on its own row
//! and column only.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod emulated;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use super::gemm::Rows;
use super::lanes::Lanes;
use super::math;
use crate::inventory::Bf16Unit;
use crate::isa::Isa;

/// Rows of a block.
const BLOCK: usize = 32;
/// Rows of the left side that lie side by side: those of a tile.
const GROUP: usize = 16;
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
pub(crate) struct Line([u32; 16]);

#[cfg(all(test, target_arch = "x86_64"))]
impl Line {
    /// A line of NaNs, as numbers of either kind.
    pub(crate) const NAN: Self = Self([0x7fff_7fff; 16]);
}

/// The sums of a block.
#[repr(C, align(64))]
struct Tile([[f32; WIDTH]; BLOCK]);

/// A left side and a panel whose product is part of a sum.
#[derive(Clone, Copy)]
#[repr(C)]
struct Term {
    /// A block's rows in groups, step by step: a line of each row of a group, then those of the next
    /// step, so that a tile is read from one end to the other. `BLOCK` rows can be read.
    left: *const Line,
    /// A panel: `steps * STEP_LINES` lines.
    panel: *const Line,
    /// What will be read soon, so that a unit may bring it near meanwhile; null if nothing is known
    /// better than that a panel is read from one end to the other. Never read from.
    ahead: *const Line,
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
            (Bf16Unit::Amx, super::amx::Product::Bf16.is_available()),
            (Bf16Unit::Avx512Bf16, avx512::is_available()),
        ];
        let found = all.into_iter().filter(|(_, available)| *available);
        found.map(|(unit, _)| unit).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// What a unit is asked to do.
pub(crate) enum Job<'a> {
    /// A product over the first `rows` rows of a left side, of the columns of `units`.
    Product {
        packed: &'a Packed,
        rows: usize,
        left: Left,
        units: Range<usize>,
        to: Output,
    },
    /// Rows of `inputs` numbers, rounded into the rows of a left side that `rows` are.
    Round {
        from: Rows<*const f32>,
        inputs: usize,
        rows: Range<usize>,
        to: Left,
    },
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// To these rows; with `keep`, added to what they hold.
    Rows { to: Rows<*mut f32>, keep: bool },
    /// Through GELU into the left side of a product whose inputs the outputs are.
    Gelu(Left),
}

/// A left side in bf16: whole blocks of rows in groups, each row in whole lines. Members of a job
/// share it, each writing rows or lines where no other does.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    high: *mut Line,
    /// What the upper parts leave; null if there is no such part.
    low: *mut Line,
    /// Lines of a row.
    steps: usize,
}

// SAFETY: the pointers themselves may travel; each use is argued for where it is made.
unsafe impl Send for Left {}
// SAFETY: as above.
unsafe impl Sync for Left {}

/// Room for a left side; kept from call to call.
#[derive(Default)]
pub(crate) struct Room {
    high: Vec<Line>,
    low: Vec<Line>,
}

impl Room {
    /// Makes room for `rows` rows of `inputs` numbers.
    pub(crate) fn fit(&mut self, rows: usize, inputs: usize, split: Split) {
        let lines = rows.next_multiple_of(BLOCK) * inputs.div_ceil(STEP);
        let grow = |part: &mut Vec<Line>| {
            if part.len() < lines {
                part.resize(lines, Line::default());
            }
        };
        grow(&mut self.high);
        if split == Split::Three {
            grow(&mut self.low);
        }
    }

    /// The left side in this room, of rows of `inputs` numbers.
    pub(crate) fn left(&mut self, inputs: usize) -> Left {
        let low = match self.low.is_empty() {
            true => std::ptr::null_mut(),
            false => self.low.as_mut_ptr(),
        };
        Left {
            high: self.high.as_mut_ptr(),
            low,
            steps: inputs.div_ceil(STEP),
        }
    }
}

impl Left {
    /// The same for inputs of another number, in the same room.
    pub(crate) fn of_inputs(self, inputs: usize) -> Self {
        let steps = inputs.div_ceil(STEP);
        Self { steps, ..self }
    }

    /// A line of a row, of upper and of lower parts; where there are no such parts the second leads
    /// nowhere.
    ///
    /// # Safety
    ///
    /// There is such a line.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) unsafe fn line(self, row: usize, step: usize) -> [*mut Line; 2] {
        let at = first_line(row, self.steps) + step * GROUP;
        // SAFETY: the caller's promise.
        [unsafe { self.high.add(at) }, self.low.wrapping_add(at)]
    }

    /// The same without its first `row` rows, whole blocks.
    ///
    /// # Safety
    ///
    /// There is such a row.
    pub(crate) unsafe fn skip_rows(self, row: usize) -> Self {
        debug_assert!(row.is_multiple_of(BLOCK));
        let at = first_line(row, self.steps);
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                high: self.high.add(at),
                low: match self.low.is_null() {
                    true => self.low,
                    false => self.low.add(at),
                },
                ..self
            }
        }
    }

    /// Rounds up to 32 numbers into a line of a row, zeros behind them.
    ///
    /// # Safety
    ///
    /// The line is there and nothing else touches it.
    #[inline(always)]
    unsafe fn put(self, row: usize, step: usize, numbers: &[f32]) {
        let at = first_line(row, self.steps) + step * GROUP;
        let fill = |line: *mut Line, part: fn(f32) -> u16| {
            // SAFETY: the caller's promise; a line is 32 numbers of 16 bits.
            let to = unsafe { &mut *line.cast::<[u16; STEP]>() };
            for (x, to) in numbers.iter().zip(&mut *to) {
                *to = part(*x);
            }
            to[numbers.len()..].fill(0);
        };
        // SAFETY: the caller's promise.
        unsafe {
            fill(self.high.add(at), rounded);
            if !self.low.is_null() {
                fill(self.low.add(at), left_over);
            }
        }
    }
}

impl Unit {
    /// Does a job.
    ///
    /// # Safety
    ///
    /// What the job names is there: of a product, `rows` rows of the layer's inputs and of its
    /// outputs; of a rounding, the rows on both sides. Nothing else writes what it reads or touches
    /// what it writes meanwhile.
    pub(crate) unsafe fn run(self, job: &Job<'_>) {
        let run = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Own(Bf16Unit::Amx) => amx::run,
            #[cfg(target_arch = "x86_64")]
            Self::Own(Bf16Unit::Avx512Bf16) => avx512::run,
            #[cfg(target_arch = "x86_64")]
            Self::Emulated(Isa::Avx512) => emulated::run_avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Emulated(Isa::Avx2) => emulated::run_avx2,
            #[cfg(target_arch = "aarch64")]
            Self::Emulated(Isa::Neon) => emulated::run_neon,
            _ => emulated::run_plain,
        };
        // SAFETY: the caller's promise; units and instruction sets were found on this CPU.
        unsafe { run(job) };
    }

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
    /// The registers beside it.
    type Lanes: Lanes;
    /// The unit in working order, until it is dropped.
    type Ready;

    /// Puts the unit in working order.
    unsafe fn ready() -> Self::Ready;

    /// The sums of `terms` over the first `rows` rows of a block, at most `BLOCK`; the other rows of
    /// `sums` hold anything afterwards. Rows of the left side are `steps` lines long. Sends
    /// each row below `BLOCK` of `meanwhile` once, in their order, when there is time for it.
    ///
    /// # Safety
    ///
    /// The terms are as they say.
    unsafe fn block(
        rows: usize,
        steps: usize,
        terms: &[Term],
        sums: &mut Tile,
        meanwhile: &Sending<'_>,
    );
}

/// Weights of a linear layer, in panels of 32 outputs.
pub(crate) struct Packed {
    /// Upper halves, or all there is.
    high: Vec<Line>,
    /// What the upper halves leave, if split.
    low: Vec<Line>,
    bias: Vec<f32>,
    pub(crate) unit: Unit,
    split: Split,
    inputs: usize,
    pub(crate) outputs: usize,
}

/// Where a row's lines begin in a left side of so many steps; they are `GROUP` lines apart.
#[inline(always)]
fn first_line(row: usize, steps: usize) -> usize {
    row / GROUP * steps * GROUP + row % GROUP
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

/// Packs all weights. Generic, so that the rounding is not called but inlined.
fn pack(
    weight: &[f32],
    [outputs, inputs]: [usize; 2],
    part: impl Fn(f32) -> u16 + Copy,
) -> Vec<Line> {
    let steps = inputs.div_ceil(STEP);
    let mut lines = vec![Line::default(); outputs.div_ceil(WIDTH) * steps * STEP_LINES];
    for (panel, lines) in lines.chunks_exact_mut(steps * STEP_LINES).enumerate() {
        for (tile, first) in [0, 16].map(|at| panel * WIDTH + at).into_iter().enumerate() {
            let rows = outputs.saturating_sub(first).min(16);
            let rows = &weight[first.min(outputs) * inputs..][..rows * inputs];
            pack_tile(rows, inputs, part, &mut lines[tile * PAIRS..]);
        }
    }
    lines
}

/// Packs up to sixteen rows of weights, line by line, into the first half of each step.
fn pack_tile(rows: &[f32], inputs: usize, part: impl Fn(f32) -> u16, lines: &mut [Line]) {
    for first in (0..inputs).step_by(2) {
        let line = &mut lines[first / STEP * STEP_LINES + first % STEP / 2];
        for (row, word) in rows.chunks_exact(inputs).zip(&mut line.0) {
            let half = |at: usize| row.get(at).map_or(0, |&x| u32::from(part(x)));
            *word = half(first) | half(first + 1) << 16;
        }
    }
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
        Self {
            high: pack(weight, [outputs, inputs], rounded),
            low: match split {
                Split::One => Vec::new(),
                Split::Three => pack(weight, [outputs, inputs], left_over),
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

    pub(crate) const fn unit_width(&self) -> usize {
        WIDTH
    }
}

/// A block whose sums are there and have to go where they belong. No closure: what is not inlined
/// lacks the instructions that its caller has.
struct Sending<'a> {
    packed: &'a Packed,
    sums: &'a Tile,
    to: Output,
    /// Rows that there are.
    rows: usize,
    /// The block's first row, and its panel.
    row: usize,
    unit: usize,
}

impl Sending<'_> {
    /// Sends a row on its way: adds the bias and stores it, or its GELU. Rows that there are not are
    /// left alone.
    ///
    /// # Safety
    ///
    /// `to` holds the block's rows and columns, nothing else touches them meanwhile; as for
    /// [`Lanes`].
    #[inline(always)]
    unsafe fn send<V: Lanes>(&self, r: usize) {
        const { assert!(WIDTH == STEP) };
        if r >= self.rows {
            return;
        }
        let (packed, first) = (self.packed, self.unit * WIDTH);
        let bias = &packed.bias[first..packed.outputs.min(first + WIDTH)];
        let sums = &self.sums.0[r];
        // SAFETY: the caller's promise; WIDTH is a multiple of every register's width.
        unsafe {
            match self.to {
                Output::Rows { to, keep } => {
                    let at = to.at.add((self.row + r) * to.stride + first);
                    let to = std::slice::from_raw_parts_mut(at, bias.len());
                    for ((x, sum), b) in to.iter_mut().zip(sums).zip(bias) {
                        *x = if keep { *x + (sum + b) } else { sum + b };
                    }
                }
                Output::Gelu(to) => {
                    let mut numbers = [0.0; WIDTH];
                    numbers[..bias.len()].copy_from_slice(bias);
                    for at in (0..WIDTH).step_by(V::LANES) {
                        let number = numbers.as_mut_ptr().add(at);
                        let sum = V::load(sums.as_ptr().add(at)).add(V::load(number));
                        let gelu = match packed.split {
                            Split::One => math::gelu_coarse(sum),
                            Split::Three => math::gelu(sum),
                        };
                        gelu.store(number);
                    }
                    to.put(self.row + r, self.unit, &numbers[..bias.len()]);
                }
            }
        }
    }
}

/// A job by one kind of kernel; each kind instantiates it where its instructions are enabled.
///
/// # Safety
///
/// As for [`Unit::run`] and [`Kernel`].
#[inline(always)]
unsafe fn run<K: Kernel>(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match job {
            Job::Product {
                packed,
                rows,
                left,
                units,
                to,
            } => product::<K>(packed, *rows, *left, units.clone(), *to),
            Job::Round {
                from,
                inputs,
                rows,
                to,
            } => {
                for row in rows.clone() {
                    let from = std::slice::from_raw_parts(from.at.add(row * from.stride), *inputs);
                    for (step, numbers) in from.chunks(STEP).enumerate() {
                        to.put(row, step, numbers);
                    }
                }
            }
        }
    }
}

/// # Safety
///
/// As for [`run`].
#[inline(always)]
unsafe fn product<K: Kernel>(
    packed: &Packed,
    rows: usize,
    left: Left,
    units: Range<usize>,
    to: Output,
) {
    let steps = packed.inputs.div_ceil(STEP);
    if units.is_empty() {
        return;
    }
    assert!(units.end <= packed.units(), "panels of this layer");
    assert!(left.steps == steps, "the layer's inputs");
    assert!(packed.low.is_empty() || !left.low.is_null(), "both parts");
    // While a block is multiplied, the one before it goes where it belongs.
    let [mut sums, mut before] = [const { Tile([[0.0; WIDTH]; BLOCK]) }; 2];
    let mut done = (0, 0, 0);
    // SAFETY: the caller's promise; blocks start inside the left side, which is of whole blocks,
    // and panels inside the layer.
    unsafe {
        let ready = K::ready();
        let (last, blocks) = (units.end - 1, rows.div_ceil(BLOCK));
        for unit in units {
            for row in (0..rows).step_by(BLOCK) {
                let n = BLOCK.min(rows - row);
                let block = left.skip_rows(row);
                // While one panel is multiplied, each block brings its share of the next.
                let panel_lines = steps * STEP_LINES;
                let share = (unit + 1) * panel_lines + row / BLOCK * panel_lines / blocks;
                let term = |left: *mut Line, panels: &[Line]| Term {
                    left: left.cast_const(),
                    panel: panels.as_ptr().add(unit * panel_lines),
                    ahead: match blocks > 1 && unit < last {
                        true => panels.as_ptr().wrapping_add(share),
                        false => std::ptr::null(),
                    },
                };
                let (rows, first, of) = done;
                let meanwhile = Sending {
                    packed,
                    sums: &before,
                    to,
                    rows,
                    row: first,
                    unit: of,
                };
                let whole = term(block.high, &packed.high);
                match packed.split {
                    Split::One => K::block(n, steps, &[whole], &mut sums, &meanwhile),
                    Split::Three => {
                        let small = term(block.low, &packed.high);
                        let terms = [small, term(block.high, &packed.low), whole];
                        K::block(n, steps, &terms, &mut sums, &meanwhile);
                    }
                }
                std::mem::swap(&mut sums, &mut before);
                done = (n, row, unit);
            }
        }
        drop(ready);
        let (rows, row, unit) = done;
        let sending = Sending {
            packed,
            sums: &before,
            to,
            rows,
            row,
            unit,
        };
        for r in 0..rows {
            sending.send::<K::Lanes>(r);
        }
    }
}
