//! The encoder on the CPU: passes are recorded, then run tile by tile of whole sequences.
//!
//! Much text is cut into tiles of about a hundred tokens, each taken through all passes by one
//! thread while its activations are in that thread's cache. Little text is one tile that all
//! threads work on, sharing the columns of each product, so that each reads its part of the
//! weights only. Neither choice changes a bit of the result.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::attention;
use super::blocks::{Columns, Form, GROUP, Left, Line, Room, Twice, Unit};
use super::kernels::Kernels;
use super::lined::lines_of;
use super::pool::{Member, Pool, Width};
use super::rates;
use super::stages::{StageTimes, Stages};
use super::weights::{CpuAttention, CpuEmbedding, CpuFeedForward};
use crate::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, Pooling, Ragged,
    Share, TensorRows, Ticket,
};
use crate::error::Error;
use crate::isa::Isa;
use crate::plan::Arithmetic;

/// Tokens of a tile that one thread takes through all passes, by the bytes of a number that is
/// multiplied. The weights come from the third-level cache once a tile: the more tokens, the less
/// often; but their activations are to stay in the second level.
const fn tile_tokens(arithmetic: Arithmetic) -> usize {
    match arithmetic {
        Arithmetic::Bf16 | Arithmetic::Int8 | Arithmetic::Int16 | Arithmetic::F32 => 256,
        _ => 128,
    }
}

/// Rows of the feed-forward block at a time, whole blocks: their inner activations stay in the
/// second-level cache.
pub(super) const fn inner_rows(arithmetic: Arithmetic) -> usize {
    match arithmetic {
        Arithmetic::Bf16 => 256,
        Arithmetic::Bf16x3 | Arithmetic::F32 => 128,
        _ => 64,
    }
}

/// Fewest tokens for which a second thread pays.
const WIDE_TOKENS: usize = 4;

/// Encodes on the CPU.
pub struct CpuEncode {
    pub(super) kernels: &'static Kernels,
    isa: Isa,
    pub(super) arithmetic: Arithmetic,
    /// What rounds and multiplies, where products are of blocks.
    pub(super) blocks: Option<(Unit, Form)>,
    /// The numbers of attention by the same unit, where heads fit.
    attention: Option<Form>,
    pub(super) stages: Stages,
    pool: Arc<Pool>,
    scratch: Mutex<Vec<Scratch>>,
}

pub(super) enum Pass<'a> {
    /// The word table's rows are taken once a forward: asking a mapped file is a system call.
    Embed(&'a CpuEmbedding, TensorRows<'a>),
    Attend(&'a CpuAttention),
    FeedForward(&'a CpuFeedForward),
    Pool {
        pooling: Pooling,
        normalize: bool,
    },
}

/// A forward being recorded for the CPU.
pub struct CpuForward<'a> {
    pub(super) backend: &'a CpuEncode,
    pub(super) batch: &'a Ragged,
    pub(super) hidden: usize,
    pub(super) passes: Vec<Pass<'a>>,
    share: Share,
}

/// Vectors that are ready.
pub struct CpuTicket(Vec<f32>);

impl Ticket for CpuTicket {
    fn wait(self) -> Result<Vec<f32>, Error> {
        Ok(self.0)
    }
}

impl CpuEncode {
    /// An encoder that runs on `threads` threads (the caller's counted), with the kernels of `isa`
    /// and products in `arithmetic`.
    pub fn new(isa: Isa, arithmetic: Arithmetic, threads: usize) -> Result<Self, Error> {
        let kernels =
            Kernels::new(isa).ok_or_else(|| Error::Missing(format!("{isa} instructions")))?;
        let pool = Arc::new(Pool::new(threads));
        let blocks = Form::of(arithmetic).map(|form| (Unit::of(isa, form), form));
        Ok(Self {
            kernels,
            isa,
            arithmetic,
            attention: blocks.and_then(|(unit, form)| attention::form_beside(unit, form)),
            blocks,
            stages: Stages::default(),
            pool,
            scratch: Mutex::default(),
        })
    }

    /// The form of the numbers that are multiplied, where products are of blocks.
    pub(super) fn form(&self) -> Option<Form> {
        self.blocks.map(|(_, form)| form)
    }

    /// See [`Form::rounds_whole_rows`].
    pub(super) fn rounds_whole_rows(&self) -> bool {
        self.form().is_some_and(Form::rounds_whole_rows)
    }

    /// What multiplies and the form of the numbers, where attention in heads of so many numbers is
    /// not by f32 registers.
    pub(super) fn attention_by_unit(&self, dim: usize) -> Option<(Unit, Form)> {
        let (unit, _) = self.blocks?;
        let form = self.attention.filter(|_| attention::fits_tiles(dim))?;
        Some((unit, form))
    }

