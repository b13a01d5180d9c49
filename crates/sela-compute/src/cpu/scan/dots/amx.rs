//! Products by `TDPBSSD` of Intel's AMX: sixteen queries with a strip of rows at a time.
//!
//! Four tiles of sums, one of queries (16 of them by 64 numbers), three of rows in turn (16 lines: 16
//! rows by 64 numbers).

use std::arch::asm;

use super::{BLOCK, GROUP, Line, Plane, Products, STRIP, Side};
use crate::cpu::amx::Tiles;

/// # Safety
///
/// As for [`super::ManyFn`]; the CPU has AMX int8 and the system allows it.
pub(super) unsafe fn many(
    lines: &[Line],
    _: &Side,
    plane: &Plane,
    first: usize,
    out: &mut [Products],
) {
    const { assert!(BLOCK == 16 && GROUP == 16 && STRIP == 64) };
    let each = lines.len() / (STRIP / GROUP);
    // SAFETY: the caller's promise.
    unsafe {
        let _tiles = Tiles::lay_out();
        for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let queries = plane
                .signed
                .as_ptr()
                .add((first + block * BLOCK) * plane.stride);
            strip(lines.as_ptr(), each, queries, plane.stride, out);
        }
    }
}

/// Sixteen queries and four groups of rows.
///
/// # Safety
///
/// Tiles are laid out; there are four groups of `each` lines, a positive multiple of sixteen, and
/// sixteen queries of `4 * each` bytes.
#[inline(always)]
unsafe fn strip(
    lines: *const Line,
    each: usize,
    queries: *const i8,
    stride: usize,
    out: &mut [Products; BLOCK],
) {
    let group = each * size_of::<Line>();
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:", // a step
            "tileloadd tmm4, [{queries} + {stride}*1]",
            "tileloadd tmm5, [{a} + {line}*1]",
            "tdpbssd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tileloadd tmm7, [{c} + {line}*1]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{d} + {line}*1]",
            "tdpbssd tmm3, tmm4, tmm5",
            "add {queries}, 64",
            "add {a}, 1024",
            "add {b}, 1024",
            "add {c}, 1024",
            "add {d}, 1024",
            "dec {steps}",
            "jnz 2b",
            "shl {line}, 2", // from the bytes of a line to those of a query's products
            "tilestored [{out} + {line}*1], tmm0",
            "tilestored [{out} + {line}*1 + 64], tmm1",
            "tilestored [{out} + {line}*1 + 128], tmm2",
            "tilestored [{out} + {line}*1 + 192], tmm3",
            queries = inout(reg) queries => _,
            stride = in(reg) stride,
            a = inout(reg) lines.cast::<u8>() => _,
            b = inout(reg) lines.cast::<u8>().add(group) => _,
            c = inout(reg) lines.cast::<u8>().add(2 * group) => _,
            d = inout(reg) lines.cast::<u8>().add(3 * group) => _,
            steps = inout(reg) each / 16 => _,
            line = inout(reg) size_of::<Line>() => _,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
