//! Answers in JSON.
//!
//! Most of what this server writes is numbers, so they are written by a formatter of our own:
//! [`decimal`]. The text is the same as serde_json's.

mod decimal;

use std::io::{self, Write};

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::ApiError;
use decimal::Decimal;

/// Room to begin with: a vector of 384 numbers with what goes with it needs no more.
const ROOM: usize = 6 << 10;

/// An answer.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut text = Text(Vec::with_capacity(ROOM));
        let mut to = serde_json::Serializer::with_formatter(&mut text, Numbers);
        match self.0.serialize(&mut to) {
            Ok(()) => {
                let kind = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], text.0).into_response()
            }
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// Writes everything as serde_json does.
struct Numbers;

impl serde_json::ser::Formatter for Numbers {
    #[inline]
    fn write_f32<W: ?Sized + Write>(&mut self, to: &mut W, value: f32) -> io::Result<()> {
        to.write_all(Decimal::of(value).as_bytes())
    }
}

/// The answer's text.
struct Text(Vec<u8>);

/// Bytes that are appended together.
const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

impl Write for Text {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    /// As appending does. A number is half a block to a block long: a whole block goes in one move,
    /// with no call and no loop, and what is too much of it is cut off.
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let long = bytes.len();
        match (bytes.first_chunk::<HALF>(), bytes.last_chunk::<HALF>()) {
            (Some(first), Some(last)) if long <= BLOCK => {
                let word = |half: &[u8; HALF]| u128::from(u64::from_le_bytes(*half));
                // Where the halves overlap they hold the same bytes.
                let block = word(first) | word(last) << (8 * (long - HALF));
                let end = self.0.len() + long;
                self.0.extend_from_slice(&block.to_le_bytes());
                self.0.truncate(end);
            }
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde::Serialize;

    use super::{Numbers, Text};

    #[test]
    fn pieces_of_every_length_are_appended() {
        let piece: Vec<u8> = (1..=40).collect();
        for long in 0..=piece.len() {
            let mut text = Text(vec![7; 3]);
            text.write_all(&piece[..long]).unwrap();
            text.write_all(&piece[..long]).unwrap();
            let wanted = [&[7; 3][..], &piece[..long], &piece[..long]].concat();
            assert_eq!(text.0, wanted, "{long}");
        }
    }

    #[test]
    fn answers_are_what_serde_json_writes() {
        #[derive(Serialize)]
        struct Answer {
            numbers: Vec<f32>,
            rows: [[f32; 2]; 2],
            wide: f64,
            text: &'static str,
            none: Option<f32>,
        }
        let answer = Answer {
            numbers: vec![
                0.05,
                -0.123_456_79,
                f32::NAN,
                f32::INFINITY,
                1e-30,
                -0.0,
                3.0,
            ],
            rows: [[0.999_999_94, 0.001], [0.01, -0.1]],
            wide: 0.1,
            text: "\"a\"\u{1}é",
            none: None,
        };
        let mut text = Text(Vec::new());
        let mut to = serde_json::Serializer::with_formatter(&mut text, Numbers);
        answer.serialize(&mut to).unwrap();
        let text = String::from_utf8(text.0).unwrap();
        assert_eq!(text, serde_json::to_string(&answer).unwrap());
    }
}
