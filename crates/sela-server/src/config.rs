//! The settings of a server: one documented file, the environment, flags, in rising precedence.
//!
//! `config/settings.toml` documents every key; it is also what [`Settings::print`] fills in, and
//! what unknown keys are held against.

mod bytes;
mod layers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bytes::Bytes;
pub use layers::{ConfigError, Layers, TEMPLATE};

use crate::auth::Role;

/// Everything a server can be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where and how to listen.
    pub server: Server,
    /// The engine behind the routes.
    pub engine: Engine,
    /// Certificates.
    pub tls: Tls,
    /// Who may do what.
    pub auth: Auth,
    /// OpenAI's routes.
    pub openai: OpenAi,
    /// What can be seen from outside.
    pub telemetry: Telemetry,
    /// What is too much.
    pub limits: Limits,
}

/// Where and how to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// The address; default: port 8000 of this machine alone.
    pub bind: SocketAddr,
    /// Whether everybody may do everything; only on a loopback address.
    pub no_auth: bool,
    /// How the log is written.
    pub log_format: LogFormat,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8000)),
            no_auth: false,
            log_format: LogFormat::Text,
        }
    }
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// In the voice of the command's errors.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The engine behind the routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Engine {
    /// Where collections live; default: `data` under the home.
    pub data: Option<PathBuf>,
    /// The model, by name or by folder.
    pub model: String,
    /// The precision promised for vectors.
    pub dtype: Dtype,
    /// Where the heavy work is done.
    pub device: String,
    /// Bytes of vectors kept in the GPU's memory.
    pub gpu_cache: Bytes,
    /// Bytes of memory for codes of vectors, by which the CPU searches.
    pub scan_cache: Bytes,
    /// Threads to use at most; default: all.
    pub threads: Option<usize>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            data: None,
            model: sela::models::DEFAULT_MODEL.to_owned(),
            dtype: Dtype::Auto,
            device: "auto".to_owned(),
            gpu_cache: Bytes(sela::GPU_CACHE),
            scan_cache: Bytes(sela::SCAN_CACHE),
            threads: None,
        }
    }
}

impl Engine {
    fn apply(&self, options: &mut sela::Options) -> Result<(), ConfigError> {
        if let Some(data) = &self.data {
            options.data.clone_from(data);
        }
        options.model.clone_from(&self.model);
        options.dtype = match self.dtype {
            Dtype::Auto => sela::Dtype::Auto,
            Dtype::F32 => sela::Dtype::F32,
            Dtype::Bf16 => sela::Dtype::Bf16,
            Dtype::Int8 => sela::Dtype::Int8,
        };
        let device = self.device.parse::<sela::DeviceChoice>();
        options.device = device.map_err(|error| ConfigError::value("engine.device", error))?;
        options.gpu_cache = self.gpu_cache.0;
        options.scan_cache = self.scan_cache.0;
        options.threads = self.threads;
        Ok(())
    }
}

/// A precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// The fastest of this machine that is as good as f32 in the mean.
    #[default]
    Auto,
    /// As sentence-transformers computes.
    F32,
    /// Half the bits.
    Bf16,
    /// A quarter of the bits.
    Int8,
}

/// Certificates, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// The certificate with its chain.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// Where the digests of the keys are; default: `keys.json` in the home.
    pub keys: Option<PathBuf>,
    /// Tokens of another issuer.
    pub jwt: Jwt,
}

/// Tokens of another issuer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Jwt {
    /// The secret of HS256.
    pub secret: Option<String>,
    /// The file that holds it.
    pub secret_file: Option<PathBuf>,
    /// A JWKS file with keys of RS256 or ES256.
    pub jwks: Option<PathBuf>,
    /// Who must have issued a token.
    pub issuer: Option<String>,
    /// For whom.
    pub audience: Option<String>,
    /// The claim that tells the role.
    pub role_claim: String,
    /// Seconds by which clocks may differ.
    pub leeway_s: u64,
    /// What the claim's values mean, besides the roles' own names.
    pub roles: BTreeMap<String, Role>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: None,
            secret_file: None,
            jwks: None,
            issuer: None,
            audience: None,
            role_claim: "role".to_owned(),
            leeway_s: 60,
            roles: BTreeMap::new(),
        }
    }
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt")
            .field("secret", &self.secret.as_ref().map(|_| "(hidden)"))
            .field("jwks", &self.jwks)
            .field("role_claim", &self.role_claim)
            .finish_non_exhaustive()
    }
}

