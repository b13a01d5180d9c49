//! Attention of one head over one sequence, without padding and without a full score matrix.

#[cfg(target_arch = "x86_64")]
pub(crate) mod units;

#[cfg(target_arch = "x86_64")]
use super::amx::Product;
use super::blocks::{Form, Unit};
use super::gemm::{Ahead, Rows, Start, panel};
use super::lanes::Lanes;
use super::math::{scale, softmax};
use super::rates;

/// Zeros for products that start from nothing; as wide as the widest panel.
static ZEROS: [f32; 64] = [0.0; 64];

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Queries, keys and values of the head: first rows; all three share a stride.
    pub(crate) query: *const f32,
    pub(crate) key: *const f32,
    pub(crate) value: *const f32,
    pub(crate) stride: usize,
    /// Tokens of the sequence.
    pub(crate) len: usize,
    /// Numbers of a head, a multiple of 16.
    pub(crate) dim: usize,
}

/// Where the result goes, as f32.
#[derive(Clone, Copy)]
pub(crate) struct Dense {
    /// As many rows as the sequence has tokens.
    pub(crate) to: Rows<*mut f32>,
    /// Whether it is rounded to bf16 or less anyway: a coarser exponential will do.
    pub(crate) coarse: bool,
}

/// Numbers of scratch that [`attention`] needs for sequences of up to `len` tokens.
pub(crate) fn scratch_len(len: usize, dim: usize, width: usize, rows: usize) -> usize {
    len.next_multiple_of(width) * (dim + rows)
}

/// Numbers of 16 bits in the row of a tile.
const TILE_DEPTH: usize = 32;

/// The numbers of attention beside products of such numbers by a unit, where that is faster than f32: bf16
/// on tiles or by AVX-512 BF16, codes of int16 by AVX-512 VNNI.
pub(crate) fn form_beside(unit: Unit, form: Form) -> Option<Form> {
    if has_bf16(unit) && (unit == Unit::Amx || rates::bf16_outpaces_f32()) {
        return Some(match form {
            Form::Bf16x3 => Form::Bf16x3,
            Form::Bf16 | Form::Int8 | Form::Int16 => Form::Bf16,
        });
    }
    match (unit, form) {
        (Unit::Avx512, Form::Int8 | Form::Int16) => Some(Form::Int16),
        _ => None,
    }
}

/// Whether it could be in bf16: AVX-512 BF16 does the rounding for tiles too.
pub(crate) fn has_bf16(unit: Unit) -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16")
        && match unit {
            Unit::Amx => Product::Bf16.is_available(),
            Unit::Avx512 => true,
            Unit::AvxVnni | Unit::Avx2 | Unit::Emulated(_) => false,
        };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = unit;
        false
    }
}

/// Whether heads of so many numbers fill the rows of tiles.
pub(crate) fn fits_tiles(dim: usize) -> bool {
    dim.is_multiple_of(TILE_DEPTH)
}

/// Lines of scratch that attention by a unit needs for sequences of up to `len` tokens.
pub(crate) fn unit_lines(len: usize, dim: usize, form: Form) -> usize {
    #[cfg(target_arch = "x86_64")]
    return units::scratch_lines(len, dim, form);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (len, dim, form);
        0
    }
}

/// `softmax(q k^T / sqrt(dim)) v`, a few query rows at a time: their scores stay in the cache.
///
/// # Safety
///
/// As for [`Lanes`]; `head` describes readable rows and an output that nothing else touches,
/// `scratch` holds [`scratch_len`] numbers. `N16` is `16 / V::LANES`.
#[inline(always)]
pub(crate) unsafe fn attention<V: Lanes, const MR: usize, const NV: usize, const N16: usize>(
    head: Head,
    out: Dense,
    scratch: *mut f32,
) {
    let width = NV * V::LANES;
    let padded = head.len.next_multiple_of(width);
    let factor = 1.0 / (head.dim as f32).sqrt();
    // SAFETY: the caller's promise; scratch is cut into the transposed keys and MR rows of scores.
    unsafe {
        let keys = scratch;
        let scores = Rows {
            at: scratch.add(padded * head.dim),
            stride: padded,
        };
        transpose_keys(head, keys, width);
        let mut row = 0;
        while row < head.len {
            let rows = MR.min(head.len - row);
            let query = Rows {
                at: head.query.add(row * head.stride),
                stride: head.stride,
            };
            for p in 0..padded / width {
                panel::<V, MR, NV>(
                    rows,
                    head.dim,
                    query,
                    Rows {
                        at: keys.add(p * width * head.dim).cast_const(),
                        stride: width,
                    },
                    Rows {
                        at: scores.at.add(p * width),
                        ..scores
                    },
                    Start::Row(ZEROS.as_ptr()),
                    Ahead::none(),
                );
            }
            let mut factors = [0.0; MR];
            for (r, f) in factors.iter_mut().enumerate().take(rows) {
                let scores = scores.at.add(r * padded);
                *f = match out.coarse {
                    true => softmax::<V, true>(scores, head.len, factor),
                    false => softmax::<V, false>(scores, head.len, factor),
                };
            }
            let out = Rows {
                at: out.to.at.add(row * out.to.stride),
                ..out.to
            };
            let weights = Rows {
                at: scores.at.cast_const(),
                stride: padded,
            };
            let values = |column| Rows {
                at: head.value.add(column),
                stride: head.stride,
            };
            let to = |column| Rows {
                at: out.at.add(column),
                ..out
            };
            // Wide panels first: a weight that is read is used for all their columns.
            let wide = head.dim / width * width;
            for c in (0..wide).step_by(width) {
                let start = Start::Row(ZEROS.as_ptr());
                panel::<V, MR, NV>(
                    rows,
                    head.len,
                    weights,
                    values(c),
                    to(c),
                    start,
                    Ahead::none(),
                );
            }
            for c in (wide..head.dim).step_by(16) {
                let start = Start::Row(ZEROS.as_ptr());
                panel::<V, MR, N16>(
                    rows,
                    head.len,
                    weights,
                    values(c),
                    to(c),
                    start,
                    Ahead::none(),
                );
            }
            for (r, f) in factors.iter().enumerate().take(rows) {
                scale::<V>(out.at.add(r * out.stride), head.dim, *f);
            }
            row += rows;
        }
    }
}

/// Writes the keys as panels of `width` tokens, each `dim` x `width`, the last filled with zeros.
///
/// # Safety
///
/// As for [`attention`].
#[inline(always)]
unsafe fn transpose_keys(head: Head, to: *mut f32, width: usize) {
    for token in 0..head.len.next_multiple_of(width) {
        // SAFETY: the caller's promise.
        unsafe {
            let column = to.add(token / width * width * head.dim + token % width);
            if token < head.len {
                let key = head.key.add(token * head.stride);
                for i in 0..head.dim {
                    *column.add(i * width) = *key.add(i);
                }
            } else {
                for i in 0..head.dim {
                    *column.add(i * width) = 0.0;
                }
            }
        }
    }
}
