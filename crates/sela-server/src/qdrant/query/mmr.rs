//! Answers that differ from one another: maximal marginal relevance.

use sela::{Hit, Metric};
use serde_json::Value;

use super::super::unsupported;
use crate::error::ApiError;

/// Most points that are chosen among: each is compared with all that are chosen.
const CANDIDATES_MAX: usize = 1000;

/// How much answers are to differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mmr {
    /// From 0, which is nearness alone, to 1.
    pub(super) diversity: f64,
    /// How many of the nearest to choose among.
    pub(super) candidates: Option<usize>,
}

impl Mmr {
    /// Reads what stands beside `nearest`.
    pub(super) fn read(json: &Value) -> Result<Self, ApiError> {
        let wanted = || {
            let detail = "`mmr` is an object of a `diversity` and a `candidates_limit`";
            ApiError::malformed("invalid_field", detail).field("query.mmr")
        };
        let mut mmr = Self {
            diversity: 0.5,
            candidates: None,
        };
        for (name, value) in json.as_object().ok_or_else(wanted)? {
            match name.as_str() {
                _ if value.is_null() => {}
                "diversity" => mmr.diversity = value.as_f64().ok_or_else(wanted)?,
                "candidates_limit" => {
                    let count = value.as_u64().ok_or_else(wanted)?;
                    mmr.candidates = Some(usize::try_from(count).unwrap_or(usize::MAX));
                }
                _ => return Err(wanted()),
            }
        }
        if !(0.0..=1.0).contains(&mmr.diversity) {
            let detail = format!("diversity is {}, and it may be 0 to 1", mmr.diversity);
            return Err(ApiError::invalid("query.mmr.diversity", detail));
        }
        Ok(mmr)
    }

    /// How many to choose among where `count` are to be chosen.
    pub(super) fn candidates(&self, count: usize) -> Result<usize, ApiError> {
        let candidates = self.candidates.unwrap_or(count).max(count);
        match candidates <= CANDIDATES_MAX {
            true => Ok(candidates),
            false => {
                let detail = format!(
                    "{candidates} points are to be chosen among, and it may be {CANDIDATES_MAX}"
                );
                Err(ApiError::invalid("query.mmr.candidates_limit", detail))
            }
        }
    }

    /// Chooses so many of the hits, which carry vectors, in the order they are chosen: each time
    /// the one that is near to the query and far from those before.
    pub(super) fn choose(
        &self,
        mut hits: Vec<Hit>,
        count: usize,
        metric: Metric,
    ) -> Result<Vec<Hit>, ApiError> {
        if metric == Metric::L2 {
            return Err(unsupported("`mmr` in collections of the distance Euclid"));
        }
        // The largest likeness of each to one that is chosen.
        let mut likeness = vec![f64::NEG_INFINITY; hits.len()];
        let mut chosen: Vec<Hit> = Vec::with_capacity(count.min(hits.len()));
        while chosen.len() < count && !hits.is_empty() {
            if let Some(last) = chosen.last() {
                for (hit, likeness) in hits.iter().zip(&mut likeness) {
                    *likeness = likeness.max(like(hit, last, metric));
                }
            }
            let worth = |at: usize| {
                let near = (1.0 - self.diversity) * f64::from(hits[at].score);
                match chosen.is_empty() {
                    // The first is the nearest, however much they are to differ.
                    true => f64::from(hits[at].score),
                    false => near - self.diversity * likeness[at],
                }
            };
            // Of equals the nearer, which comes first.
            let best = (1..hits.len()).fold(
                0,
                |best, at| {
                    if worth(at) > worth(best) { at } else { best }
                },
            );
            chosen.push(hits.remove(best));
            likeness.remove(best);
        }
        Ok(chosen)
    }
}

/// How alike two hits are, by the collection's measure.
fn like(a: &Hit, b: &Hit, metric: Metric) -> f64 {
    let (Some(a), Some(b)) = (&a.vector, &b.vector) else {
        return 0.0;
    };
    let product = |a: &[f32], b: &[f32]| -> f64 {
        let terms = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y));
        terms.sum()
    };
    let lengths = match metric {
        Metric::Cosine => (product(a, a) * product(b, b)).sqrt(),
        _ => 1.0,
    };
    match lengths > 0.0 {
        true => product(a, b) / lengths,
        false => 0.0,
    }
}