    /// The form of bf16 that queries, keys and values of heads of so many numbers become as they are
    /// made, where attention reads them so.
    pub(super) fn projected_form(&self, dim: usize) -> Option<Form> {
        let (_, form) = self.attention_by_unit(dim)?;
        Some(form).filter(|form| !form.rounds_whole_rows())
    }

    /// The arithmetic of its products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Calls `work` for every number below `n`, on all threads that are free.
    pub fn for_each(&self, n: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        self.pool.run(Width::all_if(n > 1), |_| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                work(i);
            }
        });
    }

    /// The instruction set of its kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether forwards from now on add up what their stages take; costs a reading of the clock a stage.
    pub fn record_stages(&self, on: bool) {
        self.stages.record(on);
    }

    /// What was added up since the last time.
    pub fn take_stages(&self) -> StageTimes {
        self.stages.take()
    }

    /// Multiply-adds a second that all threads together reach in its arithmetic without reading
    /// anything, of random numbers: the ceiling of its products. `None` where it is emulated, and
    /// where another call has the threads. Measured now, within a millisecond or two.
    pub fn ceiling(&self) -> Option<f64> {
        let found = Mutex::new(Some(0.0));
        self.pool.run(Width::All, |member| {
            // All at once.
            member.wait();
            let rate = rates::of(self.kernels, self.blocks);
            let rate = rate.filter(|_| member.size == self.threads());
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            *found = found.zip(rate).map(|(sum, rate)| sum + rate);
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads a single call may use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Encode for CpuEncode {
    type Embedding = CpuEmbedding;
    type Attention = CpuAttention;
    type FeedForward = CpuFeedForward;
    type Forward<'a> = CpuForward<'a>;
    type Ticket = CpuTicket;

    fn embedding(&self, tensors: EmbeddingTensors) -> Result<CpuEmbedding, Error> {
        CpuEmbedding::new(tensors)
    }

    fn attention(&self, tensors: AttentionTensors) -> Result<CpuAttention, Error> {
        CpuAttention::new(self, tensors)
    }

    fn feed_forward(&self, tensors: FeedForwardTensors) -> Result<CpuFeedForward, Error> {
        CpuFeedForward::new(self, tensors)
    }

    fn begin<'a>(&'a self, batch: &'a Ragged) -> Result<CpuForward<'a>, Error> {
        Ok(CpuForward {
            backend: self,
            batch,
            hidden: 0,
            passes: Vec::new(),
            share: Share::default(),
        })
    }
}

impl<'a> CpuForward<'a> {
    fn expect_hidden(&self, what: &str, found: usize) -> Result<(), Error> {
        if self.hidden == found {
            return Ok(());
        }
        Err(Error::Shape {
            what: format!("{what} block"),
            expected: self.hidden,
            found,
        })
    }
}

impl<'a> Forward<'a> for CpuForward<'a> {
    type Backend = CpuEncode;

    fn embed(&mut self, weights: &'a CpuEmbedding) -> Result<(), Error> {
        let [vocabulary, hidden] = weights.word.shape();
        if let Some(id) = self
            .batch
            .ids()
            .iter()
            .find(|&&id| id as usize >= vocabulary)
        {
            let (value, limit) = (*id as usize, vocabulary - 1);
            return Err(Error::Limit {
                what: "token id",
                value,
                limit,
            });
        }
        let limit = weights.position.len() / hidden;
        let longest = (0..self.batch.len())
            .map(|i| self.batch.range(i).len())
            .max();
        if let Some(value) = longest.filter(|&len| len > limit) {
            return Err(Error::Limit {
                what: "number of tokens of a text",
                value,
                limit,
            });
        }
        self.hidden = hidden;
        self.passes.push(Pass::Embed(weights, weights.word.rows()?));
        Ok(())
    }

    fn attend(&mut self, weights: &'a CpuAttention) -> Result<(), Error> {
        self.expect_hidden("attention", weights.output.outputs())?;
        self.passes.push(Pass::Attend(weights));
        Ok(())
    }

    fn feed_forward(&mut self, weights: &'a CpuFeedForward) -> Result<(), Error> {
        self.expect_hidden("feed-forward", weights.down.outputs())?;
        self.passes.push(Pass::FeedForward(weights));
        Ok(())
    }

    fn pool(&mut self, pooling: Pooling, normalize: bool) -> Result<(), Error> {
        self.passes.push(Pass::Pool { pooling, normalize });
        Ok(())
    }

    fn share(&mut self, share: Share) {
        self.share = share;
    }

    fn submit(self) -> Result<CpuTicket, Error> {
        let mut out = vec![0.0; self.batch.len() * self.hidden];
        let shared = Shared(out.as_mut_ptr());
        let tokens = self.batch.ids().len();
        let pool = &self.backend.pool;
        let threads = pool.threads();
        let width = match self.share {
            Share::Part => Width::AllButOne,
            Share::Whole => Width::all_if(tokens >= WIDE_TOKENS),
        };
        let tiles =
            self.cut((tokens / (4 * threads)).clamp(48, tile_tokens(self.backend.arithmetic)));
        if tiles.len() >= 3 * threads {
            let next = AtomicUsize::new(0);
            pool.run(width, |_| {
                let mut scratch = self.backend.take_scratch();
                let alone = Member::alone();
                while let Some(tile) = tiles.get(next.fetch_add(1, Ordering::Relaxed)) {
                    scratch.fit(&self, tile.clone(), 1);
                    // SAFETY: the scratch is this member's own; tiles have rows of `out` apart.
                    unsafe { self.run(alone, tile.clone(), scratch.layout(self.hidden), shared) };
                }
                self.backend.put_scratch(scratch);
            });
        } else {
            let mut scratch = self.backend.take_scratch();
            for tile in tiles {
                scratch.fit(&self, tile.clone(), threads);
                let layout = scratch.layout(self.hidden);
                pool.run(width, |member| {
                    // SAFETY: the members of one job write apart between two barriers.
                    unsafe { self.run(member, tile.clone(), layout, shared) };
                });
            }
            self.backend.put_scratch(scratch);
        }
        Ok(CpuTicket(out))
    }
}

/// A pointer that the members of a job share, each writing where no other does.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);

// SAFETY: the pointer itself may travel; each write through it is argued for where it is made.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    ///
    /// `offset` lies inside the allocation.
    pub(super) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// Activations of a tile; kept from call to call.
struct Scratch {
    /// Numbers, in whole lines of the cache: what is stored by the register else lies across two.
    hidden: Vec<Line>,
    projected: Vec<Line>,
    /// The same in bf16, in one part or two of so many panels of so many rows.
    projected_lines: Vec<Line>,
    projected_panels: usize,
    rows: usize,
    context: Vec<Line>,
    /// What a code of each row of the context stands for, where it is of codes.
    context_steps: Vec<f32>,
    inner: Vec<Line>,
    attention: Vec<Line>,
    attention_each: usize,
    attention_lines: Vec<Line>,
    attention_lines_each: usize,
    left: Room,
    inner_left: Room,
}

/// Where the activations of a tile lie.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) hidden: Shared,
    pub(super) projected: Shared,
    /// The same in bf16, where attention reads it so.
    pub(super) projected_lines: Columns,
    pub(super) context: Shared,
    #[cfg(target_arch = "x86_64")]
    pub(super) context_steps: Shared,
    pub(super) inner: Shared,
    pub(super) attention: Shared,
    /// Numbers of attention scratch of each member.
    pub(super) attention_each: usize,
    /// Lines of scratch of attention by a unit, and how many each member has.
    #[cfg(target_arch = "x86_64")]
    pub(super) attention_lines: Shared,
    #[cfg(target_arch = "x86_64")]
    pub(super) attention_lines_each: usize,
    /// Of rows of the hidden size, and of the feed-forward block's inner size; where products are
    /// of blocks.
    pub(super) left: Left,
    pub(super) inner_left: Left,
}

impl Scratch {
    fn new(form: Option<Form>) -> Self {
        // Nothing is laid out in room that nothing needs.
        let form = form.unwrap_or(Form::Bf16);
        Self {
            hidden: Vec::new(),
            projected: Vec::new(),
            projected_lines: Vec::new(),
            rows: 0,
            projected_panels: 0,
            context: Vec::new(),
            context_steps: Vec::new(),
            inner: Vec::new(),
            attention: Vec::new(),
            attention_each: 0,
            attention_lines: Vec::new(),
            attention_lines_each: 0,
            left: Room::new(form),
            inner_left: Room::new(form),
        }
    }

    fn fit(&mut self, forward: &CpuForward<'_>, tile: Range<usize>, members: usize) {
        let grow = |buffer: &mut Vec<Line>, numbers: usize| {
            if buffer.len() < lines_of(numbers) {
                buffer.resize(lines_of(numbers), Line::default());
            }
        };
        let rows = forward.rows(&tile).len();
        self.rows = rows;
        let longest = tile
            .map(|i| forward.batch.range(i).len())
            .max()
            .unwrap_or(0);
        let kernels = forward.backend.kernels;
        let most = inner_rows(forward.backend.arithmetic);
        grow(&mut self.hidden, rows * forward.hidden);
        let form = forward.backend.form();
        // What is between two products is there in f32, or in codes of half as many bytes.
        let plain_rows = form.is_none_or(Form::rounds_whole_rows);
        if form.is_some() {
            self.left.fit(rows, forward.hidden);
        }
        for pass in &forward.passes {
            match pass {
                Pass::Attend(w) => {
                    let dim = forward.hidden / w.heads;
                    let units = w.projections.units();
                    match forward.backend.projected_form(dim) {
                        Some(form) => {
                            let copies = if form == Form::Bf16x3 { 2 } else { 1 };
                            // A tile may begin in the last row.
                            let lines = copies * units * rows + GROUP - 1;
                            if self.projected_lines.len() < lines {
                                self.projected_lines.resize(lines, Line::default());
                            }
                            self.projected_panels = units;
                        }
                        None => grow(&mut self.projected, rows * units * w.projections.unit()),
                    }
                    let by_unit = forward.backend.attention_by_unit(dim);
                    if by_unit.is_none() || plain_rows {
                        grow(&mut self.context, rows * forward.hidden);
                        self.context_steps
                            .resize(rows.max(self.context_steps.len()), 0.0);
                    }
                    if let Some((_, form)) = by_unit {
                        let each = attention::unit_lines(longest, dim, form);
                        let each = each.max(self.attention_lines_each);
                        self.attention_lines_each = each;
                        if self.attention_lines.len() < each * members {
                            self.attention_lines.resize(each * members, Line::default());
                        }
                        continue;
                    }
                    let each = attention::scratch_len(longest, dim, kernels.width, kernels.rows);
                    self.attention_each = self.attention_each.max(each);
                    grow(&mut self.attention, self.attention_each * members);
                }
                Pass::FeedForward(w) => {
                    let rows = rows.min(most);
                    if form.is_some() {
                        self.inner_left.fit(rows, w.up.outputs());
                    }
                    if plain_rows {
                        grow(&mut self.inner, rows * w.up.units() * w.up.unit());
                    }
                }
                Pass::Embed(..) | Pass::Pool { .. } => {}
            }
        }
    }

    fn layout(&mut self, hidden: usize) -> Layout {
        Layout {
            left: self.left.left(hidden),
            // Its layer says how many inputs it has.
            inner_left: self.inner_left.left(0),
            hidden: Shared(self.hidden.as_mut_ptr().cast()),
            projected: Shared(self.projected.as_mut_ptr().cast()),
            projected_lines: Columns {
                lines: Twice {
                    at: self.projected_lines.as_mut_ptr(),
                    low: self.projected_panels * self.rows,
                },
                rows: self.rows,
            },
            context: Shared(self.context.as_mut_ptr().cast()),
            #[cfg(target_arch = "x86_64")]
            context_steps: Shared(self.context_steps.as_mut_ptr()),
            inner: Shared(self.inner.as_mut_ptr().cast()),
            attention: Shared(self.attention.as_mut_ptr().cast()),
            attention_each: self.attention_each,
            #[cfg(target_arch = "x86_64")]
            attention_lines: Shared(self.attention_lines.as_mut_ptr().cast()),
            #[cfg(target_arch = "x86_64")]
            attention_lines_each: self.attention_lines_each,
        }
    }
}

impl CpuEncode {
    fn take_scratch(&self) -> Scratch {
        self.scratch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_else(|| Scratch::new(self.form()))
    }

    fn put_scratch(&self, scratch: Scratch) {
        let mut kept = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.pool.threads() {
            kept.push(scratch);
        }
    }
}

impl CpuForward<'_> {
    /// Cuts the batch into runs of sequences of at most `tokens` tokens, or one longer sequence.
    fn cut(&self, tokens: usize) -> Vec<Range<usize>> {
        let mut tiles = Vec::new();
        let mut start = 0;
        for i in 0..self.batch.len() {
            if i > start && self.rows(&(start..i + 1)).len() > tokens {
                tiles.push(start..i);
                start = i;
            }
        }
        if start < self.batch.len() {
            tiles.push(start..self.batch.len());
        }
        tiles
    }

    /// The rows of a tile in the batch.
    pub(super) fn rows(&self, tile: &Range<usize>) -> Range<usize> {
        self.batch.range(tile.start).start..self.batch.range(tile.end - 1).end
    }
}
