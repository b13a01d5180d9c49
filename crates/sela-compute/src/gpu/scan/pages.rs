//! Which rows are on the device: slabs of memory, the units that lie in them, and who has to go.
//!
//! A **unit** is a block's rows or a part of them, padded to whole tiles, with the rows' squared
//! norms behind. Units lie in **slabs**, each a buffer as large as one binding may be, so that one
//! dispatch scans all units of a slab. What was not used for longest goes first, but only for a
//! unit that has been missed twice since: a search over more rows than fit leaves alone what the
//! searches before it have brought in, and streams the rest through a small **ring**.

use std::collections::{BTreeMap, HashMap};

use wgpu::BufferUsages;

use crate::error::Error;
use crate::gpu::residency::Residency;
use crate::gpu::{Buffer, Gpu};
use crate::scan::{PageId, Record};

/// Most bytes of a unit, padding and norms included: a page of 32 MiB with room to spare.
const UNIT_BYTES: u64 = 40 << 20;
/// Units begin at multiples of this.
const GRAIN: u64 = 64 << 10;
/// Bytes of the first slab; later ones double what there is.
const SLAB_BYTES: u64 = 256 << 20;
/// Most bytes of half of the ring.
const HALF_BYTES: u64 = 64 << 20;
/// Units that were missed of which count is kept.
const GHOSTS: usize = 1 << 16;

/// What the device's copies of rows have come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    /// Units of rows that a search found on the device.
    pub hits: u64,
    /// Units that it did not find there.
    pub misses: u64,
    /// Units brought in to stay.
    pub page_ins: u64,
    /// Units that had to go.
    pub page_outs: u64,
    /// Units that were streamed through, not to stay.
    pub streamed: u64,
    /// Bytes of device memory that hold rows.
    pub resident_bytes: u64,
    /// Bytes of device memory taken for rows, the free ones included.
    pub reserved_bytes: u64,
    /// Most bytes that may be taken.
    pub budget_bytes: u64,
}

/// The name of a unit: its block's and the first row in the block.
pub(super) type Name = (PageId, u32);

/// The form of a unit's rows; a copy of another form is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) rows: u32,
    pub(super) dim: u32,
    pub(super) record: Record,
}

/// Where a unit lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slab: usize,
    /// In bytes, a multiple of `GRAIN`.
    pub(super) offset: u64,
    bytes: u64,
}

struct Slab {
    buffer: Buffer,
    /// Free ranges by their offset.
    free: BTreeMap<u64, u64>,
}

struct Page {
    place: Place,
    form: Form,
    /// The last search that used it.
    used: u64,
    /// The search that brings it in, as long as no submission has proven that its norms are there:
    /// nobody else may use it until then.
    unproven: Option<u64>,
}

/// A unit that was not found.
struct Ghost {
    /// The first search that missed it.
    since: u64,
    count: u32,
}

/// The units on the device. Only the search whose turn it is lets units in and others go; see
/// `Engine::turn`.
pub(super) struct Pages {
    gpu: Gpu,
    residency: Residency,
    /// Slab 0 is the ring.
    slabs: Vec<Option<Slab>>,
    pages: HashMap<Name, Page>,
    ghosts: HashMap<Name, Ghost>,
    tick: u64,
    slab_bytes_max: u64,
    /// Bytes of half of the ring.
    pub(super) half_bytes: u64,
    /// Most bytes of a unit.
    pub(super) unit_bytes: u64,
    /// Most bytes of slabs but the ring.
    room: u64,
    taken: u64,
    stats: PageStats,
}

impl Pages {
    /// Nothing on the device yet. The ring's share comes out of the budget.
    pub(super) fn new(gpu: &Gpu, budget: u64) -> Self {
        let binding = gpu.facts().binding_bytes / GRAIN * GRAIN;
        let unit_bytes = (budget / 8).min(UNIT_BYTES).min(binding / 2) / GRAIN * GRAIN;
        let half_bytes =
            (budget / 16).clamp(unit_bytes, HALF_BYTES.max(unit_bytes)) / GRAIN * GRAIN;
        let half_bytes = half_bytes.min(binding / 2 / GRAIN * GRAIN);
        Self {
            gpu: gpu.clone(),
            residency: Residency::new(gpu),
            slabs: vec![None],
            pages: HashMap::new(),
            ghosts: HashMap::new(),
            tick: 0,
            slab_bytes_max: binding,
            half_bytes,
            unit_bytes,
            room: budget.saturating_sub(2 * half_bytes) / GRAIN * GRAIN,
            taken: 0,
            stats: PageStats {
                budget_bytes: budget,
                ..PageStats::default()
            },
        }
    }

