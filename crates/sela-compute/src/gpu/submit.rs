//! From recorded commands to bytes on the host, with proof that all of them ran.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use wgpu::BufferUsages;

use super::device::Gpu;
use super::fault::Fault;
use super::memory::{Buffer, Purpose, Taken};
use crate::error::Error;
use crate::inventory::GpuKind;

/// Longest time a submission may take; a device that takes longer hangs. A software device shares
/// the CPU with everything else and may be that slow.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_SOFTWARE: Duration = Duration::from_secs(600);
/// How long a waiting thread looks again and again before it sleeps: waking up takes as long as
/// a short search.
const SPIN: Duration = Duration::from_micros(400);
/// Read-back buffers kept for the next submission, and most bytes of them together.
const READ_BACKS: usize = 8;
const READ_BACK_BYTES: u64 = 64 << 20;

/// Bytes to be read back at the end of a submission.
pub(crate) struct Read<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    /// A multiple of 4.
    pub(crate) offset: u64,
    /// A multiple of 4.
    pub(crate) bytes: u64,
}

/// Commands being recorded: one compute pass, opened when it is first asked for.
pub(crate) struct Recording {
    gpu: Gpu,
    // Before the encoder, so that it is dropped first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: wgpu::CommandEncoder,
}

impl Gpu {
    /// Begins to record.
    pub(crate) fn record(&self, label: &str) -> Result<Recording, Error> {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(label) };
        let encoder = self.caught(|| self.device().create_command_encoder(&descriptor))?;
        Ok(Recording {
            gpu: self.clone(),
            pass: None,
            encoder,
        })
    }
}

impl Recording {
    /// The compute pass.
    pub(crate) fn pass(&mut self) -> &mut wgpu::ComputePass<'static> {
        self.pass.get_or_insert_with(|| {
            let descriptor = wgpu::ComputePassDescriptor::default();
            self.encoder
                .begin_compute_pass(&descriptor)
                .forget_lifetime()
        })
    }

    /// The encoder between passes, for copies; ends the pass that is open.
    pub(crate) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        &mut self.encoder
    }

    /// Submits what was recorded. `reads` come back end to end, in their order.
    pub(crate) fn submit(mut self, reads: &[Read<'_>]) -> Result<Pending, Error> {
        let gpu = self.gpu.clone();
        let shared = gpu.shared();
        gpu.alive()?;
        let faults = gpu.faults();
        if faults.strike(Fault::Lost) {
            gpu.lose();
            gpu.alive()?;
        }
        let unfinished = faults.strike(Fault::Unfinished);
        // Never 0, which is what memory holds by chance.
        let number = shared.submissions.fetch_add(1, Ordering::SeqCst) | 1 << 31;
        let bytes: u64 = reads.iter().map(|read| read.bytes).sum();
        let read_back = gpu.read_back(bytes + 4)?;
        let (mapped, told) = channel();
        let staged = shared.ledger.unstage();
        let index = gpu.caught(|| {
            if let Some(sentinel) = shared.sentinel.get().filter(|_| !unfinished) {
                let pass = self.pass();
                pass.set_pipeline(&sentinel.kernel.pipeline);
                pass.set_bind_group(0, &sentinel.bound, &[]);
                pass.set_immediates(0, &number.to_le_bytes());
                pass.dispatch_workgroups(1, 1, 1);
            }
            let Self {
                pass, mut encoder, ..
            } = self;
            drop(pass);
            let mut at = 0;
            for Read {
                buffer,
                offset,
                bytes,
            } in reads
            {
                encoder.copy_buffer_to_buffer(buffer, *offset, &read_back, at, *bytes);
                at += bytes;
            }
            if let Some(sentinel) = shared.sentinel.get() {
                encoder.copy_buffer_to_buffer(&sentinel.word, 0, &read_back, at, 4);
            }
            let index = shared.queue.submit([encoder.finish()]);
            read_back.map_async(wgpu::MapMode::Read, 0..bytes + 4, move |result| {
                // Nobody listens any more when the submission was given up.
                let _ = mapped.send(result);
            });
            index
        })?;
        Ok(Pending {
            gpu: gpu.clone(),
            index,
            number,
            read_back: Some(read_back),
            bytes,
            _staged: staged,
            told,
        })
    }
}

