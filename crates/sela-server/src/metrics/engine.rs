//! What the engine knows of itself.

use sela::{LaneStats, Stats};

use super::page::{Labels, Page};

/// Tells all of it.
pub(super) fn tell(stats: &Stats, page: &mut Page) {
    device(stats, page);
    texts(stats, page);
    queue(&stats.lanes, page);
    batches(&stats.lanes, page);
    searches(stats, page);
    pages(stats, page);
    codes(stats, page);
}

fn device(stats: &Stats, page: &mut Page) {
    let tier = stats.tier.map(|tier| tier.to_string());
    let words = [
        ("tier", tier),
        ("device", stats.device.clone()),
        ("variant", stats.variant.clone()),
        ("search_device", stats.searches.device.clone()),
    ];
    let words = words.map(|(name, value)| (name, value.unwrap_or_default()));
    page.info(
        "sela_device",
        "What does the work: empty until the model is read",
        words.to_vec(),
    );
    let searches = stats.searches.fallbacks;
    let kinds = [
        ("embed", stats.fallbacks.saturating_sub(searches)),
        ("search", searches),
    ];
    page.counters(
        "sela_fallbacks",
        "Times that the GPU failed and the CPU did the work",
        kinds.map(|(kind, count)| (label("kind", kind), count as f64)),
    );
}

fn texts(stats: &Stats, page: &mut Page) {
    page.counter(
        "sela_embed_texts",
        "Texts that were embedded",
        stats.texts as f64,
    );
    page.counter(
        "sela_embed_tokens",
        "Tokens that were encoded",
        stats.tokens as f64,
    );
    page.counter(
        "sela_embed_truncated",
        "Texts that were cut to the model's length",
        stats.truncated as f64,
    );
    page.counter(
        "sela_embed_degraded",
        "Texts computed again: a number was not finite, or the GPU failed",
        stats.degraded as f64,
    );
    page.counter(
        "sela_embed_padding_tokens",
        "Tokens computed only to fill a batch: always 0, as texts are packed end to end",
        0.0,
    );
}

/// What waits, and what became of it.
fn queue(lanes: &[LaneStats], page: &mut Page) {
    let gauge = |of: fn(&LaneStats) -> f64| of_lanes(lanes, of);
    page.gauges(
        "sela_queue_texts",
        "Texts that wait for the encoder",
        gauge(|lane| lane.queued_texts as f64),
    );
    page.gauges(
        "sela_queue_bytes",
        "Bytes of the texts that wait",
        gauge(|lane| lane.queued_bytes as f64),
    );
    page.gauges(
        "sela_queue_oldest_seconds",
        "How long the oldest request with texts that wait is there",
        gauge(|lane| lane.oldest.as_secs_f64()),
    );
    page.counters(
        "sela_queue_requests",
        "Requests that were accepted",
        gauge(|lane| lane.requests as f64),
    );
    page.counters(
        "sela_queue_refused",
        "Requests that there was no room for: their callers hear 429",
        gauge(|lane| lane.refused as f64),
    );
    page.counters(
        "sela_queue_cancelled",
        "Requests that nobody waited for any more",
        gauge(|lane| lane.cancelled as f64),
    );
    page.counters(
        "sela_queue_expired",
        "Requests whose time was over",
        gauge(|lane| lane.expired as f64),
    );
    page.counters(
        "sela_queue_failed",
        "Requests that failed",
        gauge(|lane| lane.failed as f64),
    );
    page.counters(
        "sela_queue_took_seconds",
        "Time from a request's coming to its answer, all requests together",
        gauge(|lane| lane.took.total.as_secs_f64()),
    );
}

fn batches(lanes: &[LaneStats], page: &mut Page) {
    page.gauges(
        "sela_batches_running",
        "Batches under way",
        of_lanes(lanes, |lane| lane.running as f64),
    );
    page.counters(
        "sela_batches_held_seconds",
        "Time that batches held the device, all together",
        of_lanes(lanes, |lane| lane.held.total.as_secs_f64()),
    );
    page.histograms(
        "sela_batch_tokens",
        "Tokens of a batch",
        lanes
            .iter()
            .map(|lane| (label("lane", lane.lane.name()), &lane.batch_tokens)),
    );
    page.histograms(
        "sela_batch_requests",
        "Requests in a batch",
        lanes
            .iter()
            .map(|lane| (label("lane", lane.lane.name()), &lane.batch_requests)),
    );
}

fn searches(stats: &Stats, page: &mut Page) {
    let searches = &stats.searches;
    page.counter(
        "sela_search_queries",
        "Queries that were answered",
        stats.queries as f64,
    );
    page.counter(
        "sela_search_seconds",
        "Time spent on them, embedding apart",
        stats.query_time.as_secs_f64(),
    );
    let devices = [("gpu", searches.on_gpu), ("cpu", searches.on_cpu)];
    page.counters(
        "sela_searches",
        "Searches by the device that did them",
        devices.map(|(device, count)| (label("device", device), count as f64)),
    );
}

/// Pages of vectors in the GPU's memory.
fn pages(stats: &Stats, page: &mut Page) {
    let pages = &stats.searches.pages;
    for (name, help, count) in [
        (
            "sela_gpu_cache_hits",
            "Pages that a search needed and found in the GPU's memory",
            pages.hits,
        ),
        (
            "sela_gpu_cache_misses",
            "Pages that a search needed and did not find there",
            pages.misses,
        ),
        (
            "sela_gpu_cache_page_ins",
            "Pages brought there",
            pages.page_ins,
        ),
        (
            "sela_gpu_cache_page_outs",
            "Pages given up for others",
            pages.page_outs,
        ),
        (
            "sela_gpu_cache_streamed",
            "Pages that passed through and did not stay",
            pages.streamed,
        ),
    ] {
        page.counter(name, help, count as f64);
    }
    page.gauge(
        "sela_gpu_cache_bytes",
        "Bytes of vectors in the GPU's memory",
        pages.bytes as f64,
    );
    page.gauge(
        "sela_gpu_cache_budget_bytes",
        "Most bytes of vectors that may be there",
        pages.budget as f64,
    );
}

/// Codes of vectors in the CPU's memory.
fn codes(stats: &Stats, page: &mut Page) {
    let codes = &stats.searches.codes;
    for (name, help, count) in [
        (
            "sela_scan_cache_hits",
            "Portions of vectors whose codes a search on the CPU found",
            codes.hits,
        ),
        (
            "sela_scan_cache_misses",
            "Portions that it scanned in full, for they had no codes",
            codes.misses,
        ),
        (
            "sela_scan_cache_made",
            "Portions that were given codes",
            codes.made,
        ),
        (
            "sela_scan_cache_dropped",
            "Portions whose codes were given up for others",
            codes.dropped,
        ),
        (
            "sela_scan_rescored",
            "Vectors of portions with codes that were scored from their numbers",
            codes.rescored,
        ),
        (
            "sela_scan_overflows",
            "Times that codes were there and vectors were scanned in full nevertheless",
            codes.overflows,
        ),
    ] {
        page.counter(name, help, count as f64);
    }
    page.gauge(
        "sela_scan_cache_bytes",
        "Bytes of codes of vectors in memory",
        codes.bytes as f64,
    );
    page.gauge(
        "sela_scan_cache_budget_bytes",
        "Most bytes of codes that may be there",
        codes.budget as f64,
    );
}

fn of_lanes(lanes: &[LaneStats], of: fn(&LaneStats) -> f64) -> Vec<(Labels, f64)> {
    let series = lanes
        .iter()
        .map(|lane| (label("lane", lane.lane.name()), of(lane)));
    series.collect()
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}
