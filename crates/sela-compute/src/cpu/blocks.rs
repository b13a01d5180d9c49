//! Matrix products of bf16 with f32 sums and of int8 and int16 with i32 sums: of bf16 and int8 on AMX
//! tiles, of all three by AVX-512 BF16 and VNNI, of integers by AVX-VNNI, of int16 by AVX2, or emulated.
//!
//! Weights are packed once, in the order in which AMX reads a tile and AVX-512 a register: two neighbouring
//! inputs of sixteen outputs side by side, or, of int8, four that are sixteen apart, so that codes leave
//! four registers at once. The left side is rounded once, by whoever makes it, and read by all products
//! over it. A product is worked off in blocks of 32 rows by 32 outputs, or 64. Each output is one chain of sums
//! over the depth, so its bits depend on its own row and column only.
//!
//! Numbers of int8 are codes: `x = base + step q` in a row of the left side, `w = scale v` of an
//! output. Their product is `step scale sum(q v) + base scale sum(v)`, in which the first sum is
//! exact and the last one known beforehand. Zero has a code, so `base` is a multiple of `step`.
//!
//! Numbers of int16 are codes too, but around zero: `x = step q`. Both sides share the 31 bits of a sum:
//! a row's codes go up to 2^14, and an output's weights have as many as no row of the left side can
//! make overflow over a chunk of 384 inputs. A chunk's sum is exact and then added in f32. That leaves
//! weights some eleven bits, which rounds no worse than bf16 does.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod emulated;
mod left;
mod number;
mod packed;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use left::{BLOCK, Scale, first_line};
pub(crate) use left::{Columns, Form, GROUP, Left, Line, Midway, Room, Twice};
use number::Number;
pub(crate) use packed::Packed;
use packed::{Reach, STEP_LINES, TILE_LINES};

use super::gemm::Rows;
use super::lanes::{INTEGER, Lanes};
use super::math;
use crate::inventory::{Bf16Unit, Int8Unit, Int16Unit};
use crate::isa::Isa;

/// Outputs of a panel: a unit of work.
const WIDTH: usize = 32;

/// Panels that a block has at most.
const PANELS: usize = 2;

/// The sums of a block's rows and a panel; of int8, the bits of i32.
#[repr(C, align(64))]
struct Tile([[f32; WIDTH]; BLOCK]);

/// A block: its first rows, lines of each of them, and its first panels.
#[derive(Clone, Copy)]
struct Shape {
    /// At least one, at most `BLOCK`.
    rows: usize,
    /// At least one.
    steps: usize,
    /// One, or as many as [`Kernel::PANELS`].
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "only units of x86 have several")
    )]
    panels: usize,
}

/// A left side and panels whose product is part of a sum.
#[derive(Clone, Copy)]
#[repr(C)]
struct Term {
    /// A block's rows in groups, step by step: a line of each row of a group, then those of the next
    /// step, so that a tile is read from one end to the other. `BLOCK` rows can be read.
    left: *const Line,
    /// A panel, `steps * STEP_LINES` lines, and behind it others.
    panel: *const Line,
    /// What will be read soon, so that a unit may bring it near meanwhile; null if nothing is known
    /// better than that panels are read from one end to the other. Never read from.
    ahead: *const Line,
    /// How many lines.
    ahead_lines: usize,
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "the units of x86")
)]
pub(crate) enum Unit {
    /// The tiles of Intel's AMX.
    Amx,
    /// AVX-512 BF16, or VNNI for int8 and int16.
    Avx512,
    /// AVX-VNNI, for int8 and int16.
    AvxVnni,
    /// AVX2, for int16.
    Avx2,
    /// The registers of an instruction set.
    Emulated(Isa),
}

/// The fastest unit of this CPU for products of bf16.
pub(crate) fn bf16_unit() -> Option<Bf16Unit> {
    match units(Form::Bf16).first()? {
        Unit::Amx => Some(Bf16Unit::Amx),
        _ => Some(Bf16Unit::Avx512Bf16),
    }
}

