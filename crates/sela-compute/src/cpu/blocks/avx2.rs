//! Products in registers of 256 bits: of int16 by `VPMADDWD` of AVX2 and an addition, of int8 and int16 by
//! `VPDPBUSD` and `VPDPWSSD` of AVX-VNNI.
//!
//! `VPMADDWD` and the addition after it multiply 16 numbers where a fused multiply-add of f32 does 8.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::left::{CHUNK, Narrowing};
use super::number::{Int8, Int16, Number};
use super::{
    Form, GROUP, Job, Kernel, Left, Line, PANELS, STEP_LINES, Sending, Shape, TILE_LINES, Term,
    Tile, first_line, run as run_kernel,
};
use crate::cpu::lanes::bring_near;
use crate::cpu::lanes::x86::Avx2;
use crate::isa::Isa;

/// Whether this CPU multiplies a form by AVX2.
pub(super) fn is_available(form: Form) -> bool {
    form == Form::Int16 && Isa::Avx2.is_available()
}

/// Whether this CPU multiplies a form by AVX-VNNI.
pub(super) fn is_available_by_vnni(form: Form) -> bool {
    let has = matches!(form, Form::Int8 | Form::Int16) && is_x86_feature_detected!("avxvnni");
    has && Isa::Avx2.is_available()
}

/// Registers of a line.
const HALVES: usize = 2;

/// Rows at a time: twelve registers of sums, two of weights, one of a row's, and one of products make 16.
const MOST: usize = 6;

/// Words between which the loop over words turns.
const QUAD: usize = 4;

/// What a tile is about: rows of a block and sixteen outputs of a panel, over some of the steps.
#[derive(Clone, Copy)]
struct Part {
    /// The first row, all of one group.
    row: usize,
    /// Rows of the block.
    rows: usize,
    /// Which of a panel's tiles.
    side: usize,
    /// The first step, and the one behind the last.
    from: usize,
    to: usize,
    /// Steps that there are.
    steps: usize,
}

/// What is brought near while rows are multiplied, a little every [`QUAD`] words: as much every time, for memory
/// has most to give when it is asked for all the time.
struct Ahead {
    at: *const u8,
    /// Bytes to move on by, and lines that those are at most.
    pace: usize,
    lines: usize,
}

impl Ahead {
    /// That of `MR` rows.
    #[inline(always)]
    fn new<const MR: usize>(term: &Term, part: Part) -> Self {
        const LINE: usize = size_of::<Line>();
        let here = part.to - part.from;
        // Without any to name, what comes after these steps, of this panel or of the next.
        let (at, bytes, before, steps) = match term.ahead.is_null() {
            true => {
                let next = term.panel.wrapping_add(part.to * STEP_LINES);
                (next, here * STEP_LINES * LINE, 0, here)
            }
            false => (term.ahead, term.ahead_lines * LINE, part.from, part.steps),
        };
        // Rows of sides over steps: those before these, and all.
        let before = 2 * part.rows * before + (part.side * part.rows + part.row) * here;
        let all = 2 * part.rows * steps;
        let pace = (bytes * MR).div_ceil(all * (TILE_LINES / QUAD));
        Self {
            at: at.cast::<u8>().wrapping_add(bytes * before / all),
            pace,
            lines: pace.div_ceil(LINE),
        }
    }

    #[inline(always)]
    fn bring(&mut self) {
        for line in 0..self.lines {
            bring_near(self.at.wrapping_add(line * size_of::<Line>()));
        }
        self.at = self.at.wrapping_add(self.pace);
    }
}

/// What multiplies, for a kind of numbers.
trait Multiplied {
    /// What it multiplies.
    type Number: Number;
    /// Steps after which sums go to f32, where they may not go on.
    const CHUNK: Option<usize>;

    /// The sums of `MR` rows.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::block`]; there are such rows and such steps.
    unsafe fn tile<const MR: usize>(part: Part, term: &Term) -> [[__m256i; HALVES]; MR];
}

