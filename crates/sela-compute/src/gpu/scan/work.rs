//! A search at work: units looked up or brought in, ranked, and the candidates of each query.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::bound::{Slack, is_sound};
use super::kernels::{BINS, Kernels, Key, MATRIX_QUERIES, SHARE, TILE_ROWS};
use super::pages::{Pages, Place};
use super::space::{Input, Packed, Space, index};
use super::units::{Layout, Once, Unit};
use super::upload;
use crate::cpu::scan::Pick;
use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Pending, Read, Recording};
use crate::scan::{Metric, Record};

/// Most bytes of the best ranks of a submission.
const BEST_BYTES: u64 = 64 << 20;
/// Submissions under way at once.
const FLIGHTS: usize = 2;
/// Least queries for which the matrix kernel is used: fewer are sooner done eight at a time.
pub(super) const MATRIX_LEAST: usize = 16;
/// The rank of a group without a live row, as the kernels write it.
const LOW: f32 = -3.4e38;
/// Groups that a list has room for, a query: for few queries and for many; four times `k` at least.
const ROOM_FEW: usize = 4_096;
const ROOM_MANY: usize = 1_024;

/// What all searches on a device share.
pub(super) struct Engine {
    pub(super) gpu: Gpu,
    pub(super) kernels: Kernels,
    /// Held by a search from looking units up until the submission that reads them: the queue's
    /// order then keeps later writes away from what they read. Whoever changes where units lie that
    /// others may use holds it, so a unit that was found stays where it is.
    pub(super) turn: Mutex<()>,
    /// Locked for moments only, never while rows are read: others ask for figures meanwhile.
    pub(super) pages: Mutex<Pages>,
    pub(super) spaces: Mutex<Vec<Space>>,
    /// Most ranks that come back whole, for the CPU to choose among.
    pub(super) ranks_on_cpu_max: u32,
}

/// What a search is made of.
pub(super) struct Job<'j, 'a> {
    pub(super) blocks: &'j [Once<'j, 'a>],
    /// The units of each record.
    pub(super) units: &'j [Vec<Unit>; 2],
    pub(super) packed: &'j Packed,
    pub(super) k: usize,
    /// Side of the matrices, if batches go over matrices.
    pub(super) matrix: Option<u32>,
    pub(super) subgroup: bool,
    pub(super) pool: &'j crate::cpu::pool::Pool,
}

impl Job<'_, '_> {
    /// The side of the matrices that this batch goes over for rows of f16.
    pub(super) fn side(&self) -> Option<u32> {
        self.matrix.filter(|_| self.packed.len() >= MATRIX_LEAST)
    }

    /// Rows of a group of a record.
    pub(super) fn group_rows(&self, record: usize) -> u32 {
        match self.side() {
            Some(_) if record == index(Record::F16) => 64,
            _ => 32,
        }
    }
}

/// What a device has to say about a query.
pub(super) enum Verdict {
    /// Rows among which the nearest are.
    Picks(Vec<Pick>),
    /// More groups came near the k-th best rank than a list holds.
    TooMany,
    /// Some row's norm is beyond what the device can rank.
    Unsound,
}

/// A unit in its place.
struct Placed {
    record: usize,
    unit: Unit,
    place: Place,
    /// Brought in by this submission: its norms are missing yet.
    fresh: bool,
    /// Some of its rows could not be read; none of them takes part in this search.
    spoiled: bool,
    first_group: u32,
}

/// A submission under way.
struct Flight {
    pending: Pending,
    placed: Vec<Placed>,
    space: Space,
    back: Back,
}

/// What comes back of a submission.
#[derive(Clone, Copy)]
enum Back {
    /// The best ranks of so many groups, for each query, then the units' largest squared norms.
    Whole { groups: usize },
    /// Lists of groups near the k-th best, with room for so many.
    Lists { room: usize },
}

/// What has come back for a query.
#[derive(Default)]
pub(super) struct Seen {
    /// The best rank of a group, and the group.
    pub(super) groups: Vec<(f32, Pick)>,
    /// The largest squared norm.
    pub(super) square: f32,
    pub(super) too_many: bool,
}