/// The units of this CPU for products of int8, the fastest first.
pub(crate) fn int8_units() -> Vec<Int8Unit> {
    let found = units(Form::Int8).into_iter();
    found
        .filter_map(|unit| match unit {
            Unit::Amx => Some(Int8Unit::Amx),
            Unit::Avx512 => Some(Int8Unit::Avx512Vnni),
            Unit::AvxVnni => Some(Int8Unit::AvxVnni),
            Unit::Avx2 | Unit::Emulated(_) => None,
        })
        .collect()
}

/// The units of this CPU for products of int16 that outpace f32 in the registers of their instruction set, the
/// fastest first: VNNI wherever it is, having twice the rate, of others those that were measured to.
pub(crate) fn int16_units() -> Vec<Int16Unit> {
    let all = units(Form::Int16);
    let outpaces = || !all.contains(&Unit::AvxVnni) && super::rates::int16_outpaces_f32();
    let found = all.iter().filter_map(|unit| match unit {
        Unit::Avx512 => Some(Int16Unit::Avx512Vnni),
        Unit::AvxVnni => Some(Int16Unit::AvxVnni),
        Unit::Avx2 => outpaces().then_some(Int16Unit::Avx2),
        Unit::Amx | Unit::Emulated(_) => None,
    });
    found.collect()
}

/// All units of this CPU for a form, the fastest first.
fn units(form: Form) -> Vec<Unit> {
    #[cfg(target_arch = "x86_64")]
    {
        let tiles = match form {
            // What feeds tiles rounds by it.
            _ if !is_x86_feature_detected!("avx512bf16") => None,
            Form::Bf16 | Form::Bf16x3 => Some(super::amx::Product::Bf16),
            Form::Int8 => Some(super::amx::Product::Int8),
            Form::Int16 => None,
        };
        let all = [
            (
                Unit::Amx,
                tiles.is_some_and(super::amx::Product::is_available),
            ),
            (Unit::Avx512, avx512::is_available(form)),
            (Unit::AvxVnni, avx2::is_available_by_vnni(form)),
            (Unit::Avx2, avx2::is_available(form)),
        ];
        let found = all.into_iter().filter(|(_, available)| *available);
        found.map(|(unit, _)| unit).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = form;
        Vec::new()
    }
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
    /// Rows of so many words of codes of 16 bits, see [`Output::GeluCodes`], rounded into the rows of a left
    /// side of int8 that `rows` are.
    Narrow {
        from: Rows<*const u32>,
        words: usize,
        steps: Steps<'a>,
        rows: Range<usize>,
        to: Left,
    },
}

impl Job<'_> {
    /// The form of the numbers that it is about.
    fn form(&self) -> Form {
        match self {
            Job::Product { packed, .. } => packed.form,
            Job::Round { to, .. } | Job::Narrow { to, .. } => to.form,
        }
    }
}

/// What a code of 16 bits of a row stands for.
#[derive(Clone, Copy)]
pub(crate) enum Steps<'a> {
    /// That of an output of this layer over this left side.
    Of(&'a Packed, Left),
    /// A row's is here.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "attention by the units of x86")
    )]
    At(*const f32),
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// To these rows.
    Rows { to: Rows<*mut f32>, how: How },
    /// Through GELU into the left side, of bf16, of a product whose inputs the outputs are.
    Gelu(Left),
    /// Of int8: through GELU into rows of [`Packed::words`] words, to become the left side of a product whose
    /// inputs the outputs are, see [`Job::Narrow`].
    GeluCodes(Rows<*mut u32>),
    /// Rounded to bf16, `split` in two parts, a panel's rows one after the other.
    Lines { to: Columns, split: bool },
}

