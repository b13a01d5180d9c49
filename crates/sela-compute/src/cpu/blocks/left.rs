//! Left sides of products: rows of numbers in bf16, int8 or int16, laid out as tiles are read.

use super::Kernel;
use crate::cpu::lanes::{INTEGER, Lanes};
use crate::plan::Arithmetic;

/// Rows of a block.
pub(super) const BLOCK: usize = 32;
/// Rows of the left side that lie side by side: those of a tile.
pub(crate) const GROUP: usize = 16;

/// 64 bytes: of each of sixteen outputs a few inputs (a row of a tile), or inputs of a row of the left side.
/// A word's are neighbours or, of int8, [`Form::apart`]. The earlier ones are in the lower bits.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(super) [u32; 16]);

#[cfg(all(test, target_arch = "x86_64"))]
impl Line {
    /// A line of NaNs, as numbers of either kind.
    pub(crate) const NAN: Self = Self([0x7fff_7fff; 16]);
}

/// What f32 numbers become to be multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// bf16, rounded.
    Bf16,
    /// Two of bf16: `x = high + low` up to 2^-16 relative; the product is
    /// `low high + high low + high high`.
    Bf16x3,
    /// 8 bits. A row of the left side has codes of 0 to 255 between its least number and its largest, zero
    /// among them, an output's weights codes of -127 to 127.
    Int8,
    /// 16 bits, of which a sum has room for fewer: a row of the left side has codes of
    /// -[`LEFT_MOST`] to `LEFT_MOST`, an output's weights as many as their sums allow.
    Int16,
}

/// The largest code of int16 in a left side. It divides the 31 bits of a sum between both sides so that
/// either is rounded by about as much: a row's largest number is some 20 times the usual one, an
/// output's largest weight some 4 times.
pub(super) const LEFT_MOST: f32 = 16_383.0;
/// Steps over which 32 bits hold the sums of int16; then they go to f32.
pub(super) const CHUNK: usize = 12;

impl Form {
    /// That of an arithmetic's numbers, if its products are of blocks.
    pub(crate) fn of(arithmetic: Arithmetic) -> Option<Self> {
        match arithmetic {
            Arithmetic::F32 | Arithmetic::F16 => None,
            Arithmetic::Bf16 => Some(Self::Bf16),
            Arithmetic::Bf16x3 => Some(Self::Bf16x3),
            Arithmetic::Int8 => Some(Self::Int8),
            Arithmetic::Int16 => Some(Self::Int16),
        }
    }

    /// Whether a number is rounded by what else is in its row, so that a row must be there as a whole
    /// before it can be rounded.
    pub(crate) const fn rounds_whole_rows(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16)
    }

    /// Most inputs whose products a sum can hold for certain.
    pub(crate) const fn inputs_max(self) -> Option<usize> {
        match self {
            // Those of int16 go to f32 before they are full.
            Self::Bf16 | Self::Bf16x3 | Self::Int16 => None,
            Self::Int8 => Some(i32::MAX as usize / (255 * 127)),
        }
    }

    /// Inputs of a 32-bit word.
    pub(super) const fn word(self) -> usize {
        match self {
            Self::Bf16 | Self::Bf16x3 | Self::Int16 => 2,
            Self::Int8 => 4,
        }
    }

    /// How far apart a word's inputs are: those of int8 so that codes leave four registers as words.
    pub(super) const fn apart(self) -> usize {
        match self {
            Self::Bf16 | Self::Bf16x3 | Self::Int16 => 1,
            Self::Int8 => 16,
        }
    }

    /// Inputs of a line of the left side: what a tile is deep.
    pub(super) const fn depth(self) -> usize {
        16 * self.word()
    }

    /// Lines of a row of so many inputs.
    pub(super) const fn steps(self, inputs: usize) -> usize {
        inputs.div_ceil(self.depth())
    }
}

/// What a row's codes stand for: `base + code * step`, of int16 `code * step`. A row with a number that
/// is not finite has a step of NaN, and so has all that is multiplied by it.
#[derive(Clone, Copy, Default)]
pub(super) struct Scale {
    pub(super) step: f32,
    pub(super) base: f32,
    /// Of int8 that f32 was rounded to: no less than the Euclidean length of what the codes stand for.
    pub(super) length: f32,
}