/// The kernel that ranks the units of a record, and what it is given.
#[derive(Clone, Copy)]
struct Ranker {
    layout: Layout,
    /// The side of the matrices.
    matrix: Option<u32>,
    /// Where the queries are in the input, and the matrix kernel's scales.
    queries: u32,
    scales: u32,
}

impl Engine {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up the copies of blocks whose rows are gone.
    pub(super) fn forget(&self, owner: u64) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock().forget_owner(owner);
    }

    /// Ranks all units for all queries of a batch.
    pub(super) fn search(&self, job: &Job<'_, '_>) -> Result<Vec<Verdict>, Error> {
        let slacks = job.packed.slacks(job.side().is_some());
        let verdicts = self.seen(job)?.into_iter().zip(slacks);
        Ok(verdicts
            .map(|(seen, slack)| seen.verdict(slack, job.k))
            .collect())
    }

    /// The best rank of every group that may hold a nearest row, for each query.
    pub(super) fn seen(&self, job: &Job<'_, '_>) -> Result<Vec<Seen>, Error> {
        let search = self.lock().next_search();
        let result = self.rounds(job, search);
        if result.is_err() {
            // What was to be brought in may lack rows or norms.
            self.lock().forget_unproven(search);
        }
        result
    }

    fn rounds(&self, job: &Job<'_, '_>, search: u64) -> Result<Vec<Seen>, Error> {
        let mut seen: Vec<Seen> = Vec::new();
        seen.resize_with(job.packed.len(), Seen::default);
        let all = (0..2).flat_map(|record| job.units[record].iter().map(move |u| (record, *u)));
        let mut todo: VecDeque<(usize, Unit)> = all.collect();
        let mut flights: VecDeque<Flight> = VecDeque::new();
        let mut round = 0;
        while !todo.is_empty() {
            let flight = self.round(job, search, round, &mut todo)?;
            flights.extend(flight);
            round += 1;
            if flights.len() > FLIGHTS
                && let Some(flight) = flights.pop_front()
            {
                self.land(job, search, flight, &mut seen)?;
            }
        }
        for flight in flights {
            self.land(job, search, flight, &mut seen)?;
        }
        Ok(seen)
    }

    /// Submits what can be: first all units that are on the device, then those that are not, as
    /// many as half of the ring holds.
    fn round(
        &self,
        job: &Job<'_, '_>,
        search: u64,
        round: u64,
        todo: &mut VecDeque<(usize, Unit)>,
    ) -> Result<Option<Flight>, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let half_bytes = self.lock().half_bytes;
        let mut input = Input::default();
        let rankers = rankers(job, &mut input);
        let queries = job.packed.len().next_multiple_of(8);
        let most = BEST_BYTES.min(self.gpu.facts().binding_bytes) / 4 / queries as u64;
        let (mut placed, mut groups, mut ring) = (Vec::new(), 0u32, 0u64);
        let mut uploaded = 0;
        let mut later = VecDeque::new();
        while let Some((record, unit)) = todo.pop_front() {
            let more = unit.groups(job.group_rows(record));
            let layout = rankers[record].layout;
            let bytes = layout.unit_bytes(unit.rows);
            let full = !placed.is_empty() && u64::from(groups + more) > most;
            let found = match unit.name {
                Some(name) if !full => {
                    let form = unit.form(layout);
                    self.lock().find(name, form, search, round == 0)
                }
                _ => None,
            };
            let (place, fresh, spoiled) = match found {
                Some(place) => (place, false, false),
                None if round == 0 => {
                    if !full {
                        self.lock().miss(unit.name, search);
                    }
                    later.push_back((record, unit));
                    continue;
                }
                None if full || (uploaded > 0 && uploaded + bytes > half_bytes) => {
                    later.push_back((record, unit));
                    continue;
                }
                None => {
                    let place = self.bring(job, search, round, &mut ring, (layout, unit))?;
                    let Some((place, spoiled)) = place else {
                        later.push_back((record, unit));
                        continue;
                    };
                    uploaded += bytes;
                    (place, true, spoiled)
                }
            };
            placed.push(Placed {
                record,
                unit,
                place,
                fresh,
                spoiled,
                first_group: groups,
            });
            groups += more;
        }
        *todo = later;
        if placed.is_empty() {
            return Ok(None);
        }
        // Units of a dispatch one after another: same slab, same record, sizes alike.
        placed.sort_by_key(|p| {
            (
                p.place.slab,
                p.record,
                p.unit.rows.ilog2() / 3,
                p.first_group,
            )
        });
        self.submit(job, input, &rankers, placed, groups).map(Some)
    }

    /// Brings a unit in, to stay if it may, else through the ring; `None` when the ring is full.
    /// With its place comes whether some of its rows could not be read, none of which takes part.
    fn bring(
        &self,
        job: &Job<'_, '_>,
        search: u64,
        round: u64,
        ring: &mut u64,
        (layout, unit): (Layout, Unit),
    ) -> Result<Option<(Place, bool)>, Error> {
        let bytes = layout.unit_bytes(unit.rows);
        let stays = match unit.name {
            Some(name) => self.lock().admit(name, bytes, search)?,
            None => None,
        };
        let place = match stays {
            Some(place) => Some(place),
            None => self.lock().ring(round, *ring, bytes)?,
        };
        let Some(place) = place else { return Ok(None) };
        let slab = self.slab(place.slab)?;
        let block = &job.blocks[unit.block as usize];
        let up = upload::unit(
            &self.gpu,
            job.pool,
            block,
            &unit,
            layout,
            (&slab, place.offset),
        );
        let spoiled = matches!(up, Ok(true));
        let mut pages = self.lock();
        match (up, stays.and(unit.name)) {
            (Ok(_), Some(name)) => pages.keep(name, unit.form(layout), place, search),
            (Ok(_), None) => {
                pages.streamed();
                *ring += bytes.next_multiple_of(64 << 10);
            }
            (Err(error), stays) => {
                if stays.is_some() {
                    pages.give_back(place);
                }
                return Err(error);
            }
        }
        Ok(Some((place, spoiled)))
    }

    /// Records and submits the ranking of units in their places.
    fn submit(
        &self,
        job: &Job<'_, '_>,
        mut input: Input,
        rankers: &[Ranker; 2],
        placed: Vec<Placed>,
        groups: u32,
    ) -> Result<Flight, Error> {
        let gpu = &self.gpu;
        let queries = job.packed.len();
        let units = put_units(&mut input, job, rankers, &placed);
        let slacks = put_slacks(&mut input, job);
        let room = if queries <= 8 { ROOM_FEW } else { ROOM_MANY };
        let room = room.max(4 * job.k).min(groups as usize);
        let heads = queries as u32 * BINS;
        let lists = heads + queries as u32 * 4;
        let peaks = queries.next_multiple_of(8) as u32 * groups;
        let best_words = u64::from(peaks) + placed.len() as u64;
        let lists_bytes = u64::from(lists) * 4 + (queries * room * 8) as u64;
        let whole = Back::Whole {
            groups: groups as usize,
        };
        let (back, counts_bytes) = match best_words <= u64::from(self.ranks_on_cpu_max) {
            true => (whole, 0),
            false => (Back::Lists { room }, lists_bytes),
        };
        let mut space = self.space();
        let sizes = [input.bytes().len() as u64, best_words * 4, counts_bytes];
        space.reserve(gpu, sizes)?;
        space.put(gpu, &input)?;
        let selection = Key::selection(gpu.facts(), groups, job.k);
        let counts = matches!(back, Back::Lists { .. }) && selection.len() > 1;
        let mut recording = self.recording(&space, counts.then_some(u64::from(lists) * 4))?;
        self.record_norms(&mut recording, &mut space, rankers, &placed)?;
        for run in runs(&placed) {
            let ranker = rankers[placed[run.start].record];
            let to = Ranking {
                units: units + run.start as u32 * 2,
                groups,
                peaks: peaks + run.start as u32,
            };
            let run = &placed[run];
            self.record_ranks(&mut recording, &mut space, job, (ranker, to), run)?;
        }
        let read = match back {
            Back::Whole { .. } => Read {
                buffer: space.best(gpu)?,
                offset: 0,
                bytes: best_words * 4,
            },
            Back::Lists { room } => {
                let select = [
                    groups,
                    peaks,
                    placed.len() as u32,
                    job.k as u32,
                    slacks,
                    heads,
                    lists,
                    room as u32,
                ];
                self.record_select(&mut recording, &mut space, &select, (selection, queries))?;
                Read {
                    buffer: space.counts(gpu)?,
                    offset: u64::from(heads) * 4,
                    bytes: (queries * (16 + room * 8)) as u64,
                }
            }
        };
        let pending = recording.submit(&[read])?;
        Ok(Flight {
            pending,
            placed,
            space,
            back,
        })
    }

    /// Begins to record; where groups are counted, that begins with zeros in so many bytes.
    fn recording(&self, space: &Space, zeros: Option<u64>) -> Result<Recording, Error> {
        let mut recording = self.gpu.record("search")?;
        if zeros.is_some() {
            let counts = space.counts(&self.gpu)?;
            recording.encoder().clear_buffer(counts, 0, zeros);
        }
        Ok(recording)
    }

    /// Records the selection of the groups near the k-th best, for each query.
    fn record_select(
        &self,
        recording: &mut Recording,
        space: &mut Space,
        select: &[u32; 8],
        (selection, queries): (&[Key], usize),
    ) -> Result<(), Error> {
        for &key in selection {
            let share = match key {
                Key::Choose { .. } => select[0].max(1),
                _ => SHARE,
            };
            let kernel = self.kernels.get(key)?;
            let bound = space.bind(&self.gpu, &self.kernels, key, None)?;
            let pass = recording.pass();
            pass.set_pipeline(&kernel.pipeline);
            pass.set_bind_group(0, &bound, &[]);
            pass.set_immediates(0, bytemuck::cast_slice(select));
            pass.dispatch_workgroups(select[0].div_ceil(share), queries as u32, 1);
        }
        Ok(())
    }

    /// The buffer of a slab.
    fn slab(&self, number: usize) -> Result<Buffer, Error> {
        self.lock().buffer(number).cloned()
    }

    fn space(&self) -> Space {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.pop().unwrap_or_else(Space::new)
    }

    /// Records the squared norms of units that have just come in.
    fn record_norms(
        &self,
        recording: &mut Recording,
        space: &mut Space,
        rankers: &[Ranker; 2],
        placed: &[Placed],
    ) -> Result<(), Error> {
        for placed in placed.iter().filter(|placed| placed.fresh) {
            let layout = rankers[placed.record].layout;
            let key = Key::Norms {
                record: layout.record,
                chunks: layout.chunks(),
            };
            let kernel = self.kernels.get(key)?;
            let slab = self.slab(placed.place.slab)?;
            let slab = Some((placed.place.slab, &slab));
            let bound = space.bind(&self.gpu, &self.kernels, key, slab)?;
            let first = (placed.place.offset / 4) as u32;
            let peak = first + (layout.padded(placed.unit.rows) / 4) as u32;
            let pass = recording.pass();
            pass.set_pipeline(&kernel.pipeline);
            pass.set_bind_group(0, &bound, &[]);
            pass.set_immediates(0, bytemuck::cast_slice(&[first, peak, placed.unit.rows]));
            pass.dispatch_workgroups(placed.unit.rows.div_ceil(64), 1, 1);
        }
        Ok(())
    }

    /// Records the ranking of a run of units for all queries.
    fn record_ranks(
        &self,
        recording: &mut Recording,
        space: &mut Space,
        job: &Job<'_, '_>,
        (ranker, to): (Ranker, Ranking),
        run: &[Placed],
    ) -> Result<(), Error> {
        let Ranker {
            layout, queries, ..
        } = ranker;
        let metric = job.packed.metric;
        let count = job.packed.len();
        let slab = self.slab(run[0].place.slab)?;
        let slab = (run[0].place.slab, &slab);
        let rows = run.iter().map(|placed| placed.unit.rows).max().unwrap_or(0);
        let grid = (rows.div_ceil(TILE_ROWS), run.len() as u32);
        let mut first = 0;
        while first < count {
            let (key, taken, immediates) = if let Some(side) = ranker.matrix {
                let stride = (layout.stride() / 2) as u32;
                let immediates = vec![
                    to.units,
                    queries * 8 + first as u32 * stride,
                    to.groups,
                    first as u32 * to.groups,
                    to.peaks,
                    ranker.scales + first as u32 / 4,
                    (count - first).min(MATRIX_QUERIES) as u32,
                ];
                let key = Key::Matrix {
                    side,
                    cols: immediates[6].div_ceil(side),
                    metric,
                    chunks: layout.chunks(),
                };
                (key, MATRIX_QUERIES, immediates)
            } else {
                let taken = (count - first).min(8).next_power_of_two();
                let stride = (layout.stride() / layout.record.bytes() / 4) as u32;
                let immediates = vec![
                    to.units,
                    queries + first as u32 * stride,
                    to.groups,
                    first as u32 * to.groups,
                    to.peaks,
                ];
                (
                    few(job.subgroup, metric, layout, taken as u32),
                    taken,
                    immediates,
                )
            };
            let kernel = self.kernels.get(key)?;
            let bound = space.bind(&self.gpu, &self.kernels, key, Some(slab))?;
            let pass = recording.pass();
            pass.set_pipeline(&kernel.pipeline);
            pass.set_bind_group(0, &bound, &[]);
            pass.set_immediates(0, bytemuck::cast_slice(&immediates));
            pass.dispatch_workgroups(grid.0, grid.1, 1);
            first += taken;
        }
        Ok(())
    }

    /// Waits for a submission and notes what it found.
    fn land(
        &self,
        job: &Job<'_, '_>,
        search: u64,
        flight: Flight,
        seen: &mut [Seen],
    ) -> Result<(), Error> {
        let Flight {
            pending,
            mut placed,
            space,
            back,
        } = flight;
        placed.sort_by_key(|placed| placed.first_group);
        pending.wait(|bytes| match back {
            Back::Whole { groups } => note_whole(job, &placed, groups, bytes, seen),
            Back::Lists { room } => note_lists(job, &placed, room, bytes, seen),
        })?;
        let mut pages = self.lock();
        for placed in placed.iter().filter(|placed| placed.fresh) {
            match (placed.unit.name, placed.spoiled) {
                (Some(name), false) => pages.prove(name, search),
                (Some(name), true) => pages.forget(name, search),
                (None, _) => {}
            }
        }
        drop(pages);
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        space.keep(&mut spaces);
        Ok(())
    }
}