/// What becomes of a number of a row.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// It is stored.
    Set,
    /// It is added to what is there.
    Add,
    /// Its GELU is stored.
    Gelu,
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
        let run = match (self, job.form()) {
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, Form::Int8) => amx::run_int8,
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, Form::Bf16 | Form::Bf16x3) => amx::run_bf16,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, Form::Bf16 | Form::Bf16x3) => avx512::run_bf16,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, Form::Int8) => avx512::run_int8,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, Form::Int16) => avx512::run_int16,
            #[cfg(target_arch = "x86_64")]
            (Self::AvxVnni, Form::Int8) => avx2::run_int8_by_vnni,
            #[cfg(target_arch = "x86_64")]
            (Self::AvxVnni, Form::Int16) => avx2::run_int16_by_vnni,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, Form::Int16) => avx2::run_int16,
            #[cfg(target_arch = "x86_64")]
            (Self::Emulated(Isa::Avx512), _) => emulated::run_avx512,
            #[cfg(target_arch = "x86_64")]
            (Self::Emulated(Isa::Avx2), _) => emulated::run_avx2,
            #[cfg(target_arch = "aarch64")]
            (Self::Emulated(Isa::Neon), _) => emulated::run_neon,
            _ => emulated::run_plain,
        };
        // SAFETY: the caller's promise; units and instruction sets were found on this CPU.
        unsafe { run(job) };
    }

    /// The fastest that goes with the kernels of `isa`: a unit is used beside the instruction set
    /// that feeds it only.
    pub(crate) fn of(isa: Isa, form: Form) -> Self {
        let own = units(form).into_iter().find(|unit| unit.fed_by() == isa);
        own.unwrap_or(Self::Emulated(isa))
    }

    /// The instruction set whose kernels it goes with.
    fn fed_by(self) -> Isa {
        match self {
            Self::Amx | Self::Avx512 => Isa::Avx512,
            Self::AvxVnni | Self::Avx2 => Isa::Avx2,
            Self::Emulated(isa) => isa,
        }
    }
}

/// The part of a product that differs from unit to unit.
///
/// # Safety
///
/// All methods may only run on a CPU that has the unit, inside a function that enables it.
trait Kernel {
    /// What it multiplies.
    type Number: Number;
    /// The registers beside it.
    type Lanes: Lanes;
    /// Panels of a block, where so many are left.
    const PANELS: usize = 1;
    /// The unit in working order, until it is dropped.
    type Ready;

    /// Puts the unit in working order.
    unsafe fn ready() -> Self::Ready;

    /// Rounds a line's numbers to bf16, and what that leaves of them if there is a place for it.
    ///
    /// # Safety
    ///
    /// Nothing else touches the lines.
    #[inline(always)]
    unsafe fn round(numbers: &[f32; Form::Bf16.depth()], high: *mut Line, low: Option<*mut Line>) {
        // SAFETY: the caller's promise.
        unsafe { left::round(numbers, high, low) }
    }

    /// Rounds a row's codes of 16 bits, of `step`, into the codes of int8 that a row of a left side is.
    ///
    /// # Safety
    ///
    /// The row is there and nothing else touches it.
    #[inline(always)]
    unsafe fn narrow(codes: &[u32], step: f32, row: usize, to: Left) {
        // SAFETY: the caller's promise.
        unsafe { to.put_codes(row, codes, step) }
    }

    /// The sums of `terms` over a block; rows and panels of `sums` that it does not have hold anything
    /// afterwards. Sends each row of `meanwhile` once, when there is time for it.
    ///
    /// # Safety
    ///
    /// The terms are as they say.
    unsafe fn block(
        shape: Shape,
        terms: &[Term],
        sums: &mut [Tile; PANELS],
        meanwhile: &Sending<'_>,
    );
}

/// A block whose sums are there and have to go where they belong. No closure: what is not inlined
/// lacks the instructions that its caller has.
struct Sending<'a> {
    packed: &'a Packed,
    left: Left,
    sums: &'a [Tile; PANELS],
    to: Output,
    /// How far outputs go, if they become codes of 16 bits.
    reach: Reach,
    /// Rows that there are, and panels.
    rows: usize,
    panels: usize,
    /// The block's first row, and its first panel.
    row: usize,
    unit: usize,
}

