//! One ranking out of two: by vectors and by words.

use std::collections::HashMap;

use sela_store::{Place, TextHit, View};

use crate::error::Result;
use crate::search::Near;

/// What ranks are counted from in the sum of `1 / (60 + rank)`: of the method's authors (Cormack,
/// Clarke and Büttcher, 2009), who found that little depends on it.
const RANK_OFFSET: f64 = 60.0;

/// Rows that each ranking brings at least when two are joined: a row high in one and further down
/// in the other should not lose what that adds.
pub(super) const RANKED_MIN: usize = 100;

/// A row and how it came to be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ranked {
    pub(super) place: Place,
    pub(super) score: f32,
    /// Its score by vectors and its rank there, from 1.
    pub(super) by_vector: Option<(f32, u32)>,
    /// Its score by words and its rank there, from 1.
    pub(super) by_words: Option<(f32, u32)>,
}

pub(super) fn by_vector(near: &[Near]) -> Vec<Ranked> {
    let ranked = (1..).zip(near).map(|(rank, near)| Ranked {
        place: near.place,
        score: near.score,
        by_vector: Some((near.score, rank)),
        by_words: None,
    });
    ranked.collect()
}

pub(super) fn by_words(hits: &[TextHit]) -> Vec<Ranked> {
    let ranked = (1..).zip(hits).map(|(rank, hit)| Ranked {
        place: hit.place,
        score: hit.score as f32,
        by_vector: None,
        by_words: Some((hit.score as f32, rank)),
    });
    ranked.collect()
}

/// Joins two rankings by reciprocal ranks; equals stand in the order they were stored.
pub(super) fn fused(view: &View, near: &[Near], hits: &[TextHit]) -> Result<Vec<Ranked>> {
    let mut rows: HashMap<Place, (u64, f64, Ranked)> = HashMap::new();
    let term = |ranked: &Ranked| {
        let (_, rank) = ranked.by_vector.or(ranked.by_words).unwrap_or_default();
        1.0 / (RANK_OFFSET + f64::from(rank))
    };
    for ranked in by_vector(near) {
        let place = ranked.place;
        let seqs = view.parts()[place.part as usize].seqs()?;
        rows.insert(place, (seqs.get(place.row), term(&ranked), ranked));
    }
    for (ranked, hit) in by_words(hits).into_iter().zip(hits) {
        let term = term(&ranked);
        rows.entry(ranked.place)
            .and_modify(|(_, score, row)| {
                *score += term;
                row.by_words = ranked.by_words;
            })
            .or_insert((hit.seq, term, ranked));
    }
    let mut rows: Vec<(u64, f64, Ranked)> = rows.into_values().collect();
    rows.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let scored = |(_, score, row): (u64, f64, Ranked)| Ranked {
        score: score as f32,
        ..row
    };
    Ok(rows.into_iter().map(scored).collect())
}
