//! Vectors in memory.

use crate::error::ApiError;

/// Rows of equal length.
pub(crate) struct Database {
    dim: usize,
    numbers: Vec<f32>,
}

impl Database {
    pub(crate) fn new(dim: usize, numbers: Vec<f32>) -> Result<Self, ApiError> {
        Ok(Self { dim, numbers })
    }

    pub(crate) fn rows(&self) -> usize {
        self.numbers.len() / self.dim.max(1)
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        metric: sela::Metric,
    ) -> Vec<(usize, f32)> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let score = |row: &[f32]| match metric {
            sela::Metric::Dot => dot(row, query),
            sela::Metric::Cosine => {
                dot(row, query) / (dot(row, row).sqrt() * dot(query, query).sqrt()).max(1e-30)
            }
            sela::Metric::L2 => row
                .iter()
                .zip(query)
                .map(|(x, y)| (x - y) * (x - y))
                .sum::<f32>()
                .sqrt(),
        };
        let rows = self.numbers.chunks_exact(self.dim.max(1));
        let mut all: Vec<(usize, f32)> = rows.map(score).enumerate().collect();
        match metric {
            sela::Metric::L2 => all.sort_by(|a, b| a.1.total_cmp(&b.1)),
            _ => all.sort_by(|a, b| b.1.total_cmp(&a.1)),
        }
        all.truncate(k);
        all
    }
}