/// What the device says of a buffer to be read.
type Mapped = Result<(), wgpu::BufferAsyncError>;

/// A submission under way. Dropping it gives up the result; the work is done all the same.
pub(crate) struct Pending {
    gpu: Gpu,
    index: wgpu::SubmissionIndex,
    number: u32,
    read_back: Option<Buffer>,
    bytes: u64,
    /// What was written for it, until it is done.
    _staged: Taken,
    told: Receiver<Mapped>,
}

impl Pending {
    /// Waits for the end and hands over the bytes that were asked for. On any thread.
    pub(crate) fn wait<T>(mut self, take: impl FnOnce(&[u8]) -> T) -> Result<T, Error> {
        let gpu = self.gpu.clone();
        gpu.alive()?;
        let told = match self.spin()? {
            Some(told) => Ok(told),
            None => self.sleep()?,
        };
        match told {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                gpu.alive()?;
                return Err(gpu.error(format!("reading back: {error}")));
            }
            Err(error) => {
                gpu.alive()?;
                return Err(gpu.error(format!("reading back: {error}")));
            }
        }
        gpu.alive()?;
        let Some(read_back) = self.read_back.take() else {
            return Err(gpu.error("a submission was waited for twice"));
        };
        let view = read_back
            .get_mapped_range(0..self.bytes + 4)
            .map_err(|error| gpu.error(format!("reading back: {error}")))?;
        let (bytes, word) = view.split_at(self.bytes as usize);
        if word != self.number.to_le_bytes() {
            return Err(gpu.error("a submission did not run to its end"));
        }
        let value = take(bytes);
        drop(view);
        read_back.unmap();
        gpu.put_read_back(read_back);
        Ok(value)
    }

    /// Looks for the end again and again for a while.
    fn spin(&self) -> Result<Option<Mapped>, Error> {
        if self.gpu.facts().kind == GpuKind::Software {
            // The device needs the thread's core itself.
            return Ok(None);
        }
        let began = Instant::now();
        while began.elapsed() < SPIN {
            if let Err(error) = self.gpu.device().poll(wgpu::PollType::Poll) {
                self.gpu.alive()?;
                return Err(self.gpu.error(format!("looking for a submission: {error}")));
            }
            match self.told.try_recv() {
                Ok(told) => return Ok(Some(told)),
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
                Err(TryRecvError::Disconnected) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Sleeps until the end.
    fn sleep(&self) -> Result<Result<Mapped, RecvTimeoutError>, Error> {
        let patience = match self.gpu.facts().kind {
            GpuKind::Software => PATIENCE_SOFTWARE,
            _ => PATIENCE,
        };
        let polled = self.gpu.device().poll(wgpu::PollType::Wait {
            submission_index: Some(self.index.clone()),
            timeout: Some(patience),
        });
        if let Err(error) = polled {
            self.gpu.alive()?;
            return Err(self.gpu.error(format!("waiting for a submission: {error}")));
        }
        // Another thread's poll may be the one that delivers the word, a moment later.
        Ok(self.told.recv_timeout(patience))
    }
}

impl Gpu {
    fn read_back(&self, bytes: u64) -> Result<Buffer, Error> {
        let kept = self.shared().read_backs.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        // They are in order of size: the first that is large enough is the smallest.
        if let Some(at) = kept.iter().position(|buffer| buffer.size() >= bytes) {
            return Ok(kept.remove(at));
        }
        drop(kept);
        let bytes = bytes.next_power_of_two().max(16 << 10);
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        self.buffer(Purpose::Transfer, "read-back", bytes, usage)
    }

    fn put_read_back(&self, buffer: Buffer) {
        let kept = self.shared().read_backs.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        let all: u64 = kept.iter().map(|buffer| buffer.size()).sum();
        if kept.len() < READ_BACKS && all + buffer.size() <= READ_BACK_BYTES {
            kept.push(buffer);
            kept.sort_unstable_by_key(|buffer| buffer.size());
        }
    }
}
