//! The dispatch table of the encoder's kernels: one instance of each for each instruction set.

use std::ops::Range;

use super::attention::{Dense, Head, attention};
use super::gemm::{Panels, Rows, product};
use super::lanes::plain::Plain;
use super::math;
use super::rates;
use crate::isa::Isa;

/// See [`product`].
type Product = unsafe fn(usize, Rows<*const f32>, &Panels, Range<usize>, Rows<*mut f32>, bool);

/// Kernels of one instruction set. Each is unsafe for what its generic twin is unsafe for, and
/// may only be called on a CPU that has the instruction set, which [`Kernels::new`] has checked.
pub(crate) struct Kernels {
    /// The instruction set.
    pub(crate) isa: Isa,
    /// Columns of a panel.
    pub(crate) width: usize,
    /// Rows of a register tile.
    pub(crate) rows: usize,
    /// Numbers of a register.
    pub(crate) lanes: usize,
    pub(crate) product: Product,
    pub(crate) attention: unsafe fn(Head, Dense, *mut f32),
    pub(crate) gelu: unsafe fn(*mut f32, usize),
    pub(crate) layer_norm: unsafe fn(*mut f32, usize, *const f32, *const f32, f32),
    pub(crate) mean: unsafe fn(*const f32, usize, usize, *mut f32),
    pub(crate) normalize: unsafe fn(*mut f32, usize),
    pub(crate) multiply: unsafe fn(&mut [f32]),
}

/// Instances of all kernels for one instruction set: `$lanes` in tiles of `$mr` rows by `$nv`
/// registers, compiled with `$features`.
macro_rules! instances {
    ($name:ident, $isa:ident, $lanes:ty, $mr:literal, $nv:literal, $n16:literal, $($features:literal)?) => {
        mod $name {
            use super::*;

            // SAFETY of every function below: its generic twin's contract, unchanged; the
            // features are those of the instruction set that `Kernels::new` has checked.
            $(#[target_feature(enable = $features)])?
            unsafe fn run_product(
                rows: usize,
                a: Rows<*const f32>,
                weights: &Panels,
                range: Range<usize>,
                c: Rows<*mut f32>,
                keep: bool,
            ) {
                // SAFETY: see above.
                unsafe { product::<$lanes, $mr, $nv, $n16>(rows, a, weights, range, c, keep) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_attention(head: Head, out: Dense, scratch: *mut f32) {
                // SAFETY: see above.
                unsafe { attention::<$lanes, $mr, $nv, $n16>(head, out, scratch) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_gelu(at: *mut f32, n: usize) {
                // SAFETY: see above.
                unsafe { math::gelu_slice::<$lanes>(at, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_layer_norm(
                row: *mut f32,
                n: usize,
                weight: *const f32,
                bias: *const f32,
                epsilon: f32,
            ) {
                // SAFETY: see above.
                unsafe { math::layer_norm::<$lanes>(row, n, weight, bias, epsilon) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_mean(from: *const f32, rows: usize, n: usize, out: *mut f32) {
                // SAFETY: see above.
                unsafe { math::mean::<$lanes>(from, rows, n, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_normalize(out: *mut f32, n: usize) {
                // SAFETY: see above.
                unsafe { math::normalize::<$lanes>(out, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_multiply(numbers: &mut [f32]) {
                // SAFETY: see above.
                unsafe { rates::multiply::<$lanes>(numbers) }
            }

            pub(super) static KERNELS: Kernels = Kernels {
                isa: Isa::$isa,
                width: $nv * <$lanes as super::super::lanes::Lanes>::LANES,
                rows: $mr,
                lanes: <$lanes as super::super::lanes::Lanes>::LANES,
                product: run_product,
                attention: run_attention,
                gelu: run_gelu,
                layer_norm: run_layer_norm,
                mean: run_mean,
                normalize: run_normalize,
                multiply: run_multiply,
            };
        }
    };
}

// Tiles fill the registers: sums, one row of weights, one broadcast. AVX2 and SSE have 16
// registers, AVX-512 and NEON 32.
instances!(plain, Plain, Plain, 3, 4, 4,);
#[cfg(target_arch = "x86_64")]
instances!(
    avx2,
    Avx2,
    super::super::lanes::x86::Avx2,
    6,
    2,
    2,
    "avx2,fma,f16c"
);
#[cfg(target_arch = "x86_64")]
instances!(
    avx512,
    Avx512,
    super::super::lanes::x86::Avx512,
    12,
    2,
    1,
    "avx512f,avx512dq,avx2,fma,f16c"
);
#[cfg(target_arch = "aarch64")]
instances!(neon, Neon, super::super::lanes::neon::Neon, 6, 4, 4,);

impl Kernels {
    /// The table of `isa`, or `None` when this CPU lacks it.
    pub(crate) fn new(isa: Isa) -> Option<&'static Self> {
        if !isa.is_available() {
            return None;
        }
        match isa {
            Isa::Plain => Some(&plain::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&avx512::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&neon::KERNELS),
            #[allow(unreachable_patterns, reason = "the sets of other architectures")]
            _ => None,
        }
    }
}
