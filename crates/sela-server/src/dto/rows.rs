//! Rows of numbers, read and written without a vector a row.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// Rows of equal length, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    /// Numbers in a row.
    pub(crate) dim: usize,
    /// All rows.
    pub(crate) numbers: Vec<f32>,
}

impl Rows {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len() / self.dim.max(1)
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut rows = to.serialize_seq(Some(self.len()))?;
        for row in self.numbers.chunks_exact(self.dim.max(1)) {
            rows.serialize_element(row)?;
        }
        rows.end()
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
        let mut rows = Rows::default();
        let mut row = 0;
        while let Some(length) = seq.next_element_seed(Row(&mut rows.numbers))? {
            if row == 0 {
                rows.dim = length;
            }
            if length != rows.dim || length == 0 {
                let first = rows.dim;
                return Err(A::Error::custom(format_args!(
                    "row {row} has {length} numbers, and row 0 has {first}; rows are of one length, \
                     and not empty"
                )));
            }
            row += 1;
        }
        Ok(rows)
    }
}

/// Reads one row to the end of all numbers; how many it had.
struct Row<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let before = self.0.len();
        while let Some(number) = seq.next_element::<f32>()? {
            // Larger than an f32 holds reads as infinite.
            if !number.is_finite() {
                let at = self.0.len() - before;
                return Err(A::Error::custom(format_args!(
                    "number {at} of a row is beyond the range of 32-bit numbers"
                )));
            }
            self.0.push(number);
        }
        Ok(self.0.len() - before)
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn rows_are_read_and_written_as_nested_lists() {
        let text = "[[1.0,2.5],[-3.0,0.0]]";
        let rows: Rows = serde_json::from_str(text).unwrap();
        assert_eq!((rows.dim, rows.len()), (2, 2));
        assert_eq!(serde_json::to_string(&rows).unwrap(), text);
        let none: Rows = serde_json::from_str("[]").unwrap();
        assert_eq!((none.dim, none.len()), (0, 0));
        assert_eq!(serde_json::to_string(&none).unwrap(), "[]");
    }

    #[test]
    fn what_is_no_rows_is_refused_by_place() {
        for (text, said) in [
            ("[[1.0],[1.0,2.0]]", "row 1 has 2 numbers"),
            ("[[],[]]", "row 0 has 0 numbers"),
            ("[[1.0],[1e39]]", "number"),
            ("[[1.0],[\"a\"]]", "invalid type: string"),
            ("[1.0]", "a row of numbers"),
            ("{}", "a list of rows"),
        ] {
            let error = serde_json::from_str::<Rows>(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
