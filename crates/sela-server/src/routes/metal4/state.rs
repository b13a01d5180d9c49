//! What this machine has, what was done, checks and measurements.

use crate::json::Json;
use axum::extract::State;
use sela::Capabilities;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Role, at_least};
use crate::bench;
use crate::dto::metal4::{
    BenchmarkRequest, BenchmarkResponse, CapabilitiesResponse, LimitsTold, SelfTest,
    StatsCapabilities, StatsEmbedder, StatsGpuMemory, StatsResponse, StatsSearch, StatsStorage,
    ValidateResponse,
};
use crate::error::ApiError;
use crate::extract::OptionalJson;
use crate::state::AppState;
use crate::work;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    let read = OpenApiRouter::default()
        .routes(routes!(capabilities))
        .routes(routes!(stats));
    let write = OpenApiRouter::default()
        .routes(routes!(validate))
        .routes(routes!(benchmark));
    at_least(Role::Read, read).merge(at_least(Role::Write, write))
}

/// What this machine has, what was chosen, and the limits
#[utoipa::path(
    get,
    path = "/api/v1/metal4/capabilities",
    tag = "metal4",
    responses((status = 200, description = "All of it", body = CapabilitiesResponse))
)]
async fn capabilities(State(app): State<AppState>) -> Result<Json<CapabilitiesResponse>, ApiError> {
    app.ready()?;
    let told = app.clone();
    let told = work::blocking(&app, move || tell(&told)).await?;
    Ok(Json(told))
}

fn tell(app: &AppState) -> Result<CapabilitiesResponse, ApiError> {
    let has = app.engine.capabilities()?;
    let model = app.model()?;
    let stats = app.engine.stats();
    let gpu = has.gpu.as_ref();
    let metal = gpu
        .or(has.inventory.gpus.first())
        .and_then(|gpu| gpu.metal.as_ref());
    let metal_version = metal.map_or(0, |metal| match (metal.metal4, metal.metal3) {
        (true, _) => 4,
        (_, true) => 3,
        _ => 0,
    });
    let searches_on_gpu = has.searches.device.is_some() && gpu.is_some();
    Ok(CapabilitiesResponse {
        metal_version,
        embedder_backend: has.report.tier.to_string(),
        vector_search_backend: if searches_on_gpu { "gpu" } else { "cpu" }.to_owned(),
        sparse_resources: searches_on_gpu && has.searches.pages.budget > 0,
        unified_memory: gpu.is_some_and(|gpu| gpu.unified_memory),
        tier: has.report.tier.to_string(),
        device: has.report.device.clone(),
        driver: gpu.map(|gpu| gpu.driver.clone()),
        model: has.model.clone(),
        dimension: has.dim,
        dtype: format!("{:?}", has.dtype).to_lowercase(),
        arithmetic: has.report.arithmetic.to_string(),
        limits: limits(app, model.tokens_max),
        self_test: self_tests(&has),
        fallbacks: stats.fallbacks,
        reasons: has.report.reasons,
    })
}

/// Those of the encoder's kernels, then that of the GPU's search kernels.
fn self_tests(has: &Capabilities) -> Vec<SelfTest> {
    let encoder = has.report.self_tests.iter().map(|test| SelfTest {
        what: test.what.clone(),
        passed: test.veto.is_none(),
        outcome: test.outcome().to_owned(),
        veto: test.veto.clone(),
        ms: Some(test.took.as_secs_f64() * 1e3),
    });
    let searches = &has.searches;
    let vetoed = searches.vetoes.iter().map(|veto| SelfTest {
        what: "search kernels".to_owned(),
        passed: false,
        outcome: "failed".to_owned(),
        veto: Some(veto.clone()),
        ms: None,
    });
    let passed = searches.self_test.iter().map(|outcome| SelfTest {
        what: format!(
            "search with {} kernels on {}",
            searches.variant.as_deref().unwrap_or_default(),
            searches.device_name.as_deref().unwrap_or_default(),
        ),
        passed: true,
        outcome: outcome.clone(),
        veto: None,
        ms: None,
    });
    encoder.chain(vetoed).chain(passed).collect()
}

fn limits(app: &AppState, tokens_max: usize) -> LimitsTold {
    let limits = &app.settings.limits;
    LimitsTold {
        body_bytes_max: limits.body_bytes_max.0,
        database_bytes_max: limits.database_bytes_max.0,
        bodies_bytes_max: limits.bodies_bytes_max.0,
        texts_max: limits.texts_max,
        text_bytes_max: limits.text_bytes_max.0,
        tokens_max,
        k_max: limits.k_max,
        points_max: limits.points_max,
        queue_texts_max: limits.queue_texts_max,
        queue_bytes_max: limits.queue_bytes_max.0,
        blocking_max: limits.blocking_max,
        blocking_queue_max: limits.blocking_queue_max,
        connections_max: limits.connections_max,
        head_ms: limits.head_ms,
        body_ms: limits.body_ms,
        request_ms: limits.request_ms,
        drain_ms: limits.drain_ms,
    }
}

