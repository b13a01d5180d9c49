//! The header page of a segment file.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::model::Record;
use crate::shape::{ALIGN, Shape, align_up};

pub(super) const HEADER_BYTES: usize = ALIGN as usize;
pub(super) const META_BLOCK_BYTES: u64 = 65_536;
const MAGIC: &[u8; 8] = b"SELASEG\0";
const VERSION: u32 = 1;
const TABLE_AT: usize = 72;
const ENTRY_BYTES: usize = 56;
const SUM_AT: usize = HEADER_BYTES - 8;
const SECTIONS_MAX: u32 = 64;

/// The kinds of sections.
pub(crate) mod kind {
    pub(crate) const RECORDS: u32 = 1;
    pub(crate) const IDS: u32 = 2;
    pub(crate) const ID_STARTS: u32 = 3;
    pub(crate) const ROWS: u32 = 4;
    pub(crate) const RANKS: u32 = 5;
    pub(crate) const SEQS: u32 = 6;
    pub(crate) const DOCS: u32 = 7;
    pub(crate) const CHECKSUMS: u32 = 8;
    /// From here on, sections derived from the others, which a reader may ignore.
    pub(crate) const DERIVED: u32 = 16;

    /// The name of a kind of section.
    pub(crate) fn name(kind: u32) -> &'static str {
        match kind {
            RECORDS => "records",
            IDS => "ids",
            ID_STARTS => "id starts",
            ROWS => "rows",
            RANKS => "ranks",
            SEQS => "sequences",
            DOCS => "documents",
            CHECKSUMS => "checksums",
            _ => "derived",
        }
    }
}

/// How the ids of a segment are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdForm {
    Num = 1,
    Uuid = 2,
    Key = 3,
}

/// One entry of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) stored: u64,
    pub(super) block_bytes: u64,
    pub(super) first_sum: u64,
    pub(super) checksum: u64,
}

impl Section {
    pub(super) fn blocks(&self) -> u64 {
        self.stored.div_ceil(self.block_bytes)
    }
}

/// What the header page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) file_bytes: u64,
    pub(super) rows: u32,
    pub(super) shape: Shape,
    pub(super) id_form: IdForm,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// Those that hold the rows; read from a file, without derived ones.
    pub(super) sections: Vec<Section>,
}

/// Why a page is not the header of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Newer(u32),
    Broken(&'static str),
}

/// The digest of a header page.
pub(super) fn digest(page: &[u8]) -> u128 {
    xxh3_128(page)
}

