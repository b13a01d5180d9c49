//! The CPU backend: lanes, kernels, a pool of threads.

pub(crate) mod lanes;
pub(crate) mod pool;
