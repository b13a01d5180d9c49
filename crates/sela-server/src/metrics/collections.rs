//! Sizes of the collections. Looking costs a query each, so they are looked at once in a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::page::{Labels, Page};
use crate::state::AppState;

/// Collections that have a series of their own, the first by name.
const TOLD_MAX: usize = 100;
/// Collections that are looked at; more are only counted.
const LOOKED_AT_MAX: usize = 1000;
/// How long sizes are taken for true.
const FRESH: Duration = Duration::from_secs(10);
/// The label of all that have no series of their own, and of a collection of this very name.
const OTHER: &str = "_other";

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct Sizes(Mutex<Option<(Instant, Seen)>>);

#[derive(Debug, Default)]
struct Seen {
    count: usize,
    unread: usize,
    rows: Vec<(Labels, f64)>,
    bytes: Vec<(Labels, f64)>,
}

impl Sizes {
    /// Tells them. Blocks.
    pub(super) fn tell(&self, app: &AppState, page: &mut Page) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = slot.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !fresh {
            *slot = Some((Instant::now(), Seen::of(app)));
        }
        let Some((_, seen)) = &*slot else { return };
        page.gauge("sela_collections", "Collections", seen.count as f64);
        page.gauge(
            "sela_collections_unread",
            "Collections whose sizes are not told: they cannot be read, or are too many",
            seen.unread as f64,
        );
        page.gauges(
            "sela_collection_rows",
            "Rows of a collection that answer; of collections after the first 100 together",
            seen.rows.iter().cloned(),
        );
        page.gauges(
            "sela_collection_bytes",
            "Bytes of a collection on the disk; of collections after the first 100 together",
            seen.bytes.iter().cloned(),
        );
    }
}

impl Seen {
    fn of(app: &AppState) -> Self {
        let names = match app.engine.collections() {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the collections cannot be listed");
                return Self::default();
            }
        };
        let mut seen = Self {
            count: names.len(),
            unread: names.len().saturating_sub(LOOKED_AT_MAX),
            ..Self::default()
        };
        let mut other = None;
        for (at, name) in names.into_iter().take(LOOKED_AT_MAX).enumerate() {
            // One that is open for writing is looked at as it is; others are opened for this alone.
            let info = app
                .engine
                .collection_read_only(&name)
                .and_then(|c| c.info());
            let Ok(info) = info else {
                seen.unread += 1;
                continue;
            };
            let (rows, bytes) = (info.rows_live, info.segment_bytes + info.catalog_bytes);
            if at < TOLD_MAX && name != OTHER {
                seen.add(&name, rows, bytes);
            } else {
                let (all_rows, all_bytes) = other.get_or_insert((0, 0));
                *all_rows += rows;
                *all_bytes += bytes;
            }
        }
        if let Some((rows, bytes)) = other {
            seen.add(OTHER, rows, bytes);
        }
        seen
    }

    fn add(&mut self, name: &str, rows: u64, bytes: u64) {
        let labels = vec![("collection", name.to_owned())];
        self.rows.push((labels.clone(), rows as f64));
        self.bytes.push((labels, bytes as f64));
    }
}
