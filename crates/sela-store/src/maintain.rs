//! Sealing fresh rows into a segment, compacting segments, removing dead documents.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bits;
use crate::collection::{Collection, Writer};
use crate::error::Result;
use crate::model::Maintained;
use crate::segment::{self, Segment, SegmentWriter, SeqColumn};
use crate::shape::Shape;
use crate::view::{Met, Part, Picture};

/// Segments written and not named yet.
#[derive(Default)]
struct Made {
    segments: Vec<Arc<Segment>>,
}

impl Made {
    fn rows(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.rows()))
            .sum()
    }
}

impl Collection {
    /// Moves all fresh rows into a segment.
    ///
    /// # Errors
    /// [`crate::Error::DiskFull`], [`crate::Error::ReadOnly`], [`crate::Error::Poisoned`], and
    /// what the file system brings; the rows then stay where they are.
    pub fn seal(&self) -> Result<Maintained> {
        let mut writer = self.writer()?;
        self.seal_locked(&mut writer)
    }

    /// Rewrites segments of which more than a quarter is dead, and joins small ones when many
    /// have gathered; rows keep their sequences. Also seals fresh rows and removes the documents
    /// of dead rows. Writers wait meanwhile, readers do not.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] when a segment to be rewritten is; otherwise as [`Collection::seal`].
    pub fn compact(&self) -> Result<Maintained> {
        let mut writer = self.writer()?;
        let mut done = self.seal_locked(&mut writer)?;
        let picture = Arc::clone(&self.shown().picture);
        let chosen = self.choose(&picture);
        if !chosen.is_empty() {
            let made = self.rewrite(&writer, &picture, &chosen)?;
            done.rows_moved += made.rows();
            done.segments_made += made.segments.len() as u64;
            done.segments_removed += chosen.len() as u64;
            done.rows_dropped += chosen
                .iter()
                .map(|&part| dead_rows(&picture.parts[part]))
                .sum::<u64>();
            self.swap(&mut writer, &picture, &chosen, made)?;
        }
        drop(picture);
        self.purge(&mut writer)?;
        Ok(done)
    }

    /// Seals when enough fresh rows have gathered. The write that made it due is safe already,
    /// so a failure is only told to the log, and tried again later.
    pub(crate) fn seal_if_due(&self, writer: &mut Writer) {
        let rows = self.shown().picture.fresh_rows();
        let due = (self.options.seal_rows as u64).max(writer.seal_at);
        if rows < due || self.poison.get().is_some() {
            return;
        }
        if let Err(error) = self.seal_locked(writer).and_then(|_| self.purge(writer)) {
            tracing::warn!(%error, "fresh rows could not be sealed; trying again later");
            writer.seal_at = rows + (self.options.seal_rows as u64 / 8).max(1);
        }
    }

    fn seal_locked(&self, writer: &mut Writer) -> Result<Maintained> {
        let picture = Arc::clone(&self.shown().picture);
        let chosen: Vec<usize> = (picture.sealed..picture.parts.len()).collect();
        if chosen.is_empty() {
            return Ok(Maintained::default());
        }
        let made = self.rewrite(writer, &picture, &chosen)?;
        let done = Maintained {
            rows_moved: made.rows(),
            rows_dropped: chosen
                .iter()
                .map(|&part| dead_rows(&picture.parts[part]))
                .sum(),
            segments_made: made.segments.len() as u64,
            segments_removed: 0,
        };
        self.swap(writer, &picture, &chosen, made)?;
        writer.seal_at = 0;
        Ok(done)
    }

    /// The segments worth rewriting.
    fn choose(&self, picture: &Picture) -> Vec<usize> {
        const SMALL_MIN: usize = 8;
        let segments = || (0..picture.sealed).map(|part| (part, &picture.parts[part]));
        let mut chosen: Vec<usize> = segments()
            .filter(|(_, part)| dead_rows(part) * 4 > u64::from(part.rows()))
            .map(|(part, _)| part)
            .collect();
        let small: Vec<usize> = segments()
            .filter(|(index, part)| {
                (part.live_rows() as usize) < self.options.segment_rows / 4
                    && !chosen.contains(index)
            })
            .map(|(index, _)| index)
            .collect();
        if small.len() >= SMALL_MIN {
            chosen.extend(small);
        }
        chosen
    }

    /// Writes the live rows of some parts into new segments, by ascending sequence.
    fn rewrite(&self, writer: &Writer, picture: &Picture, chosen: &[usize]) -> Result<Made> {
        let mut made = Made::default();
        let written = self.rewrite_into(writer, picture, chosen, &mut made);
        if written.is_err() {
            self.discard(&made);
        }
        written.map(|()| made)
    }

