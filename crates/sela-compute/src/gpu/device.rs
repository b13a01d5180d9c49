//! A GPU opened for work.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wgpu::{BufferUsages, Features};

use super::adapters::{Found, found, ready};
use super::fault::{Fault, Faults};
use super::kernel::{Binding, Kernel, KernelSource};
use super::memory::{Buffer, GpuMemory, Ledger, Purpose};
use crate::error::Error;
use crate::inventory::GpuFacts;

/// How a GPU is opened. The defaults suit everyone but tests.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Keeps the bounds checks that wgpu adds to shaders, where kernels are proven not to need
    /// them. For tests: it costs speed.
    pub checked: bool,
    /// Faults to happen.
    pub faults: Faults,
    /// Pretends that storage bindings are at most this large, in bytes: for tests of machines
    /// with small ones.
    pub binding_bytes_max: Option<u64>,
    /// Does without cooperative matrices, as if the adapter had none.
    pub no_matrix: bool,
    /// The file in which passed self-tests are remembered, so that they need not run at every
    /// start; its folder must exist. Without one they do.
    pub self_tests: Option<PathBuf>,
}

/// Most bytes that wait for a submission while weights are brought in.
const STAGED_BYTES: u64 = 64 << 20;

/// A GPU opened for work. Clones share it.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

pub(super) struct Shared {
    facts: GpuFacts,
    options: GpuOptions,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    features: Features,
    lost: Arc<Lost>,
    /// Writes the number of a submission at its end.
    pub(super) sentinel: OnceLock<Sentinel>,
    pub(super) submissions: AtomicU32,
    /// Buffers that were read back and may be again.
    pub(super) read_backs: Mutex<Vec<Buffer>>,
    pub(super) ledger: Arc<Ledger>,
}

pub(super) struct Sentinel {
    pub(super) kernel: Kernel,
    pub(super) word: Buffer,
    pub(super) bound: wgpu::BindGroup,
}

/// Whether the device is gone, and what was said about it.
#[derive(Default)]
struct Lost {
    gone: AtomicBool,
    reason: Mutex<String>,
}

impl Lost {
    fn note(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        self.gone.store(true, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("name", &self.0.facts.name)
            .field("backend", &self.0.facts.backend)
            .finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens the adapter of that index in [`super::adapters`].
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when there is none, [`Error::Device`] when it does not open.
    pub fn open(index: usize, options: GpuOptions) -> Result<Self, Error> {
        let Some(Found { adapter, facts }) = found().get(index) else {
            return Err(Error::Missing(format!("GPU number {index}")));
        };
        let mut facts = facts.clone();
        if let Some(limit) = options.binding_bytes_max {
            facts.binding_bytes = facts.binding_bytes.min(limit);
        }
        if options.no_matrix {
            facts.matrix.clear();
        }
        let refused = |reason: String| Error::Device {
            what: facts.name.clone(),
            reason,
        };
        if facts.immediate_bytes < 64 {
            return Err(refused("it has no immediates of 64 bytes".into()));
        }
        let mut features = Features::IMMEDIATES;
        let mut wanted = Features::SUBGROUP | Features::SUBGROUP_BARRIER | Features::SHADER_F16;
        wanted |= Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        if !facts.matrix.is_empty() {
            wanted |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        features |= wanted & adapter.features();
        // SAFETY: wgpu asks us to acknowledge that experimental features may have bugs. Cooperative
        // matrices are the only one used, and every kernel with them passes a known-answer test
        // on the device before it is used.
        let experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        let opened = ready(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("sela"),
            required_features: features,
            required_limits: adapter.limits(),
            experimental_features: experimental,
            // Slabs are allocated whole; small buffers should not hold 256 MiB blocks.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        }));
        let (device, queue) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return Err(refused(error.to_string())),
            None => return Err(refused("it did not open at once".into())),
        };
        let lost = Arc::new(Lost::default());
        let told = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            told.note(format!("device lost ({reason:?}): {message}"));
        });
        // Errors are caught in scopes, where they happen; whatever is not must not end the process.
        device.on_uncaptured_error(Arc::new(|error: wgpu::Error| {
            tracing::error!(%error, "GPU error outside of any call");
        }));
        let gpu = Self(Arc::new(Shared {
            facts,
            options,
            device,
            queue,
            features,
            lost,
            sentinel: OnceLock::new(),
            submissions: AtomicU32::new(0),
            read_backs: Mutex::default(),
            ledger: Arc::default(),
        }));
        gpu.sentinel()?;
        Ok(gpu)
    }

    /// What is known of it.
    pub fn facts(&self) -> &GpuFacts {
        &self.0.facts
    }

    /// How it was opened.
    pub(super) fn options(&self) -> &GpuOptions {
        &self.0.options
    }

    /// The faults to happen on it.
    pub fn faults(&self) -> &Faults {
        &self.0.options.faults
    }

    /// What its memory is taken for, by this process and through this.
    pub fn memory(&self) -> GpuMemory {
        self.0.ledger.told()
    }

    /// Whether the device is gone; it does not come back.
    pub fn is_lost(&self) -> bool {
        self.0.lost.gone.load(Ordering::SeqCst)
    }

    /// Whether work can be timed on the device.
    pub(crate) fn has_timestamps(&self) -> bool {
        let inside = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        self.0.features.contains(inside)
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// An error of this device.
    pub(crate) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Device {
            what: self.0.facts.name.clone(),
            reason: reason.into(),
        }
    }

    /// Fails when the device is gone.
    pub(crate) fn alive(&self) -> Result<(), Error> {
        match self.is_lost() {
            false => Ok(()),
            true => {
                let reason = self.0.lost.reason.lock();
                let reason = reason.unwrap_or_else(PoisonError::into_inner).clone();
                Err(self.error(reason))
            }
        }
    }

    /// The device is gone; for good, as a real loss is.
    pub(super) fn lose(&self) {
        self.0.lost.note("device lost: a fault on demand".into());
        self.0.device.destroy();
    }

    /// Runs calls to wgpu on this thread and returns what they complain of as an error.
    pub(crate) fn caught<T>(&self, call: impl FnOnce() -> T) -> Result<T, Error> {
        self.alive()?;
        let device = &self.0.device;
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = call();
        let said = [
            ready(validation.pop()).flatten(),
            ready(internal.pop()).flatten(),
            ready(memory.pop()).flatten(),
        ];
        self.alive()?;
        match said.into_iter().flatten().next() {
            None => Ok(value),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(self.error("out of memory")),
            Some(error) => Err(self.error(error.to_string())),
        }
    }

    /// A buffer of `bytes` (rounded up to 16) bytes, of zeros.
    pub(crate) fn buffer(
        &self,
        purpose: Purpose,
        label: &str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<Buffer, Error> {
        let size = bytes.max(16).next_multiple_of(16);
        if self.faults().strike(Fault::OutOfMemory) {
            return Err(self.error(format!("out of memory: {label} of {size} bytes")));
        }
        if size > self.0.facts.buffer_bytes {
            let limit = self.0.facts.buffer_bytes;
            let reason = format!("{label} of {size} bytes; buffers hold {limit} at most");
            return Err(self.error(reason));
        }
        let buffer = self.caught(|| {
            self.0.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            })
        })?;
        Ok(self.counted(buffer, purpose))
    }

