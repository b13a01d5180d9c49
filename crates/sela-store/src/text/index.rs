//! Making the index: of a collection that has none, or whose own is damaged or has fallen behind.

use std::collections::HashSet;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::search::is_of_index;
use crate::catalog::{Catalog, State, TextIndex};
use crate::collection::{Collection, Writer, lock};
use crate::error::{Damage, DamagePlace, Error, Result};
use crate::model::Report;

/// Bytes of texts that one step indexes at most, a last one apart.
const STEP_BYTES_MAX: usize = 16 << 20;
/// How often the log hears of it.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Collection {
    /// Makes the full-text index anew from the texts. Writers wait meanwhile, readers do not.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a text is, or the old index so much so that it cannot be removed;
    /// [`Error::DiskFull`], [`Error::ReadOnly`], [`Error::Poisoned`]. What was done is kept, and
    /// the next write or opening goes on.
    pub fn renew_text_index(&self) -> Result<()> {
        self.renew_text_index_if(|| true)
    }

    /// The same, if it is still called for once no other writer is at work.
    pub(crate) fn renew_text_index_if(&self, called_for: impl FnOnce() -> bool) -> Result<()> {
        let mut writer = self.writer()?;
        if !called_for() {
            return Ok(());
        }
        self.renew_locked(&mut writer)
    }

    pub(crate) fn renew_locked(&self, writer: &mut Writer) -> Result<()> {
        self.forget_index(writer)?;
        self.finish_index(writer)
    }

    /// Indexes all texts that are not yet.
    pub(crate) fn finish_index(&self, writer: &mut Writer) -> Result<()> {
        let mut told = Instant::now();
        while self.index_step(writer)? {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let state = &writer.state;
                let through = state.known_index().map_or(0, |index| index.through);
                tracing::info!(
                    through, of = state.last_seq, collection = %self.dir.display(),
                    "indexing the texts"
                );
            }
        }
        Ok(())
    }

    /// The same at the opening, which goes on without: what cannot be indexed now can be later.
    pub(crate) fn index_at_opening(&self) -> Result<()> {
        let mut writer = self.writer()?;
        match self.finish_index(&mut writer) {
            Err(error) if self.poison.get().is_none() => {
                tracing::warn!(
                    %error, collection = %self.dir.display(),
                    "the texts could not be indexed; trying again with the next writes"
                );
                Ok(())
            }
            other => other,
        }
    }

    /// Goes on a step with the index, in a transaction of its own; whether more is to be done.
    pub(crate) fn index_step(&self, writer: &mut Writer) -> Result<bool> {
        if writer.state.is_indexed() {
            return Ok(false);
        }
        let begun = match writer.state.known_index() {
            None => self.begin_index(writer),
            Some(index) => Ok(index),
        };
        let done = begun.and_then(|index| self.index_more(writer, index));
        *lock(&self.text_refusal) = done.as_ref().err().map(Error::to_string);
        if let Err(error) = &done
            && is_of_index(error)
        {
            self.forget_index(writer)?;
        }
        done.map(|()| !writer.state.is_indexed())
    }

    fn begin_index(&self, writer: &mut Writer) -> Result<TextIndex> {
        let mut state = writer.state;
        let index = TextIndex {
            version: TextIndex::VERSION,
            made: state.text_index.map_or(1, |index| index.made + 1),
            through: 0,
        };
        state.text_index = Some(index);
        self.transact(writer, |catalog| {
            catalog.renew_words()?;
            catalog.put_state(&state)
        })?;
        writer.state = state;
        Ok(index)
    }

    fn index_more(&self, writer: &mut Writer, index: TextIndex) -> Result<()> {
        let mut state = writer.state;
        let mut dead = HashSet::new();
        writer.catalog.each_grave(|_, grave| {
            dead.insert(grave?);
            Ok(())
        })?;
        let mut bytes = 0;
        self.transact(writer, |catalog| {
            let (mut rows, mut through) = (0, None);
            catalog.each_text(index.through, |seq, text| {
                if rows >= self.options.seal_rows || bytes >= STEP_BYTES_MAX {
                    return Ok(false);
                }
                // Of the dead not even the texts have to be whole.
                if !dead.contains(&seq) {
                    let text = text?;
                    catalog.put_words(seq, text)?;
                    bytes += text.len();
                }
                rows += 1;
                through = Some(seq);
                Ok(true)
            })?;
            let more = through.map(|seq| catalog.has_text_after(seq)).transpose()?;
            let through = match (through, more) {
                (Some(seq), Some(true)) => seq,
                _ => state.last_seq,
            };
            state.text_index = Some(TextIndex { through, ..index });
            catalog.settle_words()?;
            catalog.put_state(&state)
        })?;
        writer.state = state;
        writer.log_bytes += 2 * bytes as u64;
        self.checkpoint_if_due(writer);
        Ok(())
    }

    /// Notes on disk that the index counts for nothing.
    fn forget_index(&self, writer: &mut Writer) -> Result<()> {
        if writer.state.known_index().is_none() {
            return Ok(());
        }
        let mut state = writer.state;
        state.forget_index();
        self.transact(writer, |catalog: &Catalog| catalog.put_state(&state))?;
        writer.state = state;
        Ok(())
    }

    /// Runs `work`, and once more without the index if that turns out to be damaged: it is never
    /// the reason why a row cannot be written.
    pub(crate) fn sparing_index<T>(
        &self,
        writer: &mut Writer,
        mut work: impl FnMut(&mut Writer) -> Result<T>,
    ) -> Result<T> {
        let made = writer.state.known_index().map(|index| index.made);
        match (work(writer), made) {
            (Err(error), Some(made)) if is_of_index(&error) => {
                if let Error::Damaged(damage) = &error {
                    self.doubt_text_index(damage, made);
                }
                self.forget_index(writer)?;
                work(writer)
            }
            (other, _) => other,
        }
    }

    /// What follows from a report: answers of an index that it names are not given any more.
    pub(crate) fn act_on_index(&self, writer: Option<MutexGuard<'_, Writer>>, report: &Report) {
        let named = |damage: &&Damage| matches!(damage.place, DamagePlace::TextIndex { .. });
        let Some(damage) = report.faults.iter().find(named) else {
            return;
        };
        let known = self.with_reader(Catalog::state).ok();
        if let Some(index) = known.and_then(|state| state.known_index()) {
            self.doubt_text_index(damage, index.made);
        }
        if let Some(mut writer) = writer
            && let Err(error) = self.renew_locked(&mut writer)
        {
            tracing::warn!(
                %error, collection = %self.dir.display(),
                "the full-text index could not be made anew; trying again with the next writes"
            );
        }
    }

    pub(crate) fn no_text_index(&self, state: &State) -> Error {
        let reason = match (&*lock(&self.text_refusal), state.known_index()) {
            (Some(refusal), _) => format!("they could not be indexed: {refusal}"),
            (None, None) => "it has no full-text index".to_owned(),
            (None, Some(index)) => format!(
                "its full-text index goes only to sequence {} of {}",
                index.through, state.last_seq
            ),
        };
        Error::NoTextIndex {
            dir: self.dir.clone(),
            reason,
        }
    }
}
