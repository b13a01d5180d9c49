//! Whether the full-text index holds the texts of the live rows, and nothing else.

use std::collections::HashSet;

use super::Verifier;
use crate::catalog::{State, WORDS};
use crate::error::{Error, Result};

impl Verifier<'_> {
    /// An index that is not there yet, or is to be made anew, is no fault.
    pub(super) fn check_index(&mut self, state: Option<&State>) -> Result<()> {
        let Some(index) = state.and_then(State::known_index) else {
            return Ok(());
        };
        let found = self.note(self.catalog.definitions())?.unwrap_or_default();
        let same = |(name, sql): &(String, Option<String>)| {
            name == WORDS.0 && sql.as_deref() == Some(WORDS.1)
        };
        if !found.iter().any(same) {
            return self.fault_index("its table is not defined as it should be".to_owned());
        }
        let checked = self.compare_index(index.through);
        self.note(checked).map(drop)
    }

    fn compare_index(&mut self, through: u64) -> Result<()> {
        let catalog = self.catalog;
        // Rows whose texts cannot be told; what is wrong with them was noted before.
        let mut unknown = HashSet::new();
        let mut dead = HashSet::new();
        catalog.each_grave(|_, grave| {
            dead.extend(grave.ok());
            Ok(())
        })?;
        let texts = catalog.sum_of_texts(|add| {
            catalog.each_text(0, |seq, text| {
                match text {
                    _ if seq > through => return Ok(false),
                    _ if dead.contains(&seq) => {}
                    Ok(text) => add(seq, text)?,
                    Err(Error::Damaged(_)) => drop(unknown.insert(seq)),
                    Err(error) => return Err(error),
                }
                Ok(true)
            })
        })?;
        let index = catalog.sum_of_index(&unknown)?;
        self.report.catalog_rows += index.rows;
        if (index.rows, index.words) != (texts.rows, texts.words) {
            return self.fault_index(format!(
                "it holds {} words of {} rows, and their texts have {} of {}",
                index.words, index.rows, texts.words, texts.rows
            ));
        }
        if index != texts {
            return self.fault_index("its words are not those of the texts".to_owned());
        }
        let totals = catalog.totals_of_index()?;
        if unknown.is_empty() && totals != (texts.rows, texts.words) {
            return self.fault_index(format!(
                "it counts {} words of {} rows, and holds {} of {}",
                totals.1, totals.0, texts.words, texts.rows
            ));
        }
        Ok(())
    }

    fn fault_index(&mut self, detail: String) -> Result<()> {
        self.note::<()>(Err(self.catalog.damaged_words(detail)))
            .map(drop)
    }
}
