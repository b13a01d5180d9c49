//! The passes of the encoder on the CPU: each member of a job does its share of a tile.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use super::attention::units::{self, Rounded, attention_in_bf16, attention_in_codes};
use super::attention::{Dense, Head};
use super::blocks::Unit;
use super::blocks::{Form, Job, Left};
#[cfg(target_arch = "x86_64")]
use super::blocks::{Line, Midway, Steps};
use super::encode::{CpuForward, Layout, Pass, Shared, inner_rows};
use super::gemm::Rows;
use super::lanes::{CACHE_LINE, bring_near};
use super::linear::{Input, To};
use super::pool::Member;
use super::stages::{Clock, Stage};
use super::weights::{CpuAttention, CpuEmbedding, CpuFeedForward, Norm};
use crate::encode::{Pooling, TensorRows};
use crate::plan::Arithmetic;

/// Words of so many codes of 16 bits.
#[cfg(target_arch = "x86_64")]
const fn words(codes: usize) -> usize {
    codes / 2
}

/// How many words ahead the rows of embedding tables are asked for.
const WORDS_AHEAD: usize = 2;

impl CpuForward<'_> {
    /// Takes a tile through all passes, sharing the work with the other members.
    ///
    /// # Safety
    ///
    /// `at` fits the tile (see [`Scratch::fit`]) and only the members of this job touch it, each
    /// calling this with the same arguments; no one else writes the tile's rows of `out`.
    pub(super) unsafe fn run(
        &self,
        member: Member<'_>,
        tile: Range<usize>,
        at: Layout,
        out: Shared,
    ) {
        let tokens = self.rows(&tile);
        let clock = &mut self.backend.stages.clock();
        for pass in &self.passes {
            // SAFETY: the caller's promise; every pass ends at a barrier or in rows of its own.
            unsafe {
                match pass {
                    Pass::Embed(weights, words) => {
                        self.run_embed(member, weights, *words, &tile, at);
                        clock.was_then_wait(Stage::Embed, member);
                    }
                    Pass::Attend(weights) => self.run_attend(member, clock, weights, &tile, at),
                    Pass::FeedForward(weights) => {
                        self.run_feed_forward(member, clock, weights, tokens.len(), at);
                    }
                    Pass::Pool { pooling, normalize } => {
                        self.run_pool(member, *pooling, *normalize, &tile, at, out);
                        clock.was_then_wait(Stage::Pool, member);
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
        words: TensorRows<'_>,
        tile: &Range<usize>,
        at: Layout,
    ) {
        let hidden = self.hidden;
        let first = self.rows(tile).start;
        let mine = member.share(self.rows(tile).len(), 1);
        let ids = self.batch.ids();
        for sequence in tile.clone() {
            let range = self.batch.range(sequence);
            for (position, &id) in ids[range.clone()].iter().enumerate() {
                let row = range.start + position - first;
                if !mine.contains(&row) {
                    continue;
                }
                // Words lie far apart, and no hardware guesses the next one.
                if let Some(&next) = ids.get(range.start + position + WORDS_AHEAD) {
                    let next = words.bytes(next as usize);
                    next.chunks(CACHE_LINE)
                        .for_each(|line| bring_near(line.as_ptr()));
                }
                // SAFETY: the row is in the tile's scratch, and this member's own.
                let to =
                    unsafe { std::slice::from_raw_parts_mut(at.hidden.at(row * hidden), hidden) };
                words.read(id as usize, to);
                let position = &weights.position[position * hidden..][..hidden];
                for ((x, p), t) in to.iter_mut().zip(position).zip(&*weights.token_type) {
                    *x = (*x + t) + p;
                }
                // SAFETY: `to` is a row of `hidden` numbers, as are weight and bias.
                unsafe { self.normalize_row(&weights.norm, to.as_mut_ptr()) };
            }
        }
        let x = Rows {
            at: at.hidden.0.cast_const(),
            stride: hidden,
        };
        // SAFETY: this member's own rows.
        unsafe { self.round(x, hidden, mine, at.left) };
    }

    /// Rounds rows of `inputs` numbers for the products over them, where those are of blocks.
    ///
    /// # Safety
    ///
    /// The rows are there on both sides, nothing else touches those of `to`.
    unsafe fn round(&self, from: Rows<*const f32>, inputs: usize, rows: Range<usize>, to: Left) {
        if let Some((unit, _)) = self.backend.blocks {
            let job = Job::Round {
                from,
                inputs,
                rows,
                to,
            };
            // SAFETY: the caller's promise.
            unsafe { unit.run(&job) };
        }
    }

    /// Normalises rows to mean 0 and variance 1 and, where products are of blocks, rounds them for those over
    /// them: a few at a time, which are in the first-level cache then.
    ///
    /// # Safety
    ///
    /// As for [`round`](Self::round), on both sides.
    unsafe fn normalize_and_round(
        &self,
        norm: &Norm,
        x: Rows<*mut f32>,
        rows: Range<usize>,
        to: Left,
    ) {
        const FEW: usize = 8;
        let from = Rows {
            at: x.at.cast_const(),
            stride: x.stride,
        };
        for first in rows.clone().step_by(FEW) {
            let few = first..rows.end.min(first + FEW);
            // SAFETY: the caller's promise.
            unsafe {
                for row in few.clone() {
                    self.normalize_row(norm, x.at.add(row * x.stride));
                }
                self.round(from, self.hidden, few, to);
            }
        }
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
        clock: &mut Clock<'_>,
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
            let input = Input {
                rows: x_read,
                lines: at.left,
            };
            let dim = hidden / weights.heads;
            let to = match self.backend.projected_form(dim) {
                Some(form) => To::Lines {
                    to: at.projected_lines,
                    split: form == Form::Bf16x3,
                },
                None => To::Set(projected),
            };
            layer.apply(kernels, rows.len(), input, units, to);
            clock.was_then_wait(Stage::Project, member);
            let by_unit = self.backend.attention_by_unit(dim);
            match by_unit {
                #[cfg(target_arch = "x86_64")]
                Some(by) => self.run_heads_by_unit(member, weights, tile, at, by),
                _ => self.run_heads(member, weights, tile, at),
            }
            clock.was_then_wait(Stage::Attend, member);
            let rounded = by_unit.is_some() && !self.backend.rounds_whole_rows();
            if self.backend.blocks.is_some() && !rounded {
                self.round_context(member.share(rows.len(), 1), by_unit, at);
                clock.was_then_wait(Stage::Norm, member);
            }
            let units = member.share(weights.output.units(), 1);
            let input = Input {
                rows: context,
                ..input
            };
            let output = &weights.output;
            output.apply(kernels, rows.len(), input, units, To::Add(x));
            clock.was_then_wait(Stage::Output, member);
            self.normalize_and_round(&weights.norm, x, member.share(rows.len(), 1), at.left);
            clock.was_then_wait(Stage::Norm, member);
        }
    }

    /// Rounds rows of attention's result, which are f32 or codes of 16 bits, for the product over them.
    ///
    /// # Safety
    ///
    /// As for [`round`](Self::round).
    unsafe fn round_context(&self, rows: Range<usize>, by: Option<(Unit, Form)>, at: Layout) {
        let context = Rows {
            at: at.context.0.cast_const(),
            stride: self.hidden,
        };
        match by {
            #[cfg(target_arch = "x86_64")]
            Some((unit, _)) if self.backend.form() == Some(Form::Int8) => {
                let job = Job::Narrow {
                    from: Rows {
                        at: context.at.cast(),
                        stride: words(self.hidden),
                    },
                    words: words(self.hidden),
                    steps: Steps::At(at.context_steps.0.cast_const()),
                    rows,
                    to: at.left,
                };
                // SAFETY: the caller's promise.
                unsafe { unit.run(&job) };
            }
            // SAFETY: the caller's promise.
            _ => unsafe { self.round(context, self.hidden, rows, at.left) },
        }
    }

    /// This member's share of the heads of all sequences of the tile: the rows of each head's sequence in
    /// the tile, and its number.
    fn heads(
        &self,
        member: Member<'_>,
        weights: &CpuAttention,
        tile: &Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, usize)> {
        let heads = weights.heads;
        let (start, first) = (tile.start, self.rows(tile).start);
        member.share(tile.len() * heads, 1).map(move |item| {
            let rows = self.batch.range(start + item / heads);
            (rows.start - first..rows.end - first, item % heads)
        })
    }

    /// A head of a sequence in rows of f32.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run); projections are in such rows.
    unsafe fn head(
        &self,
        weights: &CpuAttention,
        at: Layout,
        rows: Range<usize>,
        number: usize,
    ) -> Head {
        let dim = self.hidden / weights.heads;
        let stride = weights.projections.units() * weights.projections.unit();
        // SAFETY: the head's columns lie inside the projected rows of the tile.
        unsafe {
            let query = at.projected.at(rows.start * stride + number * dim);
            Head {
                query: query.cast_const(),
                key: query.add(self.hidden),
                value: query.add(2 * self.hidden),
                stride,
                len: rows.len(),
                dim,
            }
        }
    }

    /// The same in lines of bf16.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run); projections are in such lines.
    #[cfg(target_arch = "x86_64")]
    unsafe fn rounded_head(
        &self,
        weights: &CpuAttention,
        at: Layout,
        rows: Range<usize>,
        number: usize,
    ) -> units::Of<Rounded> {
        let dim = self.hidden / weights.heads;
        let (lines, each) = (units::lines(dim), units::lines(self.hidden));
        // SAFETY: the head's panels are among those of the tile.
        let [query, key, value] = [0, each, 2 * each].map(|first| unsafe {
            Rounded::new(at.projected_lines, rows.start, first + number * lines)
        });
        units::Of {
            query,
            key,
            value,
            len: rows.len(),
            dim,
        }
    }

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
        let (hidden, dim) = (self.hidden, self.hidden / weights.heads);
        let coarse = matches!(
            self.backend.arithmetic,
            Arithmetic::Bf16 | Arithmetic::Int8 | Arithmetic::Int16
        );
        // SAFETY: the caller's promise; the head's columns lie inside the context rows of the tile.
        unsafe {
            let scratch = at.attention.at(member.index * at.attention_each);
            for (rows, number) in self.heads(member, weights, tile) {
                let to = Rows {
                    at: at.context.at(rows.start * hidden + number * dim),
                    stride: hidden,
                };
                let head = self.head(weights, at, rows, number);
                let out = Dense { to, coarse };
                (self.backend.kernels.attention)(head, out, scratch);
            }
        }
    }

    /// The same by a unit, into the left side of the output's product or, where rows are rounded as a
    /// whole only, into rows of f32 or of codes.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run), and this CPU has it.
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_heads_by_unit(
        &self,
        member: Member<'_>,
        weights: &CpuAttention,
        tile: &Range<usize>,
        at: Layout,
        (unit, form): (Unit, Form),
    ) {
        let (hidden, dim) = (self.hidden, self.hidden / weights.heads);
        let each = at.attention_lines_each * size_of::<Line>() / size_of::<f32>();
        let whole_rows = self.backend.rounds_whole_rows();
        // SAFETY: the caller's promise. The head's lines lie inside those of the left side, its columns
        // inside the context rows of the tile. Nobody reads the left side any more but, where heads
        // become codes and nobody writes it, its rows' scales. A sequence's steps are written by who
        // has its first head.
        unsafe {
            let scratch = at.attention_lines.at(member.index * each).cast();
            let tiles = (unit == Unit::Amx).then(|| Tiles::lay_out());
            let (mut midway, mut midway_of) = (None, None);
            for (of, number) in self.heads(member, weights, tile) {
                // Heads of a sequence follow each other.
                if midway_of != Some(of.start) {
                    let values = 2 * hidden / weights.projections.unit();
                    midway = weights.projections.midway(values, at.left, of.clone());
                    midway_of = Some(of.start);
                }
                let to = match midway {
                    Some(Midway { per, step }) => {
                        if number == 0 {
                            // The sequence's own rows, of all heads.
                            for row in of.clone() {
                                *at.context_steps.at(row) = step;
                            }
                        }
                        let stride = words(hidden);
                        let first = at.context.0.cast::<u32>();
                        let to = first.add(of.start * stride + words(number * dim));
                        let rows = Rows { at: to, stride };
                        units::To::Codes { rows, per }
                    }
                    None if whole_rows => units::To::Rows(Rows {
                        at: at.context.at(of.start * hidden + number * dim),
                        stride: hidden,
                    }),
                    None => units::To::Lines {
                        left: at.left,
                        row: of.start,
                        step: number * units::lines(dim),
                    },
                };
                if form == Form::Int16 {
                    attention_in_codes(&self.head(weights, at, of, number), to, scratch);
                    continue;
                }
                let head = self.rounded_head(weights, at, of, number);
                match form {
                    Form::Bf16x3 => attention_in_bf16::<true>(tiles.as_ref(), &head, to, scratch),
                    _ => attention_in_bf16::<false>(tiles.as_ref(), &head, to, scratch),
                }
            }
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn run_feed_forward(
        &self,
        member: Member<'_>,
        clock: &mut Clock<'_>,
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
        let most = inner_rows(self.backend.arithmetic);
        let whole_rows = self.backend.rounds_whole_rows();
        for start in (0..rows).step_by(most) {
            let n = most.min(rows - start);
            // SAFETY: the caller's promise; each step writes columns or rows of this member only,
            // and the barriers keep the steps apart.
            unsafe {
                let x = Rows {
                    at: at.hidden.at(start * hidden),
                    stride: hidden,
                };
                let read = Rows {
                    at: x.at.cast_const(),
                    stride: hidden,
                };
                let inner_left = at.inner_left.of_inputs(up.outputs());
                let lines = match self.backend.blocks {
                    Some(_) => at.left.skip_rows(start),
                    None => at.left,
                };
                let input = Input { rows: read, lines };
                let units = member.share(up.units(), 1);
                up.apply(kernels, n, input, units, To::Gelu(inner, inner_left));
                clock.was_then_wait(Stage::Up, member);
                let inner_read = Rows {
                    at: inner.at.cast_const(),
                    stride: inner.stride,
                };
                if whole_rows {
                    up.round_gelu(inner_read, lines, member.share(n, 1), inner_left);
                    clock.was_then_wait(Stage::Norm, member);
                }
                let input = Input {
                    rows: inner_read,
                    lines: inner_left,
                };
                down.apply(kernels, n, input, member.share(down.units(), 1), To::Add(x));
                clock.was_then_wait(Stage::Down, member);
                self.normalize_and_round(&weights.norm, x, member.share(n, 1), lines);
                clock.was_then_wait(Stage::Norm, member);
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
    }
}
