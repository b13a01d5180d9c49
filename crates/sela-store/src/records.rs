//! Vectors to records and back.

use half::f16;

use crate::error::{Error, Result, VectorFault};
use crate::id::Id;
use crate::limits::NORM_SQUARED_MAX;
use crate::model::{Record, Schema};

/// Appends the record of a vector, or says why it cannot be stored.
pub(crate) fn encode(schema: &Schema, id: &Id, vector: &[f32], out: &mut Vec<u8>) -> Result<()> {
    check(schema, vector).map_err(|fault| Error::Vector {
        id: id.clone(),
        fault,
    })?;
    match schema.record {
        Record::F32 => out.extend(vector.iter().flat_map(|value| value.to_le_bytes())),
        Record::F16 => {
            out.extend(
                vector
                    .iter()
                    .flat_map(|value| f16::from_f32(*value).to_le_bytes()),
            );
        }
    }
    Ok(())
}

fn check(schema: &Schema, vector: &[f32]) -> Result<(), VectorFault> {
    if vector.len() != schema.dim as usize {
        return Err(VectorFault::Dim {
            expected: schema.dim,
            found: vector.len(),
        });
    }
    let mut norm_squared = 0.0_f64;
    for (position, &value) in vector.iter().enumerate() {
        if !value.is_finite() {
            return Err(VectorFault::NotFinite { position, value });
        }
        if schema.record == Record::F16 && !f16::from_f32(value).is_finite() {
            return Err(VectorFault::NotF16 { position, value });
        }
        norm_squared += f64::from(value) * f64::from(value);
    }
    if norm_squared > NORM_SQUARED_MAX {
        return Err(VectorFault::TooLong { norm_squared });
    }
    Ok(())
}

/// The numbers of a record.
pub(crate) fn decode(record: Record, bytes: &[u8]) -> Vec<f32> {
    match record {
        Record::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Record::F16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect(),
    }
}
