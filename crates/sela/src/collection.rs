//! A collection: rows of text, vector and payload under one name.

mod edit;
mod rank;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sela_encoder::TextInfo;
use sela_store::{
    Fields, Filter, Id, Info, Op, Page, Payload, Record, Report, Row, Schema, TextHit, TextQuery,
    View, Written,
};

use crate::engine::{Engine, OpenStore, warn_of_cut};
use crate::error::{Error, Result};
use crate::query::{self, Hit, Metric, Query, metric_named};
use crate::search::{Near, Stored, nearest};
use rank::Ranked;

/// How a collection is created; fixed from then on.
#[derive(Clone, Debug)]
pub struct CollectionOptions {
    /// Where the vectors come from; default: the engine's model.
    pub vectors: Vectors,
    /// How nearness is measured unless a query says otherwise; default: cosine.
    pub metric: Metric,
    /// How numbers are stored; default: f32. `F16` halves the space and rounds the vectors.
    pub record: Record,
    /// What else its creator wants to know of it: kept and given back, never read. Default: null.
    pub notes: serde_json::Value,
}

impl Default for CollectionOptions {
    fn default() -> Self {
        Self {
            vectors: Vectors::Model,
            metric: Metric::Cosine,
            record: Record::F32,
            notes: serde_json::Value::Null,
        }
    }
}

impl CollectionOptions {
    /// The defaults, for vectors of `dim` numbers that the engine's model did not make.
    pub fn external(dim: usize) -> Self {
        Self {
            vectors: Vectors::External { dim },
            ..Self::default()
        }
    }
}

/// Where the vectors of a collection come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// From the engine's model: texts can be stored and asked for. Vectors given by hand are taken
    /// from callers who declare them to come from that model too:
    /// [`Collection::declare_vectors`].
    Model,
    /// From elsewhere: only vectors can be stored and asked for.
    External {
        /// Numbers in each vector.
        dim: usize,
    },
}

/// A row to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name; a row of the same name is replaced.
    pub id: Id,
    /// Its text.
    pub text: Option<String>,
    /// Its vector; when there is none, the text is embedded.
    pub vector: Option<Vec<f32>>,
    /// Its JSON object, for filters and answers.
    pub payload: Option<Payload>,
}

impl Item {
    /// A text to be embedded.
    pub fn text(id: impl IntoId, text: impl Into<String>) -> Self {
        Self {
            id: id.into_id(),
            text: Some(text.into()),
            vector: None,
            payload: None,
        }
    }

    /// A vector to be stored as it is; where texts can be asked for, see
    /// [`Collection::declare_vectors`].
    pub fn vector(id: impl IntoId, vector: impl Into<Vec<f32>>) -> Self {
        Self {
            id: id.into_id(),
            text: None,
            vector: Some(vector.into()),
            payload: None,
        }
    }

    /// With a JSON object.
    #[must_use]
    pub fn payload(self, payload: Payload) -> Self {
        Self {
            payload: Some(payload),
            ..self
        }
    }
}

/// What can name a row: an [`Id`], a number, or a string (which may read as a UUID).
pub trait IntoId {
    /// The id.
    fn into_id(self) -> Id;
}

impl IntoId for Id {
    fn into_id(self) -> Id {
        self
    }
}

impl IntoId for u64 {
    fn into_id(self) -> Id {
        Id::Num(self)
    }
}

impl IntoId for &str {
    fn into_id(self) -> Id {
        // What is no id is refused by the store, by name.
        Id::from_text(self).unwrap_or_else(|_| Id::Str(self.to_owned()))
    }
}

impl IntoId for String {
    fn into_id(self) -> Id {
        self.as_str().into_id()
    }
}

/// What [`Collection::upsert`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upserted {
    /// What reached the disk.
    pub written: Written,
    /// Texts that were longer than the model reads and were cut.
    pub truncated: u64,
}

/// An open collection. Clones share it; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct Collection {
    engine: Engine,
    name: String,
    store: Arc<OpenStore>,
    /// Whether vectors that are given count as the model's own.
    declared: bool,
}

