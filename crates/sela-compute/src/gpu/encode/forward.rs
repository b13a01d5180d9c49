//! Passes of a forward, recorded as one compute pass and submitted at once.

use std::sync::Arc;

use super::GpuEncode;
use super::profile::{Mark, Profile};
use super::rooms::{Buffers, Need, Room};
use super::shaders::{Kind, Rows, Tile};
use super::weights::{
    GpuAttention, GpuEmbedding, GpuFeedForward, Name, Norm, Product, WIDTH, Words, padded,
    word_rows,
};
use crate::encode::{Forward, Pooling, Ragged, Ticket};
use crate::error::Error;
use crate::gpu::{Buffer, Fault, Gpu, Kernel, Pending, Purpose, Read, Recording};

/// Most tokens of a batch: a workgroup each is what one dispatch can hold.
const TOKENS_MAX: usize = 65_535;

enum Pass<'a> {
    Embed(&'a GpuEmbedding),
    Attend(&'a GpuAttention),
    FeedForward(&'a GpuFeedForward),
    Pool { pooling: Pooling, normalize: bool },
}

/// A forward being recorded for a GPU.
pub struct GpuForward<'a> {
    backend: &'a GpuEncode,
    batch: &'a Ragged,
    hidden: usize,
    passes: Vec<Pass<'a>>,
}

impl<'a> GpuForward<'a> {
    pub(super) fn new(backend: &'a GpuEncode, batch: &'a Ragged) -> Self {
        Self {
            backend,
            batch,
            hidden: 0,
            passes: Vec::new(),
        }
    }

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

    /// The room this forward takes.
    fn need(&self) -> Need {
        let mut need = Need {
            hidden: self.hidden,
            wide: WIDTH,
            sent: false,
            rows: self.batch.ids().len(),
            sequences: self.batch.len(),
        };
        for pass in &self.passes {
            match pass {
                Pass::Embed(w) => need.sent |= matches!(w.words, Words::Sent(_)),
                Pass::Attend(w) => need.wide = need.wide.max(w.projections.width),
                Pass::FeedForward(w) => need.wide = need.wide.max(w.up.width),
                Pass::Pool { .. } => {}
            }
        }
        need
    }
}

impl<'a> Forward<'a> for GpuForward<'a> {
    type Backend = GpuEncode;

    fn embed(&mut self, weights: &'a GpuEmbedding) -> Result<(), Error> {
        let ids = self.batch.ids();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= weights.vocabulary) {
            return Err(Error::Limit {
                what: "token id",
                value: *id as usize,
                limit: weights.vocabulary - 1,
            });
        }
        let lengths = (0..self.batch.len()).map(|i| self.batch.range(i).len());
        if let Some(value) = lengths.max().filter(|&len| len > weights.longest) {
            return Err(Error::Limit {
                what: "number of tokens of a text",
                value,
                limit: weights.longest,
            });
        }
        if ids.len() > TOKENS_MAX {
            return Err(Error::Limit {
                what: "number of tokens of a batch",
                value: ids.len(),
                limit: TOKENS_MAX,
            });
        }
        self.hidden = weights.hidden;
        self.passes.push(Pass::Embed(weights));
        Ok(())
    }

    fn attend(&mut self, weights: &'a GpuAttention) -> Result<(), Error> {
        self.expect_hidden("attention", weights.hidden)?;
        self.passes.push(Pass::Attend(weights));
        Ok(())
    }

    fn feed_forward(&mut self, weights: &'a GpuFeedForward) -> Result<(), Error> {
        self.expect_hidden("feed-forward", weights.hidden)?;
        self.passes.push(Pass::FeedForward(weights));
        Ok(())
    }

    fn pool(&mut self, pooling: Pooling, normalize: bool) -> Result<(), Error> {
        self.passes.push(Pass::Pool { pooling, normalize });
        Ok(())
    }

    fn submit(self) -> Result<GpuTicket, Error> {
        let backend = self.backend;
        let pooled = self.passes.iter().any(|p| matches!(p, Pass::Pool { .. }));
        if self.batch.is_empty() || self.hidden == 0 || !pooled {
            // As on the CPU: nothing was asked for, or zeros were.
            let zeros = vec![0.0; self.batch.len() * self.hidden];
            return Ok(GpuTicket(State::Ready(zeros)));
        }
        let (gpu, style) = (&backend.gpu, backend.style);
        let room = backend.rooms.take(gpu, style, self.need())?;
        let query_rows = query_rows(self.batch);
        let tables = Tables::new(self.batch, style.query_rows(query_rows) as usize);
        let buffers = room.buffers.clone();
        let words = bytemuck::cast_slice(&tables.words);
        gpu.write(&buffers.tables, 0, words)?;
        let mut recorder = Recorder {
            backend,
            room,
            recording: gpu.record("forward")?,
            tables: &tables,
            query_rows,
            rows: self.batch.ids().len(),
            hidden: self.hidden,
            clock: backend
                .profile
                .as_ref()
                .map(|_| Clock::new(gpu))
                .transpose()?,
        };
        for pass in &self.passes {
            match pass {
                Pass::Embed(weights) => recorder.embed(self.batch, weights, &buffers)?,
                Pass::Attend(weights) => recorder.attend(weights, &buffers)?,
                Pass::FeedForward(weights) => recorder.feed_forward(weights, &buffers)?,
                Pass::Pool { pooling, normalize } => {
                    recorder.pool(self.batch.len(), *pooling, *normalize, &buffers)?;
                }
            }
        }
        let vectors = Read {
            buffer: &buffers.vectors,
            offset: 0,
            bytes: (self.batch.len() * self.hidden * 4) as u64,
        };
        let (pending, timing, room) = recorder.submit(vectors)?;
        backend.rooms.put(room);
        Ok(GpuTicket(State::Pending(Box::new(Waiting {
            gpu: gpu.clone(),
            pending,
            numbers: self.batch.len() * self.hidden,
            hidden: self.hidden,
            timing,
        }))))
    }
}

