//! The maintenance that writes bring about by themselves, a bounded step after each.
//!
//! What was acknowledged is safe before any of it begins, so a failure is only told to the log,
//! and tried again later. Here the collection may be poisoned, never the write refused.

use std::sync::Arc;

use super::dead_rows;
use crate::collection::{Collection, Writer};
use crate::error::Result;
use crate::view::{Kind, Part, Picture};

/// Segments of like size that are joined.
const ALIKE: usize = 8;
/// Dead bytes that make a segment worth rewriting, however few rows they are.
const DEAD_BYTES: u64 = 4 << 20;

/// What the writer remembers of the maintenance nobody asked for.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Writes to let pass before it is tried again.
    rest: u32,
    /// Failures in a row.
    failures: u32,
    /// The newest grave that was removed, while later ones are left.
    pub(super) purged: i64,
}

impl Collection {
    /// Seals, removes dead documents and compacts, each when enough has gathered, and goes on
    /// with a full-text index that is not whole.
    pub(crate) fn maintain_if_due(&self, writer: &mut Writer) {
        self.seal_if_due(writer);
        if self.poison.get().is_some() {
            return;
        }
        if writer.upkeep.rest > 0 {
            writer.upkeep.rest -= 1;
            return;
        }
        let purged = self.purge_if_due(writer);
        let compacted = purged.and(self.compact_if_due(writer));
        match compacted.and(self.index_step(writer).map(drop)) {
            Ok(()) => writer.upkeep.failures = 0,
            Err(error) => {
                let failures = writer.upkeep.failures.saturating_add(1);
                writer.upkeep.failures = failures;
                writer.upkeep.rest = 1 << failures.min(10);
                tracing::warn!(
                    %error, failures, collection = %self.dir.display(),
                    "upkeep after a write failed; trying again later"
                );
            }
        }
    }

    fn seal_if_due(&self, writer: &mut Writer) {
        let rows = self.shown().picture.fresh_rows();
        let due = (self.options.seal_rows as u64).max(writer.seal_at);
        if rows < due || self.poison.get().is_some() {
            return;
        }
        if let Err(error) = self.seal_locked(writer) {
            tracing::warn!(%error, "fresh rows could not be sealed; trying again later");
            writer.seal_at = rows + (self.options.seal_rows as u64 / 8).max(1);
        }
    }

    fn purge_if_due(&self, writer: &mut Writer) -> Result<()> {
        let last = writer.catalog.last_grave()?;
        let graves = last - writer.upkeep.purged;
        if graves >= self.dead_rows_due() as i64 || writer.retired.is_some() {
            self.purge(writer)?;
        }
        Ok(())
    }

    /// One step of compaction: about the work of a seal, or one segment, or one join.
    fn compact_if_due(&self, writer: &mut Writer) -> Result<()> {
        let picture = Arc::clone(&self.shown().picture);
        let mut chosen = self.mostly_dead(&picture);
        if chosen.is_empty() {
            chosen = self.alike(&picture);
        }
        if chosen.is_empty() {
            return Ok(());
        }
        let done = self.replace(writer, &picture, &chosen)?;
        tracing::debug!(?done, collection = %self.dir.display(), "compacted");
        Ok(())
    }

    /// Dead rows below which nothing is done, so that small deletes in small segments are not
    /// answered with a new file each.
    fn dead_rows_due(&self) -> u64 {
        (self.options.seal_rows as u64 / 16).max(1)
    }

    /// Segments without live rows, and those of which more than a quarter is dead, the smallest
    /// first, until they are as many rows as a seal moves.
    fn mostly_dead(&self, picture: &Picture) -> Vec<usize> {
        let worth_it = |part: &Part| {
            let dead = dead_rows(part);
            let enough =
                dead >= self.dead_rows_due() || dead * part.row_bytes() as u64 >= DEAD_BYTES;
            dead * 4 > u64::from(part.rows()) && enough
        };
        let mut found: Vec<(u32, usize)> = picture.parts[..picture.sealed]
            .iter()
            .enumerate()
            .filter(|(_, part)| part.live_rows() == 0 || (worth_it(part) && is_readable(part)))
            .map(|(index, part)| (part.live_rows(), index))
            .collect();
        found.sort_unstable();
        let mut rows = 0;
        let within = |(live, _): &(u32, usize)| {
            let first = rows == 0;
            rows += *live as usize;
            first || rows <= self.options.seal_rows
        };
        found
            .into_iter()
            .take_while(within)
            .map(|(_, index)| index)
            .collect()
    }

    /// Small segments of about the same size, once there are enough. Like is joined with like,
    /// so that each row is moved once for every eightfold of its segment and not at every join.
    fn alike(&self, picture: &Picture) -> Vec<usize> {
        let sealed = &picture.parts[..picture.sealed];
        let small = |part: &Part| (part.live_rows() as usize) < self.options.segment_rows / 4;
        let size = |part: &Part| part.live_rows().max(1).ilog2() as usize / 3;
        let mut counts = [0_usize; 11];
        for part in sealed.iter().filter(|part| small(part)) {
            counts[size(part)] += 1;
        }
        for wanted in (0..counts.len()).filter(|&size| counts[size] >= ALIKE) {
            let found: Vec<usize> = (0..sealed.len())
                .filter(|&index| {
                    let part = &sealed[index];
                    small(part) && size(part) == wanted && is_readable(part)
                })
                .collect();
            if found.len() >= ALIKE {
                let mut rows = 0;
                let within = |index: &usize| {
                    rows += sealed[*index].live_rows() as usize;
                    rows <= self.options.segment_rows
                };
                return found.into_iter().take_while(within).collect();
            }
        }
        Vec::new()
    }
}

/// Whether no block of a segment is known to be damaged: such a segment stays as it is, for
/// whoever restores it, and is not read again and again.
fn is_readable(part: &Part) -> bool {
    match &part.0 {
        Kind::Sealed(sealed) => !sealed.segment.is_known_bad(),
        Kind::Fresh(_) => true,
    }
}
