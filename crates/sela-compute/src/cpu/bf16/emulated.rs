//! bf16 products by f32 arithmetic, for CPUs without a unit. It is slower than plain f32 products
//! and is what the units are held against.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::{Kernel, Line, PAIRS, Packed, STEP_LINES, Term, Tile, run};
use crate::cpu::gemm::Rows;

/// Rows at a time; divides a block.
const ROWS: usize = 4;

/// f32 arithmetic in whatever registers the instance enables.
struct Emulated;

/// The two numbers of a pair.
#[inline(always)]
fn both(pair: u32) -> [f32; 2] {
    [
        f32::from_bits(pair << 16),
        f32::from_bits(pair & 0xffff_0000),
    ]
}

/// The sums of `ROWS` rows and sixteen outputs.
///
/// # Safety
///
/// As for [`Kernel::block`]; the terms start at the first of these rows and at this tile's lines.
#[inline(always)]
unsafe fn tile(steps: usize, terms: impl Iterator<Item = Term>) -> [[f32; 16]; ROWS] {
    let mut sums = [[0f32; 16]; ROWS];
    for term in terms {
        for pair in 0..steps * PAIRS {
            // SAFETY: the caller's promise.
            unsafe {
                let lines = term.panel.add(pair / PAIRS * STEP_LINES + pair % PAIRS);
                let Line(weights) = &*lines;
                for r in 0..ROWS {
                    let Line(left) = &*term.left.add(r * steps + pair / PAIRS);
                    let [x, y] = both(left[pair % PAIRS]);
                    for j in 0..16 {
                        let [v, w] = both(weights[j]);
                        sums[r][j] = (sums[r][j] + x * v) + y * w;
                    }
                }
            }
        }
    }
    sums
}

impl Kernel for Emulated {
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn block(rows: usize, steps: usize, terms: &[Term], sums: &mut Tile) {
        for row in (0..rows).step_by(ROWS) {
            for half in 0..2 {
                // SAFETY: the caller's promise; ROWS divides the block.
                let found = unsafe {
                    let moved = |term: &Term| Term {
                        left: term.left.add(row * steps),
                        panel: term.panel.add(half * PAIRS),
                    };
                    tile(steps, terms.iter().map(moved))
                };
                for (to, found) in sums.0[row..].iter_mut().zip(found) {
                    to[half * 16..][..16].copy_from_slice(&found);
                }
            }
        }
    }
}

macro_rules! instance {
    ($name:ident $(, $features:literal)?) => {
        /// # Safety
        ///
        /// As for [`run`].
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn $name(
            packed: &Packed,
            rows: usize,
            a: Rows<*const f32>,
            units: Range<usize>,
            c: Rows<*mut f32>,
            keep: bool,
        ) {
            // SAFETY: the caller's promise.
            unsafe { run::<Emulated>(packed, rows, a, units, c, keep) }
        }
    };
}

instance!(run_plain);
#[cfg(target_arch = "x86_64")]
instance!(run_avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instance!(run_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma");