/// What the kernels must know of a batch.
struct Tables {
    /// Row of the word table and position, of each token; first row and end of each sequence;
    /// first row of each tile, first row and end of its sequence, and a 0.
    words: Vec<u32>,
    /// Where the spans begin, in pairs.
    spans: usize,
    /// Where the tiles begin, in fours.
    tiles: usize,
}

/// Many query rows a workgroup share what is read of keys; few waste less on short sequences.
fn query_rows(batch: &Ragged) -> Rows {
    match batch.ids().len() > 32 * batch.len() {
        true => Rows::Many,
        false => Rows::Few,
    }
}

impl Tables {
    /// Of a batch whose attention takes `query_rows` rows a tile.
    fn new(batch: &Ragged, query_rows: usize) -> Self {
        let mut words = Vec::with_capacity(2 * batch.ids().len() + 7 * batch.len());
        for i in 0..batch.len() {
            for (position, &id) in batch.ids()[batch.range(i)].iter().enumerate() {
                words.extend([id, position as u32]);
            }
        }
        let spans = words.len() / 2;
        for i in 0..batch.len() {
            let range = batch.range(i);
            words.extend([range.start as u32, range.end as u32]);
        }
        words.resize(words.len().next_multiple_of(4), 0);
        let tiles = words.len() / 4;
        for i in 0..batch.len() {
            let range = batch.range(i);
            for row in range.clone().step_by(query_rows) {
                words.extend([row as u32, range.start as u32, range.end as u32, 0]);
            }
        }
        Self {
            words,
            spans,
            tiles,
        }
    }

    /// Number of tiles.
    fn tile_count(&self) -> usize {
        self.words.len() / 4 - self.tiles
    }
}

/// A dispatch: its kernel, what names its buffers, its grid and its immediates.
struct Dispatch<'a> {
    kernel: &'a Kernel,
    kind: Kind,
    name: Option<Name>,
    buffers: &'a [&'a Buffer],
    immediates: &'a [u32],
    groups: [usize; 2],
    /// Width of its output.
    width: usize,
}

struct Recorder<'a> {
    backend: &'a GpuEncode,
    room: Room,
    recording: Recording,
    tables: &'a Tables,
    query_rows: Rows,
    rows: usize,
    hidden: usize,
    clock: Option<Clock>,
}