/// Notes the ranks of all groups that have a live row.
fn note_whole(
    job: &Job<'_, '_>,
    placed: &[Placed],
    groups: usize,
    bytes: &[u8],
    seen: &mut [Seen],
) {
    let words = bytes.as_chunks().0;
    let number = |word: &[u8; 4]| f32::from_le_bytes(*word);
    let peaks = words.iter().skip(seen.len().next_multiple_of(8) * groups);
    let square = peaks.map(number).fold(0.0, f32::max);
    for (seen, ranks) in seen.iter_mut().zip(words.chunks(groups)) {
        seen.square = seen.square.max(square);
        for (group, rank) in ranks.iter().map(number).enumerate() {
            if rank > LOW {
                let pick = pick(job, placed, group as u32);
                seen.groups.push((rank, pick));
            }
        }
    }
}

/// Notes the groups that the device has put on the lists.
fn note_lists(job: &Job<'_, '_>, placed: &[Placed], room: usize, bytes: &[u8], seen: &mut [Seen]) {
    let words = |at: usize| {
        let bytes = bytes[at * 4..].first_chunk().copied().unwrap_or_default();
        u32::from_le_bytes(bytes)
    };
    let lists = seen.len() * 4;
    for (query, seen) in seen.iter_mut().enumerate() {
        let count = words(query * 4) as usize;
        seen.square = seen.square.max(f32::from_bits(words(query * 4 + 1)));
        seen.too_many |= count > room;
        for entry in 0..count.min(room) {
            let at = lists + (query * room + entry) * 2;
            let pick = pick(job, placed, words(at));
            seen.groups.push((f32::from_bits(words(at + 1)), pick));
        }
    }
}

