//! GPUs through wgpu: Metal, Vulkan and DX12.
//!
//! A [`Gpu`] is one adapter opened once and shared by all who use it. Everything a kernel needs
//! passes through it, so that there is one place where errors are caught, a lost device is noticed,
//! and every submission proves that it reached its end.

mod adapters;
#[allow(unsafe_code)]
mod device;
pub mod encode;
mod fault;
mod kernel;
mod memory;
#[cfg(target_vendor = "apple")]
#[allow(unsafe_code)]
pub mod metal;
mod proof;
pub mod residency;
pub mod scan;
mod submit;
mod template;
#[cfg(test)]
pub(crate) mod tests;

pub use adapters::adapters;
pub use device::{Gpu, GpuOptions};
pub use fault::{Fault, Faults};
pub(crate) use kernel::{Binding, Kernel, KernelSource};
pub use memory::GpuMemory;
pub(crate) use memory::{Buffer, Purpose};
pub use proof::Proof;
pub(crate) use proof::Subject;
pub(crate) use submit::{Pending, Read, Recording};
