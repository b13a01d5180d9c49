//! Measurements and checks of a running server: one at a time, told in `/stats`, ended when nobody
//! waits for them any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sela::bench::{BenchOptions, Figure, Workload};
use sela::{Engine, validate};

use crate::dto::metal4::{BenchProgress, BenchmarkResponse, ValidateResponse};
use crate::error::ApiError;

/// Rows that are searched in a quick run.
const QUICK_ROWS: usize = 10_000;
/// How long a quick run goes on to begin measurements.
const QUICK_TIME: Duration = Duration::from_secs(4);

/// The one that may be under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bench {
    state: Arc<Mutex<Option<BenchProgress>>>,
}

/// The right to be the one under way; until it is dropped there is no other.
pub(crate) struct Turn {
    bench: Bench,
}

/// Tells a run that nobody waits for it: when this is dropped.
pub(crate) struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bench {
    /// Begins something, unless another is under way.
    pub(crate) fn begin(&self, what: &'static str) -> Result<Turn, ApiError> {
        let mut state = self.lock();
        if let Some(other) = &*state {
            let detail = format!("a {} is under way, and only one may be", other.what);
            return Err(ApiError::conflict("under_way", detail).hint("/stats tells how far it is"));
        }
        *state = Some(BenchProgress {
            what: what.to_owned(),
            step: None,
            done: 0,
        });
        Ok(Turn {
            bench: self.clone(),
        })
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Option<BenchProgress> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<BenchProgress>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.bench.lock() = None;
    }
}

impl Turn {
    fn step(&self, name: &str) {
        if let Some(progress) = self.bench.lock().as_mut() {
            progress.step = Some(name.to_owned());
        }
    }

    fn done(&self) {
        if let Some(progress) = self.bench.lock().as_mut() {
            progress.done += 1;
        }
    }
}

/// A sign that somebody waits, and what the run looks at.
pub(crate) fn waits() -> (Waits, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    (Waits(gone.clone()), gone)
}

/// Measures; looks between two measurements whether somebody still waits.
pub(crate) fn measure(
    engine: &Engine,
    quick: bool,
    turn: &Turn,
    gone: &AtomicBool,
) -> Result<BenchmarkResponse, ApiError> {
    let workloads: &[Workload] = match quick {
        true => &[Workload::Single, Workload::Search, Workload::Batch],
        false => &[
            Workload::Single,
            Workload::Batch,
            Workload::Bulk,
            Workload::Long,
            Workload::Search,
            Workload::Storage,
        ],
    };
    let mut options = BenchOptions {
        devices: vec![engine.options().device],
        ..BenchOptions::default()
    };
    if quick {
        options.sizes = vec![QUICK_ROWS];
    }
    let began = Instant::now();
    let (mut results, mut left_out) = (Vec::new(), Vec::new());
    for &workload in workloads {
        if gone.load(Ordering::Relaxed) {
            break;
        }
        if quick && began.elapsed() > QUICK_TIME {
            left_out.push(workload.name());
            continue;
        }
        options.only = vec![workload];
        let mut sink = |workload: Workload, figure: Option<&Figure>| match figure {
            None => turn.step(workload.name()),
            Some(_) => turn.done(),
        };
        let report = sela::bench::run(engine, &options, &mut sink)?;
        for figure in &report.results {
            results.push(serde_json::to_value(figure).map_err(|e| ApiError::internal(&e))?);
        }
    }
    let message = match (quick, left_out.as_slice()) {
        (false, _) => "measured".to_owned(),
        (true, []) => "measured quickly: a few calls of each".to_owned(),
        (true, left_out) => {
            let left_out = left_out.join(", ");
            format!("measured quickly: a few calls of each; there was no time for {left_out}")
        }
    };
    Ok(BenchmarkResponse {
        benchmark_results: results,
        message,
    })
}

/// Checks vectors, searches and storage.
pub(crate) fn check(engine: &Engine, turn: &Turn) -> Result<ValidateResponse, ApiError> {
    let checks = validate::run(engine, &mut |check| {
        turn.step(&check.name);
        turn.done();
    })?;
    let mut results = BTreeMap::new();
    let (mut skipped, mut found) = (BTreeMap::new(), BTreeMap::new());
    for check in checks {
        let (passed, text) = match &check.outcome {
            validate::Outcome::Pass { found } => (true, found),
            validate::Outcome::Fail { found } => (false, found),
            // What cannot be checked here has neither passed nor failed.
            validate::Outcome::Skipped { lacks } => {
                skipped.insert(check.name, lacks.clone());
                continue;
            }
        };
        found.insert(check.name.clone(), text.clone());
        results.insert(check.name, passed);
    }
    Ok(ValidateResponse {
        all_tests_passed: results.values().all(|&passed| passed),
        validation_results: results,
        found,
        skipped,
    })
}
