//! The plain twin of the encoder: a BERT by the names of its tensors, one token at a time.

use sela_compute::reference;

use super::{EPSILON, HEADS, HIDDEN, LAYERS, Weights};

/// How hidden states become a vector.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub cls: bool,
    pub normalize: bool,
}

struct Twin<'a>(&'a Weights);

impl Twin<'_> {
    fn get(&self, name: &str) -> &[f32] {
        &self.0[name].1
    }

    fn linear(&self, name: &str, row: &[f32]) -> Vec<f32> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        reference::linear(row, self.get(&weight), self.get(&bias))
    }

    fn add_and_norm(&self, name: &str, row: &mut [f32], sum: &[f32]) {
        for (x, y) in row.iter_mut().zip(sum) {
            *x += y;
        }
        let part = |part: &str| self.get(&format!("{name}.LayerNorm.{part}")).to_vec();
        reference::layer_norm(row, &part("weight"), &part("bias"), EPSILON);
    }

    fn embed(&self, position: usize, id: u32) -> Vec<f32> {
        let row = |table: &str, row: usize| -> &[f32] {
            &self.get(&format!("embeddings.{table}_embeddings.weight"))[row * HIDDEN..][..HIDDEN]
        };
        let mut sum = row("word", id as usize).to_vec();
        for (x, y) in sum.iter_mut().zip(row("token_type", 0)) {
            *x += y;
        }
        self.add_and_norm("embeddings", &mut sum, row("position", position));
        sum
    }

    /// What the heads of a layer see, a row a token.
    fn attend(&self, layer: &str, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let dim = HIDDEN / HEADS;
        let mut seen = vec![vec![0.0; HIDDEN]; rows.len()];
        for head in 0..HEADS {
            let columns = head * dim..(head + 1) * dim;
            let part = |name: &str| -> Vec<f32> {
                let name = format!("{layer}.attention.self.{name}");
                let project = |row: &Vec<f32>| self.linear(&name, row)[columns.clone()].to_vec();
                rows.iter().flat_map(project).collect()
            };
            let out = reference::attention(&part("query"), &part("key"), &part("value"), dim);
            for (seen, out) in seen.iter_mut().zip(out.chunks_exact(dim)) {
                seen[columns.clone()].copy_from_slice(out);
            }
        }
        seen
    }
}

/// The vector of a text of token `ids`.
pub fn vector(weights: &Weights, ids: &[u32], shape: Shape) -> Vec<f32> {
    let twin = Twin(weights);
    let mut rows: Vec<Vec<f32>> = (0..).zip(ids).map(|(at, id)| twin.embed(at, *id)).collect();
    for layer in (0..LAYERS).map(|layer| format!("encoder.layer.{layer}")) {
        let seen = twin.attend(&layer, &rows);
        for (row, seen) in rows.iter_mut().zip(&seen) {
            let sum = twin.linear(&format!("{layer}.attention.output.dense"), seen);
            twin.add_and_norm(&format!("{layer}.attention.output"), row, &sum);
            let mut inner = twin.linear(&format!("{layer}.intermediate.dense"), row);
            inner.iter_mut().for_each(|x| *x = reference::gelu(*x));
            let sum = twin.linear(&format!("{layer}.output.dense"), &inner);
            twin.add_and_norm(&format!("{layer}.output"), row, &sum);
        }
    }
    let pooled = if shape.cls { &rows[..1] } else { &rows[..] };
    let mean = |i: usize| pooled.iter().map(|row| row[i]).sum::<f32>() / pooled.len() as f32;
    let mut vector: Vec<f32> = (0..HIDDEN).map(mean).collect();
    if shape.normalize {
        let norm = reference::norm(&vector);
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}
