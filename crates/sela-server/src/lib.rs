//! The HTTP server of Sela: one engine behind four groups of routes, guarded by keys.
//!
//! [`serve`] runs it until it is told to stop; [`router`] is the same without sockets, for tests
//! and for programs with a listener of their own.

mod audit;
mod auth;
mod bench;
mod body;
pub mod config;
mod docs;
mod dto;
mod error;
mod extract;
mod frame;
mod heap;
mod json;
mod jwt;
mod keys;
mod listen;
mod metrics;
mod npy;
mod openapi;
mod qdrant;
mod routes;
mod serve;
mod shutdown;
mod state;
mod telemetry;
mod time;
mod tls;
mod watched;
mod work;

pub use audit::{AUDIT_FILE, Audit};
pub use auth::Role;
pub use config::{ConfigError, Layers, Settings};
pub use error::{ApiError, Shape};
pub use keys::{Key, KeyError, KeyFile, NewKey};
pub use openapi::document;
pub use routes::router;
pub use serve::{Error, Event, Stopped, serve};
pub use state::AppState;