/// Where the ranks of a run of units go.
#[derive(Clone, Copy)]
struct Ranking {
    units: u32,
    groups: u32,
    peaks: u32,
}

/// The kernel for up to eight queries.
fn few(subgroup: bool, metric: Metric, layout: Layout, queries: u32) -> Key {
    Key::Few {
        subgroup,
        record: layout.record,
        metric,
        chunks: layout.chunks(),
        queries,
    }
}

/// How the units of each record are ranked; puts the queries into the input as that needs them.
fn rankers(job: &Job<'_, '_>, input: &mut Input) -> [Ranker; 2] {
    [Record::F32, Record::F16].map(|record| {
        let layout = Layout {
            dim: job.packed.dim,
            record,
        };
        let matrix = job.side().filter(|_| record == Record::F16);
        let (queries, scales) = match (job.units[index(record)].is_empty(), matrix) {
            (true, _) => (0, 0),
            (false, Some(_)) => input.put_matrix(job.packed, layout),
            (false, None) => (input.put_few(job.packed, layout), 0),
        };
        Ranker {
            layout,
            matrix,
            queries,
            scales,
        }
    })
}

/// Runs of units that one dispatch can rank.
fn runs(placed: &[Placed]) -> impl Iterator<Item = Range<usize>> {
    let same = |a: &Placed, b: &Placed| {
        let key = |p: &Placed| (p.place.slab, p.record, p.unit.rows.ilog2() / 3);
        key(a) == key(b)
    };
    let mut start = 0;
    placed.chunk_by(same).flat_map(move |run| {
        let first = start;
        start += run.len();
        // A grid is at most 65,535 high.
        let end = start;
        (first..end)
            .step_by(65_535)
            .map(move |at| at..(at + 65_535).min(end))
    })
}