impl Recorder<'_> {
    fn run(&mut self, dispatch: &Dispatch<'_>) -> Result<(), Error> {
        let Dispatch {
            kernel,
            kind,
            name,
            buffers,
            immediates,
            groups,
            width,
        } = *dispatch;
        let gpu = &self.backend.gpu;
        let bound = self.room.bound(gpu, (name, kind), kernel, buffers)?;
        let pass = self.recording.pass();
        if let Some(clock) = &mut self.clock {
            clock.start(pass);
        }
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, bound, &[]);
        pass.set_immediates(0, bytemuck::cast_slice(immediates));
        pass.dispatch_workgroups(groups[0] as u32, groups[1] as u32, 1);
        if let Some(clock) = &mut self.clock {
            let width = width as u32;
            clock.end(pass, Mark { kind, width });
        }
        Ok(())
    }

    fn embed(
        &mut self,
        batch: &Ragged,
        weights: &GpuEmbedding,
        buffers: &Buffers,
    ) -> Result<(), Error> {
        let gpu = &self.backend.gpu;
        let words = match &weights.words {
            Words::Resident(words) => words,
            Words::Sent(tensor) => {
                // Row i of what is sent is that of token i.
                let rows = word_rows(self.backend.style, tensor, batch.ids().iter().copied())?;
                let mut words = self.tables.words.clone();
                for (i, word) in words[..2 * batch.ids().len()]
                    .iter_mut()
                    .step_by(2)
                    .enumerate()
                {
                    *word = i as u32;
                }
                gpu.write(&buffers.sent, 0, &rows)?;
                gpu.write(&buffers.tables, 0, bytemuck::cast_slice(&words))?;
                &buffers.sent
            }
        };
        self.run(&Dispatch {
            kernel: &weights.kernel,
            kind: Kind::Embed((padded(self.hidden) / WIDTH) as u32),
            name: Some(weights.name),
            buffers: &[
                &weights.scale_shift,
                &buffers.hidden,
                words,
                &weights.positions,
                &buffers.tables,
            ],
            immediates: &[
                self.rows as u32,
                self.hidden as u32,
                weights.epsilon.to_bits(),
            ],
            groups: [self.rows.div_ceil(2), 1],
            width: self.hidden,
        })
    }

    fn attend(&mut self, weights: &GpuAttention, buffers: &Buffers) -> Result<(), Error> {
        let projections = &weights.projections;
        self.product(projections, [&buffers.hidden, &buffers.wide], false)?;
        let head = self.hidden / weights.heads;
        let scale = std::f32::consts::LOG2_E / (head as f32).sqrt();
        let (wide, tables, context) = (&buffers.wide, &buffers.tables, &buffers.context);
        // The matrix kernel looks at the projections in two ways.
        let bound = [wide, wide, tables, context];
        let skip = usize::from(self.backend.style.side() == 0);
        self.run(&Dispatch {
            kernel: &weights.kernels[self.query_rows as usize],
            kind: Kind::Attention(head as u32, self.query_rows),
            name: Some(weights.name),
            buffers: &bound[skip..],
            immediates: &[
                projections.width as u32,
                padded(self.hidden) as u32,
                weights.heads as u32,
                self.hidden as u32,
                self.tables.tiles as u32,
                scale.to_bits(),
            ],
            groups: [
                weights.heads.div_ceil(self.backend.style.heads()),
                self.tables.tile_count(),
            ],
            width: self.hidden,
        })?;
        self.product(&weights.output, [&buffers.context, &buffers.outputs], false)?;
        self.norm(&weights.norm, buffers)
    }

    fn feed_forward(&mut self, weights: &GpuFeedForward, buffers: &Buffers) -> Result<(), Error> {
        self.product(&weights.up, [&buffers.hidden, &buffers.wide], true)?;
        self.product(&weights.down, [&buffers.wide, &buffers.outputs], false)?;
        self.norm(&weights.norm, buffers)
    }

    /// From the first buffer to the second.
    fn product(
        &mut self,
        product: &Product,
        [from, to]: [&Buffer; 2],
        activate: bool,
    ) -> Result<(), Error> {
        let tile = self.tile(product.width);
        let size = self.backend.style.tile(tile);
        self.run(&Dispatch {
            kernel: &product.kernels[tile as usize],
            kind: Kind::Product(tile),
            name: Some(product.name),
            buffers: &[from, &product.weights, &product.bias, to],
            immediates: &[product.depth as u32, product.width as u32, activate.into()],
            groups: [
                product.width / size.cols as usize,
                self.rows.div_ceil(size.rows as usize),
            ],
            width: product.width,
        })
    }

    /// The largest tiles of which there are enough to keep a GPU busy.
    fn tile(&self, width: usize) -> Tile {
        let style = self.backend.style;
        let count = |tile| {
            let size = style.tile(tile);
            self.rows.div_ceil(size.rows as usize) * (width / size.cols as usize)
        };
        let (large, medium) = if style.side() > 0 {
            (128, 64)
        } else {
            (24, 24)
        };
        match self.backend.tile() {
            Some(tile) => tile,
            // Half a tile of nothing costs more than a row of small ones.
            None if self.rows <= 32 => Tile::Small,
            None if count(Tile::Large) >= large => Tile::Large,
            None if count(Tile::Medium) >= medium => Tile::Medium,
            None => Tile::Small,
        }
    }

    fn norm(&mut self, norm: &Norm, buffers: &Buffers) -> Result<(), Error> {
        self.run(&Dispatch {
            kernel: &norm.kernel,
            kind: Kind::Norm((padded(self.hidden) / WIDTH) as u32),
            name: Some(norm.name),
            buffers: &[&norm.scale_shift, &buffers.hidden, &buffers.outputs],
            immediates: &[self.rows as u32, self.hidden as u32, norm.epsilon.to_bits()],
            groups: [self.rows.div_ceil(2), 1],
            width: self.hidden,
        })
    }

    fn pool(
        &mut self,
        sequences: usize,
        pooling: Pooling,
        normalize: bool,
        buffers: &Buffers,
    ) -> Result<(), Error> {
        let kind = Kind::Pool((padded(self.hidden) / WIDTH) as u32);
        let mean = pooling == Pooling::Mean;
        self.run(&Dispatch {
            kernel: &*self.backend.kernel(kind)?,
            kind,
            name: None,
            buffers: &[&buffers.hidden, &buffers.tables, &buffers.vectors],
            immediates: &[
                self.hidden as u32,
                mean.into(),
                normalize.into(),
                self.tables.spans as u32,
            ],
            groups: [sequences, 1],
            width: self.hidden,
        })
    }

    fn submit(mut self, vectors: Read<'_>) -> Result<(Pending, Option<Timing>, Room), Error> {
        let Some(clock) = self.clock.take() else {
            return Ok((self.recording.submit(&[vectors])?, None, self.room));
        };
        let ticks = clock.marks.len() as u32 + 1;
        let encoder = self.recording.encoder();
        encoder.resolve_query_set(&clock.queries, 0..ticks, &clock.ticks, 0);
        let read = Read {
            buffer: &clock.ticks,
            offset: 0,
            bytes: u64::from(ticks) * 8,
        };
        let pending = self.recording.submit(&[vectors, read])?;
        let timing = self.backend.profile.clone().map(|profile| Timing {
            profile,
            marks: clock.marks,
        });
        Ok((pending, timing, self.room))
    }
}

