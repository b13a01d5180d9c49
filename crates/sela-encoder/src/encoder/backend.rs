//! A model on one kind of silicon.

use sela_compute::encode::{Encode, Ragged, Share, Ticket};
#[cfg(feature = "gpu")]
use sela_compute::gpu::{
    Gpu,
    encode::{GpuEncode, Variant},
};
use sela_compute::{Arithmetic, CpuEncode, Isa};

use crate::bert::Bert;
use crate::config::Config;
use crate::error::Error;
use crate::files::ModelFiles;

/// Rows of states beyond the tokens, at most: up to a whole tile, and those that attention reads
/// after the last.
#[cfg(feature = "gpu")]
const PADDING_ROWS: usize = 160;

/// A model with its weights on one kind of silicon.
pub(super) enum Backend {
    Cpu(Box<Bert<CpuEncode>>),
    #[cfg(feature = "gpu")]
    Gpu(Box<OnGpu>),
}

/// A model with its weights on a GPU.
#[cfg(feature = "gpu")]
pub(super) struct OnGpu {
    bert: Bert<GpuEncode>,
    /// Tokens whose activations one binding of this GPU can hold.
    tokens_max: usize,
    /// The CPU's threads, for all that is not the model.
    workers: CpuEncode,
}

/// A forward under way.
pub(super) enum Waiting {
    Cpu(<CpuEncode as Encode>::Ticket),
    #[cfg(feature = "gpu")]
    Gpu(<GpuEncode as Encode>::Ticket),
}

impl Backend {
    pub(super) fn cpu(
        files: &ModelFiles,
        config: &Config,
        isa: Isa,
        arithmetic: Arithmetic,
        threads: usize,
    ) -> Result<Self, Error> {
        let backend = CpuEncode::new(isa, arithmetic, threads)?;
        Ok(Self::Cpu(Box::new(Bert::load(backend, files, config)?)))
    }

    #[cfg(feature = "gpu")]
    pub(super) fn gpu(
        files: &ModelFiles,
        config: &Config,
        gpu: &Gpu,
        variant: Variant,
        arithmetic: Arithmetic,
        workers: CpuEncode,
    ) -> Result<Self, Error> {
        let bytes = match arithmetic {
            Arithmetic::F16 => 2,
            _ => 4,
        };
        // The widest states there are, padded to whole tiles as rows are.
        let width = (3 * config.hidden).max(config.inner).next_multiple_of(128);
        let rows = gpu.facts().binding_bytes / (width * bytes) as u64;
        let tokens_max = usize::try_from(rows).unwrap_or(usize::MAX);
        let tokens_max = tokens_max.saturating_sub(PADDING_ROWS);
        if tokens_max < config.tokens_max {
            return Err(sela_compute::Error::Limit {
                what: "number of tokens of a text on this GPU",
                value: config.tokens_max,
                limit: tokens_max,
            }
            .into());
        }
        let backend = GpuEncode::new(gpu.clone(), variant, arithmetic)?;
        let bert = Bert::load(backend, files, config)?;
        Ok(Self::Gpu(Box::new(OnGpu {
            bert,
            tokens_max,
            workers,
        })))
    }

    /// Starts a forward: one vector a sequence, row after row.
    pub(super) fn submit(&self, batch: &Ragged, share: Share) -> Result<Waiting, Error> {
        match self {
            Self::Cpu(bert) => Ok(Waiting::Cpu(bert.submit(batch, share)?)),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => Ok(Waiting::Gpu(gpu.bert.submit(batch, share)?)),
        }
    }

    /// Forwards that may be under way at once: the CPU is done when it returns, while a GPU works
    /// on one as the next is uploaded and the one before is read back.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Cpu(_) => 1,
            #[cfg(feature = "gpu")]
            Self::Gpu(_) => 3,
        }
    }

    /// Most tokens of a forward.
    pub(super) fn tokens_max(&self) -> usize {
        match self {
            Self::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.tokens_max,
        }
    }

    /// Whether the device is gone for good.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.bert.backend().gpu().is_lost(),
        }
    }

    /// The CPU's threads that a call may use.
    pub(super) fn threads(&self) -> usize {
        match self {
            Self::Cpu(bert) => bert.backend().threads(),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.workers.threads(),
        }
    }

    /// Calls `work` for every number below `n`, on all of the CPU's threads that are free.
    pub(super) fn for_each(&self, n: usize, work: impl Fn(usize) + Sync) {
        match self {
            Self::Cpu(bert) => bert.backend().for_each(n, work),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.workers.for_each(n, work),
        }
    }
}

impl Waiting {
    /// Waits for the vectors.
    pub(super) fn wait(self) -> Result<Vec<f32>, Error> {
        Ok(match self {
            Self::Cpu(ticket) => ticket.wait()?,
            #[cfg(feature = "gpu")]
            Self::Gpu(ticket) => ticket.wait()?,
        })
    }
}
