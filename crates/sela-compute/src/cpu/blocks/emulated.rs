//! Products of bf16 by f32 arithmetic and of int8 and int16 by i32 arithmetic, for CPUs without a unit.
//! They are slower than plain f32 products and are what the units are held against.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::left::CHUNK;
use super::number::{Bf16, Int8, Int16, Number};
use super::{
    Form, GROUP, Job, Kernel, Line, PANELS, STEP_LINES, Sending, Shape, TILE_LINES, Term, Tile,
    first_line, run,
};
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::plain::Plain;

/// Rows at a time; divides a group.
const ROWS: usize = 4;
/// Outputs at a time: half a panel.
const COLUMNS: usize = 16;

/// f32 arithmetic in `NV` registers of `V` for sixteen outputs; of integers, whatever the compiler makes
/// of i32 arithmetic.
struct Emulated<N, V, const NV: usize>(PhantomData<(N, V)>);

/// What is emulated.
trait Multiplied: Number {
    /// The sums of [`ROWS`] rows and sixteen outputs, from row `row` and output `16 * half` on.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::block`].
    unsafe fn tile<V: Lanes, const NV: usize>(
        at: [usize; 2],
        steps: usize,
        terms: &[Term],
        out: &mut Tile,
    );
}

impl Multiplied for Bf16 {
    #[inline(always)]
    unsafe fn tile<V: Lanes, const NV: usize>(
        at: [usize; 2],
        steps: usize,
        terms: &[Term],
        out: &mut Tile,
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile::<V, NV>(at, steps, terms, out) }
    }
}

impl Multiplied for Int8 {
    #[inline(always)]
    unsafe fn tile<V: Lanes, const NV: usize>(
        at: [usize; 2],
        steps: usize,
        terms: &[Term],
        out: &mut Tile,
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile_int8(at, steps, terms, out) }
    }
}

impl Multiplied for Int16 {
    #[inline(always)]
    unsafe fn tile<V: Lanes, const NV: usize>(
        at: [usize; 2],
        steps: usize,
        terms: &[Term],
        out: &mut Tile,
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile_int16(at, steps, terms, out) }
    }
}

/// The two numbers of a pair.
#[inline(always)]
fn both(pair: u32) -> [f32; 2] {
    [
        f32::from_bits(pair << 16),
        f32::from_bits(pair & 0xffff_0000),
    ]
}

/// See [`Multiplied::tile`].
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
                term.panel.add(half * TILE_LINES),
            );
            for step in 0..steps {
                for pair in 0..TILE_LINES {
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

/// The same of int8.
///
/// # Safety
///
/// As for [`Kernel::block`].
#[inline(always)]
unsafe fn tile_int8([row, half]: [usize; 2], steps: usize, terms: &[Term], out: &mut Tile) {
    let mut sums = [[0i32; COLUMNS]; ROWS];
    for term in terms {
        // SAFETY: as above.
        let (left, panel) = unsafe {
            let panel = term.panel.add(half * TILE_LINES);
            (term.left.add(first_line(row, steps)), panel)
        };
        for step in 0..steps {
            for word in 0..TILE_LINES {
                // SAFETY: as above.
                let Line(weights) = unsafe { *panel.add(step * STEP_LINES + word) };
                for r in 0..ROWS {
                    // SAFETY: as above.
                    let x = unsafe { (*left.add(step * GROUP + r)).0[word] };
                    for i in 0..4 {
                        let x = (x >> (8 * i) & 0xff) as i32;
                        for j in 0..COLUMNS {
                            sums[r][j] += x * i32::from((weights[j] >> (8 * i)) as i8);
                        }
                    }
                }
            }
        }
    }
    for r in 0..ROWS {
        for j in 0..COLUMNS {
            out.0[row + r][half * COLUMNS + j] = f32::from_bits(sums[r][j] as u32);
        }
    }
}

/// The same of int16.
///
/// # Safety
///
/// As for [`Kernel::block`].
#[inline(always)]
unsafe fn tile_int16([row, half]: [usize; 2], steps: usize, terms: &[Term], out: &mut Tile) {
    let mut total = [[0f32; COLUMNS]; ROWS];
    for (term, first) in terms
        .iter()
        .flat_map(|term| (0..steps).step_by(CHUNK).map(move |first| (term, first)))
    {
        // SAFETY: as above.
        let (left, panel) = unsafe {
            let panel = term.panel.add(half * TILE_LINES);
            (term.left.add(first_line(row, steps)), panel)
        };
        let mut sums = [[0i32; COLUMNS]; ROWS];
        for step in first..steps.min(first + CHUNK) {
            for word in 0..TILE_LINES {
                // SAFETY: as above.
                let Line(weights) = unsafe { *panel.add(step * STEP_LINES + word) };
                for r in 0..ROWS {
                    // SAFETY: as above.
                    let x = unsafe { (*left.add(step * GROUP + r)).0[word] };
                    for i in 0..2 {
                        let x = i32::from((x >> (16 * i)) as i16);
                        for j in 0..COLUMNS {
                            // Beyond what codes can come to there is what a number that is not
                            // finite left there.
                            let product =
                                x.wrapping_mul(i32::from((weights[j] >> (16 * i)) as i16));
                            sums[r][j] = sums[r][j].wrapping_add(product);
                        }
                    }
                }
            }
        }
        for r in 0..ROWS {
            for j in 0..COLUMNS {
                total[r][j] += sums[r][j] as f32;
            }
        }
    }
    for r in 0..ROWS {
        out.0[row + r][half * COLUMNS..][..COLUMNS].copy_from_slice(&total[r]);
    }
}

impl<N: Multiplied, V: Lanes, const NV: usize> Kernel for Emulated<N, V, NV> {
    type Number = N;
    type Lanes = V;
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn block(
        shape: Shape,
        terms: &[Term],
        [sums, _]: &mut [Tile; PANELS],
        meanwhile: &Sending<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { meanwhile.send_all::<Self>() };
        for row in (0..shape.rows).step_by(ROWS) {
            for half in 0..2 {
                // SAFETY: the caller's promise.
                unsafe { N::tile::<V, NV>([row, half], shape.steps, terms, sums) };
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
            unsafe {
                match job.form() {
                    Form::Int8 => run::<Emulated<Int8, $lanes, $nv>>(job),
                    Form::Int16 => run::<Emulated<Int16, $lanes, $nv>>(job),
                    Form::Bf16 | Form::Bf16x3 => run::<Emulated<Bf16, $lanes, $nv>>(job),
                }
            }
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
