//! Products by `VDPBF16PS` of AVX-512 BF16, and of int8 and int16 by `VPDPBUSD` and `VPDPWSSD` of AVX-512
//! VNNI.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::left::Narrowing;
use super::number::{Bf16, Int8, Int16, Number};
use super::{
    BLOCK, Form, GROUP, Job, Kernel, Left, Line, PANELS, STEP_LINES, Sending, Shape, TILE_LINES,
    Term, Tile, first_line, run as run_kernel,
};
use crate::cpu::lanes::bring_near;
use crate::cpu::lanes::x86::{Avx512, bf16_left_over, bf16_line};
use crate::isa::Isa;

/// Whether this CPU has it.
pub(super) fn is_available(form: Form) -> bool {
    let has = match form {
        Form::Bf16 | Form::Bf16x3 => is_x86_feature_detected!("avx512bf16"),
        Form::Int8 | Form::Int16 => is_x86_feature_detected!("avx512vnni"),
    };
    has && Isa::Avx512.is_available()
}

/// For a kind of numbers.
struct Registers<N>(PhantomData<N>);

/// What registers multiply.
trait Multiplied: Number {
    /// Steps after which sums go to f32, where they are not f32 and may not go on.
    const CHUNK: Option<usize> = None;
    /// Whether they are of bf16.
    const BF16: bool = false;

    /// Adds to sixteen sums the products of sixteen words, each two or four numbers.
    ///
    /// # Safety
    ///
    /// The CPU has AVX-512 VNNI or BF16, and the caller enables it.
    unsafe fn add_products(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i;
}

impl Multiplied for Bf16 {
    const BF16: bool = true;

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: the caller's promise; all are 512 bits.
        unsafe {
            let bf16 = |x| std::mem::transmute::<__m512i, __m512bh>(x);
            let sums = _mm512_castsi512_ps(sums);
            _mm512_castps_si512(_mm512_dpbf16_ps(sums, bf16(x), bf16(weights)))
        }
    }
}

impl Multiplied for Int8 {
    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpbusd_epi32(sums, x, weights) }
    }
}

impl Multiplied for Int16 {
    const CHUNK: Option<usize> = Some(super::left::CHUNK);

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpwssd_epi32(sums, x, weights) }
    }
}

/// What some rows of a block bring near meanwhile.
enum Ahead {
    /// Of panels that are read but once, what is read [`STREAM`] lines later.
    Stream,
    /// Their share of what is read next, a little every [`QUAD`] words.
    Share {
        at: *const u8,
        /// Bytes to move on by.
        pace: usize,
    },
}

/// Words between which something is brought near.
const QUAD: usize = 4;
/// How many lines ahead of where it is read a panel is brought near.
const STREAM: usize = 96;

impl Ahead {
    /// That of `rows` rows from row `row` on, from step `step` on.
    #[inline(always)]
    fn new(term: &Term, [row, rows]: [usize; 2], steps: usize, step: usize) -> Self {
        if term.ahead.is_null() && row == 0 {
            return Self::Stream;
        }
        // Without any to name, what is near already.
        let (at, lines) = match term.ahead.is_null() {
            true => (term.panel, 0),
            false => (term.ahead, term.ahead_lines),
        };
        let (bytes, quads) = (lines * size_of::<Line>(), TILE_LINES / QUAD);
        let pace = (bytes * rows / BLOCK).div_ceil(steps * quads);
        let before = bytes * row / BLOCK + step * quads * pace;
        let at = at.cast::<u8>().wrapping_add(before);
        Self::Share { at, pace }
    }

    /// Before [`QUAD`] words are read, whose weights of each panel `next` are the first.
    #[inline(always)]
    fn bring<const PANELS: usize>(&mut self, next: [*const Line; PANELS]) {
        match self {
            Self::Stream => {
                for panel in next {
                    // A step's two tiles are read at once; the neighbour of a line comes with it.
                    for line in (0..QUAD * STEP_LINES / TILE_LINES).step_by(2) {
                        bring_near(panel.wrapping_add(STREAM + line).cast());
                    }
                }
            }
            Self::Share { at, pace } => {
                bring_near(*at);
                *at = at.wrapping_add(*pace);
            }
        }
    }
}