/// Codes of 16 bits that a row of int8's has on the way from one product to the next: they are there before
/// its range is known, so they go as far as nothing can go beyond.
#[derive(Clone, Copy)]
pub(crate) struct Midway {
    /// Codes to a unit, and what one stands for.
    pub(crate) per: f32,
    pub(crate) step: f32,
}

impl Midway {
    /// Two codes of what is no number, which no number has.
    pub(crate) const NONE: u32 = 0x8000_8000;

    /// Codes of numbers up to `most` on either side of zero.
    pub(super) fn up_to(most: f32) -> Self {
        /// Room for what rounding adds.
        const MOST: f32 = 32_000.0;
        /// What sums go through is so much larger at most that f32 holds it. What is beyond is no number.
        const LIMIT: f32 = 1e30;
        let per = MOST / most;
        Self {
            // Nothing is left of numbers so small that this has no end.
            per: if per.is_finite() { per } else { 0.0 },
            step: if most <= LIMIT { most / MOST } else { f32::NAN },
        }
    }
}

/// How codes of 16 bits become codes of a row of int8: `code * factor / 2^15`, rounded, and `zero` more.
#[derive(Clone, Copy)]
pub(super) struct Narrowing {
    pub(super) factor: i16,
    pub(super) zero: i16,
    /// Whether one of the codes is of no number.
    none: bool,
}

impl Narrowing {
    /// For codes between two, zero among them: 254 steps at most, so that rounding at both ends makes 255
    /// of them at most.
    #[inline(always)]
    pub(super) fn new(least: i16, largest: i16) -> Self {
        let range = (i32::from(largest) - i32::from(least)).max(1);
        let factor = ((254 << 15) / range).min(i32::from(i16::MAX)) as i16;
        let before = Self {
            factor,
            zero: 0,
            none: least == Midway::NONE as i16,
        };
        let zero = -before.apply(least);
        Self { zero, ..before }
    }

    /// The code of one.
    #[inline(always)]
    pub(super) fn apply(self, code: i16) -> i16 {
        let product = i32::from(code) * i32::from(self.factor);
        ((product + (1 << 14)) >> 15) as i16 + self.zero
    }

    /// What codes stand for that were of `step`. Nobody asks for their length.
    #[inline(always)]
    pub(super) fn scale(self, step: f32) -> Scale {
        let step = match self.none {
            true => f32::NAN,
            false => step * (32_768.0 / f32::from(self.factor)),
        };
        Scale {
            step,
            base: -f32::from(self.zero) * step,
            length: f32::INFINITY,
        }
    }
}

/// A left side: whole blocks of rows in groups, each row in whole lines. Members of a job share it,
/// each writing rows or lines where no other does.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(super) high: *mut Line,
    /// What the upper parts leave; null if there is no such part.
    pub(super) low: *mut Line,
    /// Of each row, if it is of codes.
    pub(super) scales: *mut Scale,
    pub(super) form: Form,
    /// Lines of a row.
    pub(super) steps: usize,
}

// SAFETY: the pointers themselves may travel; each use is argued for where it is made.
unsafe impl Send for Left {}
// SAFETY: as above.
unsafe impl Sync for Left {}

/// Lines that are there once or, with a lower part of each so many lines behind it, twice.
#[derive(Clone, Copy)]
pub(crate) struct Twice {
    pub(crate) at: *mut Line,
    pub(crate) low: usize,
}

impl Twice {
    /// # Safety
    ///
    /// There is such a line.
    #[inline(always)]
    pub(crate) unsafe fn add(self, lines: usize) -> Self {
        // SAFETY: the caller's promise.
        let at = unsafe { self.at.add(lines) };
        Self { at, ..self }
    }

    /// # Safety
    ///
    /// There is a lower part.
    #[inline(always)]
    pub(crate) unsafe fn lower(self) -> *mut Line {
        // SAFETY: the caller's promise.
        unsafe { self.at.add(self.low) }
    }
}

/// Rows of bf16, whole or split, in panels of 32 columns: of each panel a line of each row, one after
/// the other. Members of a job share it, each writing panels where no other does.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) lines: Twice,
    /// Lines from a panel to the next.
    pub(crate) rows: usize,
}

