//! Payloads and texts in the catalog, by the sequence of their row.

use rusqlite::{OptionalExtension, Row, params};

use super::Catalog;
use super::rows::wrong_sum;
use crate::error::{Error, Result};
use crate::model::Payload;
use crate::sum::{Sum, join_doc_sums, payload_sum, text_sum};

/// A payload as JSON and a text, on their way into the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doc {
    pub(crate) payload: Option<String>,
    pub(crate) text: Option<String>,
}

impl Doc {
    /// The bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        self.payload.as_ref().map_or(0, String::len) + self.text.as_ref().map_or(0, String::len)
    }
}

/// What was read of a document.
#[derive(Clone, Debug, Default)]
pub(crate) struct DocRead {
    pub(crate) payload: Option<Payload>,
    pub(crate) text: Option<String>,
    /// The document sum its two halves make.
    pub(crate) sum: u64,
}

const BOTH: &str = "SELECT payload, payload_sum, text_sum, text FROM docs WHERE seq = ?";
const PAYLOAD: &str = "SELECT payload, payload_sum, text_sum FROM docs WHERE seq = ?";
const TEXT: &str = "SELECT NULL, payload_sum, text_sum, text FROM docs WHERE seq = ?";

fn grave_sum(number: i64, seq: u64) -> u64 {
    Sum::new("graves").int(number as u64).int(seq).finish()
}

impl Catalog {
    /// Stores the document of a row.
    pub(crate) fn put_doc(&self, seq: u64, doc: &Doc) -> Result<()> {
        self.run(
            "INSERT INTO docs VALUES (?, ?, ?, ?, ?)",
            params![
                seq as i64,
                doc.payload,
                doc.payload.as_deref().map(|json| payload_sum(json) as i64),
                doc.text,
                doc.text.as_deref().map(|text| text_sum(text) as i64)
            ],
        )
    }

    /// Reads the document of a row, or the halves of it that are wanted.
    pub(crate) fn doc(&self, seq: u64, payload: bool, text: bool) -> Result<Option<DocRead>> {
        let lift = self.lift("be read");
        let sql = match (payload, text) {
            (true, true) => BOTH,
            (_, false) => PAYLOAD,
            (false, true) => TEXT,
        };
        let mut statement = self.conn.prepare_cached(sql).map_err(&lift)?;
        let row = statement
            .query_row([seq as i64], |row| Ok(read_doc(seq, row, payload, text)))
            .optional()
            .map_err(&lift)?;
        row.transpose()
    }

    /// Hands over the payload of every document in ascending sequence, or what is wrong with it;
    /// texts are read and checked only when wanted.
    pub(crate) fn each_doc(
        &self,
        first: u64,
        last: u64,
        texts: bool,
        mut each: impl FnMut(u64, Result<DocRead>) -> Result<()>,
    ) -> Result<()> {
        let lift = self.lift("be read");
        let sql = format!(
            "SELECT payload, payload_sum, text_sum {}, seq FROM docs \
             WHERE seq BETWEEN ? AND ? ORDER BY seq",
            if texts { ", text" } else { ", NULL" }
        );
        let mut statement = self.conn.prepare_cached(&sql).map_err(&lift)?;
        let (first, last) = (clamp(first), clamp(last));
        let mut rows = statement.query([first, last]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let seq = row.get::<_, i64>(4).map_err(&lift)? as u64;
            each(seq, read_doc(seq, row, true, texts))?;
        }
        Ok(())
    }

    /// Marks the document of a dead row, if it has one, for removal, and takes its text out of the
    /// index if that holds it; whether the index is whole after that.
    pub(crate) fn bury(&self, seq: u64, indexed: bool) -> Result<bool> {
        let whole = !indexed || self.remove_words(seq)?;
        let lift = self.lift("be written");
        let exists = self
            .conn
            .prepare_cached("SELECT 1 FROM docs WHERE seq = ?")
            .and_then(|mut statement| statement.exists([seq as i64]))
            .map_err(&lift)?;
        if exists {
            let number = self.last_grave()? + 1;
            self.run(
                "INSERT INTO graves VALUES (?, ?, ?)",
                params![number, seq as i64, grave_sum(number, seq) as i64],
            )?;
        }
        Ok(whole)
    }

    /// The number of the newest grave; 0 when there is none.
    pub(crate) fn last_grave(&self) -> Result<i64> {
        self.conn
            .prepare_cached("SELECT ifnull(max(number), 0) FROM graves")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(self.lift("be read"))
    }

    /// Removes the documents of the graves up to a number; how many.
    pub(crate) fn purge(&self, up_to: i64) -> Result<u64> {
        let mut doomed = Vec::new();
        self.each_grave(|number, grave| {
            let seq = grave?;
            if number <= up_to {
                doomed.push(seq);
            }
            Ok(())
        })?;
        for &seq in &doomed {
            self.run("DELETE FROM docs WHERE seq = ?", [seq as i64])?;
        }
        self.run("DELETE FROM graves WHERE number <= ?", [up_to])?;
        Ok(doomed.len() as u64)
    }

    /// Hands over every grave's number and sequence, or what is wrong with it.
    pub(crate) fn each_grave(
        &self,
        mut each: impl FnMut(i64, Result<u64>) -> Result<()>,
    ) -> Result<()> {
        let lift = self.lift("be read");
        let mut statement = self
            .conn
            .prepare_cached("SELECT number, seq, sum FROM graves ORDER BY number")
            .map_err(&lift)?;
        let mut rows = statement.query([]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let number: i64 = row.get(0).map_err(&lift)?;
            let seq = row.get::<_, i64>(1).map_err(&lift)? as u64;
            let sum = row.get::<_, i64>(2).map_err(&lift)? as u64;
            let grave = if sum == grave_sum(number, seq) {
                Ok(seq)
            } else {
                Err(wrong_sum("graves", number))
            };
            each(number, grave)?;
        }
        Ok(())
    }
}

fn clamp(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Reads columns payload, payload_sum, text_sum and, when texts are wanted, text.
fn read_doc(seq: u64, row: &Row<'_>, payloads: bool, texts: bool) -> Result<DocRead> {
    let broken = |_| Error::row("docs", seq, "its columns are not of their types");
    let payload_stored: Option<i64> = row.get(1).map_err(broken)?;
    let text_stored: Option<i64> = row.get(2).map_err(broken)?;
    let (payload_stored, text_stored) = (
        payload_stored.map(|sum| sum as u64),
        text_stored.map(|sum| sum as u64),
    );
    let mut read = DocRead {
        sum: join_doc_sums(payload_stored, text_stored),
        ..DocRead::default()
    };
    if payloads {
        let json: Option<String> = row.get(0).map_err(broken)?;
        if json.as_deref().map(payload_sum) != payload_stored {
            return Err(wrong_sum("docs", seq));
        }
        read.payload = json
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|error| Error::row("docs", seq, error.to_string()))?;
    }
    if texts {
        let text: Option<String> = row.get(3).map_err(broken)?;
        if text.as_deref().map(text_sum) != text_stored {
            return Err(wrong_sum("docs", seq));
        }
        read.text = text;
    }
    Ok(read)
}