impl<'a> Sending<'a> {
    /// A block of a product: its rows and panels, and the first of each.
    fn new(
        (packed, left, to, reach): (&'a Packed, Left, Output, Reach),
        sums: &'a [Tile; PANELS],
        [rows, panels, row, unit]: [usize; 4],
    ) -> Self {
        Self {
            packed,
            left,
            sums,
            to,
            reach,
            rows,
            panels,
            row,
            unit,
        }
    }

    /// Sends all rows.
    ///
    /// # Safety
    ///
    /// As for [`send`](Self::send), and for [`Kernel`].
    #[inline(always)]
    unsafe fn send_all<K: Kernel>(&self) {
        let width = self.panels * WIDTH;
        // SAFETY: the caller's promise.
        unsafe {
            match self.to {
                Output::Rows { to, how } if self.unit * WIDTH + width <= self.packed.outputs => {
                    if self.panels == PANELS {
                        return self.send_columns::<K, { PANELS * WIDTH }>(to, how);
                    }
                    self.send_columns::<K, WIDTH>(to, how);
                }
                Output::GeluCodes(to) => {
                    if self.panels == PANELS {
                        return self.send_codes::<K, PANELS>(to, 0..self.rows);
                    }
                    self.send_codes::<K, 1>(to, 0..self.rows);
                }
                _ => {
                    for r in 0..self.rows {
                        self.send::<K>(r);
                    }
                }
            }
        }
    }

    /// Sends all rows' first `N` columns, which there are, to rows of f32: a few registers side by side,
    /// for what columns have in common stays in others, and what a row has is loaded once.
    ///
    /// # Safety
    ///
    /// As for [`send_all`](Self::send_all).
    #[inline(always)]
    unsafe fn send_columns<K: Kernel, const N: usize>(&self, to: Rows<*mut f32>, how: How) {
        const SIDE: usize = 4;
        let lanes = K::Lanes::LANES;
        let first = self.unit * WIDTH;
        for at in (0..N).step_by(SIDE * lanes) {
            // SAFETY: the caller's promise; `N` is a multiple of every register's width.
            unsafe {
                let mut shared = [K::Number::shared(self, at); SIDE];
                for (i, shared) in shared.iter_mut().enumerate().skip(1) {
                    if at + i * lanes < N {
                        *shared = K::Number::shared(self, at + i * lanes);
                    }
                }
                for r in 0..self.rows {
                    let to = to.at.add((self.row + r) * to.stride + first);
                    for (i, shared) in shared.iter().enumerate() {
                        let at = at + i * lanes;
                        if at < N {
                            let x = K::Number::value::<K::Lanes>(self, r, at, *shared);
                            self.store_one(x, to.add(at), how);
                        }
                    }
                }
            }
        }
    }

    /// Sends some rows' first panels through GELU as codes of 16 bits, those of two columns that are sixteen
    /// apart in a word.
    ///
    /// # Safety
    ///
    /// As for [`send_all`](Self::send_all).
    #[inline(always)]
    unsafe fn send_codes<K: Kernel, const P: usize>(&self, to: Rows<*mut u32>, rows: Range<usize>) {
        const WORDS: usize = WIDTH / 2;
        for i in (0..WORDS).step_by(K::Lanes::LANES) {
            // SAFETY: the caller's promise; sixteen is a multiple of every register's width.
            unsafe {
                let mut shared = [[K::Number::shared(self, i); 2]; P];
                for (at, shared) in shared.as_flattened_mut().iter_mut().enumerate() {
                    *shared = K::Number::shared(self, at * WORDS + i);
                }
                for r in rows.clone() {
                    let row = self.row + r;
                    let midway = self.packed.midway(*self.left.scales.add(row), self.reach);
                    let per = K::Lanes::splat(midway.per);
                    for (panel, shared) in shared.iter().enumerate() {
                        let mut codes = [per; 2];
                        for (j, code) in codes.iter_mut().enumerate() {
                            let at = panel * WIDTH + j * WORDS + i;
                            let x = K::Number::value::<K::Lanes>(self, r, at, shared[j]);
                            *code = self.gelu(x).fma(per, K::Lanes::splat(INTEGER));
                        }
                        let to = to.at.add(row * to.stride + (self.unit + panel) * WORDS + i);
                        K::Lanes::store_low_halves(codes, to);
                    }
                }
            }
        }
    }

    /// Sends a row on its way: adds the bias and stores it, or its GELU. Rows that there are not are
    /// left alone.
    ///
    /// # Safety
    ///
    /// `to` holds the block's rows and columns, nothing else touches them meanwhile; as for
    /// [`Lanes`].
    #[inline(always)]
    unsafe fn send<K: Kernel>(&self, r: usize) {
        if r >= self.rows {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            if let Output::GeluCodes(to) = self.to {
                return match self.panels {
                    PANELS => self.send_codes::<K, PANELS>(to, r..r + 1),
                    _ => self.send_codes::<K, 1>(to, r..r + 1),
                };
            }
            for panel in 0..self.panels {
                self.send_panel::<K>(r, panel);
            }
        }
    }

    /// The same of a panel of a row that there is.
    ///
    /// # Safety
    ///
    /// As for [`send`](Self::send).
    #[inline(always)]
    unsafe fn send_panel<K: Kernel>(&self, r: usize, panel: usize) {
        const { assert!(WIDTH == Form::Bf16.depth()) };
        let (packed, unit, row) = (self.packed, self.unit + panel, self.row + r);
        let (at, first) = (panel * WIDTH, unit * WIDTH);
        let n = WIDTH.min(packed.outputs - first);
        // SAFETY: the caller's promise; WIDTH is a multiple of every register's width.
        unsafe {
            match self.to {
                Output::Rows { to, how } => {
                    let to = to.at.add(row * to.stride + first);
                    if n == WIDTH {
                        return self.store::<K::Lanes, K::Number>([r, at], to, how);
                    }
                    let mut numbers = [0.0; WIDTH];
                    numbers[..n].copy_from_slice(std::slice::from_raw_parts(to, n));
                    self.store::<K::Lanes, K::Number>([r, at], numbers.as_mut_ptr(), how);
                    std::slice::from_raw_parts_mut(to, n).copy_from_slice(&numbers[..n]);
                }
                Output::GeluCodes(..) => unreachable!("a row's panels go together"),
                Output::Lines { to, split } => {
                    // Behind the last output there are zeros.
                    let mut numbers = [0.0; WIDTH];
                    self.store::<K::Lanes, K::Number>([r, at], numbers.as_mut_ptr(), How::Set);
                    let to = to.lines.add(unit * to.rows + row);
                    let low = if split { Some(to.lower()) } else { None };
                    K::round(&numbers, to.at, low);
                }
                Output::Gelu(to) => {
                    let mut numbers = [0.0; WIDTH];
                    self.store::<K::Lanes, K::Number>([r, at], numbers.as_mut_ptr(), How::Gelu);
                    match n {
                        // Of a known length, so that it is no loop over numbers.
                        WIDTH => to.put::<K>(row, unit, &numbers),
                        n => to.put::<K>(row, unit, &numbers[..n]),
                    }
                }
            }
        }
    }

    /// Where the sums of a row are from a column on.
    ///
    /// # Safety
    ///
    /// There is such a row and such a column.
    #[inline(always)]
    unsafe fn sums(&self, r: usize, at: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.sums[at / WIDTH].0[r].as_ptr().add(at % WIDTH) }
    }