// SAFETY: the pointer itself may travel; each use is argued for where it is made.
unsafe impl Send for Columns {}
// SAFETY: as above.
unsafe impl Sync for Columns {}

/// Room for a left side; kept from call to call.
pub(crate) struct Room {
    form: Form,
    pub(super) high: Vec<Line>,
    pub(super) low: Vec<Line>,
    scales: Vec<Scale>,
}

impl Room {
    /// No room yet.
    pub(crate) const fn new(form: Form) -> Self {
        Self {
            form,
            high: Vec::new(),
            low: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Makes room for `rows` rows of `inputs` numbers.
    pub(crate) fn fit(&mut self, rows: usize, inputs: usize) {
        fn grow<T: Clone + Default>(part: &mut Vec<T>, n: usize) {
            if part.len() < n {
                part.resize(n, T::default());
            }
        }
        let rows = rows.next_multiple_of(BLOCK);
        let lines = rows * self.form.steps(inputs);
        grow(&mut self.high, lines);
        match self.form {
            Form::Bf16 => {}
            Form::Bf16x3 => grow(&mut self.low, lines),
            Form::Int8 | Form::Int16 => grow(&mut self.scales, rows),
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
            scales: self.scales.as_mut_ptr(),
            form: self.form,
            steps: self.form.steps(inputs),
        }
    }
}

impl Left {
    /// The same for inputs of another number, in the same room.
    pub(crate) fn of_inputs(self, inputs: usize) -> Self {
        let steps = self.form.steps(inputs);
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
                // Dangling where there are none.
                scales: self.scales.wrapping_add(row),
                ..self
            }
        }
    }

