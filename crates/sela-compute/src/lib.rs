//! Runs the two heavy kinds of work, embedding and search, on the best silicon present.

pub mod encode;
pub mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod inventory;
pub mod isa;
pub mod plan;
pub mod reference;
pub mod scan;
mod selftest;

#[allow(unsafe_code)]
mod cpu;

pub use cpu::encode::{CpuEncode, CpuForward, CpuTicket};
pub use cpu::scan::{CodeStats, CpuScan, CpuScanning};
pub use cpu::stages::{Stage, StageTimes};
pub use cpu::weights::{CpuAttention, CpuEmbedding, CpuFeedForward};
pub use error::Error;
pub use inventory::Inventory;
pub use isa::Isa;
pub use plan::{
    Arithmetic, DeviceChoice, GpuPlan, Plan, PlanOptions, Precision, Tier, UnknownDevice, plan,
};
pub use selftest::{scan_self_test, self_test};