    /// Does to the `WIDTH` numbers of a row from a column on what is asked for.
    ///
    /// # Safety
    ///
    /// As for [`send`](Self::send).
    #[inline(always)]
    unsafe fn store<V: Lanes, N: Number>(&self, [r, first]: [usize; 2], to: *mut f32, how: How) {
        for i in (0..WIDTH).step_by(V::LANES) {
            let at = first + i;
            // SAFETY: the caller's promise.
            unsafe {
                let x = N::value::<V>(self, r, at, N::shared(self, at));
                self.store_one(x, to.add(i), how);
            }
        }
    }

    /// The same to a register's numbers `x`.
    ///
    /// # Safety
    ///
    /// As for [`send`](Self::send).
    #[inline(always)]
    unsafe fn store_one<V: Lanes>(&self, x: V, to: *mut f32, how: How) {
        // SAFETY: the caller's promise.
        unsafe {
            match how {
                How::Set => x,
                How::Add => V::load(to).add(x),
                How::Gelu => self.gelu(x),
            }
            .store(to);
        }
    }

    /// GELU as exact as the form of what it was computed from deserves.
    ///
    /// # Safety
    ///
    /// As for [`Lanes`].
    #[inline(always)]
    unsafe fn gelu<V: Lanes>(&self, x: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            match self.packed.form {
                Form::Int8 => math::gelu_rough(x),
                Form::Bf16 | Form::Int16 => math::gelu_coarse(x),
                Form::Bf16x3 => math::gelu(x),
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
                    to.put_row::<K>(row, from);
                }
            }
            Job::Narrow {
                from,
                words,
                steps,
                rows,
                to,
            } => {
                let reach = match steps {
                    Steps::Of(packed, _) => packed.reach_of(0..packed.units()),
                    Steps::At(_) => Reach::default(),
                };
                for row in rows.clone() {
                    let codes = std::slice::from_raw_parts(from.at.add(row * from.stride), *words);
                    let step = match steps {
                        Steps::Of(packed, left) => packed.midway(*left.scales.add(row), reach).step,
                        Steps::At(steps) => *steps.add(row),
                    };
                    K::narrow(codes, step, row, *to);
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
    let steps = packed.form.steps(packed.inputs);
    if units.is_empty() {
        return;
    }
    assert!(units.end <= packed.units(), "panels of this layer");
    assert!(left.steps == steps, "the layer's inputs");
    assert!(left.form == packed.form, "numbers of one form");
    assert!(K::Number::is_of(packed.form), "the kernel's numbers");
    assert!(packed.low.is_empty() || !left.low.is_null(), "both parts");
    let codes = matches!(to, Output::GeluCodes(..));
    assert!(!codes || packed.has_midway(), "rows have a length");
    // While a block is multiplied, the one before it goes where it belongs.
    let [sums, before] = &mut [const { [const { Tile([[0.0; WIDTH]; BLOCK]) }; PANELS] }; 2];
    let (mut sums, mut before) = (sums, before);
    let mut done = [0, 1, 0, 0];
    let reach = match to {
        Output::GeluCodes(..) => packed.reach_of(0..packed.units()),
        _ => Reach::default(),
    };
    let of = (packed, left, to, reach);
    // SAFETY: the caller's promise; blocks start inside the left side, which is of whole blocks,
    // and panels inside the layer.
    unsafe {
        let ready = K::ready();
        let (end, blocks) = (units.end, rows.div_ceil(BLOCK));
        let mut unit = units.start;
        while unit < end {
            let panels = if end - unit < K::PANELS { 1 } else { K::PANELS };
            for row in (0..rows).step_by(BLOCK) {
                let shape = Shape {
                    rows: BLOCK.min(rows - row),
                    steps,
                    panels,
                };
                let block = left.skip_rows(row);
                // While some panels are multiplied, each block brings its share of the next.
                let panel_lines = steps * STEP_LINES;
                let next = panel_lines * K::PANELS.min(end - unit - panels);
                let share = (unit + panels) * panel_lines + row / BLOCK * next / blocks;
                let term = |left: *mut Line, packed: &[Line]| Term {
                    left: left.cast_const(),
                    panel: packed.as_ptr().add(unit * panel_lines),
                    ahead: match blocks > 1 && next > 0 {
                        true => packed.as_ptr().wrapping_add(share),
                        false => std::ptr::null(),
                    },
                    ahead_lines: next / blocks,
                };
                let meanwhile = Sending::new(of, before, done);
                let whole = term(block.high, &packed.high);
                match packed.form {
                    Form::Bf16 | Form::Int8 | Form::Int16 => {
                        K::block(shape, &[whole], sums, &meanwhile);
                    }
                    Form::Bf16x3 => {
                        let small = term(block.low, &packed.high);
                        let terms = [small, term(block.high, &packed.low), whole];
                        K::block(shape, &terms, sums, &meanwhile);
                    }
                }
                std::mem::swap(&mut sums, &mut before);
                done = [shape.rows, panels, row, unit];
            }
            unit += panels;
        }
        drop(ready);
        Sending::new(of, before, done).send_all::<K>();
    }
}
