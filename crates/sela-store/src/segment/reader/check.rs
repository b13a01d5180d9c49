//! Reads a segment file to its last byte, and lets an open segment know what was found.

use super::{
    AtomicU8, BAD, Damage, DamagePlace, Error, MISMATCH, Ordering, Result, SOUND, Section, Segment,
    UNKNOWN, block_sum, kind, xxh3_64,
};

/// What [`Segment::verify_blocks`] has found so far.
#[derive(Default)]
struct Found {
    faults: Vec<Damage>,
    blocks: u64,
}

impl Segment {
    /// Whether both are the same file, as far as the catalog knows.
    pub(crate) fn is_same(&self, row: &crate::catalog::SegmentRow) -> bool {
        (self.row.number, self.row.digest) == (row.number, row.digest)
    }

    /// Reads and sums every block again, whatever is known of them; what is wrong. The second
    /// number is how many blocks were read.
    ///
    /// It reads the file block by block and not through the map, so that a file that is cut
    /// meanwhile, or a device that fails, is a fault with a name.
    pub(crate) fn verify_blocks(&self) -> Result<(Vec<Damage>, u64)> {
        let mut found = Found::default();
        let Some(checksums) = self.header.section(kind::CHECKSUMS) else {
            return Err(Error::segment(&self.path, "a section is missing"));
        };
        let mut sums = vec![0; checksums.stored as usize];
        if let Err(error) = self.map.read_at(&mut sums, checksums.offset) {
            let detail = format!("its checksums cannot be read: {error}");
            found.faults.push(self.cut().unwrap_or_else(|| {
                let path = self.path.clone();
                let place = DamagePlace::Segment { path };
                Damage { place, detail }
            }));
            return Ok((found.faults, found.blocks));
        }
        let mut piece = Vec::new();
        for (section, state) in self.header.sections.iter().zip(&self.sums) {
            if section.kind == kind::CHECKSUMS {
                found.blocks += 1;
                self.verify_sums(section, &sums, state, &mut found);
                continue;
            }
            let first = section.first_sum as usize * 8;
            let sums = &sums[first..first + section.blocks() as usize * 8];
            if !self.verify_sums(section, sums, state, &mut found) {
                found.blocks += section.blocks();
                continue;
            }
            for (block, sum) in sums.as_chunks().0.iter().enumerate() {
                found.blocks += 1;
                let sound = self.verify_block(section, block as u64, *sum, &mut piece, &mut found);
                if !sound && let Some(cut) = self.cut() {
                    // Nothing that is said of single blocks would add to that.
                    return Ok((vec![cut], found.blocks));
                }
            }
        }
        Ok((found.faults, found.blocks))
    }

    fn verify_sums(
        &self,
        section: &Section,
        sums: &[u8],
        state: &AtomicU8,
        found: &mut Found,
    ) -> bool {
        let sound = xxh3_64(sums) == section.checksum;
        state.store(if sound { SOUND } else { BAD }, Ordering::Release);
        if !sound {
            found.faults.push(self.bad_sums(section));
        }
        sound
    }

    fn verify_block(
        &self,
        section: &Section,
        block: u64,
        sum: [u8; 8],
        piece: &mut Vec<u8>,
        found: &mut Found,
    ) -> bool {
        let start = block * section.block_bytes;
        let bytes = section.block_bytes.min(section.stored - start);
        piece.resize(bytes as usize, 0);
        let detail = match self.map.read_at(piece, section.offset + start) {
            Err(error) => Some(format!("it cannot be read: {error}")),
            Ok(()) if block_sum(section.kind, block, piece).to_le_bytes() != sum => {
                Some(MISMATCH.to_owned())
            }
            Ok(()) => None,
        };
        let state = &self.blocks[(section.first_sum + block) as usize];
        let sound = detail.is_none();
        state.store(if sound { SOUND } else { BAD }, Ordering::Release);
        let damage = detail.map(|detail| self.bad_block(section, block, detail));
        found.faults.extend(damage);
        sound
    }

    /// The fault of a file that has become shorter than it was.
    fn cut(&self) -> Option<Damage> {
        match self.read() {
            Err(Error::Damaged(damage)) => Some(damage),
            _ => None,
        }
    }

    /// Takes over what another reading of the same file found bad: it is not served any more.
    pub(crate) fn learn(&self, other: &Self) {
        for (mine, found) in self.blocks.iter().zip(&other.blocks) {
            if found.load(Ordering::Acquire) == BAD {
                mine.store(BAD, Ordering::Release);
            }
        }
        let sections = self.header.sections.iter();
        for (section, (mine, found)) in sections.zip(self.sums.iter().zip(&other.sums)) {
            if found.load(Ordering::Acquire) != BAD {
                continue;
            }
            mine.store(BAD, Ordering::Release);
            if section.kind != kind::CHECKSUMS {
                let first = section.first_sum as usize;
                doubt(&self.blocks[first..first + section.blocks() as usize]);
            }
        }
    }

    /// Whether any block or table of checksums was found bad.
    pub(crate) fn is_known_bad(&self) -> bool {
        let mut states = self.blocks.iter().chain(&self.sums);
        states.any(|state| state.load(Ordering::Relaxed) == BAD)
    }

    /// Forgets that anything is sound, so that all of it is verified again before it is served.
    pub(crate) fn doubt(&self) {
        doubt(&self.blocks);
        doubt(&self.sums);
    }
}

fn doubt(states: &[AtomicU8]) {
    for state in states {
        // What is bad stays so.
        let _ = state.compare_exchange(SOUND, UNKNOWN, Ordering::AcqRel, Ordering::Relaxed);
    }
}
