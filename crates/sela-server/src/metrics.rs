//! What the server counts, as Prometheus reads it.
//!
//! Requests are counted as they pass; what the engine, the collections and the process know of
//! themselves is asked for when somebody reads. Labels come from closed sets: routes are those of
//! the router, paths that do not exist are one, and of collections only the first are told apart.

mod collections;
mod engine;
mod http;
mod page;
mod process;

use std::fmt;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Role, at_least};
use crate::error::ApiError;
use crate::state::{AppState, Phase};
use crate::work;
pub(crate) use collections::Sizes;
pub(crate) use http::{Connections, Http};
use page::{Page, Told};

/// Where they are read.
pub(crate) const PATH: &str = "/metrics";

/// The text format of OpenMetrics, which Prometheus reads.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is counted as requests pass.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) http: Http,
    pub(crate) connections: Connections,
    sizes: Sizes,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let http = Http::registered(&mut registry);
        Self {
            registry,
            http,
            connections: Connections::default(),
            sizes: Sizes::default(),
        }
    }
}

pub(crate) fn router() -> OpenApiRouter<AppState> {
    at_least(Role::Read, OpenApiRouter::default().routes(routes!(read)))
}

/// What the server has counted, for Prometheus
///
/// Needs no key where the setting `telemetry.metrics_open` is true.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses((
        status = 200,
        description = "Text in the format of OpenMetrics",
        body = String,
        content_type = "application/openmetrics-text"
    ))
)]
async fn read(State(app): State<AppState>) -> Result<Response, ApiError> {
    let told = app.clone();
    let work = move || text_of(&told).map_err(|error| ApiError::internal(&error));
    let text = work::blocking(&app, work).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Everything, as text. Blocks.
fn text_of(app: &AppState) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(32 << 10);
    text::encode_registry(&mut text, &app.metrics.registry)?;
    let rest: Told = {
        let mut page = Page::default();
        server(app, &mut page);
        app.metrics.connections.tell(&mut page);
        engine::tell(&app.engine.stats(), &mut page);
        app.metrics.sizes.tell(app, &mut page);
        process::tell(&mut page);
        page.into()
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(rest));
    text::encode_registry(&mut text, &registry)?;
    text::encode_eof(&mut text)?;
    Ok(text)
}

/// What the server knows of itself.
fn server(app: &AppState, page: &mut Page) {
    let model = app.engine.options().model.clone();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    page.info("sela_build", "The version", vec![("version", version)]);
    page.info("sela_model", "The model", vec![("model", model)]);
    page.gauge(
        "sela_ready",
        "1 when everything can be asked for, 0 while the model is read and once the server stops",
        u64::from(app.phase() == Phase::Ready) as f64,
    );
    page.gauge(
        "sela_uptime_seconds",
        "Since the server began to start",
        app.started.elapsed().as_secs_f64(),
    );
    page.gauge(
        "sela_keys",
        "Keys that are accepted",
        app.keys.count() as f64,
    );
    page.counter(
        "sela_spans_lost",
        "Spans of traces that the collector did not get",
        app.spans.lost() as f64,
    );
    let waiting = app.waiting.load(std::sync::atomic::Ordering::Relaxed);
    page.gauge(
        "sela_blocking_waiting",
        "Requests that wait for a turn to read or write collections",
        waiting as f64,
    );
    let free = app.turns.available_permits();
    let turns = app.settings.limits.blocking_max.saturating_sub(free);
    page.gauge(
        "sela_blocking_running",
        "Reads and writes of collections under way",
        turns as f64,
    );
    page.gauge(
        "sela_database_rows",
        "Rows of the database that /load_database has loaded",
        app.database().map_or(0, |database| database.len()) as f64,
    );
}