impl Header {
    pub(super) fn section(&self, kind: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0_u8; HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            page[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&VERSION.to_le_bytes());
        put(&(HEADER_BYTES as u32).to_le_bytes());
        put(&self.file_bytes.to_le_bytes());
        put(&self.rows.to_le_bytes());
        put(&self.shape.dim.to_le_bytes());
        put(&record_code(self.shape.record).to_le_bytes());
        put(&(self.shape.row_bytes as u32).to_le_bytes());
        put(&self.shape.rows_per_block.to_le_bytes());
        put(&(self.id_form as u32).to_le_bytes());
        put(&self.first_seq.to_le_bytes());
        put(&self.last_seq.to_le_bytes());
        put(&(self.sections.len() as u32).to_le_bytes());
        put(&[0; 4]);
        for section in &self.sections {
            put(&section.kind.to_le_bytes());
            put(&(ALIGN as u32).to_le_bytes());
            for number in [
                section.offset,
                section.bytes,
                section.stored,
                section.block_bytes,
                section.first_sum,
                section.checksum,
            ] {
                put(&number.to_le_bytes());
            }
        }
        let sum = xxh3_64(&page[..SUM_AT]);
        page[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        page
    }

    /// Reads the header page of a file of `actual_bytes`.
    pub(super) fn decode(page: &[u8], actual_bytes: u64) -> Result<Self, HeaderFault> {
        use HeaderFault::{Broken, Newer};
        if page.len() < HEADER_BYTES || &page[..8] != MAGIC {
            return Err(Broken("it does not begin as a segment"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap_or([0; 4]));
        let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap_or([0; 8]));
        if u64_at(SUM_AT) != xxh3_64(&page[..SUM_AT]) {
            return Err(Broken("its header's checksum does not match"));
        }
        if u32_at(8) != VERSION {
            return Err(Newer(u32_at(8)));
        }
        if u32_at(12) != HEADER_BYTES as u32 || u32_at(68) != 0 {
            return Err(Broken("its header page is not of this version"));
        }
        if u64_at(16) != actual_bytes {
            return Err(Broken("it is not as long as its header says"));
        }
        let record = match u32_at(32) {
            1 => Record::F32,
            2 => Record::F16,
            _ => return Err(Broken("its record type is unknown")),
        };
        let id_form = match u32_at(44) {
            1 => IdForm::Num,
            2 => IdForm::Uuid,
            3 => IdForm::Key,
            _ => return Err(Broken("its form of ids is unknown")),
        };
        let count = u32_at(64);
        if count > SECTIONS_MAX {
            return Err(Broken("it has too many sections"));
        }
        let entries = (0..count as usize).map(|index| TABLE_AT + index * ENTRY_BYTES);
        if entries.clone().any(|at| u32_at(at + 4) != ALIGN as u32) {
            return Err(Broken("its sections are not aligned as this version does"));
        }
        let sections = entries
            .map(|at| Section {
                kind: u32_at(at),
                offset: u64_at(at + 8),
                bytes: u64_at(at + 16),
                stored: u64_at(at + 24),
                block_bytes: u64_at(at + 32),
                first_sum: u64_at(at + 40),
                checksum: u64_at(at + 48),
            })
            .collect();
        let mut header = Self {
            file_bytes: u64_at(16),
            rows: u32_at(24),
            shape: Shape {
                dim: u32_at(28),
                record,
                row_bytes: u32_at(36) as usize,
                rows_per_block: u32_at(40),
            },
            id_form,
            first_seq: u64_at(48),
            last_seq: u64_at(56),
            sections,
        };
        header.check().map_err(Broken)?;
        header
            .sections
            .retain(|section| section.kind < kind::DERIVED);
        Ok(header)
    }

    /// Whether the sections fit the rows, each other and the file, so that no reader needs to
    /// ask again.
    fn check(&self) -> Result<(), &'static str> {
        let shape = &self.shape;
        if self.rows == 0
            || shape.dim == 0
            || shape.row_bytes != shape.dim as usize * shape.record.number_bytes()
            || shape.rows_per_block == 0
            || !shape.rows_per_block.is_multiple_of(64)
        {
            return Err("its records have no sensible size");
        }
        let sums = self.check_order()?;
        let rows = u64::from(self.rows);
        let wanted = [
            (kind::RECORDS, Some(shape.contents(self.rows)), true),
            (kind::IDS, self.id_bytes(), true),
            (
                kind::ID_STARTS,
                Some((rows + 1) * 4),
                self.id_form == IdForm::Key,
            ),
            (kind::ROWS, Some(rows * 4), false),
            (
                kind::RANKS,
                Some(rows * 4),
                self.section(kind::ROWS).is_some(),
            ),
            (
                kind::SEQS,
                Some(rows * 8),
                self.last_seq != self.first_seq.wrapping_add(rows - 1),
            ),
            (kind::DOCS, Some(rows * 8), false),
            (kind::CHECKSUMS, Some(sums * 8), true),
        ];
        for (kind, bytes, required) in wanted {
            match self.section(kind) {
                Some(section) if bytes.is_some_and(|bytes| bytes != section.bytes) => {
                    return Err("a section does not fit its rows");
                }
                None if required => return Err("a section is missing"),
                _ => {}
            }
        }
        let records = self.section(kind::RECORDS);
        if records.is_none_or(|section| section.block_bytes != shape.block_bytes()) {
            return Err("its blocks of records have no sensible size");
        }
        Ok(())
    }

    /// Whether the sections follow one another, in the order of their kinds; how many blocks
    /// have their checksums in the checksum section.
    fn check_order(&self) -> Result<u64, &'static str> {
        let (mut offset, mut sums, mut previous) = (HEADER_BYTES as u64, 0, 0);
        for section in &self.sections {
            let known = (kind::RECORDS..=kind::CHECKSUMS).contains(&section.kind);
            if section.kind <= previous || !(known || section.kind >= kind::DERIVED) {
                return Err("its sections are not in the order of their kinds");
            }
            previous = section.kind;
            if section.offset != offset
                || section.bytes > self.file_bytes
                || section.stored != align_up(section.bytes)
                || section.block_bytes == 0
                || !section.block_bytes.is_multiple_of(ALIGN)
            {
                return Err("its sections do not follow one another");
            }
            if known && section.kind != kind::RECORDS && section.block_bytes != META_BLOCK_BYTES {
                return Err("its blocks have no sensible size");
            }
            if section.kind < kind::CHECKSUMS {
                if section.first_sum != sums {
                    return Err("its checksums are not in order");
                }
                sums += section.blocks();
            }
            offset += section.stored;
        }
        match offset == self.file_bytes {
            true => Ok(sums),
            false => Err("its sections do not fill the file"),
        }
    }

