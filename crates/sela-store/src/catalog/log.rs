//! SQLite's log, read as SQLite reads it: to tell an end that was torn from damage before it.
//!
//! For SQLite the log ends at the first frame whose checksum is wrong. That is right for the last
//! transaction, which may be torn in any way as long as it was not synced. But a transaction is
//! begun only after the one before it was synced, and every frame's checksum rests on that of the
//! frame before. So a wrong frame is damage when behind it a frame rests on a commit: that commit
//! was acknowledged, and SQLite would pass over it.
//!
//! What is left of older logs has other salts. What is left of a transaction that was torn or
//! refused, and written over since, ends with its commit; nothing rests on that.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LOG;
use crate::disk::{Disk, OpenMode};
use crate::error::{Damage, DamagePlace, Error, Result};

const MAGIC: u32 = 0x377f_0682;
/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// What a device writes whole or not at all.
const SECTOR: u64 = 512;

/// Refuses a log in which acknowledged transactions stand behind a damaged frame.
pub(crate) fn check_log(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    const TRIES: usize = 5;
    let path = dir.join(LOG);
    let mut before = None;
    for _ in 0..TRIES {
        let found = damaged_frame(disk, &path).map_err(|error| Error::io("read", &path, error))?;
        let Some(frame) = found else {
            return Ok(());
        };
        // A writer elsewhere may have gone on while we read: only what stays is damage.
        if before == found {
            let place = DamagePlace::Log { path, frame };
            let detail = "its checksum does not match its bytes, and acknowledged writes follow it";
            return Err(Error::Damaged(Damage {
                place,
                detail: detail.into(),
            }));
        }
        before = found;
    }
    Ok(())
}

fn damaged_frame(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Option<u64>> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let length = file.len()?;
    let mut header = [0; HEADER_BYTES];
    if length < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    match file.read_at(&mut header, 0) {
        Err(error) if gone(&error) => return Ok(None),
        read => read?,
    }
    let Some(mut log) = Log::begin(&header) else {
        return Ok(None);
    };
    let mut bytes = vec![0; FRAME_HEADER_BYTES + log.page_bytes];
    let (mut offset, mut at) = (HEADER_BYTES as u64, 1);
    while offset + bytes.len() as u64 <= length {
        match file.read_at(&mut bytes, offset) {
            // Whoever closed the collection elsewhere has taken the log in.
            Err(error) if gone(&error) => return Ok(None),
            read => read?,
        }
        let header_is_whole = offset % SECTOR + FRAME_HEADER_BYTES as u64 <= SECTOR;
        if let Some(damaged) = log.look(at, &bytes, header_is_whole) {
            return Ok(Some(damaged));
        }
        offset += bytes.len() as u64;
        at += 1;
    }
    Ok(None)
}

/// A walk along the frames.
struct Log {
    big_endian: bool,
    page_bytes: usize,
    salts: [u8; 8],
    /// The checksum that the frame before names.
    sum: [u32; 2],
    /// The page of the frame before, if that is a commit.
    committed: Option<u32>,
    damaged: Option<u64>,
}

impl Log {
    /// Starts behind the header; none when SQLite ignores the whole file.
    fn begin(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let magic = number(header, 0);
        let page_bytes = number(header, 8) as usize;
        let big_endian = magic & 1 == 1;
        let sum = checksum(big_endian, &header[..24], [0, 0]);
        let known = magic & !1 == MAGIC
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && sum == [number(header, 24), number(header, 28)];
        known.then(|| Self {
            big_endian,
            page_bytes,
            salts: header[16..24].try_into().unwrap_or_default(),
            sum,
            committed: None,
            damaged: None,
        })
    }

    /// Looks at the next frame; the number of the damaged one before it, if it proves that one
    /// damaged.
    fn look(&mut self, at: u64, frame: &[u8], header_is_whole: bool) -> Option<u64> {
        let (page, commits) = (number(frame, 0), number(frame, 4) != 0);
        let ours = page != 0 && frame[8..16] == self.salts;
        let named = [number(frame, 16), number(frame, 20)];
        let sum = checksum(self.big_endian, &frame[..8], self.sum);
        let sum = checksum(self.big_endian, &frame[FRAME_HEADER_BYTES..], sum);
        // This frame is as it was written, and so is what the one before it names.
        let rests = ours && sum == named;
        // Where a write may spoil the rest of its sector, SQLite repeats the commit up to the end
        // of that, before the sync and across it.
        let repeats = commits && self.committed == Some(page);
        if self.damaged.is_some() && rests && self.committed.is_some() && !repeats {
            return self.damaged;
        }
        let first_wrong = !rests && self.damaged.is_none();
        if first_wrong {
            self.damaged = Some(at);
        }
        // The header of the damaged frame is trusted where no tear can have mixed two of them.
        let trusted = rests || (first_wrong && ours && header_is_whole && !repeats);
        self.committed = (commits && trusted).then_some(page);
        self.sum = named;
        None
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

/// SQLite's checksum of a multiple of eight bytes, on top of the one before.
fn checksum(big_endian: bool, bytes: &[u8], before: [u32; 2]) -> [u32; 2] {
    let word = |bytes: [u8; 4]| match big_endian {
        true => u32::from_be_bytes(bytes),
        false => u32::from_le_bytes(bytes),
    };
    let [mut a, mut b] = before;
    for [first, second] in bytes.as_chunks::<4>().0.as_chunks::<2>().0 {
        a = a.wrapping_add(word(*first)).wrapping_add(b);
        b = b.wrapping_add(word(*second)).wrapping_add(a);
    }
    [a, b]
}