/// The sums of `MR` rows of a block from row `row` on, all of one group, and of its first panels.
///
/// The more panels, the fewer instructions: a row's word is loaded once for all of them. It makes no
/// difference to a core that has nothing else to do, but where two threads share one, each has half the
/// instructions that it starts: 6 rows by 64 outputs are 17 % faster there than 8 by 32.
///
/// # Safety
///
/// As for [`Kernel::block`].
#[inline(always)]
unsafe fn tile<N: Multiplied, const MR: usize, const PANELS: usize>(
    row: usize,
    steps: usize,
    terms: &[Term],
    out: &mut [Tile; super::PANELS],
) {
    // SAFETY: the caller's promise; a line is one register, a word is 32 bits.
    unsafe {
        let mut sums = [[[_mm512_setzero_si512(); 2]; PANELS]; MR];
        let chunk = N::CHUNK.unwrap_or(usize::MAX);
        for (term, first) in terms
            .iter()
            .flat_map(|term| (0..steps).step_by(chunk).map(move |first| (term, first)))
        {
            let left = term.left.add(first_line(row, steps)).cast::<i32>();
            let mut ahead = Ahead::new(term, [row, MR], steps, first);
            let mut panels = [term.panel; PANELS];
            for (i, panel) in panels.iter_mut().enumerate() {
                *panel = panel.add((i * steps + first) * STEP_LINES);
            }
            for step in first..steps.min(first.saturating_add(chunk)) {
                for word in 0..TILE_LINES {
                    if word.is_multiple_of(QUAD) {
                        let mut next = panels;
                        for next in &mut next {
                            *next = next.wrapping_add(word / QUAD * QUAD * STEP_LINES / TILE_LINES);
                        }
                        ahead.bring(next);
                    }
                    let mut weights = [[_mm512_setzero_si512(); 2]; PANELS];
                    for i in 0..PANELS {
                        for j in 0..2 {
                            let line = panels[i].add(j * TILE_LINES + word);
                            weights[i][j] = _mm512_load_si512(line.cast());
                        }
                    }
                    for r in 0..MR {
                        let x = *left.add((step * GROUP + r) * 16 + word);
                        let x = _mm512_set1_epi32(x);
                        for i in 0..PANELS {
                            for j in 0..2 {
                                sums[r][i][j] = N::add_products(sums[r][i][j], x, weights[i][j]);
                            }
                        }
                    }
                }
                for panel in &mut panels {
                    *panel = panel.add(STEP_LINES);
                }
            }
            if N::CHUNK.is_some() {
                add_chunk(first == 0, &mut sums, out, row);
            }
        }
        if N::CHUNK.is_some() {
            return;
        }
        for r in 0..MR {
            for i in 0..PANELS {
                for j in 0..2 {
                    let to = out[i].0[row + r].as_mut_ptr().add(j * 16);
                    _mm512_store_si512(to.cast(), sums[r][i][j]);
                }
            }
        }
    }
}

/// Adds what integers have come to over a chunk to the f32 sums of rows from row `row` on, and starts
/// anew. Those of the `first` chunk are all there is.
///
/// # Safety
///
/// As for [`tile`].
#[inline(always)]
unsafe fn add_chunk<const MR: usize, const PANELS: usize>(
    first: bool,
    sums: &mut [[[__m512i; 2]; PANELS]; MR],
    out: &mut [Tile; super::PANELS],
    row: usize,
) {
    for r in 0..MR {
        for i in 0..PANELS {
            for j in 0..2 {
                // SAFETY: the caller's promise.
                unsafe {
                    let to = out[i].0[row + r].as_mut_ptr().add(j * 16);
                    let sum = _mm512_cvtepi32_ps(sums[r][i][j]);
                    let sum = match first {
                        true => sum,
                        false => _mm512_add_ps(_mm512_load_ps(to), sum),
                    };
                    _mm512_store_ps(to, sum);
                    sums[r][i][j] = _mm512_setzero_si512();
                }
            }
        }
    }
}