    fn id_bytes(&self) -> Option<u64> {
        match self.id_form {
            IdForm::Num => Some(u64::from(self.rows) * 8),
            IdForm::Uuid => Some(u64::from(self.rows) * 16),
            IdForm::Key => None,
        }
    }
}

fn record_code(record: Record) -> u32 {
    match record {
        Record::F32 => 1,
        Record::F16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(kind: u32, offset: u64, bytes: u64, first_sum: u64) -> Section {
        Section {
            kind,
            offset,
            bytes,
            stored: align_up(bytes),
            block_bytes: META_BLOCK_BYTES,
            first_sum,
            checksum: 7,
        }
    }

    /// A header of three rows of numbers, with one page for each of its sections.
    fn header() -> Header {
        let shape = Shape {
            dim: 4,
            record: Record::F32,
            row_bytes: 16,
            rows_per_block: 1024,
        };
        let records = Section {
            block_bytes: shape.block_bytes(),
            ..section(kind::RECORDS, ALIGN, 48, 0)
        };
        let sections = vec![
            records,
            section(kind::IDS, 2 * ALIGN, 24, 1),
            section(kind::CHECKSUMS, 3 * ALIGN, 16, 0),
        ];
        Header {
            file_bytes: 4 * ALIGN,
            rows: 3,
            shape,
            id_form: IdForm::Num,
            first_seq: 1,
            last_seq: 3,
            sections,
        }
    }

    fn decode(header: &Header) -> Result<Header, HeaderFault> {
        Header::decode(&header.encode(), header.file_bytes)
    }

    #[test]
    fn derived_sections_are_passed_over() {
        let plain = header();
        assert_eq!(decode(&plain).as_ref(), Ok(&plain));
        let mut derived = header();
        for (index, kind) in [kind::DERIVED, 40].into_iter().enumerate() {
            let offset = (4 + index as u64) * ALIGN;
            derived.sections.push(section(kind, offset, 99, 0));
        }
        derived.file_bytes = 6 * ALIGN;
        let read = decode(&derived);
        assert_eq!(read.map(|header| header.sections), Ok(plain.sections));
    }

    #[test]
    fn sections_out_of_order_are_refused() {
        let broken = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            matches!(decode(&header), Err(HeaderFault::Broken(_)))
        };
        assert!(broken(|header| header.sections[1].kind = kind::RECORDS));
        assert!(broken(|header| header.sections[1].kind = 9));
        assert!(broken(|header| header.sections[2].kind = kind::DERIVED));
        assert!(broken(|header| header.sections[1].first_sum = 0));
        assert!(broken(|header| header.sections[1].block_bytes = ALIGN));
        assert!(broken(|header| {
            header.sections.swap(1, 2);
            (header.sections[1].offset, header.sections[2].offset) = (2 * ALIGN, 3 * ALIGN);
        }));
    }

    #[test]
    fn fields_that_never_vary_are_read() {
        for at in [12, 68, TABLE_AT + 4, TABLE_AT + ENTRY_BYTES + 4] {
            let mut page = header().encode();
            page[at] ^= 1;
            let sum = xxh3_64(&page[..SUM_AT]);
            page[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
            let read = Header::decode(&page, 4 * ALIGN);
            assert!(matches!(read, Err(HeaderFault::Broken(_))), "{at}");
        }
    }
}
