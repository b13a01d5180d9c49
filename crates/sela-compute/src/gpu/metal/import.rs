//! Buffers over memory that the CPU has already: nothing is copied where the GPU shares it.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use block2::RcBlock;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLBuffer, MTLDevice, MTLResourceOptions};
use wgpu::BufferUsages;
use wgpu::hal::api::Metal;

use crate::error::Error;
use crate::gpu::{Binding, Gpu, KernelSource, Purpose, Read};

/// Imported memory begins on such a border and is a whole number of them: a page of Apple's own
/// processors, and four of Intel's.
const PAGE: usize = 16 << 10;

/// Memory that a GPU may read in place.
///
/// # Safety
///
/// [`bytes`](Self::bytes) returns the same memory each time, and nobody writes it until the value
/// is dropped.
unsafe trait Pages: Send + Sync + 'static {
    /// The memory; it begins and ends on a border of [`PAGE`] bytes.
    fn bytes(&self) -> &[u8];
}

/// A buffer over `pages`, which are kept until the GPU is done with it. Only to be read by kernels
/// and copied from.
///
/// # Errors
///
/// [`Error::Device`] when the memory does not lie on page borders or Metal refuses it.
fn import(gpu: &Gpu, label: &str, pages: &Arc<impl Pages>) -> Result<wgpu::Buffer, Error> {
    gpu.alive()?;
    let bytes = pages.bytes();
    let (address, length) = (NonNull::from(bytes).cast::<c_void>(), bytes.len());
    let at = address.addr();
    if length == 0 || !length.is_multiple_of(PAGE) || !at.get().is_multiple_of(PAGE) {
        let reason = format!("{label}: {length} bytes at {at:#x} are not whole pages of {PAGE}");
        return Err(gpu.error(reason));
    }
    let limit = gpu.facts().buffer_bytes;
    if length as u64 > limit {
        let reason = format!("{label} of {length} bytes; buffers hold {limit} at most");
        return Err(gpu.error(reason));
    }
    let kept = Arc::clone(pages);
    let raw = autoreleasepool(|_| {
        // Metal keeps the block as long as the buffer; what the block owns goes with it.
        let done = RcBlock::new(move |_: NonNull<c_void>, _: usize| {
            let _kept = &kept;
        });
        // SAFETY: nothing of the device is destroyed.
        let device = unsafe { gpu.device().as_hal::<Metal>() }?;
        // SAFETY: the memory is valid, where it is and unwritten as long as `kept` is, by the
        // promise of `Pages`, and the block owns `kept`, which any thread may drop. Kernels only
        // read it: its usage allows no more.
        unsafe {
            device
                .raw_device()
                .newBufferWithBytesNoCopy_length_options_deallocator(
                    address,
                    length,
                    MTLResourceOptions::StorageModeShared,
                    Some(&done),
                )
        }
    })
    .ok_or_else(|| {
        gpu.error(format!(
            "{label}: Metal does not take {length} bytes in place"
        ))
    })?;
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    adopt(gpu, label, raw, length as u64, usage)
}

/// Hands a Metal buffer of this device, of `size` bytes, over to wgpu.
pub(super) fn adopt(
    gpu: &Gpu,
    label: &str,
    raw: Retained<ProtocolObject<dyn MTLBuffer>>,
    size: u64,
    usage: BufferUsages,
) -> Result<wgpu::Buffer, Error> {
    let descriptor = wgpu::BufferDescriptor {
        label: Some(label),
        size,
        usage,
        mapped_at_creation: false,
    };
    gpu.caught(|| {
        // SAFETY: both callers made the buffer from this device, `size` bytes long and not empty.
        // Its content is theirs: imported memory is filled, and the other clears it at once.
        unsafe {
            let buffer = wgpu::hal::metal::Device::buffer_from_raw(raw, size);
            gpu.device()
                .create_buffer_from_hal::<Metal>(buffer, &descriptor)
        }
    })
}

/// Four pages on a page's border.
#[repr(align(16384))]
struct Known([u8; 4 * PAGE]);

// SAFETY: an `Arc` never moves what it holds, and nothing here can be written through it.
unsafe impl Pages for Known {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether this GPU reads memory in place: a kernel turns known bytes, imported, into a known
/// answer. Takes a few milliseconds.
///
/// # Errors
///
/// [`Error::Device`], with what went wrong.
pub fn import_self_test(gpu: &Gpu) -> Result<(), Error> {
    let word = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
    let mut known = Known([0; 4 * PAGE]);
    for (i, bytes) in known.0.chunks_exact_mut(4).enumerate() {
        bytes.copy_from_slice(&word(i).to_le_bytes());
    }
    let known = Arc::new(known);
    let bytes = known.0.len() as u64;
    let imported = import(gpu, "imported pages", &known)?;
    // From here on the buffer alone keeps the memory.
    drop(known);
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let answer = gpu.buffer(Purpose::Other, "answer of the import", bytes, usage)?;
    let kernel = gpu.kernel(&KernelSource {
        label: "import",
        wgsl: include_str!("import.wgsl"),
        entry: "main",
        bindings: &[Binding::Read, Binding::ReadWrite],
        immediate_bytes: 0,
        unchecked: false,
    })?;
    let buffers = [
        imported.as_entire_buffer_binding(),
        answer.as_entire_buffer_binding(),
    ];
    let bound = kernel.bind(gpu, &buffers)?;
    let mut recording = gpu.record("import")?;
    let pass = recording.pass();
    pass.set_pipeline(&kernel.pipeline);
    pass.set_bind_group(0, &bound, &[]);
    pass.dispatch_workgroups((bytes / 4).div_ceil(64) as u32, 1, 1);
    let read = Read {
        buffer: &answer,
        offset: 0,
        bytes,
    };
    let wrong = recording.submit(&[read])?.wait(|answer| {
        let words = answer.chunks_exact(4).enumerate();
        words
            .filter(|(i, bytes)| **bytes != word(*i).wrapping_add(*i as u32).to_le_bytes())
            .count()
    })?;
    match wrong {
        0 => Ok(()),
        _ => {
            let words = bytes / 4;
            Err(gpu.error(format!("{wrong} of {words} imported words were read wrong")))
        }
    }
}