/// What was done, and what waits
#[utoipa::path(
    get,
    path = "/api/v1/metal4/stats",
    tag = "metal4",
    responses((status = 200, description = "Counts, times, shares", body = StatsResponse))
)]
async fn stats(State(app): State<AppState>) -> Result<Json<StatsResponse>, ApiError> {
    let told = app.clone();
    let told = work::blocking(&app, move || statistics(&told)).await?;
    Ok(Json(told))
}

fn statistics(app: &AppState) -> Result<StatsResponse, ApiError> {
    let stats = app.engine.stats();
    let searches = &stats.searches;
    let pages = searches.pages;
    let queued: u64 = stats.lanes.iter().map(|lane| lane.requests).sum();
    let database = app.database();
    let (rows, dim) = database.map_or((0, 0), |d| (d.len(), d.dim()));
    Ok(StatsResponse {
        capabilities: StatsCapabilities {
            tier: stats.tier.map(|tier| tier.to_string()),
            device: stats.device.clone(),
            variant: stats.variant.clone(),
            model: app.model().ok().map(|model| model.name.clone()),
        },
        embedder: StatsEmbedder {
            calls: stats.embed_calls + queued,
            texts: stats.texts,
            tokens: stats.tokens,
            truncated: stats.truncated,
            degraded: stats.degraded,
            fallbacks: stats.fallbacks - searches.fallbacks.min(stats.fallbacks),
            last_fallback: stats.last_fallback.clone(),
            gpu_share: share(stats.texts_on_gpu, stats.texts),
            cpu_share: share(stats.texts_on_cpu, stats.texts),
            times: stats.embed_times,
            lanes: stats.lanes,
        },
        vector_search: StatsSearch {
            queries: stats.queries,
            times: stats.query_times,
            on_gpu: searches.on_gpu,
            on_cpu: searches.on_cpu,
            gpu_share: share(searches.on_gpu, searches.on_gpu + searches.on_cpu),
            cpu_share: share(searches.on_cpu, searches.on_gpu + searches.on_cpu),
            fallbacks: searches.fallbacks,
            last_fallback: searches.last_fallback.clone(),
            last: searches.last.clone(),
            database_rows: rows,
            database_bytes: rows * dim * size_of::<f32>(),
        },
        sparse_storage: StatsStorage {
            hits: pages.hits,
            misses: pages.misses,
            page_ins: pages.page_ins,
            page_outs: pages.page_outs,
            streamed: pages.streamed,
            bytes: pages.bytes,
            budget: pages.budget,
            collections: app.engine.collections()?.len(),
            gpu_memory: stats.gpu_memory.map(|memory| StatsGpuMemory {
                weights: memory.weights,
                work: memory.work,
                rows: memory.rows,
                search: memory.search,
                transfer: memory.transfer,
                other: memory.other,
                total: memory.total,
                peak: memory.peak,
            }),
        },
        benchmark: app.bench.progress(),
        uptime_s: app.started.elapsed().as_secs(),
    })
}

/// A part of a whole; none of nothing.
fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

/// Checks vectors, batches, searches and storage on this machine
#[utoipa::path(
    post,
    path = "/api/v1/metal4/validate",
    tag = "metal4",
    responses(
        (status = 200, description = "Each check and whether it passed", body = ValidateResponse),
        (status = 409, description = "Another is under way", body = crate::dto::error::Problem)
    )
)]
async fn validate(State(app): State<AppState>) -> Result<Json<ValidateResponse>, ApiError> {
    app.ready()?;
    let turn = app.bench.begin("validation")?;
    let engine = app.engine.clone();
    let checked = tokio::task::spawn_blocking(move || bench::check(&engine, &turn)).await;
    Ok(Json(checked.map_err(|e| ApiError::internal(&e))??))
}

/// Measures the speed of this machine
///
/// It ends at the next border between two measurements when the caller goes away.
#[utoipa::path(
    post,
    path = "/api/v1/metal4/benchmark",
    tag = "metal4",
    request_body(content = Option<BenchmarkRequest>),
    responses(
        (status = 200, description = "The figures", body = BenchmarkResponse),
        (status = 409, description = "Another is under way", body = crate::dto::error::Problem)
    )
)]
async fn benchmark(
    State(app): State<AppState>,
    OptionalJson(request): OptionalJson<BenchmarkRequest>,
) -> Result<Json<BenchmarkResponse>, ApiError> {
    app.ready()?;
    let turn = app.bench.begin("benchmark")?;
    let quick = request.unwrap_or_default().quick;
    let engine = app.engine.clone();
    // Dropped with this future when the client leaves.
    let (_waits, gone) = bench::waits();
    let work = move || bench::measure(&engine, quick, &turn, &gone);
    let measured = tokio::task::spawn_blocking(work).await;
    Ok(Json(measured.map_err(|e| ApiError::internal(&e))??))
}
