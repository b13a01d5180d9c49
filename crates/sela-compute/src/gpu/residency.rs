//! Buffers that stay where the GPU computes, and memory that it reads where it is.

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Purpose};

/// Makes long-lived buffers and, where the system lets us, keeps them resident: on Metal from
/// macOS 15 on they are a residency set of the queue. Elsewhere they are plain buffers, which the
/// driver leaves alone while there is memory.
pub struct Residency {
    gpu: Gpu,
    #[cfg(target_vendor = "apple")]
    set: Option<super::metal::ResidencySet>,
}

impl Residency {
    /// Nothing resident yet.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            #[cfg(target_vendor = "apple")]
            set: super::metal::ResidencySet::new(gpu),
        }
    }

    /// Whether the system keeps the buffers resident, rather than by chance.
    pub fn is_kept(&self) -> bool {
        #[cfg(target_vendor = "apple")]
        return self.set.is_some();
        #[cfg(not(target_vendor = "apple"))]
        false
    }

    /// A buffer as [`Gpu::buffer`] makes it, resident until it is released.
    pub(crate) fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Buffer, Error> {
        #[cfg(target_vendor = "apple")]
        if let Some(set) = &self.set {
            let buffer = set.buffer(label, bytes, usage)?;
            return Ok(self.gpu.counted(buffer, Purpose::Rows));
        }
        self.gpu.buffer(Purpose::Rows, label, bytes, usage)
    }

    /// Lets a buffer go that this made; without this its memory stays taken.
    pub(crate) fn release(&self, buffer: Buffer) {
        #[cfg(target_vendor = "apple")]
        if let Some(set) = &self.set {
            set.release(&buffer);
        }
        // The driver frees it when the last submission that uses it is done.
        drop(buffer);
    }
}

/// Whether the GPU reads memory of the CPU in place, told by a known answer; `None` where it could
/// not: only Metal can, and only where the GPU shares the CPU's memory.
pub fn import_self_test(gpu: &Gpu) -> Option<Result<(), Error>> {
    #[cfg(target_vendor = "apple")]
    if gpu.facts().metal.is_some() && gpu.facts().unified_memory {
        return Some(super::metal::import_self_test(gpu));
    }
    #[cfg(not(target_vendor = "apple"))]
    let _ = gpu;
    None
}

#[cfg(test)]
mod tests;
