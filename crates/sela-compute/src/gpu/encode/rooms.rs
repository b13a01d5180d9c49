//! Room for the activations of a forward, kept from one to the next.
//!
//! A device works through its submissions in order, so a room is free again as soon as the forward
//! in it is submitted: as many rooms are needed as threads record at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use wgpu::BufferUsages;

use super::shaders::{Kind, Style};
use super::weights::{Name, padded};
use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Kernel, Purpose};

/// Rooms kept while nobody uses them.
const ROOMS: usize = 4;
/// Most bytes of them together; one is kept whatever it takes.
const ROOM_BYTES: u64 = 512 << 20;
/// Bind groups kept in a room: those of several models.
const BOUND: usize = 1024;

/// What a room must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Numbers of a hidden state. Rooms for another size have other columns that must be zero.
    pub(super) hidden: usize,
    /// Numbers of the widest row between two products, padded.
    pub(super) wide: usize,
    /// Whether rows of the word table are sent along.
    pub(super) sent: bool,
    /// Tokens.
    pub(super) rows: usize,
    /// Sequences.
    pub(super) sequences: usize,
}

impl Need {
    /// Numbers of all tables: two a token, two a sequence, four a tile of 32 rows.
    fn table_words(self) -> usize {
        2 * self.rows + 2 * self.sequences + 4 * (self.rows / 32 + self.sequences) + 4
    }

    fn met_by(self, has: Self) -> bool {
        let fits = self.rows <= has.rows && self.sequences <= has.sequences;
        fits && self.hidden == has.hidden && self.wide <= has.wide && self.sent == has.sent
    }

    /// A little more, so that a batch which is a bit larger fits as well.
    fn rounded(self) -> Self {
        let up = |n: usize| n.next_multiple_of((n.next_power_of_two() / 4).max(128));
        Self {
            rows: up(self.rows),
            sequences: up(self.sequences),
            ..self
        }
    }
}

/// The buffers of a room. Rows are padded to whole tiles.
#[derive(Clone)]
pub(super) struct Buffers {
    /// Hidden states.
    pub(super) hidden: Buffer,
    /// Queries, keys and values, or inner states.
    pub(super) wide: Buffer,
    /// Outputs of attention before their projection.
    pub(super) context: Buffer,
    /// Outputs of a block before they are added to the hidden states.
    pub(super) outputs: Buffer,
    /// Tokens, spans of sequences, tiles of attention.
    pub(super) tables: Buffer,
    /// Rows of the word table, if they are sent.
    pub(super) sent: Buffer,
    /// The result.
    pub(super) vectors: Buffer,
}

/// Buffers and what was bound of them.
pub(super) struct Room {
    has: Need,
    pub(super) buffers: Buffers,
    bound: HashMap<(Option<Name>, Kind), wgpu::BindGroup>,
}

