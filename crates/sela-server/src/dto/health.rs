//! How the server is.

use serde::Serialize;
use utoipa::ToSchema;

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Live {
    #[schema(example = "live")]
    pub(crate) status: &'static str,
    /// The program's version.
    pub(crate) version: &'static str,
}

/// Whether requests can be answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready`, `starting` or `stopping`.
    #[schema(example = "ready")]
    pub(crate) status: &'static str,
    /// Seconds since the start.
    pub(crate) uptime_s: u64,
}