    /// Rounds a row's numbers into its lines, zeros behind them.
    ///
    /// # Safety
    ///
    /// The row is there and nothing else touches it; as for [`Kernel`].
    #[inline(always)]
    pub(super) unsafe fn put_row<K: Kernel>(self, row: usize, numbers: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.form {
                Form::Bf16 | Form::Bf16x3 => {
                    for (step, numbers) in numbers.chunks(self.form.depth()).enumerate() {
                        self.put::<K>(row, step, numbers);
                    }
                }
                Form::Int8 => self.quantize::<K::Lanes>(row, numbers),
                Form::Int16 => self.quantize_wide::<K::Lanes>(row, numbers),
            }
        }
    }

    /// Rounds up to 32 numbers into a line of a row of bf16, zeros behind them.
    ///
    /// # Safety
    ///
    /// The line is there and nothing else touches it; as for [`Kernel`].
    #[inline(always)]
    pub(super) unsafe fn put<K: Kernel>(self, row: usize, step: usize, numbers: &[f32]) {
        let at = first_line(row, self.steps) + step * GROUP;
        let mut padded = [0.0; Form::Bf16.depth()];
        // SAFETY: the caller's promise.
        unsafe {
            let low = match self.low.is_null() {
                true => None,
                false => Some(self.low.add(at)),
            };
            let numbers = match <&[f32; Form::Bf16.depth()]>::try_from(numbers) {
                Ok(numbers) => numbers,
                Err(_) => {
                    padded[..numbers.len()].copy_from_slice(numbers);
                    &padded
                }
            };
            K::round(numbers, self.high.add(at), low);
        }
    }

    /// Rounds a row's numbers to 254 even steps from the least to the largest, or to zero if that is further,
    /// so that zero's code is an integer and a number's takes one operation.
    ///
    /// # Safety
    ///
    /// As for [`put_row`](Self::put_row).
    #[inline(always)]
    unsafe fn quantize<V: Lanes>(self, row: usize, numbers: &[f32]) {
        const DEPTH: usize = Form::Int8.depth();
        const APART: usize = Form::Int8.apart();
        /// Between the codes of the least number and the largest, which lie at any place between two
        /// integers.
        const STEPS: f32 = 254.0;
        let first = first_line(row, self.steps);
        // SAFETY: the caller's promise; a line is DEPTH codes.
        unsafe {
            let Extent {
                least,
                largest,
                finite,
                length,
            } = extent::<V>(numbers);
            let (least, largest) = (least.min(0.0), largest.max(0.0));
            let step = (largest - least) / STEPS + finite;
            // Of zeros, a NaN or numbers so small that this has no end no code matters; nor of a range
            // that has none, whose step is infinite: all that it is multiplied by becomes NaN.
            let per_step = STEPS / (largest - least);
            let per_step = if per_step.is_finite() { per_step } else { 0.0 };
            // The least number comes to more than 0 however this was rounded, and to hardly more than 1,
            // so that the largest one's code is 255 at most.
            let zero = (-least * per_step).trunc() + 1.0;
            *self.scales.add(row) = Scale {
                step,
                base: -zero * step,
                // A number's code may be half a step off, and these lines off by a little.
                length: (length + step * (numbers.len() as f32).sqrt()) * 1.001,
            };
            let (per_step, zero) = (V::splat(per_step), V::splat(INTEGER + zero));
            for (step, numbers) in numbers.chunks(DEPTH).enumerate() {
                let mut padded = [0.0; DEPTH];
                let from = match numbers.len() {
                    DEPTH => numbers.as_ptr(),
                    n => {
                        padded[..n].copy_from_slice(numbers);
                        padded.as_ptr()
                    }
                };
                let to = self.high.add(first + step * GROUP).cast::<u32>();
                for word in (0..APART).step_by(V::LANES) {
                    let mut codes = [zero; 4];
                    for (i, code) in codes.iter_mut().enumerate() {
                        *code = V::load(from.add(i * APART + word)).fma(per_step, zero);
                    }
                    V::store_low_bytes(codes, to.add(word));
                }
            }
        }
    }

    /// Rounds a row's codes of 16 bits, of `step`, to the codes of int8, whose last line is filled up with
    /// zero's. A word is two inputs that are sixteen apart, a panel sixteen words.
    ///
    /// # Safety
    ///
    /// As for [`put_row`](Self::put_row).
    #[inline(always)]
    pub(super) unsafe fn put_codes(self, row: usize, codes: &[u32], step: f32) {
        let halves = |word: &u32| [*word as i16, (*word >> 16) as i16];
        let (mut least, mut largest) = (0, 0);
        for code in codes.iter().flat_map(halves) {
            (least, largest) = (code.min(least), code.max(largest));
        }
        let narrowing = Narrowing::new(least, largest);
        let first = first_line(row, self.steps);
        // SAFETY: the caller's promise; a line is the words of two panels.
        unsafe {
            *self.scales.add(row) = narrowing.scale(step);
            for (step, words) in codes.chunks(2 * GROUP).enumerate() {
                let line = &mut (*self.high.add(first + step * GROUP)).0;
                for (i, to) in line.iter_mut().enumerate() {
                    let both = [i, GROUP + i].map(|at| words.get(at).map_or([0; 2], halves));
                    let [[a, b], [c, d]] =
                        both.map(|codes| codes.map(|code| narrowing.apply(code) as u8));
                    *to = u32::from_le_bytes([a, b, c, d]);
                }
            }
        }
    }

    /// Rounds a row's numbers to even steps, [`LEFT_MOST`] up to the largest on either side of zero.
    ///
    /// # Safety
    ///
    /// As for [`put_row`](Self::put_row).
    #[inline(always)]
    unsafe fn quantize_wide<V: Lanes>(self, row: usize, numbers: &[f32]) {
        const DEPTH: usize = Form::Int16.depth();
        let first = first_line(row, self.steps);
        // SAFETY: the caller's promise; a line is DEPTH codes.
        unsafe {
            let Extent {
                least,
                largest,
                finite,
                length,
            } = extent::<V>(numbers);
            let most = largest.max(-least);
            let step = most / LEFT_MOST + finite;
            *self.scales.add(row) = Scale {
                step,
                base: 0.0,
                length,
            };
            // Nothing is left of numbers so small that this has no end.
            let per_step = LEFT_MOST / most;
            let per_step = V::splat(if per_step.is_finite() { per_step } else { 0.0 });
            for (step, numbers) in numbers.chunks(DEPTH).enumerate() {
                let mut padded = [0.0; DEPTH];
                let from = match numbers.len() {
                    DEPTH => numbers.as_ptr(),
                    n => {
                        padded[..n].copy_from_slice(numbers);
                        padded.as_ptr()
                    }
                };
                let to = self.high.add(first + step * GROUP).cast::<u16>();
                for at in (0..DEPTH).step_by(V::LANES) {
                    let code = V::load(from.add(at)).mul(per_step).add(V::splat(INTEGER));
                    code.store_low_words(to.add(at));
                }
            }
        }
    }
}