    pub(super) fn stats(&self) -> PageStats {
        let ring = self.slabs[0].as_ref().map_or(0, |_| 2 * self.half_bytes);
        PageStats {
            reserved_bytes: self.taken + ring,
            ..self.stats
        }
    }

    /// The number of the next search.
    pub(super) fn next_search(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// The buffer of a slab that a place is in.
    pub(super) fn buffer(&self, slab: usize) -> Result<&Buffer, Error> {
        let slab = self.slabs.get(slab).and_then(Option::as_ref);
        slab.map(|slab| &slab.buffer)
            .ok_or_else(|| self.gpu.error("a slab is gone"))
    }

    /// Where a unit is, without counting it.
    pub(super) fn peek(&self, name: Name, form: Form) -> Option<Place> {
        let page = self.pages.get(&name)?;
        (page.form == form).then_some(page.place)
    }

    /// Where a unit is, for the search `search`; counted as a hit if this is its first look.
    pub(super) fn find(
        &mut self,
        name: Name,
        form: Form,
        search: u64,
        first: bool,
    ) -> Option<Place> {
        match self.pages.get_mut(&name) {
            Some(page) if page.form == form && page.unproven.is_none_or(|by| by == search) => {
                page.used = page.used.max(search);
                self.stats.hits += u64::from(first);
                Some(page.place)
            }
            _ => None,
        }
    }

    /// Counts a unit that was not found.
    pub(super) fn miss(&mut self, name: Option<Name>, search: u64) {
        self.stats.misses += 1;
        let Some(name) = name else { return };
        if self.ghosts.len() >= GHOSTS {
            // All of them, now and then: what matters will be missed again.
            self.ghosts.clear();
        }
        let since = Ghost {
            since: search,
            count: 0,
        };
        self.ghosts.entry(name).or_insert(since).count += 1;
    }

    /// Room for a unit that is to stay, or `None` when nothing may go for it.
    pub(super) fn admit(
        &mut self,
        name: Name,
        bytes: u64,
        search: u64,
    ) -> Result<Option<Place>, Error> {
        let bytes = bytes.next_multiple_of(GRAIN);
        let under_way = |page: &Page| page.unproven.is_some_and(|by| by != search);
        if self.pages.get(&name).is_some_and(under_way) {
            // Another search is bringing it in.
            return Ok(None);
        }
        // A copy of another form under this name is of no use any more.
        self.drop_page(name);
        if bytes > self.room {
            return Ok(None);
        }
        loop {
            if let Some(place) = self.take_free(bytes) {
                return Ok(Some(place));
            }
            if self.grow(bytes)? {
                continue;
            }
            let Some(victim) = self.victim(name, search) else {
                return Ok(None);
            };
            self.drop_page(victim);
            self.stats.page_outs += 1;
        }
    }

    /// The unit that has not been used for longest, if it may go for `name`.
    fn victim(&self, name: Name, search: u64) -> Option<Name> {
        let ghost = self.ghosts.get(&name)?;
        let (victim, page) = self
            .pages
            .iter()
            .min_by_key(|(name, page)| (page.used, **name))?;
        let idle = page.used < search && page.used < ghost.since && ghost.count >= 2;
        idle.then_some(*victim)
    }

    /// A unit's rows are in their place; [`prove`](Self::prove) says when the rest is.
    pub(super) fn keep(&mut self, name: Name, form: Form, place: Place, search: u64) {
        self.ghosts.remove(&name);
        self.stats.page_ins += 1;
        self.stats.resident_bytes += place.bytes;
        let page = Page {
            place,
            form,
            used: search,
            unproven: Some(search),
        };
        self.pages.insert(name, page);
    }

    /// The submission that completes a unit has reached its end: all searches may use it.
    pub(super) fn prove(&mut self, name: Name, search: u64) {
        if let Some(page) = self.pages.get_mut(&name)
            && page.unproven == Some(search)
        {
            page.unproven = None;
        }
    }

    /// Forgets a unit that a search has brought in and that is not whole.
    pub(super) fn forget(&mut self, name: Name, search: u64) {
        let own = |page: &Page| page.unproven == Some(search);
        if self.pages.get(&name).is_some_and(own) {
            self.drop_page(name);
        }
    }

    /// Forgets what a search has brought in and not proven; only it has used that.
    pub(super) fn forget_unproven(&mut self, search: u64) {
        let unproven =
            |(name, page): (&Name, &Page)| (page.unproven == Some(search)).then_some(*name);
        let names: Vec<Name> = self.pages.iter().filter_map(unproven).collect();
        for name in names {
            self.drop_page(name);
        }
    }

    /// Forgets all units of blocks whose rows are gone. Those that work is under way with stay
    /// readable to it: the queue's order keeps later writes away.
    pub(super) fn forget_owner(&mut self, owner: u64) {
        let names: Vec<Name> = self
            .pages
            .keys()
            .filter(|(page, _)| page.owner == owner)
            .copied()
            .collect();
        for name in names {
            self.drop_page(name);
        }
        self.ghosts.retain(|(page, _), _| page.owner != owner);
    }

    /// A place that did not get its unit.
    pub(super) fn give_back(&mut self, place: Place) {
        let Some(slab) = self.slabs.get_mut(place.slab).and_then(Option::as_mut) else {
            return;
        };
        let (mut offset, mut bytes) = (place.offset, place.bytes);
        // Neighbours that are free as well become one range with it.
        if let Some((&before, &len)) = slab.free.range(..offset).next_back()
            && before + len == offset
        {
            slab.free.remove(&before);
            (offset, bytes) = (before, bytes + len);
        }
        if let Some(len) = slab.free.remove(&(offset + bytes)) {
            bytes += len;
        }
        slab.free.insert(offset, bytes);
    }

    /// A place in the ring's half number `half`, `used` bytes of which are taken.
    pub(super) fn ring(
        &mut self,
        half: u64,
        used: u64,
        bytes: u64,
    ) -> Result<Option<Place>, Error> {
        let bytes = bytes.next_multiple_of(GRAIN);
        if used + bytes > self.half_bytes {
            return Ok(None);
        }
        if self.slabs[0].is_none() {
            let buffer = self.slab_buffer(2 * self.half_bytes)?;
            let free = BTreeMap::new();
            self.slabs[0] = Some(Slab { buffer, free });
        }
        let offset = half % 2 * self.half_bytes + used;
        Ok(Some(Place {
            slab: 0,
            offset,
            bytes,
        }))
    }

    /// Counts a unit that went through the ring.
    pub(super) fn streamed(&mut self) {
        self.stats.streamed += 1;
    }

    fn drop_page(&mut self, name: Name) {
        if let Some(page) = self.pages.remove(&name) {
            self.stats.resident_bytes -= page.place.bytes;
            self.give_back(page.place);
        }
    }

    fn take_free(&mut self, bytes: u64) -> Option<Place> {
        for (number, slab) in self.slabs.iter_mut().enumerate().skip(1) {
            let Some(slab) = slab else { continue };
            let fits = slab.free.iter().find(|(_, len)| **len >= bytes);
            let Some((&offset, &len)) = fits else {
                continue;
            };
            slab.free.remove(&offset);
            if len > bytes {
                slab.free.insert(offset + bytes, len - bytes);
            }
            return Some(Place {
                slab: number,
                offset,
                bytes,
            });
        }
        None
    }

    /// Adds a slab with room for `bytes`, if the budget has it.
    fn grow(&mut self, bytes: u64) -> Result<bool, Error> {
        let left = self.room - self.taken;
        let size = self
            .taken
            .max(SLAB_BYTES)
            .min(self.slab_bytes_max)
            .min(left);
        if size < bytes {
            return Ok(false);
        }
        let buffer = match self.slab_buffer(size) {
            Ok(buffer) => buffer,
            // The device has less memory to spare than the budget says: what there is will do.
            Err(error) if self.taken > 0 && !self.gpu.is_lost() => {
                tracing::warn!(%error, taken = self.taken, "no more memory for rows on the GPU");
                self.room = self.taken;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let free = BTreeMap::from([(0, size)]);
        self.slabs.push(Some(Slab { buffer, free }));
        self.taken += size;
        Ok(true)
    }

    fn slab_buffer(&self, bytes: u64) -> Result<Buffer, Error> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        self.residency.buffer("rows", bytes, usage)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for slab in self.slabs.drain(..).flatten() {
            self.residency.release(slab.buffer);
        }
    }
}
