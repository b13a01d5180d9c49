//! bf16 products by f32 arithmetic, for CPUs without a unit. It is slower than plain f32 products
//! and is what the units are held against.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::{
    BLOCK, GROUP, Job, Kernel, Line, PAIRS, STEP_LINES, Sending, Term, Tile, first_line, run,
};
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::plain::Plain;

/// Rows at a time; divides a group.
const ROWS: usize = 4;
/// Outputs at a time: half a panel.
const COLUMNS: usize = 16;

/// f32 arithmetic in `NV` registers of `V` for sixteen outputs.
struct Emulated<V, const NV: usize>(PhantomData<V>);

/// The two numbers of a pair.
#[inline(always)]
fn both(pair: u32) -> [f32; 2] {
    [
        f32::from_bits(pair << 16),
        f32::from_bits(pair & 0xffff_0000),
    ]
}

/// The sums of `ROWS` rows and sixteen outputs, from row `row` and output `16 * half` on.
///
/// # Safety
///
/// As for [`Kernel::block`].
#[inline(always)]
unsafe fn tile<V: Lanes, const NV: usize>(
    [row, half]: [usize; 2],
    steps: usize,
    terms: &[Term],
    out: &mut Tile,
) {
    const { assert!(NV * V::LANES == COLUMNS) };
    // SAFETY: the caller's promise; ROWS divides a group, so all rows of a tile are of one.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; ROWS];
        for term in terms {
            let (left, panel) = (
                term.left.add(first_line(row, steps)),
                term.panel.add(half * PAIRS),
            );
            for step in 0..steps {
                for pair in 0..PAIRS {
                    let Line(weights) = *panel.add(step * STEP_LINES + pair);
                    let mut wide = [[0f32; COLUMNS]; 2];
                    for j in 0..COLUMNS {
                        [wide[0][j], wide[1][j]] = both(weights[j]);
                    }
                    for r in 0..ROWS {
                        let [x, y] = both((*left.add(step * GROUP + r)).0[pair]);
                        let (x, y) = (V::splat(x), V::splat(y));
                        for v in 0..NV {
                            let at = v * V::LANES;
                            let sum = x.mla(V::load(wide[0].as_ptr().add(at)), sums[r][v]);
                            sums[r][v] = y.mla(V::load(wide[1].as_ptr().add(at)), sum);
                        }
                    }
                }
            }
        }
        for r in 0..ROWS {
            for v in 0..NV {
                let to = out.0[row + r].as_mut_ptr();
                sums[r][v].store(to.add(half * COLUMNS + v * V::LANES));
            }
        }
    }
}

impl<V: Lanes, const NV: usize> Kernel for Emulated<V, NV> {
    type Lanes = V;
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn block(
        rows: usize,
        steps: usize,
        terms: &[Term],
        sums: &mut Tile,
        meanwhile: &Sending<'_>,
    ) {
        for r in 0..BLOCK {
            // SAFETY: the caller's promise.
            unsafe { meanwhile.send::<V>(r) };
        }
        for row in (0..rows).step_by(ROWS) {
            for half in 0..2 {
                // SAFETY: the caller's promise.
                unsafe { tile::<V, NV>([row, half], steps, terms, sums) };
            }
        }
    }
}

macro_rules! instance {
    ($name:ident, $lanes:ty, $nv:literal $(, $features:literal)?) => {
        /// # Safety
        ///
        /// As for [`run`].
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn $name(job: &Job<'_>) {
            // SAFETY: the caller's promise.
            unsafe { run::<Emulated<$lanes, $nv>>(job) }
        }
    };
}

instance!(run_plain, Plain, 4);
#[cfg(target_arch = "x86_64")]
instance!(run_avx2, crate::cpu::lanes::x86::Avx2, 2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
instance!(
    run_avx512,
    crate::cpu::lanes::x86::Avx512,
    1,
    "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
);
#[cfg(target_arch = "aarch64")]
instance!(run_neon, crate::cpu::lanes::neon::Neon, 4);
