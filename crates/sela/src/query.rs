//! Questions and answers of a collection.

use sela_store::{Filter, Id, Payload};

pub use sela_index::Metric;

/// A question to a collection.
///
/// ```
/// use sela::{Metric, Query};
///
/// let query = Query::text("Who keeps sheep?").k(3).metric(Metric::Dot);
/// assert_eq!(query.k, 3);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What to be near to.
    pub near: Near,
    /// Words that texts should have besides, as [`sela_store::TextQuery`] reads them. The ranking
    /// by vectors and the one by words are then joined by the reciprocals of ranks; default: by
    /// vectors alone.
    pub words: Option<String>,
    /// How many of the nearest rows to answer with; default: 10. Fewer come only when fewer match.
    pub k: usize,
    /// How many of the nearest rows to pass over before those that are answered with; default: 0.
    /// Together with `k` it may be no more than [`sela_index::K_MAX`].
    pub offset: usize,
    /// The score a row must have to be answered with: at least this, and by vectors alone under L2
    /// at most; default: any.
    pub threshold: Option<f32>,
    /// How nearness is measured; default: as the collection was created for.
    pub metric: Option<Metric>,
    /// Which rows may answer; default: all.
    pub filter: Option<Filter>,
    /// Whether hits carry payload and text; default: yes. Without, answers of many hits are
    /// quicker.
    pub with_document: bool,
    /// Whether hits carry the vector; default: no.
    pub with_vector: bool,
}

/// What a query wants to be near to.
#[derive(Clone, Debug, PartialEq)]
pub enum Near {
    /// A text, embedded by the engine's model.
    Text(String),
    /// A vector of the collection's space.
    Vector(Vec<f32>),
    /// A row of the collection, which is not among the answers itself.
    Row(Id),
    /// Nothing: rows are found by these words in their texts, as [`sela_store::TextQuery`] reads
    /// them, and ranked by BM25. That needs no model.
    Words(String),
}

impl Query {
    /// The rows nearest to a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::near(Near::Text(text.into()))
    }

    /// The rows nearest to a vector.
    pub fn vector(vector: impl Into<Vec<f32>>) -> Self {
        Self::near(Near::Vector(vector.into()))
    }

    /// The rows whose texts have some words.
    pub fn words(words: impl Into<String>) -> Self {
        Self::near(Near::Words(words.into()))
    }

    /// The rows that are near to a text, or have its words, or best of all both.
    pub fn hybrid(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::text(text.clone()).and_words(text)
    }

    /// The rows nearest to something, with the defaults.
    pub fn near(near: Near) -> Self {
        Self {
            near,
            words: None,
            k: 10,
            offset: 0,
            threshold: None,
            metric: None,
            filter: None,
            with_document: true,
            with_vector: false,
        }
    }

    /// With words that texts should have besides.
    #[must_use]
    pub fn and_words(self, words: impl Into<String>) -> Self {
        Self {
            words: Some(words.into()),
            ..self
        }
    }

    /// With another number of hits.
    #[must_use]
    pub fn k(self, k: usize) -> Self {
        Self { k, ..self }
    }

    /// Without the first of the answers.
    #[must_use]
    pub fn offset(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// With a score that rows must have: at least this, and for L2 at most.
    #[must_use]
    pub fn threshold(self, score: f32) -> Self {
        Self {
            threshold: Some(score),
            ..self
        }
    }

    /// With another metric than the collection's.
    #[must_use]
    pub fn metric(self, metric: Metric) -> Self {
        Self {
            metric: Some(metric),
            ..self
        }
    }

    /// Among the rows that meet a condition.
    #[must_use]
    pub fn filter(self, filter: Filter) -> Self {
        Self {
            filter: Some(filter),
            ..self
        }
    }
}

impl Query {
    /// The words that rows are ranked by, if they are.
    pub(crate) fn ranking_words(&self) -> Option<&str> {
        match &self.near {
            Near::Words(words) => Some(words),
            _ => self.words.as_deref(),
        }
    }
}

/// A row near a query.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// Its name.
    pub id: Id,
    /// Cosine or inner product, the larger the nearer; for L2 the distance, the smaller the
    /// nearer. Found by words alone, its BM25 score; by both, the sum of `1 / (60 + rank)` over
    /// the rankings it is in.
    pub score: f32,
    /// Its score by vectors, if it is in that ranking.
    pub vector_score: Option<f32>,
    /// Its rank by vectors, from 1, if it is in that ranking.
    pub vector_rank: Option<u32>,
    /// Its score by words, if it is in that ranking.
    pub text_score: Option<f32>,
    /// Its rank by words, from 1, if it is in that ranking.
    pub text_rank: Option<u32>,
    /// Its text, if it has one and it was asked for.
    pub text: Option<String>,
    /// Its JSON object, if it has one and it was asked for.
    pub payload: Option<Payload>,
    /// Its vector, if it was asked for.
    pub vector: Option<Vec<f32>>,
}

/// The name of a metric as schemas and people write it.
pub fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::L2 => "l2",
    }
}

/// The metric of a name.
pub fn metric_named(name: &str) -> Option<Metric> {
    [Metric::Cosine, Metric::Dot, Metric::L2]
        .into_iter()
        .find(|&m| metric_name(m) == name)
}