    /// A buffer that is counted from now on.
    pub(super) fn counted(&self, buffer: wgpu::Buffer, purpose: Purpose) -> Buffer {
        Buffer::new(buffer, purpose, &self.0.ledger)
    }

    /// Writes bytes to a place in a buffer, before all submissions to come.
    pub(crate) fn write(&self, to: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.caught(|| self.0.queue.write_buffer(to, offset, bytes))?;
        self.0.ledger.stage(bytes.len() as u64);
        Ok(())
    }

    /// The same for much at a time: what waits for a submission is taken along when it comes to
    /// [`STAGED_BYTES`], since it takes memory beside where it goes.
    pub(crate) fn write_much(&self, to: &wgpu::Buffer, bytes: &[u8]) -> Result<(), Error> {
        for (part, at) in bytes.chunks(STAGED_BYTES as usize).zip(0u64..) {
            self.caught(|| self.0.queue.write_buffer(to, at * STAGED_BYTES, part))?;
            if self.0.ledger.stage(part.len() as u64) >= STAGED_BYTES {
                self.record("uploads")?.submit(&[])?.wait(|_| ())?;
            }
        }
        Ok(())
    }

    /// Counts bytes that were given to the queue and wait for a submission.
    pub(crate) fn staged(&self, bytes: u64) {
        self.0.ledger.stage(bytes);
    }

    /// Compiles a kernel. Takes milliseconds: keep what it returns.
    pub(crate) fn kernel(&self, source: &KernelSource<'_>) -> Result<Kernel, Error> {
        self.caught(|| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(source.label),
                source: wgpu::ShaderSource::Wgsl(source.wgsl.into()),
            };
            let device = &self.0.device;
            let module = if source.unchecked && !self.0.options.checked {
                let mut checks = wgpu::ShaderRuntimeChecks::checked();
                checks.bounds_checks = false;
                checks.force_loop_bounding = false;
                checks.int_div_checks = false;
                // SAFETY: a source is marked unchecked only where its host code proves that
                // every index is inside its buffer, every loop ends and no divisor is zero; the
                // same kernels run checked in tests.
                unsafe { device.create_shader_module_trusted(descriptor, checks) }
            } else {
                device.create_shader_module(descriptor)
            };
            Kernel::new(device, &module, source)
        })
    }

    fn sentinel(&self) -> Result<(), Error> {
        let source = KernelSource {
            label: "sentinel",
            wgsl: include_str!("sentinel.wgsl"),
            entry: "main",
            bindings: &[Binding::ReadWrite],
            immediate_bytes: 4,
            unchecked: false,
        };
        let kernel = self.kernel(&source)?;
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        let word = self.buffer(Purpose::Other, "sentinel", 16, usage)?;
        let bound = kernel.bind(self, &[word.as_entire_buffer_binding()])?;
        let sentinel = Sentinel {
            kernel,
            word,
            bound,
        };
        // Only `open` calls this, once.
        let _ = self.0.sentinel.set(sentinel);
        Ok(())
    }
}