/// Puts what a rank may be off by, of each query, into the input: where it is.
fn put_slacks(input: &mut Input, job: &Job<'_, '_>) -> u32 {
    let slacks = job.packed.slacks(job.side().is_some());
    let words = |s: &Slack| [s.a, s.b, s.c, 0.0].map(f32::to_bits);
    input.put(slacks.iter().flat_map(words))
}

/// Puts the units' table and their bitmaps into the input: where the table is.
fn put_units(
    input: &mut Input,
    job: &Job<'_, '_>,
    rankers: &[Ranker; 2],
    placed: &[Placed],
) -> u32 {
    let mut words: Vec<u32> = Vec::new();
    let table_at = input.at();
    // The bitmaps come behind the table.
    let bitmaps = (table_at + placed.len() as u32 * 2) * 4;
    let mut table = Vec::with_capacity(placed.len() * 8);
    for placed in placed {
        let Unit {
            block,
            rows,
            masked,
            ..
        } = placed.unit;
        let layout = rankers[placed.record].layout;
        let first = (placed.place.offset / 16) as u32;
        let peak = first + (layout.padded(rows) / 16) as u32;
        let mut live = u32::MAX;
        if masked && let Some(bits) = placed.unit.words(&job.blocks[block as usize].block) {
            live = bitmaps + words.len() as u32;
            words.extend(
                bits.iter()
                    .flat_map(|word| [*word as u32, (*word >> 32) as u32]),
            );
        }
        table.extend([first, peak, rows, live, placed.first_group, 0, 0, 0]);
    }
    let at = input.put(table);
    input.put(words);
    at
}

