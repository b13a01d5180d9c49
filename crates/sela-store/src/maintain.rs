//! Sealing fresh rows into a segment, compacting segments, removing dead documents.
//! `due.rs` says when that happens by itself.

mod due;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bits;
use crate::collection::{Collection, Writer};
use crate::error::Result;
use crate::model::Maintained;
use crate::segment::{self, Segment, SegmentWriter, SeqColumn};
use crate::shape::Shape;
use crate::view::{Kind, Met, Part, Picture};

pub(crate) use due::Upkeep;

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
    /// [`crate::Error::Damaged`] when a segment to be rewritten is, which then stays as it is;
    /// otherwise as [`Collection::seal`].
    pub fn compact(&self) -> Result<Maintained> {
        let mut writer = self.writer()?;
        let mut done = self.seal_locked(&mut writer)?;
        let picture = Arc::clone(&self.shown().picture);
        let chosen = self.choose(&picture);
        if !chosen.is_empty() {
            let replaced = self.replace(&mut writer, &picture, &chosen)?;
            done.rows_moved += replaced.rows_moved;
            done.rows_dropped += replaced.rows_dropped;
            done.segments_made += replaced.segments_made;
            done.segments_removed += replaced.segments_removed;
        }
        drop(picture);
        self.purge(&mut writer)?;
        Ok(done)
    }

    fn seal_locked(&self, writer: &mut Writer) -> Result<Maintained> {
        let picture = Arc::clone(&self.shown().picture);
        let chosen: Vec<usize> = (picture.sealed..picture.parts.len()).collect();
        if chosen.is_empty() {
            return Ok(Maintained::default());
        }
        let done = self.replace(writer, &picture, &chosen)?;
        writer.seal_at = 0;
        Ok(done)
    }

    /// Puts new segments in the place of some parts, without their dead rows.
    fn replace(
        &self,
        writer: &mut Writer,
        picture: &Picture,
        chosen: &[usize],
    ) -> Result<Maintained> {
        // An earlier step of the same work may have left it unknown what is on disk.
        self.check_poison()?;
        let made = self.rewrite(writer, picture, chosen)?;
        let parts = || chosen.iter().map(|&part| &picture.parts[part]);
        let done = Maintained {
            rows_moved: made.rows(),
            rows_dropped: parts().map(dead_rows).sum(),
            segments_made: made.segments.len() as u64,
            segments_removed: parts().filter(|part| part.segment().is_some()).count() as u64,
        };
        self.swap(writer, picture, chosen, made)?;
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
        let anew = self.opened_anew(picture, chosen)?;
        let written = self.rewrite_into(writer, &anew, chosen, &mut made);
        if written.is_err() {
            for ((_, serving), (_, anew)) in picture.segments().zip(anew.segments()) {
                serving.segment.learn(&anew.segment);
            }
            self.discard(&made);
        }
        written.map(|()| made)
    }

    /// The picture with the chosen segments opened a second time. What is copied gets new
    /// checksums, so every block is held against its old one now, however long ago it was found
    /// sound: else what has decayed since would pass for sound ever after.
    fn opened_anew(&self, picture: &Picture, chosen: &[usize]) -> Result<Picture> {
        let mut anew = picture.clone();
        for &index in chosen {
            let part = &mut anew.parts[index];
            if let Kind::Sealed(sealed) = &part.0
                && sealed.live_rows > 0
            {
                let (path, row) = (sealed.segment.path(), sealed.segment.row());
                let segment = Segment::open(&self.options.disk, path, row, &self.schema)?;
                *part = Part::sealed(Arc::new(segment), sealed.live.clone());
            }
        }
        Ok(anew)
    }

    fn rewrite_into(
        &self,
        writer: &Writer,
        picture: &Picture,
        chosen: &[usize],
        made: &mut Made,
    ) -> Result<()> {
        let rows = picture.parts.iter().enumerate().map(|(index, part)| {
            if part.live_rows() > 0 && chosen.contains(&index) {
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
            self.discard(&made);
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

    /// Removes segments that will not be named; unless it is unknown whether they are.
    fn discard(&self, made: &Made) {
        if self.poison.get().is_some() {
            return;
        }
        for segment in &made.segments {
            let _ = self.options.disk.remove_file(segment.path());
        }
    }

    /// Removes the documents of rows that died in an epoch whose views are all gone.
    fn purge(&self, writer: &mut Writer) -> Result<()> {
        self.check_poison()?;
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
        let left = writer.catalog.last_grave().unwrap_or(0);
        writer.upkeep.purged = if left > *last { *last } else { 0 };
        writer.retired = None;
        Arc::make_mut(&mut self.shown_mut().picture).purges = state.purges;
        Ok(())
    }
}

fn dead_rows(part: &Part) -> u64 {
    u64::from(part.rows() - part.live_rows())
}