/// An implementation by instructions that add the products of `{x}` and `{weights}` to `{sums}`.
///
/// In assembly, for a compiler knows that integers may be added in any order, adds those of several words first,
/// and has no registers left.
macro_rules! multiplied {
    ($name:ident: $number:ty, $chunk:expr, $features:literal,
     [$($instruction:literal),+] $(, $products:ident)?) => {
        enum $name {}

        impl Multiplied for $name {
            type Number = $number;
            const CHUNK: Option<usize> = $chunk;

            #[target_feature(enable = $features)]
            unsafe fn tile<const MR: usize>(part: Part, term: &Term) -> [[__m256i; HALVES]; MR] {
                let mut sums = [[_mm256_setzero_si256(); HALVES]; MR];
                // SAFETY: the caller's promise; a line is two registers, a word is 32 bits.
                unsafe {
                    let left = term.left.add(first_line(part.row, part.steps)).cast::<i32>();
                    let panel = term.panel.add(part.side * TILE_LINES).cast::<__m256i>();
                    let mut ahead = Ahead::new::<MR>(term, part);
                    for step in part.from..part.to {
                        let lines = panel.add(step * STEP_LINES * HALVES);
                        let words = left.add(step * GROUP * 16);
                        for quad in 0..TILE_LINES / QUAD {
                            ahead.bring();
                            for word in quad * QUAD..(quad + 1) * QUAD {
                                let at = lines.add(word * HALVES);
                                let weights = [0, 1].map(|i| _mm256_load_si256(at.add(i)));
                                for r in 0..MR {
                                    let x = _mm256_set1_epi32(*words.add(r * 16 + word));
                                    for i in 0..HALVES {
                                        asm!(
                                            $($instruction,)+
                                            sums = inout(ymm_reg) sums[r][i],
                                            $($products = out(ymm_reg) _,)?
                                            x = in(ymm_reg) x,
                                            weights = in(ymm_reg) weights[i],
                                            options(pure, nomem, nostack, preserves_flags)
                                        );
                                    }
                                }
                            }
                        }
                    }
                }
                sums
            }
        }
    };
}

// What a number that is not finite leaves wraps.
multiplied!(
    Int16ByMadd: Int16, Some(CHUNK), "avx2",
    ["vpmaddwd {products}, {x}, {weights}", "vpaddd {sums}, {sums}, {products}"], products
);
multiplied!(
    Int16ByVnni: Int16, Some(CHUNK), "avx2,avxvnni",
    ["{{vex}} vpdpwssd {sums}, {x}, {weights}"]
);
multiplied!(
    Int8ByVnni: Int8, None, "avx2,avxvnni",
    ["{{vex}} vpdpbusd {sums}, {x}, {weights}"]
);

/// For what multiplies.
struct Registers<M>(PhantomData<M>);

impl<M: Multiplied> Registers<M> {
    /// The sums of the rows of a tile, see [`Multiplied::tile`], go to `out`: they are all there is if its steps
    /// are the first, and are added to what is there if not.
    ///
    /// # Safety
    ///
    /// As for [`Multiplied::tile`].
    #[inline(always)]
    unsafe fn tile<const MR: usize>(part: Part, term: &Term, out: &mut Tile) {
        // SAFETY: the caller's promise; a row has two registers a side.
        unsafe {
            let sums = M::tile::<MR>(part, term);
            for r in 0..MR {
                for i in 0..HALVES {
                    let at = out.0[part.row + r]
                        .as_mut_ptr()
                        .add((part.side * HALVES + i) * 8);
                    if M::CHUNK.is_none() {
                        _mm256_store_si256(at.cast(), sums[r][i]);
                        continue;
                    }
                    let sum = _mm256_cvtepi32_ps(sums[r][i]);
                    let sum = match part.from {
                        0 => sum,
                        _ => _mm256_add_ps(_mm256_load_ps(at), sum),
                    };
                    _mm256_store_ps(at, sum);
                }
            }
        }
    }
}

impl<M: Multiplied> Kernel for Registers<M> {
    type Number = M::Number;
    type Lanes = Avx2;
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn narrow(codes: &[u32], step: f32, row: usize, to: Left) {
        // SAFETY: the caller's promise.
        unsafe { narrow(codes, step, row, to) }
    }

