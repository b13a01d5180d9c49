//! Search by words: the index that goes with the documents, and what people ask of it.
//!
//! The index holds the texts of live rows and no others, so that scores depend on what the
//! collection holds and not on how it came to hold it. It changes in the transactions that the
//! rows change in. It can be made anew from the texts at any time, so its damage costs no row and
//! refuses no write.

mod index;
mod query;
mod search;

use crate::catalog::{Catalog, Doc, State, TextIndex};
use crate::error::Result;

pub use query::{TextQuery, TextQueryError};
pub use search::TextHit;

/// The documents that come and go in one transaction, and the index with them.
pub(crate) struct Docs<'a> {
    catalog: &'a Catalog,
    before: State,
    /// Whether the index was changed.
    touched: bool,
    /// Whether the index could not follow.
    lost: bool,
}

impl<'a> Docs<'a> {
    /// `state` is that before the transaction.
    pub(crate) fn begin(catalog: &'a Catalog, state: &State) -> Self {
        Self {
            catalog,
            before: *state,
            touched: false,
            lost: false,
        }
    }

    pub(crate) fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// Stores the document of a row, with a sequence larger than any before.
    pub(crate) fn put(&mut self, seq: u64, doc: &Doc) -> Result<()> {
        self.catalog.put_doc(seq, doc)?;
        if let Some(text) = doc.text.as_deref().filter(|_| self.before.is_indexed()) {
            self.catalog.put_words(seq, text)?;
            self.touched = true;
        }
        Ok(())
    }

    /// Marks the document of a row that dies for removal.
    pub(crate) fn bury(&mut self, seq: u64) -> Result<()> {
        let indexed = self.before.indexes(seq) && !self.lost;
        self.touched |= indexed;
        self.lost |= !self.catalog.bury(seq, indexed)?;
        Ok(())
    }

    /// Notes in the state to come, of which the newest sequence is known by now, how far the index
    /// goes.
    pub(crate) fn end(self, state: &mut State) -> Result<()> {
        if self.touched {
            self.catalog.settle_words()?;
        }
        if self.lost {
            state.forget_index();
        } else if self.before.is_indexed() {
            state.text_index = self.before.text_index.map(|index| TextIndex {
                through: state.last_seq,
                ..index
            });
        }
        Ok(())
    }
}
