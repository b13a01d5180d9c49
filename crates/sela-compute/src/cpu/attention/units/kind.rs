//! Kinds of numbers that attention multiplies, as types.

use std::arch::x86_64::*;

use super::{DEPTH, Head, TILE, store};
use crate::cpu::blocks::{Columns, Form, Twice};
use crate::cpu::gemm::Rows;
use crate::cpu::lanes::x86::{Avx512, bf16_left_over, bf16_line};
use crate::cpu::lanes::{INTEGER, Lanes};

/// The largest code of a query, a key or a value on either side of zero.
const MOST: f32 = 4095.0;
/// That of a weight. Many small ones add up, so they are rounded more finely.
pub(super) const WEIGHT_MOST: f32 = 8191.0;
/// Steps over which 32 bits hold the sums of scores, and of values, whatever the codes are; then they go
/// to f32.
pub(super) const SCORE_CHUNK: usize = 4;
pub(super) const VALUE_CHUNK: usize = 2;
const _: () = assert!(SCORE_CHUNK * DEPTH * 4095 * 4095 <= i32::MAX as usize);
const _: () = assert!(VALUE_CHUNK * DEPTH * 4095 * 8191 <= i32::MAX as usize);

/// A kind of numbers.
///
/// # Safety
///
/// All methods may only run on a CPU that has what the kind multiplies by, inside a function that
/// enables it: AVX-512 BF16 for bf16, AVX-512 VNNI for codes. Rows, lines and columns of heads are there.
pub(crate) trait Kind {
    /// What it is called elsewhere.
    const FORM: Form;
    /// Whether there are two parts of each number.
    const SPLIT: bool = matches!(Self::FORM, Form::Bf16x3);
    /// Whether numbers are codes and sums are i32, of a few steps.
    const CODES: bool = matches!(Self::FORM, Form::Int16);

    /// Queries, keys or values of a head before they are multiplied.
    type Rows: Copy;

    /// What a number of them stands for.
    fn step(rows: Self::Rows) -> f32;

    /// A line of a row, and what is left of the numbers, where that is asked for.
    unsafe fn row(rows: Self::Rows, row: usize, line: usize) -> [__m512i; 2];

    /// The `n` rows from `first` on, as many tiles as there are `lines`, and lines from a tile to the
    /// next; there is `room` for that. Behind the last row there may be anything.
    unsafe fn rows(
        rows: Self::Rows,
        first: usize,
        n: usize,
        lines: usize,
        room: Twice,
    ) -> (Twice, usize);

    /// Sixteen numbers of two rows side by side, the first even, zeros for rows behind `len`.
    unsafe fn pair(rows: Self::Rows, first: usize, len: usize, column: usize) -> [__m512i; 2];

    /// 32 weights, or numbers of the result, as a line, and what that leaves of them; of codes, those that
    /// [`with_codes`] made of weights.
    unsafe fn line(low: __m512, high: __m512) -> [__m512i; 2];

    /// Adds to sixteen sums the products of sixteen pairs.
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i;
}

/// bf16, or split in two parts of it.
pub(crate) enum Bf16<const SPLIT: bool> {}

/// Rows of bf16, split or not.
#[derive(Clone, Copy)]
pub(crate) struct Rounded {
    lines: Twice,
    /// Lines from a line of a row to the next.
    apart: usize,
}

impl Rounded {
    /// From a row and a panel on.
    ///
    /// # Safety
    ///
    /// They are there, and may be read from now on, as may sixteen lines from any row on.
    pub(crate) unsafe fn new(columns: Columns, row: usize, panel: usize) -> Self {
        // SAFETY: the caller's promise.
        let lines = unsafe { columns.lines.add(panel * columns.rows + row) };
        Self {
            lines,
            apart: columns.rows,
        }
    }
}

impl<const SPLIT: bool> Kind for Bf16<SPLIT> {
    const FORM: Form = if SPLIT { Form::Bf16x3 } else { Form::Bf16 };
    type Rows = Rounded;

    #[inline(always)]
    fn step(_: Rounded) -> f32 {
        1.0
    }

    #[inline(always)]
    unsafe fn row(rows: Rounded, row: usize, line: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let line = rows.lines.add(line * rows.apart + row);
            let upper = _mm512_load_si512(line.at.cast());
            match SPLIT {
                true => [upper, _mm512_load_si512(line.lower().cast())],
                false => [upper, upper],
            }
        }
    }

    #[inline(always)]
    unsafe fn rows(rows: Rounded, first: usize, _: usize, _: usize, _: Twice) -> (Twice, usize) {
        // They lie as tiles are read.
        // SAFETY: the caller's promise.
        (unsafe { rows.lines.add(first) }, rows.apart)
    }

    #[inline(always)]
    unsafe fn pair(rows: Rounded, first: usize, len: usize, column: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let zeros = [_mm512_setzero_si512(); 2];
            let line = column / 2;
            let one = match first < len {
                true => Self::row(rows, first, line),
                false => zeros,
            };
            let two = match first + 1 < len {
                true => Self::row(rows, first + 1, line),
                false => zeros,
            };
            // Numbers 0 of both, 1 of both, and so on, from the column's first on.
            let low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let low = _mm512_add_epi32(low, _mm512_set1_epi32((column % 2 * TILE) as i32));
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(DEPTH as i32));
            let order = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
            let upper = _mm512_permutex2var_epi16(one[0], order, two[0]);
            match SPLIT {
                true => [upper, _mm512_permutex2var_epi16(one[1], order, two[1])],
                false => [upper, upper],
            }
        }
    }

    #[inline(always)]
    unsafe fn line(low: __m512, high: __m512) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let upper = bf16_line(low, high);
            match SPLIT {
                true => [upper, bf16_left_over(upper, low, high)],
                false => [upper, upper],
            }
        }
    }

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the caller's promise; all are 512 bits.
        unsafe {
            // No closures here and below: what is not inlined lacks the instructions that its caller
            // has (`tests/inlined` finds it).
            let x = std::mem::transmute::<__m512i, __m512bh>(x);
            let y = std::mem::transmute::<__m512i, __m512bh>(y);
            _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sums), x, y))
        }
    }
}

