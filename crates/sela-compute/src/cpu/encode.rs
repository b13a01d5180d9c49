//! The encoder on the CPU: passes are recorded, then run tile by tile of whole sequences.
//!
//! Much text is cut into tiles of about a hundred tokens, each taken through all passes by one
//! thread while its activations are in that thread's cache. Little text is one tile that all
//! threads work on, sharing the columns of each product, so that each reads its part of the
//! weights only. Neither choice changes a bit of the result.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::attention::{self, Head};
use super::gemm::Rows;
use super::kernels::Kernels;
use super::linear::Linear;
use super::pool::{Member, Pool};
use crate::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, NormTensors, Pooling,
    Ragged, Tensor, Ticket,
};
use crate::error::Error;
use crate::isa::Isa;
use crate::plan::Arithmetic;

/// Tokens of a tile that one thread takes through all passes.
const TILE_TOKENS: usize = 128;
/// Rows of the feed-forward block at a time: their inner activations stay in the second-level
/// cache.
const INNER_ROWS: usize = 64;
/// Fewest tokens for which a second thread pays.
const WIDE_TOKENS: usize = 4;

/// Encodes on the CPU.
pub struct CpuEncode {
    kernels: &'static Kernels,
    isa: Isa,
    arithmetic: Arithmetic,
    pool: Arc<Pool>,
    scratch: Mutex<Vec<Scratch>>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

/// Weights of an embedding pass; the word table stays where it is mapped.
pub struct CpuEmbedding {
    word: Tensor,
    position: Vec<f32>,
    token_type: Vec<f32>,
    norm: Norm,
}

/// Weights of an attention block.
pub struct CpuAttention {
    projections: Linear,
    output: Linear,
    norm: Norm,
    heads: usize,
}

/// Weights of a feed-forward block.
pub struct CpuFeedForward {
    up: Linear,
    down: Linear,
    norm: Norm,
}

enum Pass<'a> {
    Embed(&'a CpuEmbedding),
    Attend(&'a CpuAttention),
    FeedForward(&'a CpuFeedForward),
    Pool { pooling: Pooling, normalize: bool },
}

/// A forward being recorded for the CPU.
pub struct CpuForward<'a> {
    backend: &'a CpuEncode,
    batch: &'a Ragged,
    hidden: usize,
    passes: Vec<Pass<'a>>,
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
        Ok(Self {
            kernels,
            isa,
            arithmetic,
            pool,
            scratch: Mutex::default(),
        })
    }

    /// The arithmetic of its products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Calls `work` for every number below `n`, on all threads that are free.
    pub fn for_each(&self, n: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        self.pool.run(n > 1, |_| {
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

    /// Threads a single call may use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

fn norm(tensors: &NormTensors, epsilon: f32, hidden: usize, what: &str) -> Result<Norm, Error> {
    let (weight, bias) = (tensors.weight.to_f32(), tensors.bias.to_f32());
    for part in [&weight, &bias] {
        if part.len() != hidden {
            let what = format!("{what} normalisation");
            return Err(Error::Shape {
                what,
                expected: hidden,
                found: part.len(),
            });
        }
    }
    Ok(Norm {
        weight,
        bias,
        epsilon,
    })
}

/// The kernels work on whole groups of 16 numbers.
fn whole_groups(what: &str, n: usize) -> Result<(), Error> {
    if n == 0 || n % 16 != 0 {
        let expected = n.next_multiple_of(16).max(16);
        return Err(Error::Shape {
            what: format!("{what} (a multiple of 16)"),
            expected,
            found: n,
        });
    }
    Ok(())
}

impl Encode for CpuEncode {
    type Embedding = CpuEmbedding;
    type Attention = CpuAttention;
    type FeedForward = CpuFeedForward;
    type Forward<'a> = CpuForward<'a>;

    fn embedding(&self, tensors: EmbeddingTensors) -> Result<CpuEmbedding, Error> {
        let [_, hidden] = tensors.word.shape();
        whole_groups("hidden size", hidden)?;
        let token_type = tensors.token_type.to_f32();
        let [_, position] = tensors.position.shape();
        for (what, found) in [
            ("position embedding", position),
            ("token type", token_type.len()),
        ] {
            if found != hidden {
                return Err(Error::Shape {
                    what: what.into(),
                    expected: hidden,
                    found,
                });
            }
        }
        Ok(CpuEmbedding {
            position: tensors.position.to_f32(),
            token_type,
            norm: norm(&tensors.norm, tensors.epsilon, hidden, "embedding")?,
            word: tensors.word,
        })
    }

    fn attention(&self, tensors: AttentionTensors) -> Result<CpuAttention, Error> {
        let [hidden, inputs] = tensors.output.weight.shape();
        if hidden != inputs || tensors.heads == 0 || hidden % tensors.heads != 0 {
            let what = format!("attention output in {} heads", tensors.heads);
            return Err(Error::Shape {
                what,
                expected: hidden,
                found: inputs,
            });
        }
        whole_groups("head size", hidden / tensors.heads)?;
        let parts = [
            ("query", &tensors.query),
            ("key", &tensors.key),
            ("value", &tensors.value),
        ];
        for (name, part) in parts {
            let [found, _] = part.weight.shape();
            if found != hidden {
                return Err(Error::Shape {
                    what: name.into(),
                    expected: hidden,
                    found,
                });
            }
        }
        Ok(CpuAttention {
            projections: Linear::new(self.kernels, self.arithmetic, hidden, &parts)?,
            output: Linear::new(
                self.kernels,
                self.arithmetic,
                hidden,
                &[("attention output", &tensors.output)],
            )?,
            norm: norm(&tensors.norm, tensors.epsilon, hidden, "attention")?,
            heads: tensors.heads,
        })
    }

    fn feed_forward(&self, tensors: FeedForwardTensors) -> Result<CpuFeedForward, Error> {
        let [inner, hidden] = tensors.up.weight.shape();
        whole_groups("hidden size", hidden)?;
        whole_groups("inner size", inner)?;
        let [found, _] = tensors.down.weight.shape();
        if found != hidden {
            return Err(Error::Shape {
                what: "feed-forward down".into(),
                expected: hidden,
                found,
            });
        }
        Ok(CpuFeedForward {
            up: Linear::new(
                self.kernels,
                self.arithmetic,
                hidden,
                &[("feed-forward up", &tensors.up)],
            )?,
            down: Linear::new(
                self.kernels,
                self.arithmetic,
                inner,
                &[("feed-forward down", &tensors.down)],
            )?,
            norm: norm(&tensors.norm, tensors.epsilon, hidden, "feed-forward")?,
        })
    }

    fn begin<'a>(&'a self, batch: &'a Ragged) -> Result<CpuForward<'a>, Error> {
        Ok(CpuForward {
            backend: self,
            batch,
            hidden: 0,
            passes: Vec::new(),
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
    type Ticket = CpuTicket;

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
        self.passes.push(Pass::Embed(weights));
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

    fn submit(self) -> Result<CpuTicket, Error> {
        let mut out = vec![0.0; self.batch.len() * self.hidden];
        let shared = Shared(out.as_mut_ptr());
        let tokens = self.batch.ids().len();
        let pool = &self.backend.pool;
        let threads = pool.threads();
        let tiles = self.cut((tokens / (4 * threads)).clamp(48, TILE_TOKENS));
        if tiles.len() >= 3 * threads {
            let next = AtomicUsize::new(0);
            pool.run(true, |_| {
                let mut scratch = self.backend.take_scratch();
                let alone = Member::alone();
                while let Some(tile) = tiles.get(next.fetch_add(1, Ordering::Relaxed)) {
                    scratch.fit(&self, tile.clone(), 1);
                    // SAFETY: the scratch is this member's own; tiles have rows of `out` apart.
                    unsafe { self.run(alone, tile.clone(), scratch.layout(), shared) };
                }
                self.backend.put_scratch(scratch);
            });
        } else {
            let mut scratch = self.backend.take_scratch();
            for tile in tiles {
                scratch.fit(&self, tile.clone(), threads);
                let layout = scratch.layout();
                pool.run(tokens >= WIDE_TOKENS, |member| {
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
struct Shared(*mut f32);

// SAFETY: the pointer itself may travel; each write through it is argued for where it is made.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    ///
    /// `offset` lies inside the allocation.
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// Activations of a tile; kept from call to call.
#[derive(Default)]
struct Scratch {
    hidden: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
    attention: Vec<f32>,
    attention_each: usize,
}

/// Where the activations of a tile lie.
#[derive(Clone, Copy)]
struct Layout {
    hidden: Shared,
    projected: Shared,
    context: Shared,
    inner: Shared,
    attention: Shared,
    /// Numbers of attention scratch of each member.
    attention_each: usize,
}

impl Scratch {
    fn fit(&mut self, forward: &CpuForward<'_>, tile: Range<usize>, members: usize) {
        let grow = |buffer: &mut Vec<f32>, n: usize| {
            if buffer.len() < n {
                buffer.resize(n, 0.0);
            }
        };
        let rows = forward.rows(&tile).len();
        let longest = tile
            .map(|i| forward.batch.range(i).len())
            .max()
            .unwrap_or(0);
        let kernels = forward.backend.kernels;
        grow(&mut self.hidden, rows * forward.hidden);
        for pass in &forward.passes {
            match pass {
                Pass::Attend(w) => {
                    grow(
                        &mut self.projected,
                        rows * w.projections.units() * w.projections.unit(),
                    );
                    grow(&mut self.context, rows * forward.hidden);
                    let dim = forward.hidden / w.heads;
                    let each = attention::scratch_len(longest, dim, kernels.width, kernels.rows);
                    self.attention_each = self.attention_each.max(each);
                    grow(&mut self.attention, self.attention_each * members);
                }
                Pass::FeedForward(w) => {
                    grow(
                        &mut self.inner,
                        rows.min(INNER_ROWS) * w.up.units() * w.up.unit(),
                    );
                }
                Pass::Embed(_) | Pass::Pool { .. } => {}
            }
        }
    }

    fn layout(&mut self) -> Layout {
        Layout {
            hidden: Shared(self.hidden.as_mut_ptr()),
            projected: Shared(self.projected.as_mut_ptr()),
            context: Shared(self.context.as_mut_ptr()),
            inner: Shared(self.inner.as_mut_ptr()),
            attention: Shared(self.attention.as_mut_ptr()),
            attention_each: self.attention_each,
        }
    }
}

impl CpuEncode {
    fn take_scratch(&self) -> Scratch {
        self.scratch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
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
    fn rows(&self, tile: &Range<usize>) -> Range<usize> {
        self.batch.range(tile.start).start..self.batch.range(tile.end - 1).end
    }

    /// Takes a tile through all passes, sharing the work with the other members.
    ///
    /// # Safety
    ///
    /// `at` fits the tile (see [`Scratch::fit`]) and only the members of this job touch it, each
    /// calling this with the same arguments; no one else writes the tile's rows of `out`.
    unsafe fn run(&self, member: Member<'_>, tile: Range<usize>, at: Layout, out: Shared) {
        let tokens = self.rows(&tile);
        for pass in &self.passes {
            // SAFETY: the caller's promise; every pass ends at a barrier or in rows of its own.
            unsafe {
                match pass {
                    Pass::Embed(weights) => self.run_embed(member, weights, &tile, at),
                    Pass::Attend(weights) => self.run_attend(member, weights, &tile, at),
                    Pass::FeedForward(weights) => {
                        self.run_feed_forward(member, weights, tokens.len(), at);
                    }
                    Pass::Pool { pooling, normalize } => {
                        self.run_pool(member, *pooling, *normalize, &tile, at, out);
                    }
                }
            }
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn run_embed(
        &self,
        member: Member<'_>,
        weights: &CpuEmbedding,
        tile: &Range<usize>,
        at: Layout,
    ) {
        let hidden = self.hidden;
        let first = self.rows(tile).start;
        let mine = member.share(self.rows(tile).len(), 1);
        for sequence in tile.clone() {
            let range = self.batch.range(sequence);
            for (position, &id) in self.batch.ids()[range.clone()].iter().enumerate() {
                let row = range.start + position - first;
                if !mine.contains(&row) {
                    continue;
                }
                // SAFETY: the row is in the tile's scratch, and this member's own.
                let to =
                    unsafe { std::slice::from_raw_parts_mut(at.hidden.at(row * hidden), hidden) };
                weights.word.read_row(id as usize, to);
                let position = &weights.position[position * hidden..][..hidden];
                for ((x, p), t) in to.iter_mut().zip(position).zip(&weights.token_type) {
                    *x = (*x + t) + p;
                }
                // SAFETY: `to` is a row of `hidden` numbers, as are weight and bias.
                unsafe { self.normalize_row(&weights.norm, to.as_mut_ptr()) };
            }
        }
        member.wait();
    }

    /// # Safety
    ///
    /// `row` is a row of `hidden` numbers that nothing else touches.
    unsafe fn normalize_row(&self, norm: &Norm, row: *mut f32) {
        // SAFETY: the caller's promise; the lengths were checked when the weights were taken.
        unsafe {
            (self.backend.kernels.layer_norm)(
                row,
                self.hidden,
                norm.weight.as_ptr(),
                norm.bias.as_ptr(),
                norm.epsilon,
            );
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn run_attend(
        &self,
        member: Member<'_>,
        weights: &CpuAttention,
        tile: &Range<usize>,
        at: Layout,
    ) {
        let (kernels, hidden) = (self.backend.kernels, self.hidden);
        let rows = self.rows(tile);
        let x = Rows {
            at: at.hidden.0,
            stride: hidden,
        };
        let x_read = Rows {
            at: at.hidden.0.cast_const(),
            stride: hidden,
        };
        let context = Rows {
            at: at.context.0.cast_const(),
            stride: hidden,
        };
        let layer = &weights.projections;
        let projected = Rows {
            at: at.projected.0,
            stride: layer.units() * layer.unit(),
        };
        // SAFETY: the caller's promise; each step writes columns, heads or rows of this member
        // only, and the barriers keep the steps apart.
        unsafe {
            let units = member.share(layer.units(), 1);
            layer.apply(kernels, rows.len(), x_read, units, projected, false);
            member.wait();
            self.run_heads(member, weights, tile, at);
            member.wait();
            let units = member.share(weights.output.units(), 1);
            weights
                .output
                .apply(kernels, rows.len(), context, units, x, true);
            member.wait();
            for row in member.share(rows.len(), 1) {
                self.normalize_row(&weights.norm, x.at.add(row * hidden));
            }
            member.wait();
        }
    }

    /// This member's share of the heads of all sequences of the tile.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn run_heads(
        &self,
        member: Member<'_>,
        weights: &CpuAttention,
        tile: &Range<usize>,
        at: Layout,
    ) {
        let hidden = self.hidden;
        let dim = hidden / weights.heads;
        let stride = weights.projections.units() * weights.projections.unit();
        let first = self.rows(tile).start;
        for item in member.share(tile.len() * weights.heads, 1) {
            let (sequence, head) = (tile.start + item / weights.heads, item % weights.heads);
            let range = self.batch.range(sequence);
            let row = range.start - first;
            // SAFETY: the head's columns lie inside the projected and context rows of the tile.
            unsafe {
                let query = at.projected.at(row * stride + head * dim).cast_const();
                let head = Head {
                    query,
                    key: query.add(hidden),
                    value: query.add(2 * hidden),
                    stride,
                    len: range.len(),
                    dim,
                    out: Rows {
                        at: at.context.at(row * hidden + head * dim),
                        stride: hidden,
                    },
                };
                let scratch = at.attention.at(member.index * at.attention_each);
                (self.backend.kernels.attention)(head, scratch);
            }
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn run_feed_forward(
        &self,
        member: Member<'_>,
        weights: &CpuFeedForward,
        rows: usize,
        at: Layout,
    ) {
        let (kernels, hidden) = (self.backend.kernels, self.hidden);
        let (up, down) = (&weights.up, &weights.down);
        let inner = Rows {
            at: at.inner.0,
            stride: up.units() * up.unit(),
        };
        for start in (0..rows).step_by(INNER_ROWS) {
            let n = INNER_ROWS.min(rows - start);
            // SAFETY: the caller's promise; each step writes columns or rows of this member only,
            // and the barriers keep the steps apart.
            unsafe {
                let x = Rows {
                    at: at.hidden.at(start * hidden),
                    stride: hidden,
                };
                let units = member.share(up.units(), 1);
                let columns = units.start * up.unit()..units.end * up.unit();
                let read = Rows {
                    at: x.at.cast_const(),
                    stride: hidden,
                };
                up.apply(kernels, n, read, units, inner, false);
                for row in 0..n {
                    let from = inner.at.add(row * inner.stride + columns.start);
                    (kernels.gelu)(from, columns.len());
                }
                member.wait();
                let read = Rows {
                    at: inner.at.cast_const(),
                    stride: inner.stride,
                };
                down.apply(kernels, n, read, member.share(down.units(), 1), x, true);
                member.wait();
                for row in member.share(n, 1) {
                    self.normalize_row(&weights.norm, x.at.add(row * hidden));
                }
                member.wait();
            }
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn run_pool(
        &self,
        member: Member<'_>,
        pooling: Pooling,
        normalize: bool,
        tile: &Range<usize>,
        at: Layout,
        out: Shared,
    ) {
        let (kernels, hidden) = (self.backend.kernels, self.hidden);
        let first = self.rows(tile).start;
        for i in member.share(tile.len(), 1) {
            let sequence = tile.start + i;
            let range = self.batch.range(sequence);
            // SAFETY: the sequence's rows are in the tile, its vector is this member's own.
            unsafe {
                let from = at.hidden.at((range.start - first) * hidden).cast_const();
                let to = out.at(sequence * hidden);
                match pooling {
                    Pooling::Mean => (kernels.mean)(from, range.len(), hidden, to),
                    Pooling::Cls => to.copy_from_nonoverlapping(from, hidden),
                }
                if normalize {
                    (kernels.normalize)(to, hidden);
                }
            }
        }
        member.wait();
    }
}
