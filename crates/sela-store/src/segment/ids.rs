//! The ids of a segment being written: as compact as their kind allows.

use std::cmp::Ordering;

use super::layout::IdForm;
use crate::id::Id;

/// A column of ids in the order of their rows.
#[derive(Debug)]
pub(super) enum IdColumn {
    Num(Vec<u64>),
    Uuid(Vec<[u8; 16]>),
    Key { starts: Vec<u32>, bytes: Vec<u8> },
}

impl IdColumn {
    pub(super) fn new() -> Self {
        Self::Num(Vec::new())
    }

    pub(super) fn form(&self) -> IdForm {
        match self {
            Self::Num(_) => IdForm::Num,
            Self::Uuid(_) => IdForm::Uuid,
            Self::Key { .. } => IdForm::Key,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Num(ids) => ids.len(),
            Self::Uuid(ids) => ids.len(),
            Self::Key { starts, .. } => starts.len(),
        }
    }

    pub(super) fn push(&mut self, id: &Id) {
        match (&mut *self, id) {
            (Self::Num(ids), Id::Num(id)) => ids.push(*id),
            (Self::Uuid(ids), Id::Uuid(id)) => ids.push(*id),
            (Self::Num(ids), Id::Uuid(id)) if ids.is_empty() => *self = Self::Uuid(vec![*id]),
            (Self::Key { starts, bytes }, id) => {
                starts.push(bytes.len() as u32);
                bytes.extend(id.to_key());
            }
            _ => {
                self.mix();
                self.push(id);
            }
        }
    }

    /// Turns to keys, as ids of several kinds have come.
    fn mix(&mut self) {
        let ids: Vec<Id> = match std::mem::replace(self, Self::new()) {
            Self::Num(ids) => ids.into_iter().map(Id::Num).collect(),
            Self::Uuid(ids) => ids.into_iter().map(Id::Uuid).collect(),
            mixed @ Self::Key { .. } => {
                *self = mixed;
                return;
            }
        };
        *self = Self::Key {
            starts: Vec::new(),
            bytes: Vec::new(),
        };
        ids.iter().for_each(|id| self.push(id));
    }

    /// The rows in the order of their ids, equal ones by row.
    pub(super) fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| self.compare(a, b).then(a.cmp(&b)));
        order
    }

    pub(super) fn compare(&self, a: u32, b: u32) -> Ordering {
        match self {
            Self::Num(ids) => ids[a as usize].cmp(&ids[b as usize]),
            Self::Uuid(ids) => ids[a as usize].cmp(&ids[b as usize]),
            Self::Key { .. } => self.key(a).cmp(self.key(b)),
        }
    }

    /// The bytes of a row's key; only of a column of keys.
    fn key(&self, row: u32) -> &[u8] {
        let Self::Key { starts, bytes } = self else {
            return &[];
        };
        let end = starts
            .get(row as usize + 1)
            .map_or(bytes.len(), |&end| end as usize);
        &bytes[starts[row as usize] as usize..end]
    }

    /// Appends what stands for a row's id in the file.
    pub(super) fn write(&self, row: u32, out: &mut Vec<u8>) {
        match self {
            Self::Num(ids) => out.extend(ids[row as usize].to_le_bytes()),
            Self::Uuid(ids) => out.extend(ids[row as usize]),
            Self::Key { .. } => out.extend(self.key(row)),
        }
    }

    /// The bytes of a row's id in the file.
    pub(super) fn width(&self, row: u32) -> u32 {
        match self {
            Self::Num(_) => 8,
            Self::Uuid(_) => 16,
            Self::Key { .. } => self.key(row).len() as u32,
        }
    }
}