impl<N: Multiplied> Kernel for Registers<N> {
    type Number = N;
    type Lanes = Avx512;
    const PANELS: usize = PANELS;
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn round(numbers: &[f32; Form::Bf16.depth()], high: *mut Line, low: Option<*mut Line>) {
        // SAFETY: the caller's promise; of bf16 it enables AVX-512 BF16 too.
        unsafe {
            match N::BF16 {
                true => round(numbers, high, low),
                false => super::left::round(numbers, high, low),
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow(codes: &[u32], step: f32, row: usize, to: Left) {
        // SAFETY: the caller's promise, who enables AVX-512 BW.
        unsafe { narrow(codes, step, row, to) }
    }

    #[inline(always)]
    unsafe fn block(
        shape: Shape,
        terms: &[Term],
        sums: &mut [Tile; PANELS],
        meanwhile: &Sending<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { meanwhile.send_all::<Self>() };
        let Shape { rows, steps, .. } = shape;
        assert!(steps > 0, "a product has a depth");
        let mut row = 0;
        while row < rows {
            // SAFETY: the caller's promise; no row behind the last is read.
            row += unsafe {
                match shape.panels {
                    PANELS => wide_tile::<N>(row, rows, steps, terms, sums),
                    _ => narrow_tile::<N>(row, rows, steps, terms, sums),
                }
            };
        }
    }
}

/// The sums of the next rows of a block from row `row` on and of two panels; returns how many.
///
/// # Safety
///
/// As for [`tile`].
#[inline(always)]
unsafe fn wide_tile<N: Multiplied>(
    row: usize,
    rows: usize,
    steps: usize,
    terms: &[Term],
    out: &mut [Tile; PANELS],
) -> usize {
    /// 24 sums, four registers of weights, and one of a row's.
    const MOST: usize = 6;
    // As even parts of a group as can be: 16 are 6, 5 and 5.
    let left = (rows - row).min(GROUP - row % GROUP);
    let n = left.div_ceil(left.div_ceil(MOST));
    // SAFETY: the caller's promise.
    unsafe {
        match n {
            1 => tile::<N, 1, PANELS>(row, steps, terms, out),
            2 => tile::<N, 2, PANELS>(row, steps, terms, out),
            3 => tile::<N, 3, PANELS>(row, steps, terms, out),
            4 => tile::<N, 4, PANELS>(row, steps, terms, out),
            5 => tile::<N, 5, PANELS>(row, steps, terms, out),
            _ => tile::<N, MOST, PANELS>(row, steps, terms, out),
        }
    }
    n
}

/// The same of one panel.
///
/// # Safety
///
/// As for [`tile`].
#[inline(always)]
unsafe fn narrow_tile<N: Multiplied>(
    row: usize,
    rows: usize,
    steps: usize,
    terms: &[Term],
    out: &mut [Tile; PANELS],
) -> usize {
    // SAFETY: the caller's promise; all divide a group.
    unsafe {
        match rows - row {
            8.. => (tile::<N, 8, 1>(row, steps, terms, out), 8).1,
            4.. => (tile::<N, 4, 1>(row, steps, terms, out), 4).1,
            2.. => (tile::<N, 2, 1>(row, steps, terms, out), 2).1,
            _ => (tile::<N, 1, 1>(row, steps, terms, out), 1).1,
        }
    }
}

/// [`Kernel::round`] by AVX-512 BF16.
///
/// # Safety
///
/// As for [`Kernel::round`], and the CPU has it, which the caller enables.
#[inline(always)]
pub(super) unsafe fn round(
    numbers: &[f32; Form::Bf16.depth()],
    high: *mut Line,
    low: Option<*mut Line>,
) {
    // SAFETY: the caller's promise; a line is 32 numbers, aligned.
    unsafe {
        let at = numbers.as_ptr();
        let numbers = [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16))];
        let upper = bf16_line(numbers[0], numbers[1]);
        _mm512_store_si512(high.cast(), upper);
        if let Some(low) = low {
            _mm512_store_si512(low.cast(), bf16_left_over(upper, numbers[0], numbers[1]));
        }
    }
}

/// [`Kernel::narrow`] by AVX-512.
///
/// # Safety
///
/// As for [`Kernel::narrow`], and the CPU has AVX-512 BW, which the caller enables.
#[inline(always)]
pub(super) unsafe fn narrow(codes: &[u32], step: f32, row: usize, to: Left) {
    // SAFETY: the caller's promise; a panel is a register of words.
    unsafe {
        let (mut least, mut largest) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for panel in codes.chunks_exact(GROUP) {
            let codes = _mm512_loadu_si512(panel.as_ptr().cast());
            least = _mm512_min_epi16(least, codes);
            largest = _mm512_max_epi16(largest, codes);
        }
        // The least of eight as it is without a sign: 0x8000 makes the lowest of them zero, and 0x7fff the
        // highest.
        let low = _mm_set1_epi16(i16::MIN);
        let high = _mm_set1_epi16(i16::MAX);
        let least = _mm_minpos_epu16(_mm_xor_si128(halved(least, false), low));
        let largest = _mm_minpos_epu16(_mm_xor_si128(halved(largest, true), high));
        let least = _mm_extract_epi16::<0>(least) as i16 ^ i16::MIN;
        let largest = _mm_extract_epi16::<0>(largest) as i16 ^ i16::MAX;
        let narrowing = Narrowing::new(least, largest);
        *to.scales.add(row) = narrowing.scale(step);
        let factor = _mm512_set1_epi16(narrowing.factor);
        let zero = _mm512_set1_epi16(narrowing.zero);
        // Two codes of one register, then two of the other.
        let order = _mm512_broadcast_i32x4(_mm_setr_epi8(
            0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15,
        ));
        let first = to.high.add(first_line(row, to.steps));
        for (step, words) in codes.chunks(2 * GROUP).enumerate() {
            let one = _mm512_loadu_si512(words.as_ptr().cast());
            let two = match words.len() {
                GROUP => _mm512_setzero_si512(),
                _ => _mm512_loadu_si512(words.as_ptr().add(GROUP).cast()),
            };
            let one = _mm512_add_epi16(_mm512_mulhrs_epi16(one, factor), zero);
            let two = _mm512_add_epi16(_mm512_mulhrs_epi16(two, factor), zero);
            let line = _mm512_shuffle_epi8(_mm512_packus_epi16(one, two), order);
            _mm512_store_si512(first.add(step * GROUP).cast(), line);
        }
    }
}

/// The least, or the largest, of each four of 32 codes that are eight apart.
///
/// # Safety
///
/// As for [`narrow`].
#[inline(always)]
unsafe fn halved(codes: __m512i, largest: bool) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (
            _mm512_castsi512_si256(codes),
            _mm512_extracti64x4_epi64::<1>(codes),
        );
        let both = match largest {
            true => _mm256_max_epi16(a, b),
            false => _mm256_min_epi16(a, b),
        };
        let (a, b) = (
            _mm256_castsi256_si128(both),
            _mm256_extracti128_si256::<1>(both),
        );
        match largest {
            true => _mm_max_epi16(a, b),
            false => _mm_min_epi16(a, b),
        }
    }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-512 BF16, and the job is about bf16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_bf16(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<Bf16>>(job) }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-512 VNNI, and the job is about int8.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_int8(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<Int8>>(job) }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-512 VNNI, and the job is about int16.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_int16(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<Int16>>(job) }
}