/// The rows of a group of a submission.
fn pick(job: &Job<'_, '_>, placed: &[Placed], group: u32) -> Pick {
    let at = placed.partition_point(|placed| placed.first_group <= group);
    let placed = &placed[at.saturating_sub(1)];
    let size = job.group_rows(placed.record);
    let start = (group - placed.first_group) * size;
    Pick {
        block: placed.unit.block,
        first: placed.unit.first + start,
        len: size.min(placed.unit.rows.saturating_sub(start)),
    }
}

impl Seen {
    /// The groups that reach the k-th best rank of all submissions, less twice the bound.
    fn verdict(mut self, slack: Slack, k: usize) -> Verdict {
        if !is_sound(self.square) {
            return Verdict::Unsound;
        }
        if self.too_many {
            return Verdict::TooMany;
        }
        let mut least = f64::NEG_INFINITY;
        if self.groups.len() > k {
            let by_rank = |a: &(f32, Pick), b: &(f32, Pick)| b.0.total_cmp(&a.0);
            let (_, kth, _) = self.groups.select_nth_unstable_by(k - 1, by_rank);
            least = f64::from(kth.0) - slack.at(self.square);
        }
        let near = self
            .groups
            .into_iter()
            .filter(|(rank, _)| f64::from(*rank) >= least);
        Verdict::Picks(near.map(|(_, pick)| pick).collect())
    }
}