    #[inline(always)]
    unsafe fn block(
        shape: Shape,
        terms: &[Term],
        [sums, _]: &mut [Tile; PANELS],
        meanwhile: &Sending<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { meanwhile.send_all::<Self>() };
        let Shape { rows, steps, .. } = shape;
        let [term] = terms else {
            unreachable!("integers have one part");
        };
        assert!(steps > 0, "a product has a depth");
        let chunk = M::CHUNK.unwrap_or(usize::MAX);
        for from in (0..steps).step_by(chunk) {
            let to = steps.min(from.saturating_add(chunk));
            for side in 0..2 {
                let mut row = 0;
                while row < rows {
                    // As even parts of a group as can be: 16 are 6, 5 and 5.
                    let left = (rows - row).min(GROUP - row % GROUP);
                    let n = left.div_ceil(left.div_ceil(MOST));
                    let part = Part {
                        row,
                        rows,
                        side,
                        from,
                        to,
                        steps,
                    };
                    // SAFETY: the caller's promise; no row behind the last is read.
                    unsafe {
                        match n {
                            1 => Self::tile::<1>(part, term, sums),
                            2 => Self::tile::<2>(part, term, sums),
                            3 => Self::tile::<3>(part, term, sums),
                            4 => Self::tile::<4>(part, term, sums),
                            5 => Self::tile::<5>(part, term, sums),
                            _ => Self::tile::<MOST>(part, term, sums),
                        }
                    }
                    row += n;
                }
            }
        }
    }
}

/// Words of a register.
const WORDS: usize = 8;

/// [`Kernel::narrow`] by AVX2.
///
/// # Safety
///
/// As for [`Kernel::narrow`], and the CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn narrow(codes: &[u32], step: f32, row: usize, to: Left) {
    // SAFETY: the caller's promise; a panel is two registers of words.
    unsafe {
        let (mut least, mut largest) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for words in codes.chunks_exact(WORDS) {
            let codes = _mm256_loadu_si256(words.as_ptr().cast());
            least = _mm256_min_epi16(least, codes);
            largest = _mm256_max_epi16(largest, codes);
        }
        // The least of eight as it is without a sign: 0x8000 makes the lowest of them zero, and 0x7fff the
        // highest.
        let (low, high) = (_mm_set1_epi16(i16::MIN), _mm_set1_epi16(i16::MAX));
        let (a, b) = (
            _mm256_castsi256_si128(least),
            _mm256_extracti128_si256::<1>(least),
        );
        let least = _mm_minpos_epu16(_mm_xor_si128(_mm_min_epi16(a, b), low));
        let (a, b) = (
            _mm256_castsi256_si128(largest),
            _mm256_extracti128_si256::<1>(largest),
        );
        let largest = _mm_minpos_epu16(_mm_xor_si128(_mm_max_epi16(a, b), high));
        let least = _mm_extract_epi16::<0>(least) as i16 ^ i16::MIN;
        let largest = _mm_extract_epi16::<0>(largest) as i16 ^ i16::MAX;
        let narrowing = Narrowing::new(least, largest);
        *to.scales.add(row) = narrowing.scale(step);
        let factor = _mm256_set1_epi16(narrowing.factor);
        let zero = _mm256_set1_epi16(narrowing.zero);
        // Two codes of one register, then two of the other.
        let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15,
        ));
        let first = to.high.add(first_line(row, to.steps));
        for (step, words) in codes.chunks(2 * GROUP).enumerate() {
            let line = first.add(step * GROUP).cast::<__m256i>();
            for half in 0..HALVES {
                let at = words.as_ptr().add(half * WORDS);
                let one = _mm256_loadu_si256(at.cast());
                let two = match words.len() {
                    GROUP => _mm256_setzero_si256(),
                    _ => _mm256_loadu_si256(at.add(GROUP).cast()),
                };
                let one = _mm256_add_epi16(_mm256_mulhrs_epi16(one, factor), zero);
                let two = _mm256_add_epi16(_mm256_mulhrs_epi16(two, factor), zero);
                let bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(one, two), order);
                _mm256_store_si256(line.add(half), bytes);
            }
        }
    }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX2, and the job is about int16.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_int16(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<Int16ByMadd>>(job) }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-VNNI, and the job is about int16.
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
pub(super) unsafe fn run_int16_by_vnni(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<Int16ByVnni>>(job) }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-VNNI, and the job is about int8.
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
pub(super) unsafe fn run_int8_by_vnni(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<Int8ByVnni>>(job) }
}