impl Collection {
    pub(crate) fn new(engine: Engine, name: &str, store: Arc<OpenStore>) -> Self {
        Self {
            engine,
            name: name.to_owned(),
            store,
            declared: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds: dimensions, metric, space, provenance.
    pub fn schema(&self) -> &Schema {
        self.store.schema()
    }

    /// How nearness is measured unless a query says otherwise.
    pub fn metric(&self) -> Metric {
        self.schema()
            .metric
            .as_deref()
            .and_then(metric_named)
            .unwrap_or(Metric::Cosine)
    }

    /// What its creator noted.
    pub fn notes(&self) -> &serde_json::Value {
        self.schema()
            .provenance
            .get("notes")
            .unwrap_or(&serde_json::Value::Null)
    }

    /// Whether texts can be stored and asked for: fails where the vectors are not of the engine's
    /// model.
    pub fn check_texts(&self) -> Result<()> {
        self.check_space()
    }

    /// This collection for a caller who declares that the vectors it stores were made by the
    /// engine's model, so that they may be compared with those of texts.
    ///
    /// Fails where that cannot be: in a collection of another model's vectors, and in one created
    /// for vectors from elsewhere.
    ///
    /// ```no_run
    /// # let engine = sela::Engine::open(sela::Options::new("/var/lib/sela"))?;
    /// use sela::{CollectionOptions, Item};
    ///
    /// let notes = engine.collection_or_create("notes", &CollectionOptions::default())?;
    /// let kept = engine.embed("Sow the beans after the last frost.")?;
    /// notes.declare_vectors()?.upsert(&[Item::vector(1, kept)])?;
    /// # Ok::<(), sela::Error>(())
    /// ```
    pub fn declare_vectors(&self) -> Result<Self> {
        if self.is_external() {
            return Err(Error::DeclaredExternal {
                name: self.name.clone(),
            });
        }
        self.check_space()?;
        Ok(Self {
            declared: true,
            ..self.clone()
        })
    }

    /// Stores items, replacing those of the same ids; all or none, and durable when it returns.
    ///
    /// Where texts can be asked for, vectors need [`Collection::declare_vectors`].
    pub fn upsert(&self, items: &[Item]) -> Result<Upserted> {
        let (rows, truncated) = self.rows_of(items)?;
        let ops: Vec<Op> = rows.into_iter().map(Op::Upsert).collect();
        Ok(Upserted {
            written: self.store.write(&ops)?,
            truncated,
        })
    }

    /// Removes rows; those that are not there are passed over. Durable when it returns.
    pub fn delete(&self, ids: &[Id]) -> Result<Written> {
        let ops: Vec<Op> = ids.iter().cloned().map(Op::Delete).collect();
        Ok(self.store.write(&ops)?)
    }

    /// The rows a query finds, the nearest or best first; equals in the order they were stored.
    ///
    /// If the query's text was longer than the model reads, only the log tells; use
    /// [`Collection::query_with_info`] to know.
    pub fn query(&self, query: &Query) -> Result<Vec<Hit>> {
        let (hits, info) = self.query_with_info(query)?;
        warn_of_cut(info.as_ref());
        Ok(hits)
    }

    /// As [`Collection::query`], with what is known of the query's text, if it has one: how many
    /// tokens it has, and whether it was cut.
    pub fn query_with_info(&self, query: &Query) -> Result<(Vec<Hit>, Option<TextInfo>)> {
        match &query.near {
            query::Near::Vector(vector) => Ok((self.answer(Some(vector), query)?, None)),
            query::Near::Words(_) => Ok((self.answer(None, query)?, None)),
            query::Near::Text(text) => {
                self.check_space()?;
                let embedded = self.engine.embed_batch(&[text])?;
                let hits = self.answer(Some(&embedded.vectors), query)?;
                Ok((hits, embedded.info.first().copied()))
            }
            query::Near::Row(id) => {
                let vector = Fields {
                    vector: true,
                    ..Fields::ID
                };
                let found = self.get(std::slice::from_ref(id), vector)?;
                let Some(row) = found.into_iter().next().flatten() else {
                    let (name, id) = (self.name.clone(), id.clone());
                    return Err(Error::NoRow { name, id });
                };
                let mut others = vec![Filter::Not(Box::new(Filter::HasId(vec![row.id])))];
                others.extend(query.filter.clone());
                let others = query.clone().filter(Filter::And(others));
                Ok((self.answer(Some(&row.vector), &others)?, None))
            }
        }
    }

    /// The rows that a query finds, by a vector if there is one and by words if there are any,
    /// told as the query says.
    fn answer(&self, vector: Option<&[f32]>, query: &Query) -> Result<Vec<Hit>> {
        let began = Instant::now();
        let view = self.store.view()?;
        let mut ranked = self.rank(&view, vector, query)?;
        ranked.drain(..query.offset.min(ranked.len()));
        ranked.truncate(query.k);
        let metric = query.metric.unwrap_or(self.metric());
        let is_distance = metric == Metric::L2 && query.ranking_words().is_none();
        if let Some(threshold) = query.threshold {
            ranked.retain(|row| match is_distance {
                true => row.score <= threshold,
                false => row.score >= threshold,
            });
        }
        let places: Vec<_> = ranked.iter().map(|row| row.place).collect();
        let fields = Fields {
            vector: query.with_vector,
            payload: query.with_document,
            text: query.with_document,
        };
        let rows = self.store.fetch(&view, &places, fields)?;
        self.engine.count_query(began.elapsed());
        let hit = |(row, ranked): (Row, Ranked)| Hit {
            id: row.id,
            score: ranked.score,
            vector_score: ranked.by_vector.map(|(score, _)| score),
            vector_rank: ranked.by_vector.map(|(_, rank)| rank),
            text_score: ranked.by_words.map(|(score, _)| score),
            text_rank: ranked.by_words.map(|(_, rank)| rank),
            text: row.text,
            payload: row.payload,
            vector: query.with_vector.then_some(row.vector),
        };
        Ok(rows.into_iter().zip(ranked).map(hit).collect())
    }

    /// The best rows of a view, at least `offset + k` of them where there are so many.
    fn rank(&self, view: &View, vector: Option<&[f32]>, query: &Query) -> Result<Vec<Ranked>> {
        // What cannot be asked is told before anything is read.
        let words = query.ranking_words().map(TextQuery::parse).transpose();
        let words = words.map_err(sela_store::Error::from)?;
        let searcher = vector
            .map(|vector| self.check_dim(vector).and_then(|()| self.engine.searcher()))
            .transpose()?;
        let chosen = match &query.filter {
            Some(filter) => Some(self.store.select(view, filter)?),
            None => None,
        };
        let chosen = chosen.as_deref();
        let k = query.k.saturating_add(query.offset);
        let near = |k| -> Result<Vec<Near>> {
            let (Some(searcher), Some(vector)) = (&searcher, vector) else {
                return Ok(Vec::new());
            };
            let metric = query.metric.unwrap_or(self.metric());
            nearest(searcher, &Stored { view, chosen }, vector, k, metric)
        };
        let Some(words) = words else {
            return Ok(rank::by_vector(&near(k)?));
        };
        if vector.is_none() {
            let hits = self.found_by_words(view, &words, k, chosen)?;
            return Ok(rank::by_words(&hits));
        }
        let k = k.max(rank::RANKED_MIN);
        let hits = self.found_by_words(view, &words, k, chosen)?;
        rank::fused(view, &near(k)?, &hits)
    }

    /// The rows whose texts match best; refuses where no row has a text.
    fn found_by_words(
        &self,
        view: &View,
        words: &TextQuery,
        k: usize,
        chosen: Option<&[Vec<u64>]>,
    ) -> Result<Vec<TextHit>> {
        let hits = self.store.search_text(view, words, k, chosen)?;
        if hits.is_empty() && view.live_rows() > 0 && !self.store.has_texts()? {
            return Err(Error::NoTexts {
                name: self.name.clone(),
            });
        }
        Ok(hits)
    }

    fn check_dim(&self, vector: &[f32]) -> Result<()> {
        let (expected, found) = (self.schema().dim as usize, vector.len());
        if found == expected {
            return Ok(());
        }
        let name = self.name.clone();
        Err(Error::QueryDim {
            name,
            expected,
            found,
        })
    }

    /// Rows by id, in the order asked for; `None` where there is none.
    pub fn get(&self, ids: &[Id], fields: Fields) -> Result<Vec<Option<Row>>> {
        Ok(self.store.get(ids, fields)?)
    }

    /// How many rows there are, or how many meet a condition.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        Ok(self.store.count(filter)?)
    }

    /// A page of rows in the order they were stored, after the sequence number `after`.
    pub fn scroll(
        &self,
        after: Option<u64>,
        limit: usize,
        filter: Option<&Filter>,
        fields: Fields,
    ) -> Result<Page> {
        Ok(self.store.scroll(after, limit, filter, fields)?)
    }

    /// Reads everything again and names every fault.
    pub fn verify(&self) -> Result<Report> {
        Ok(self.store.verify()?)
    }

    /// Writes a second collection with the same contents into a new folder.
    pub fn snapshot(&self, to: &Path) -> Result<()> {
        Ok(self.store.snapshot(to)?)
    }

    /// How it stands: rows, segments, bytes.
    pub fn info(&self) -> Result<Info> {
        Ok(self.store.info()?)
    }

    /// Makes the full-text index anew from the texts.
    pub fn renew_text_index(&self) -> Result<()> {
        Ok(self.store.renew_text_index()?)
    }

    /// A digest of the contents, the same for equal contents.
    pub fn fingerprint(&self) -> Result<u128> {
        Ok(self.store.fingerprint()?)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn store(&self) -> &sela_store::Collection {
        &self.store
    }

    /// Rows with vectors: those given, and those the model makes of the texts.
    pub(crate) fn rows_of(&self, items: &[Item]) -> Result<(Vec<Row>, u64)> {
        self.check_declared(items)?;
        let mut texts = Vec::new();
        for item in items.iter().filter(|i| i.vector.is_none()) {
            match &item.text {
                Some(text) => texts.push(text.as_str()),
                None => {
                    return Err(Error::EmptyItem {
                        id: item.id.clone(),
                    });
                }
            }
        }
        let mut made = Vec::new();
        let mut truncated = 0;
        if !texts.is_empty() {
            self.check_space()?;
            let embedded = self.engine.embed_batch(&texts)?;
            truncated = embedded.info.iter().filter(|i| i.truncated).count() as u64;
            made = embedded
                .vectors
                .chunks_exact(embedded.dim)
                .map(<[f32]>::to_vec)
                .collect();
        }
        let mut made = made.into_iter();
        let row = |item: &Item| Row {
            id: item.id.clone(),
            vector: item
                .vector
                .clone()
                .or_else(|| made.next())
                .unwrap_or_default(),
            payload: item.payload.clone(),
            text: item.text.clone(),
        };
        Ok((items.iter().map(row).collect(), truncated))
    }

    /// Whether its vectors were made elsewhere.
    fn is_external(&self) -> bool {
        self.schema().space.starts_with("external:")
    }

    /// Refuses vectors that would be compared with a model's though nobody says it made them.
    fn check_declared(&self, items: &[Item]) -> Result<()> {
        if self.declared || self.is_external() {
            return Ok(());
        }
        match items.iter().find(|i| i.vector.is_some()) {
            None => Ok(()),
            Some(item) => Err(Error::Undeclared {
                id: item.id.clone(),
                name: self.name.clone(),
                built_with: self.built_with().to_owned(),
            }),
        }
    }

    /// Refuses texts where the collection's vectors are not of the engine's model.
    fn check_space(&self) -> Result<()> {
        if self.is_external() {
            return Err(Error::ExternalSpace {
                name: self.name.clone(),
            });
        }
        let space = self.engine.encoder()?.space();
        if space.to_string() == self.schema().space {
            return Ok(());
        }
        Err(Error::OtherSpace {
            name: self.name.clone(),
            built_with: self.built_with().to_owned(),
            model: space.model,
        })
    }

    /// The model that made its vectors, as far as is known.
    fn built_with(&self) -> &str {
        let schema = self.schema();
        let model = schema.provenance.pointer("/made/model");
        model.and_then(|m| m.as_str()).unwrap_or(&schema.space)
    }
}