impl Room {
    fn new(gpu: &Gpu, style: Style, need: Need) -> Result<Self, Error> {
        let seen = gpu.facts().binding_bytes;
        let bytes = |has: Need| {
            let width = has.hidden.max(has.wide);
            // Attention reads up to 31 rows after the last one.
            ((has.rows + 32) * padded(width) * style.bytes()) as u64
        };
        let mut has = need.rounded();
        if bytes(has) > seen {
            has = Need {
                rows: need.rows.next_multiple_of(128),
                ..need
            };
        }
        if bytes(has) > seen {
            let limit = (seen / bytes(Need { rows: 1, ..need })) as usize;
            return Err(Error::Limit {
                what: "number of tokens of a batch on this GPU",
                value: need.rows,
                limit,
            });
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = |label, numbers: usize, size| {
            gpu.buffer(Purpose::Work, label, (numbers * size) as u64, usage)
        };
        let rows = |label, width, size| buffer(label, (has.rows + 32) * width, size);
        let width = padded(has.hidden);
        let sent = if has.sent { has.rows * width } else { 0 };
        Ok(Self {
            has,
            buffers: Buffers {
                hidden: rows("hidden states", width, style.bytes())?,
                wide: rows("wide states", has.wide, style.bytes())?,
                context: rows("context", width, style.bytes())?,
                outputs: rows("outputs", width, style.bytes())?,
                tables: buffer("tables", has.table_words(), 4)?,
                sent: buffer("sent words", sent, style.bytes())?,
                vectors: buffer("vectors", has.sequences * has.hidden, 4)?,
            },
            bound: HashMap::new(),
        })
    }

    /// Bytes of all its buffers.
    fn bytes(&self) -> u64 {
        let Buffers {
            hidden,
            wide,
            context,
            outputs,
            tables,
            sent,
            vectors,
        } = &self.buffers;
        let all = [hidden, wide, context, outputs, tables, sent, vectors];
        all.map(|buffer| buffer.size()).iter().sum()
    }

    /// The bind group of `kernel` for the weights of that name, made at the first call.
    pub(super) fn bound(
        &mut self,
        gpu: &Gpu,
        (name, kind): (Option<Name>, Kind),
        kernel: &Kernel,
        buffers: &[&Buffer],
    ) -> Result<&wgpu::BindGroup, Error> {
        if self.bound.len() >= BOUND {
            self.bound.clear();
        }
        match self.bound.entry((name, kind)) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let whole: Vec<_> = buffers
                    .iter()
                    .map(|buffer| buffer.as_entire_buffer_binding())
                    .collect();
                Ok(entry.insert(kernel.bind(gpu, &whole)?))
            }
        }
    }
}

/// Rooms that are free.
pub(super) struct Rooms {
    free: Mutex<Vec<Room>>,
    /// Most bytes of several.
    bytes_max: u64,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            free: Mutex::default(),
            bytes_max: ROOM_BYTES,
        }
    }
}

impl Rooms {
    /// The smallest free room that will do, or a new one.
    pub(super) fn take(&self, gpu: &Gpu, style: Style, need: Need) -> Result<Room, Error> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = (0..free.len())
            .filter(|&i| need.met_by(free[i].has))
            .min_by_key(|&i| free[i].has.rows);
        if let Some(fit) = fit {
            return Ok(free.swap_remove(fit));
        }
        drop(free);
        Room::new(gpu, style, need)
    }

    /// Gives a room back. Of too many, or too large ones together, the smallest go.
    pub(super) fn put(&self, room: Room) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(room);
        let bytes = |free: &[Room]| free.iter().map(Room::bytes).sum::<u64>();
        while free.len() > ROOMS || free.len() > 1 && bytes(&free) > self.bytes_max {
            let smallest = (0..free.len()).min_by_key(|&i| free[i].bytes());
            free.swap_remove(smallest.unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::encode::Variant;

    #[test]
    fn idle_rooms_are_few_and_small_together() {
        let Some(gpu) = crate::gpu::tests::gpu() else {
            return;
        };
        let style = Style::new(Variant::Plain, false, 32 << 10);
        let room = |rows| {
            let need = Need {
                hidden: 64,
                wide: 128,
                sent: false,
                rows,
                sequences: 1,
            };
            Room::new(&gpu, style, need).unwrap()
        };
        let small = room(100).bytes();
        assert_eq!(gpu.memory().work, 0, "a room that is dropped is free");
        let rooms = Rooms {
            bytes_max: 10 * small,
            ..Rooms::default()
        };
        for _ in 0..ROOMS + 2 {
            rooms.put(room(100));
        }
        assert_eq!(gpu.memory().work, ROOMS as u64 * small);
        // One that is larger than all may be together stays alone.
        let large = room(10_000);
        let bytes = large.bytes();
        assert!(bytes > 10 * small);
        rooms.put(large);
        assert_eq!(gpu.memory().work, bytes);
        rooms.put(room(100));
        assert_eq!(gpu.memory().work, bytes);
    }
}