/// Codes of 16 bits, as many to a unit as the largest of a head's queries, keys or values allows.
pub(crate) enum Codes {}

/// Rows of f32 that become codes.
#[derive(Clone, Copy)]
pub(crate) struct Coded {
    rows: Rows<*const f32>,
    /// Codes to a unit, and what a code stands for.
    per: f32,
    step: f32,
}

impl Coded {
    /// A head's rows, queries, keys or values.
    ///
    /// # Safety
    ///
    /// They may be read from now on; heads are of whole registers. For the rest as for [`Kind`].
    #[inline(always)]
    pub(super) unsafe fn new(at: *const f32, head: &Head) -> Self {
        let stride = head.stride;
        // SAFETY: the caller's promise.
        unsafe {
            let mut most = _mm512_setzero_ps();
            // Zero, or NaN after a number that is not finite.
            let mut finite = _mm512_setzero_ps();
            for row in 0..head.len {
                for i in (0..head.dim).step_by(TILE) {
                    let x = _mm512_loadu_ps(at.add(row * stride + i));
                    most = _mm512_range_ps::<LARGEST_MAGNITUDE>(most, x);
                    finite = _mm512_fmadd_ps(x, _mm512_setzero_ps(), finite);
                }
            }
            let most = _mm512_reduce_max_ps(most);
            let per = MOST / most;
            Self {
                rows: Rows { at, stride },
                // Nothing is left of numbers so small that this has no end.
                per: if per.is_finite() { per } else { 0.0 },
                step: most / MOST + Avx512(finite).sum(),
            }
        }
    }

    /// Sixteen numbers of a row, as [`with_codes`] has them.
    ///
    /// # Safety
    ///
    /// As for [`Kind`].
    #[inline(always)]
    unsafe fn load(self, row: usize, at: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let x = _mm512_loadu_ps(self.rows.at.add(row * self.rows.stride + at));
            with_codes(x, _mm512_set1_ps(self.per))
        }
    }
}

/// Of `VRANGEPS`: the larger magnitude, without a sign; a number rather than a NaN.
const LARGEST_MAGNITUDE: i32 = 0b1011;

/// Numbers in whose lowest sixteen bits are codes, `per` of them to a unit.
///
/// # Safety
///
/// As for [`Kind`].
#[inline(always)]
pub(super) unsafe fn with_codes(x: __m512, per: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_fmadd_ps(x, per, _mm512_set1_ps(INTEGER)) }
}

/// The codes of sixteen numbers and of sixteen others, as [`with_codes`] has them: one's behind the other's
/// or, `paired`, side by side.
///
/// # Safety
///
/// As for [`Kind`].
#[inline(always)]
unsafe fn codes(one: __m512, two: __m512, paired: bool) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        // Of the words of both registers, 32 each, the even ones.
        let lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let (first, second) = match paired {
            true => {
                let word = _mm512_add_epi32(lane, lane);
                (
                    word,
                    _mm512_add_epi32(word, _mm512_set1_epi32(DEPTH as i32)),
                )
            }
            false => {
                let word = _mm512_slli_epi32::<2>(lane);
                (word, _mm512_add_epi32(word, _mm512_set1_epi32(2)))
            }
        };
        let order = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
        _mm512_permutex2var_epi16(_mm512_castps_si512(one), order, _mm512_castps_si512(two))
    }
}

impl Kind for Codes {
    const FORM: Form = Form::Int16;
    type Rows = Coded;

    #[inline(always)]
    fn step(rows: Coded) -> f32 {
        rows.step
    }

    #[inline(always)]
    unsafe fn row(rows: Coded, row: usize, line: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let at = line * DEPTH;
            let both = codes(rows.load(row, at), rows.load(row, at + TILE), false);
            [both, both]
        }
    }

    #[inline(always)]
    unsafe fn rows(
        rows: Coded,
        first: usize,
        n: usize,
        lines: usize,
        room: Twice,
    ) -> (Twice, usize) {
        for line in 0..lines {
            for r in 0..n {
                // SAFETY: the caller's promise.
                unsafe {
                    let row = Self::row(rows, first + r, line);
                    store::<Self>(room.add(line * TILE + r), row);
                }
            }
        }
        (room, TILE)
    }

    #[inline(always)]
    unsafe fn pair(rows: Coded, first: usize, len: usize, column: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut both = [_mm512_setzero_ps(); 2];
            for (row, x) in both.iter_mut().enumerate() {
                if first + row < len {
                    *x = rows.load(first + row, column * TILE);
                }
            }
            let both = codes(both[0], both[1], true);
            [both, both]
        }
    }

    #[inline(always)]
    unsafe fn line(low: __m512, high: __m512) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        let both = unsafe { codes(low, high, false) };
        [both, both]
    }

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpwssd_epi32(sums, x, y) }
    }
}
