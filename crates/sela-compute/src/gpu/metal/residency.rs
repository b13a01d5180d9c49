//! A set of buffers that Metal keeps resident.

use std::sync::{Mutex, MutexGuard, PoisonError};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBuffer, MTLCommandQueue, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor, MTLResource,
    MTLResourceOptions,
};
use wgpu::BufferUsages;
use wgpu::hal::api::Metal;

use crate::error::Error;
use crate::gpu::Gpu;
use crate::gpu::fault::Fault;

/// Buffers attached to the queue of a GPU as one residency set.
///
/// Without one, Metal makes every buffer of a submission resident anew, and may take memory back
/// between two submissions. wgpu does not hand out the Metal buffer behind one of its own, so the
/// members are made here.
pub(in crate::gpu) struct ResidencySet {
    gpu: Gpu,
    inner: Mutex<Inner>,
}

struct Inner {
    set: Retained<ProtocolObject<dyn MTLResidencySet>>,
    members: Vec<(wgpu::Buffer, Retained<ProtocolObject<dyn MTLBuffer>>)>,
}

// SAFETY: Metal's objects may be used from any thread; a residency set only by one thread at a
// time, which the mutex around this sees to.
unsafe impl Send for Inner {}

impl ResidencySet {
    /// An empty set; `None` before macOS 15, which brought them, and where Metal refuses.
    pub(in crate::gpu) fn new(gpu: &Gpu) -> Option<Self> {
        // Before macOS 15 even asking would end the process: the class is not there.
        if gpu.facts().metal.as_ref()?.macos < (15, 0) {
            return None;
        }
        let made = autoreleasepool(|_| {
            let descriptor = MTLResidencySetDescriptor::new();
            descriptor.setLabel(Some(&NSString::from_str("sela")));
            // SAFETY: nothing of the device is destroyed.
            let device = unsafe { gpu.device().as_hal::<Metal>() }?;
            let made = device
                .raw_device()
                .newResidencySetWithDescriptor_error(&descriptor);
            made.inspect_err(|error| tracing::warn!(%error, "Metal gives no residency set"))
                .ok()
        })?;
        // SAFETY: the queue goes on as it is.
        let queue = unsafe { gpu.queue().as_hal::<Metal>() }?;
        queue.as_raw().addResidencySet(&made);
        drop(queue);
        Some(Self {
            gpu: gpu.clone(),
            inner: Mutex::new(Inner {
                set: made,
                members: Vec::new(),
            }),
        })
    }

    /// A buffer of `bytes` bytes, rounded up to 16, of zeros, that stays resident until it is
    /// released.
    pub(in crate::gpu) fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<wgpu::Buffer, Error> {
        let gpu = &self.gpu;
        let size = bytes.max(16).next_multiple_of(16);
        let limit = gpu.facts().buffer_bytes;
        if size > limit {
            let reason = format!("{label} of {size} bytes; buffers hold {limit} at most");
            return Err(gpu.error(reason));
        }
        let out_of_memory = || gpu.error(format!("out of memory: {label} of {size} bytes"));
        if gpu.faults().strike(Fault::OutOfMemory) {
            return Err(out_of_memory());
        }
        gpu.alive()?;
        let raw = autoreleasepool(|_| {
            // SAFETY: nothing of the device is destroyed.
            let device = unsafe { gpu.device().as_hal::<Metal>() }?;
            let options = MTLResourceOptions::StorageModePrivate;
            let raw = device
                .raw_device()
                .newBufferWithLength_options(usize::try_from(size).ok()?, options)?;
            raw.setLabel(Some(&NSString::from_str(label)));
            Some(raw)
        })
        .ok_or_else(out_of_memory)?;
        // COPY_DST, since it is filled below.
        let usage = usage | BufferUsages::COPY_DST;
        let buffer = super::import::adopt(gpu, label, raw.clone(), size, usage)?;
        // Metal promises nothing of what is in it, and wgpu takes an adopted buffer as filled.
        gpu.caught(|| {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            encoder.clear_buffer(&buffer, 0, None);
            gpu.queue().submit([encoder.finish()]);
        })?;
        let mut inner = self.inner();
        inner.set.addAllocation(ProtocolObject::from_ref(&*raw));
        inner.set.commit();
        inner.members.push((buffer.clone(), raw));
        Ok(buffer)
    }

    /// Lets a buffer of this set go; its memory is given back once nothing uses it any more.
    pub(in crate::gpu) fn release(&self, buffer: &wgpu::Buffer) {
        let mut inner = self.inner();
        if let Some(at) = inner
            .members
            .iter()
            .position(|(member, _)| member == buffer)
        {
            let (_, raw) = inner.members.swap_remove(at);
            inner.set.removeAllocation(ProtocolObject::from_ref(&*raw));
            inner.set.commit();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ResidencySet {
    fn drop(&mut self) {
        // SAFETY: the queue goes on as it is.
        if let Some(queue) = unsafe { self.gpu.queue().as_hal::<Metal>() } {
            queue.as_raw().removeResidencySet(&self.inner().set);
        }
    }
}