/// Takes the time after every dispatch.
struct Clock {
    queries: wgpu::QuerySet,
    ticks: Buffer,
    marks: Vec<Mark>,
}

impl Clock {
    /// Dispatches that can be timed; those after them are not.
    const MARKS: u32 = 1023;

    fn new(gpu: &Gpu) -> Result<Self, Error> {
        let descriptor = wgpu::QuerySetDescriptor {
            label: Some("ticks"),
            ty: wgpu::QueryType::Timestamp,
            count: Self::MARKS + 1,
        };
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Self {
            queries: gpu.caught(|| gpu.device().create_query_set(&descriptor))?,
            ticks: gpu.buffer(
                Purpose::Other,
                "ticks",
                u64::from(Self::MARKS + 1) * 8,
                usage,
            )?,
            marks: Vec::new(),
        })
    }

    fn start(&self, pass: &mut wgpu::ComputePass<'_>) {
        if self.marks.is_empty() {
            pass.write_timestamp(&self.queries, 0);
        }
    }

    fn end(&mut self, pass: &mut wgpu::ComputePass<'_>, mark: Mark) {
        if self.marks.len() < Self::MARKS as usize {
            self.marks.push(mark);
            pass.write_timestamp(&self.queries, self.marks.len() as u32);
        }
    }
}

/// Where the times of a forward go.
struct Timing {
    profile: Arc<Profile>,
    marks: Vec<Mark>,
}

/// A forward under way on a GPU.
pub struct GpuTicket(State);

enum State {
    Ready(Vec<f32>),
    Pending(Box<Waiting>),
}

struct Waiting {
    gpu: Gpu,
    pending: Pending,
    numbers: usize,
    hidden: usize,
    timing: Option<Timing>,
}

impl Ticket for GpuTicket {
    fn wait(self) -> Result<Vec<f32>, Error> {
        let Waiting {
            gpu,
            pending,
            numbers,
            hidden,
            timing,
        } = match self.0 {
            State::Ready(vectors) => return Ok(vectors),
            State::Pending(waiting) => *waiting,
        };
        let mut vectors = pending.wait(|bytes| {
            let (vectors, ticks) = bytes.split_at(numbers * 4);
            if let Some(timing) = timing {
                let ticks: Vec<u64> = ticks
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| u64::from_le_bytes(*b))
                    .collect();
                let nanoseconds = gpu.queue().get_timestamp_period();
                timing
                    .profile
                    .add(&timing.marks, &ticks, f64::from(nanoseconds));
            }
            let numbers = vectors.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            numbers.collect::<Vec<f32>>()
        })?;
        if gpu.faults().strike(Fault::NotFinite) {
            vectors[..hidden].fill(f32::NAN);
        }
        Ok(vectors)
    }
}