/// OpenAI's routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenAi {
    /// Whom `/v1/models` names as the owner.
    pub owned_by: String,
    /// Names that the model answers to, and the model each means.
    pub aliases: BTreeMap<String, String>,
}

impl Default for OpenAi {
    fn default() -> Self {
        Self {
            owned_by: "sela".to_owned(),
            aliases: BTreeMap::new(),
        }
    }
}

/// What can be seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telemetry {
    /// Whether `/metrics` answers without a key.
    pub metrics_open: bool,
    /// The collector that traces are sent to, OTLP over HTTP.
    pub otlp_endpoint: Option<String>,
    /// The share of the traces begun here that is sent, from 0 to 1.
    pub otlp_share: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            metrics_open: false,
            otlp_endpoint: None,
            otlp_share: 1.0,
        }
    }
}

/// What is too much; `config/settings.toml` says what each is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the documented settings file tells of each")]
pub struct Limits {
    pub connections_max: usize,
    pub head_ms: u64,
    pub body_ms: u64,
    pub request_ms: u64,
    pub drain_ms: u64,
    pub body_bytes_max: Bytes,
    pub database_bytes_max: Bytes,
    pub bodies_bytes_max: Bytes,
    pub texts_max: usize,
    pub text_bytes_max: Bytes,
    pub k_max: usize,
    pub points_max: usize,
    pub queue_texts_max: usize,
    pub queue_bytes_max: Bytes,
    pub blocking_max: usize,
    pub blocking_queue_max: usize,
    pub audit_refusals_max: u32,
    pub audit_bytes_max: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            head_ms: 30_000,
            body_ms: 30_000,
            request_ms: 30_000,
            drain_ms: 30_000,
            body_bytes_max: Bytes(16 << 20),
            database_bytes_max: Bytes(1 << 30),
            bodies_bytes_max: Bytes(2 << 30),
            texts_max: 4096,
            text_bytes_max: Bytes(1 << 20),
            k_max: 100,
            points_max: 10_000,
            queue_texts_max: 16_384,
            queue_bytes_max: Bytes(64 << 20),
            blocking_max: 32,
            blocking_queue_max: 1024,
            audit_refusals_max: 10,
            audit_bytes_max: Bytes(64 << 20),
        }
    }
}

impl Settings {
    /// Puts what the engine is told into its options.
    pub fn apply(&self, options: &mut sela::Options) -> Result<(), ConfigError> {
        self.engine.apply(options)?;
        options.queue.texts_max = self.limits.queue_texts_max;
        options.queue.bytes_max = self.limits.queue_bytes_max.0 as usize;
        Ok(())
    }

    /// Refuses what makes no sense together.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.server.no_auth && !self.server.bind.ip().is_loopback() {
            let bind = self.server.bind;
            return Err(ConfigError::NoAuthBeyondLoopback { bind });
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            let missing = match self.tls.cert {
                Some(_) => "tls.key",
                None => "tls.cert",
            };
            return Err(ConfigError::HalfTls { missing });
        }
        if !(0.0..=1.0).contains(&self.telemetry.otlp_share) {
            return Err(ConfigError::value(
                "telemetry.otlp_share",
                "it must be from 0 to 1",
            ));
        }
        let limits = &self.limits;
        let counts = [
            ("limits.connections_max", limits.connections_max as u64),
            ("limits.head_ms", limits.head_ms),
            ("limits.body_ms", limits.body_ms),
            ("limits.request_ms", limits.request_ms),
            ("limits.body_bytes_max", limits.body_bytes_max.0),
            ("limits.database_bytes_max", limits.database_bytes_max.0),
            ("limits.bodies_bytes_max", limits.bodies_bytes_max.0),
            ("limits.texts_max", limits.texts_max as u64),
            ("limits.text_bytes_max", limits.text_bytes_max.0),
            ("limits.k_max", limits.k_max as u64),
            ("limits.points_max", limits.points_max as u64),
            ("limits.queue_texts_max", limits.queue_texts_max as u64),
            ("limits.queue_bytes_max", limits.queue_bytes_max.0),
            ("limits.blocking_max", limits.blocking_max as u64),
        ];
        match counts.into_iter().find(|&(_, count)| count == 0) {
            Some((key, _)) => Err(ConfigError::value(key, "it must be more than 0")),
            None => Ok(()),
        }
    }
}