/// Between which numbers a row's are.
struct Extent {
    least: f32,
    largest: f32,
    /// Zero, or NaN if one is not finite, whatever the least and the largest then are.
    finite: f32,
    /// No less than the root of the sum of their squares, up to rounding.
    length: f32,
}

/// # Safety
///
/// As for [`Lanes`].
#[inline(always)]
unsafe fn extent<V: Lanes>(numbers: &[f32]) -> Extent {
    /// Registers a turn: chains that do not wait for each other.
    const CHAINS: usize = 4;
    let turn = CHAINS * V::LANES;
    let (whole, rest) = numbers.split_at(numbers.len() / turn * turn);
    // SAFETY: the caller's promise; each load is of a whole register's numbers.
    unsafe {
        let mut least = [V::splat(f32::INFINITY); CHAINS];
        let mut largest = [V::splat(f32::NEG_INFINITY); CHAINS];
        let mut squares = [V::splat(0.0); CHAINS];
        for numbers in whole.chunks_exact(turn) {
            for i in 0..CHAINS {
                let x = V::load(numbers.as_ptr().add(i * V::LANES));
                least[i] = least[i].min(x);
                largest[i] = largest[i].max(x);
                squares[i] = x.mla(x, squares[i]);
            }
        }
        let [a, b, c, d] = squares;
        let mut squares = a.add(b).add(c.add(d)).sum();
        let [a, b, c, d] = least;
        let mut least = -V::splat(0.0).sub(a.min(b).min(c.min(d))).max_lane();
        let [a, b, c, d] = largest;
        let mut largest = a.max(b).max(c.max(d)).max_lane();
        for &x in rest {
            (least, largest) = (least.min(x), largest.max(x));
            squares += x * x;
        }
        let (mut finite, mut length) = (0.0, squares.sqrt());
        /// Below, squares may have been too small to be added.
        const LEAST: f32 = 1e-30;
        if !(LEAST..=f32::MAX).contains(&squares) {
            // One is not finite, or they are large or small. NaN stays NaN.
            finite = numbers.iter().map(|x| x * 0.0).sum();
            length = largest.max(-least) * (numbers.len() as f32).sqrt() + finite;
        }
        Extent {
            least,
            largest,
            finite,
            length,
        }
    }
}

/// Where a row's lines begin in a left side of so many steps; they are `GROUP` lines apart.
#[inline(always)]
pub(super) fn first_line(row: usize, steps: usize) -> usize {
    row / GROUP * steps * GROUP + row % GROUP
}

/// See [`Kernel::round`].
///
/// # Safety
///
/// Nothing else touches the lines.
#[inline(always)]
pub(super) unsafe fn round(
    numbers: &[f32; Form::Bf16.depth()],
    high: *mut Line,
    low: Option<*mut Line>,
) {
    // Loops of a known length, so that they become registers: `map` over an array does not.
    // SAFETY: the caller's promise; a line is 32 numbers of 16 bits.
    unsafe {
        let high = &mut *high.cast::<[u16; Form::Bf16.depth()]>();
        for (x, to) in numbers.iter().zip(high) {
            *to = rounded(*x);
        }
        if let Some(low) = low {
            let low = &mut *low.cast::<[u16; Form::Bf16.depth()]>();
            for (x, to) in numbers.iter().zip(low) {
                *to = left_over(*x);
            }
        }
    }
}

/// The nearest bf16, ties to even. NaNs stay NaNs, as the kernels' own are quiet ones.
#[inline(always)]
pub(super) fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// What [`rounded`] leaves of a number, rounded in turn.
#[inline(always)]
pub(super) fn left_over(x: f32) -> u16 {
    rounded(x - f32::from_bits(u32::from(rounded(x)) << 16))
}
