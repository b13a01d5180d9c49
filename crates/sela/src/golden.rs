//! The golden vectors that come with the program.

use sela_encoder::Golden;

use crate::error::Result;
use crate::models::{self, ModelDir};

const TEXTS: &str = include_str!("../golden/subset.jsonl");
const VECTORS: &[u8] = include_bytes!("../golden/subset.npy");

/// The weights whose vectors they are.
const WEIGHTS_SHA256: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// The golden vectors of a model, if there are some.
pub(crate) fn of(model: &ModelDir) -> Result<Option<Golden>> {
    let known = model.sha256(models::WEIGHTS) == Some(WEIGHTS_SHA256);
    Ok(known.then(golden))
}

/// All golden texts with their f32 vectors.
pub(crate) fn golden() -> Golden {
    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
    }
    // The files are part of the program: a test reads them.
    let texts = TEXTS
        .lines()
        .filter_map(|l| serde_json::from_str::<Line>(l).ok());
    Golden {
        texts: texts.map(|l| l.text).collect(),
        vectors: npy_f32(VECTORS),
    }
}

/// The numbers of a `.npy` file of little-endian f32, as the golden vectors are.
fn npy_f32(bytes: &[u8]) -> Vec<f32> {
    let header = bytes
        .get(8..10)
        .map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let body = bytes.get(10 + header..).unwrap_or_default();
    body.chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_a_unit_vector_for_each_text() {
        let golden = super::golden();
        assert_eq!(golden.texts.len(), 120);
        assert_eq!(golden.vectors.len(), 120 * 384);
        for vector in golden.vectors.chunks_exact(384) {
            let norm: f32 = vector.iter().map(|x| x * x).sum();
            assert!((norm - 1.0).abs() < 1e-5);
        }
    }
}
