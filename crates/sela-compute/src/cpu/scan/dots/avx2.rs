//! Products of codes by `VPMADDWD` of AVX2, once codes are widened to 16 bits; for the rest, what compilers make
//! of plain loops.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::bound::{Look, Range};
use super::super::codes::{Coded, GROUP, Line, STRIP, Side, code};
use super::{Dots, Plane, Products, passing};

/// Queries at a time, but for the last ones: a register of rows is widened for all of them.
const QUERIES: usize = 4;

/// As many as are taken at a time at least.
const FEW: usize = 2;

/// Rows whose products with a query are two registers, with two sums a row.
const ROWS: usize = GROUP / 2;

pub(super) fn dots() -> Dots {
    Dots {
        name: "avx2",
        one,
        many: Some(many),
        block: FEW,
        pass,
        ranges,
        code: coded,
    }
}

/// Four codes of each of four rows, widened.
///
/// # Safety
///
/// The CPU has AVX2; there are sixteen codes, aligned.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn widened(codes: *const i8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtepi8_epi16(_mm_load_si128(codes.cast())) }
}

/// The sums of eight rows, of two a row.
///
/// # Safety
///
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store(sums: [__m256i; 2], to: &mut [i32; ROWS]) {
    let eight = _mm256_hadd_epi32(sums[0], sums[1]);
    let eight = _mm256_permute4x64_epi64::<0b11_01_10_00>(eight);
    // SAFETY: the caller's promise; there are eight numbers.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), eight) };
}

/// # Safety
///
/// As for [`super::OneFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn one(lines: &[Line], _: &Side, plane: &Plane, query: usize, out: &mut Products) {
    let query = plane.wide(query).as_chunks::<4>().0;
    let groups = lines.chunks_exact(query.len());
    for (lines, out) in groups.zip(out.as_chunks_mut::<GROUP>().0) {
        // SAFETY: the caller's promise; a line has 64 bytes.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); 4];
            for (line, four) in lines.iter().zip(query) {
                let four = _mm256_set1_epi64x(four.as_ptr().cast::<i64>().read_unaligned());
                for (i, sum) in sums.iter_mut().enumerate() {
                    let rows = widened(line.0.as_ptr().add(16 * i));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(rows, four));
                }
            }
            for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                store([sums[2 * i], sums[2 * i + 1]], out);
            }
        }
    }
}

/// Many queries, four with eight rows at a time, then two.
///
/// # Safety
///
/// As for [`super::ManyFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn many(lines: &[Line], _: &Side, plane: &Plane, first: usize, out: &mut [Products]) {
    let (blocks, rest) = out.as_chunks_mut::<QUERIES>();
    let rest_first = first + blocks.len() * QUERIES;
    // SAFETY: the caller's promise.
    unsafe {
        for (block, out) in blocks.iter_mut().enumerate() {
            some(lines, plane, first + block * QUERIES, out);
        }
        for (block, out) in rest.as_chunks_mut::<FEW>().0.iter_mut().enumerate() {
            some(lines, plane, rest_first + block * FEW, out);
        }
    }
}

/// `N` queries from `first` on.
///
/// # Safety
///
/// As for [`super::ManyFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn some<const N: usize>(
    lines: &[Line],
    plane: &Plane,
    first: usize,
    out: &mut [Products; N],
) {
    let each = lines.len() / (STRIP / GROUP);
    let queries: [*const i16; N] = std::array::from_fn(|i| plane.wide(first + i).as_ptr());
    for at in (0..STRIP).step_by(ROWS) {
        let lines = &lines[at / GROUP * each..][..each];
        let side = at % GROUP * 4;
        // SAFETY: the caller's promise; a query has four numbers for each line.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; N];
            for (i, line) in lines.iter().enumerate() {
                let codes = line.0.as_ptr().add(side);
                let rows = [widened(codes), widened(codes.add(16))];
                for q in 0..N {
                    let four = queries[q].add(4 * i).cast::<i64>().read_unaligned();
                    let four = _mm256_set1_epi64x(four);
                    for half in 0..2 {
                        let products = _mm256_madd_epi16(rows[half], four);
                        sums[q][half] = _mm256_add_epi32(sums[q][half], products);
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                store(sums, &mut out[at..].as_chunks_mut().0[0]);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn pass(side: &Side, products: &[Products], looks: &[Look], out: &mut [u64]) {
    passing(side, products, looks, out);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn ranges(side: &Side, products: &Products, range: &Range) -> [[f32; STRIP]; 2] {
    range.of_strip(products, side)
}

#[target_feature(enable = "avx2,fma")]
unsafe fn coded(numbers: &[f32], codes: &mut [i8]) -> Coded {
    code(numbers, codes)
}
