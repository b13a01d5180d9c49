//! Vectors and a query to the nearest rows.
//!
//! A [`Searcher`] scans the rows of a [`Source`], whatever holds them, and returns for each query
//! its `k` nearest live rows. It is blind to where rows come from: a source has **parts**, each
//! part a run of rows in **blocks**, a sequence number for every row and bitmaps of the rows that
//! take part.
//!
//! An answer is defined by the canonical score of [`sela_compute::reference`] and, among equals,
//! by the row's sequence number. It never depends on the machine, the number of threads or how
//! rows are laid out in parts and blocks; [`reference_search`] computes it the slow way.
//!
//! ```
//! use sela_index::{Metric, Rows, SearchOptions, Searcher, SearcherOptions};
//!
//! let rows = Rows::from_f32(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8], 2);
//! let searcher = Searcher::new(SearcherOptions::default())?;
//!
//! let options = SearchOptions { dim: 2, metric: Metric::Cosine, k: 2 };
//! let answers = searcher.search(&rows, &[0.0, 1.0], options)?;
//! let best: Vec<(u32, f32)> = answers[0].iter().map(|hit| (hit.row, hit.score)).collect();
//! assert_eq!(best, [(1, 1.0), (2, 0.8)]);
//! # Ok::<(), sela_index::Error>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "gpu")]
mod device;
mod error;
mod plan;
mod reference;
mod rows;
mod search;
mod source;

pub use error::{BoxError, Error};
pub use reference::reference_search;
pub use rows::Rows;
pub use search::{
    Codes, DIM_MAX, Decision, HITS_MAX, Hit, K_MAX, NORM_MAX, Pages, RouteChoice, SearchOptions,
    SearchStats, Searcher, SearcherOptions,
};
pub use sela_compute::Isa;
pub use sela_compute::scan::{Metric, Record};
pub use source::{Part, Seqs, Source};
