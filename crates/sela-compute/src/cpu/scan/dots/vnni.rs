//! Products by `VPDPBUSD` of AVX-512 VNNI: queries are its unsigned side, 128 larger than they
//! are; the rows' sums of codes take that off again.

use std::arch::x86_64::*;

use super::{Dots, GROUP, Line, ManyFn, Plane, Products, STRIP, Side};
use crate::cpu::scan::bound::{Look, Range};
use crate::cpu::scan::codes::{Coded, code};

/// How far ahead rows are asked for, in lines: longer than memory takes to answer.
const AHEAD: usize = 64;

/// Queries that [`many`] takes at a time.
pub(super) const QUERIES: usize = 8;

/// The kernels, with another one for many queries that takes a `block` of them at a time.
pub(super) fn with(name: &'static str, many: ManyFn, block: usize) -> Dots {
    Dots {
        name,
        one,
        many: Some(many),
        block,
        pass,
        ranges,
        code: coded,
    }
}

/// One query: rows come from far away, line after line.
///
/// # Safety
///
/// As for [`super::OneFn`]; needs AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn one(lines: &[Line], side: &Side, plane: &Plane, query: usize, out: &mut Products) {
    let query = plane.biased(query).as_chunks::<16>().0;
    let groups = lines.chunks_exact(query.len() * 4);
    let offsets = side.offset.as_chunks::<GROUP>().0;
    for ((lines, out), offset) in groups.zip(out.as_chunks_mut::<GROUP>().0).zip(offsets) {
        // SAFETY: the caller's promise. What is asked for ahead need not be ours.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); 4];
            sums[0] = _mm512_loadu_si512(offset.as_ptr().cast());
            for (four, query) in lines.as_chunks::<4>().0.iter().zip(query) {
                for i in 0..4 {
                    let ahead = four.as_ptr().wrapping_add(AHEAD + i);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    let rows = _mm512_load_si512(four[i].0.as_ptr().cast());
                    let query = query.as_ptr().add(4 * i).cast::<i32>().read_unaligned();
                    sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_set1_epi32(query), rows);
                }
            }
            let sum = _mm512_add_epi32(
                _mm512_add_epi32(sums[0], sums[1]),
                _mm512_add_epi32(sums[2], sums[3]),
            );
            _mm512_storeu_si512(out.as_mut_ptr().cast(), sum);
        }
    }
}

/// Many queries, eight with two groups of rows at a time.
///
/// # Safety
///
/// As for [`ManyFn`]; needs AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) unsafe fn many(
    lines: &[Line],
    side: &Side,
    plane: &Plane,
    first: usize,
    out: &mut [Products],
) {
    let each = lines.len() / (STRIP / GROUP);
    for (block, out) in out.as_chunks_mut::<QUERIES>().0.iter_mut().enumerate() {
        let first = first + block * QUERIES;
        let queries: [*const u8; QUERIES] =
            std::array::from_fn(|i| plane.biased(first + i).as_ptr());
        for (pair, lines) in lines.chunks_exact(2 * each).enumerate() {
            let at = 2 * pair * GROUP;
            // SAFETY: the caller's promise; both groups have `each` lines, a query four bytes for
            // each of them.
            unsafe {
                let mut sums = [[_mm512_setzero_si512(); 2]; QUERIES];
                for sums in &mut sums {
                    sums[0] = _mm512_loadu_si512(side.offset[at..].as_ptr().cast());
                    sums[1] = _mm512_loadu_si512(side.offset[at + GROUP..].as_ptr().cast());
                }
                for i in 0..each {
                    let low = _mm512_load_si512(lines.as_ptr().add(i).cast());
                    let high = _mm512_load_si512(lines.as_ptr().add(each + i).cast());
                    for q in 0..QUERIES {
                        let query = queries[q].add(4 * i).cast::<i32>().read_unaligned();
                        let query = _mm512_set1_epi32(query);
                        sums[q][0] = _mm512_dpbusd_epi32(sums[q][0], query, low);
                        sums[q][1] = _mm512_dpbusd_epi32(sums[q][1], query, high);
                    }
                }
                for (out, sums) in out.iter_mut().zip(sums) {
                    _mm512_storeu_si512(out[at..at + GROUP].as_mut_ptr().cast(), sums[0]);
                    let high = &mut out[at + GROUP..at + 2 * GROUP];
                    _mm512_storeu_si512(high.as_mut_ptr().cast(), sums[1]);
                }
            }
        }
    }
}

/// # Safety
///
/// Needs AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn pass(side: &Side, products: &[Products], looks: &[Look], out: &mut [u64]) {
    const GROUPS: usize = STRIP / GROUP;
    // SAFETY: each load is of sixteen numbers within arrays of sixty-four.
    unsafe {
        let load = |numbers: &[f32; STRIP]| -> [__m512; GROUPS] {
            let groups = numbers.as_chunks::<GROUP>().0;
            std::array::from_fn(|i| _mm512_loadu_ps(groups[i].as_ptr()))
        };
        // The same for all queries.
        let (scale, residual, norm) = (load(&side.scale), load(&side.residual), load(&side.norm));
        for ((products, look), out) in products.iter().zip(looks).zip(out) {
            let [a, b] = [look.a, look.b].map(|x| _mm512_set1_ps(x));
            let [c, d, f] = [look.c, look.d, look.f].map(|x| _mm512_set1_ps(x));
            let mut below = 0u64;
            for i in 0..GROUPS {
                let product = _mm512_loadu_si512(products.as_ptr().add(i * GROUP).cast());
                let product = _mm512_mul_ps(scale[i], _mm512_cvtepi32_ps(product));
                let row = _mm512_fmadd_ps(d, norm[i], c);
                let row = _mm512_fmadd_ps(row, norm[i], f);
                let row = _mm512_fmadd_ps(b, residual[i], row);
                let value = _mm512_fmadd_ps(a, product, row);
                let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, _mm512_setzero_ps());
                below |= u64::from(mask) << (i * GROUP);
            }
            *out = !below;
        }
    }
}

/// # Safety
///
/// Needs AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn ranges(side: &Side, products: &Products, range: &Range) -> [[f32; STRIP]; 2] {
    range.of_strip(products, side)
}

/// # Safety
///
/// Needs AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
unsafe fn coded(numbers: &[f32], codes: &mut [i8]) -> Coded {
    code(numbers, codes)
}
