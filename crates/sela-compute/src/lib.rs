//! Device probe, plan and the kernels that embed and search.
