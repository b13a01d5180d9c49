//! The CPU backend: lanes, kernels, a pool of threads.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
pub(crate) mod blocks;
pub(crate) mod encode;
mod gemm;
mod kernels;
pub(crate) mod lanes;
mod linear;
mod lined;
mod math;
mod passes;
pub(crate) mod pool;
pub(crate) mod rates;
pub(crate) mod scan;
pub(crate) mod stages;
pub(crate) mod weights;
