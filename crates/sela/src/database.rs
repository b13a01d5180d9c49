//! Vectors in memory that are searched and not stored.

use std::sync::Arc;
use std::time::Instant;

use sela_index::{DIM_MAX, HITS_MAX, Metric, NORM_MAX, Rows, SearchOptions};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::search::from_index;

/// Most bytes of the vectors of a [`Database`]: 8 GiB.
pub const DATABASE_BYTES_MAX: u64 = 8 << 30;

/// Vectors in memory, of one length, that never change. Clones share them.
///
/// ```
/// # let home = tempfile::tempdir()?;
/// use sela::{Database, Engine, Metric, Options};
///
/// let engine = Engine::open(Options::new(home.path()))?;
/// let colours = Database::new(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3)?;
/// let found = engine.search_database(&colours, &[0.0, 0.5, 0.0], 1, Metric::L2)?;
/// assert_eq!((found[0].row, found[0].score), (1, 0.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Database {
    rows: Arc<Rows>,
    dim: usize,
}

/// A row of a [`Database`] near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Its number, counted from 0.
    pub row: u32,
    /// Cosine or inner product, the larger the nearer; for L2 the Euclidean distance, the smaller
    /// the nearer.
    pub score: f32,
}

impl Database {
    /// Takes vectors of `dim` numbers, row after row.
    ///
    /// # Errors
    ///
    /// [`Error::DatabaseShape`] when they are no whole rows, [`Error::DatabaseLimit`] for too many
    /// or too long ones, and [`Error::DatabaseNumber`] for a number that is not finite or a row too
    /// long to be compared.
    pub fn new(numbers: &[f32], dim: usize) -> Result<Self> {
        let limit = |what, value: u64, limit: u64| match value > limit {
            true => Err(Error::DatabaseLimit { what, value, limit }),
            false => Ok(()),
        };
        limit("numbers in a row", dim as u64, DIM_MAX as u64)?;
        let bytes = std::mem::size_of_val(numbers) as u64;
        limit("bytes", bytes, DATABASE_BYTES_MAX)?;
        if dim == 0 || !numbers.len().is_multiple_of(dim) {
            let found = numbers.len();
            return Err(Error::DatabaseShape { dim, found });
        }
        limit("rows", (numbers.len() / dim) as u64, u32::MAX.into())?;
        for (row, vector) in numbers.chunks_exact(dim).enumerate() {
            check_row(row, vector)?;
        }
        Ok(Self {
            rows: Arc::new(Rows::from_f32(numbers, dim)),
            dim,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        (self.len() * self.dim * size_of::<f32>()) as u64
    }
}

/// Refuses what cannot be scored.
fn check_row(row: usize, vector: &[f32]) -> Result<()> {
    let number = |(column, value): (usize, f32)| Error::DatabaseNumber { row, column, value };
    let norm: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    if norm <= NORM_MAX.powi(2) {
        return Ok(());
    }
    let numbers = || vector.iter().copied().enumerate();
    let worst = numbers().find(|(_, x)| !x.is_finite());
    // All finite, and too large together: the largest is the one to name.
    let worst = worst.or_else(|| numbers().max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs())));
    worst.map_or(Ok(()), |worst| Err(number(worst)))
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("rows", &self.len())
            .field("dim", &self.dim)
            .finish()
    }
}

impl Engine {
    /// The `k` rows of a database nearest to a query, the nearest first; equals in their order.
    ///
    /// Fewer come only when there are fewer rows.
    pub fn search_database(
        &self,
        database: &Database,
        query: &[f32],
        k: usize,
        metric: Metric,
    ) -> Result<Vec<Found>> {
        if query.len() != database.dim {
            return Err(Error::DatabaseDim {
                expected: database.dim,
                found: query.len(),
            });
        }
        let mut answers = self.search_database_batch(database, query, k, metric)?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// As [`Engine::search_database`] for several queries, one after another in `queries`: they
    /// share each look at a row. An answer for each, in their order.
    pub fn search_database_batch(
        &self,
        database: &Database,
        queries: &[f32],
        k: usize,
        metric: Metric,
    ) -> Result<Vec<Vec<Found>>> {
        if !queries.len().is_multiple_of(database.dim) {
            return Err(Error::DatabaseDim {
                expected: database.dim,
                found: queries.len() % database.dim,
            });
        }
        let each = (HITS_MAX / k.max(1)).max(1) * database.dim;
        let searcher = self.searcher()?;
        let mut answers = Vec::new();
        for some in queries.chunks(each) {
            let began = Instant::now();
            let options = SearchOptions {
                dim: database.dim,
                metric,
                k,
            };
            let found = searcher.search(&*database.rows, some, options);
            let found = found.map_err(from_index)?;
            self.count_query(began.elapsed());
            let one = |hit: sela_index::Hit| Found {
                row: hit.row,
                score: hit.score,
            };
            answers.extend(
                found
                    .into_iter()
                    .map(|best| best.into_iter().map(one).collect()),
            );
        }
        Ok(answers)
    }
}