    fn rewrite_into(
        &self,
        writer: &Writer,
        picture: &Picture,
        chosen: &[usize],
        made: &mut Made,
    ) -> Result<()> {
        let rows = picture.parts.iter().enumerate().map(|(index, part)| {
            if chosen.contains(&index) {
                part.live()
            } else {
                &[]
            }
        });
        let mut under_way: Option<(SegmentWriter, Vec<u64>)> = None;
        for met in picture.by_seq(rows, 0)? {
            let Met { seq, place, access } = met?;
            let (segment, seqs) = match &mut under_way {
                Some(under_way) => under_way,
                none => none.insert((
                    self.new_segment(Shape::of_segments(&self.schema))?,
                    Vec::new(),
                )),
            };
            segment.push(
                &access.id(place.row)?,
                access.record(place.row)?,
                access.doc(place.row)?,
            )?;
            seqs.push(seq);
            if seqs.len() >= self.options.segment_rows
                && let Some((segment, seqs)) = under_way.take()
            {
                self.finish(writer, segment, seqs, made)?;
            }
        }
        match under_way {
            Some((segment, seqs)) => self.finish(writer, segment, seqs, made),
            None => Ok(()),
        }
    }

    fn finish(
        &self,
        writer: &Writer,
        segment: SegmentWriter,
        seqs: Vec<u64>,
        made: &mut Made,
    ) -> Result<()> {
        let row = segment
            .seal(&SeqColumn::from_table(seqs))
            .map_err(|failure| self.settle(writer, failure))?;
        let path = segment::path(&self.dir, row.number);
        let segment = Segment::open(&self.options.disk, &path, &row, &self.schema)?;
        made.segments.push(Arc::new(segment));
        Ok(())
    }

    /// Names new segments in place of the parts whose rows they hold.
    fn swap(
        &self,
        writer: &mut Writer,
        picture: &Picture,
        chosen: &[usize],
        made: Made,
    ) -> Result<()> {
        let mut state = writer.state;
        let removed: Vec<&Part> = chosen
            .iter()
            .map(|&part| &picture.parts[part])
            .filter(|p| p.segment().is_some())
            .collect();
        let fresh = removed.len() < chosen.len();
        state.segments = state.segments + made.segments.len() as u64 - removed.len() as u64;
        state.next_segment = self.next_segment.load(Ordering::Relaxed);
        if fresh {
            state.pending = 0;
        }
        let named = self.transact(writer, |catalog| {
            for number in removed.iter().filter_map(|part| part.segment()) {
                catalog.remove_segment(number)?;
            }
            for segment in &made.segments {
                catalog.put_segment(segment.row())?;
            }
            if fresh {
                catalog.clear_pending()?;
            }
            catalog.put_state(&state)
        });
        if let Err(error) = named {
            if self.poison.get().is_none() {
                self.discard(&made);
            }
            return Err(error);
        }
        writer.state = state;

        self.show(chosen, &made);
        for number in removed.iter().filter_map(|part| part.segment()) {
            // Views that still show it keep the mapped bytes; what cannot be removed now is
            // swept at the next open.
            let _ = self
                .options
                .disk
                .remove_file(&segment::path(&self.dir, number));
        }
        writer.log_bytes += 4 << 20;
        self.checkpoint_if_due(writer);
        Ok(())
    }

    /// Lets readers see new segments in place of the parts whose rows they hold.
    fn show(&self, chosen: &[usize], made: &Made) {
        let mut shown = self.shown_mut();
        let shown = &mut *shown;
        let now = Arc::make_mut(&mut shown.picture);
        let mut index = 0;
        now.parts.retain(|_| {
            index += 1;
            !chosen.contains(&(index - 1))
        });
        now.sealed = now
            .parts
            .iter()
            .filter(|part| part.segment().is_some())
            .count();
        for segment in &made.segments {
            let live = bits::ones(segment.rows());
            now.parts
                .insert(now.sealed, Part::sealed(Arc::clone(segment), live));
            now.sealed += 1;
        }
        if now.parts.len() == now.sealed {
            shown.index.clear();
        }
    }

    fn discard(&self, made: &Made) {
        for segment in &made.segments {
            let _ = self.options.disk.remove_file(segment.path());
        }
    }

    /// Removes the documents of rows that died in an epoch whose views are all gone.
    pub(crate) fn purge(&self, writer: &mut Writer) -> Result<()> {
        if writer.retired.is_none() {
            let last = writer.catalog.last_grave()?;
            if last == 0 {
                return Ok(());
            }
            let epoch = std::mem::take(&mut self.shown_mut().epoch);
            writer.retired = Some((epoch, last));
        }
        let Some((epoch, last)) = &writer.retired else {
            return Ok(());
        };
        if Arc::strong_count(epoch) > 1 {
            return Ok(());
        }
        let mut state = writer.state;
        state.purges += 1;
        self.transact(writer, |catalog| {
            catalog.purge(*last)?;
            catalog.put_state(&state)
        })?;
        writer.state = state;
        writer.retired = None;
        Arc::make_mut(&mut self.shown_mut().picture).purges = state.purges;
        Ok(())
    }
}

fn dead_rows(part: &Part) -> u64 {
    u64::from(part.rows() - part.live_rows())
}
