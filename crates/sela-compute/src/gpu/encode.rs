//! The encoder on a GPU: passes are recorded, then run as one submission.
//!
//! Activations are kept in f16 (or f32), rows end to end as in the batch; sums, softmax and norms
//! are in f32. Rows are padded to whole tiles, widths to a multiple of 128 with zeros. What lies in
//! padded rows is left from earlier work: no row of a product depends on another, and attention
//! looks at no row beyond its sequence.
//!
//! A text's bits are the same alone and in any batch: every sum runs over the depth, the keys or
//! the tokens in an order that depends on the model and the variant alone. Tiles over rows and
//! columns may be chosen by the size of the batch.

mod emulate;
mod forward;
mod profile;
mod rooms;
mod shaders;
mod weights;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::forward::{GpuForward, GpuTicket};
pub use self::profile::PassTime;
use self::profile::Profile;
use self::rooms::Rooms;
use self::shaders::{Kind, Rows, Style, Tile};
pub use self::shaders::{MatrixTile, Needs, Shader, shaders};
pub use self::weights::{GpuAttention, GpuEmbedding, GpuFeedForward};
use super::{Gpu, Kernel, KernelSource};
use crate::encode::{AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Ragged};
use crate::error::Error;
use crate::inventory::GpuFacts;
use crate::plan::Arithmetic;
pub use crate::selftest::{gpu_self_test, gpu_self_test_once, self_test_of};

/// How products and attention are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Cooperative matrices of 16 x 16, f16 in and f32 out.
    Coop16,
    /// Cooperative matrices of 8 x 8, f16 in and f32 out.
    Coop8,
    /// Registers, and subgroup operations where they pay.
    Subgroup,
    /// Registers and workgroup memory only.
    Plain,
}

impl Variant {
    /// All variants, the preferred one first.
    pub const ALL: [Self; 4] = [Self::Coop16, Self::Coop8, Self::Subgroup, Self::Plain];

    /// The variants that a GPU should be able to run, the preferred one first.
    pub fn preferred(gpu: &GpuFacts, arithmetic: Arithmetic) -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|variant| variant.runs(gpu, arithmetic))
            .collect()
    }

    /// Side of its cooperative matrices; 0 without.
    fn side(self) -> u32 {
        match self {
            Self::Coop16 => 16,
            Self::Coop8 => 8,
            Self::Subgroup | Self::Plain => 0,
        }
    }

    fn runs(self, gpu: &GpuFacts, arithmetic: Arithmetic) -> bool {
        let f16 = match arithmetic {
            Arithmetic::F16 => gpu.f16,
            Arithmetic::F32 => true,
            Arithmetic::Bf16 | Arithmetic::Bf16x3 | Arithmetic::Int8 | Arithmetic::Int16 => {
                return false;
            }
        };
        let room = gpu.workgroup_bytes >= 32 << 10 && gpu.workgroup_threads >= 128;
        let (least, most) = gpu.subgroup.unwrap_or((0, 0));
        let matrix = arithmetic == Arithmetic::F16 && room && f16;
        match self {
            // The kernels are laid out for subgroups of 32. Apple's GPUs, the ones with 8 x 8, have
            // them but report a range; the self-test finds out.
            Self::Coop16 => matrix && gpu.has_matrix(16) && (least, most) == (32, 32),
            Self::Coop8 => matrix && gpu.has_matrix(8) && least <= 32 && most >= 32,
            Self::Subgroup => f16 && least >= 4,
            Self::Plain => f16,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coop16 => "coop16",
            Self::Coop8 => "coop8",
            Self::Subgroup => "subgroup",
            Self::Plain => "plain",
        })
    }
}

/// A name that is no [`Variant`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no variant: say coop16, coop8, subgroup or plain")]
pub struct UnknownVariant(String);

impl FromStr for Variant {
    type Err = UnknownVariant;

    fn from_str(text: &str) -> Result<Self, UnknownVariant> {
        let found = Self::ALL.into_iter().find(|v| v.to_string() == text);
        found.ok_or_else(|| UnknownVariant(text.to_owned()))
    }
}

/// Encodes on a GPU. Clones nothing big: share it behind a reference or an `Arc`.
///
/// Any number of forwards may be recorded and under way at once, from any threads.
pub struct GpuEncode {
    gpu: Gpu,
    variant: Variant,
    arithmetic: Arithmetic,
    style: Style,
    kernels: Mutex<HashMap<Kind, Arc<Kernel>>>,
    rooms: Rooms,
    profile: Option<Arc<Profile>>,
    /// The tile to use for all products, plus one, while the self-test asks for it.
    tile: AtomicUsize,
}

impl GpuEncode {
    /// An encoder on `gpu`. Compiles nothing: kernels come with the weights that need them.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when the GPU cannot run the variant in that arithmetic.
    pub fn new(gpu: Gpu, variant: Variant, arithmetic: Arithmetic) -> Result<Self, Error> {
        if !variant.runs(gpu.facts(), arithmetic) {
            return Err(Error::Missing(format!("{variant} kernels in {arithmetic}")));
        }
        let f16 = arithmetic == Arithmetic::F16;
        let style = Style::new(variant, f16, gpu.facts().workgroup_bytes);
        Ok(Self {
            gpu,
            variant,
            arithmetic,
            style,
            kernels: Mutex::default(),
            rooms: Rooms::default(),
            profile: None,
            tile: AtomicUsize::new(0),
        })
    }

    /// An encoder whose cooperative matrices are played by plain code on a GPU that has none: slow,
    /// for tests of kernels that cannot run otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when the GPU has no f16.
    pub fn emulating(gpu: Gpu, variant: Variant) -> Result<Self, Error> {
        let mut backend = Self::new(gpu, Variant::Plain, Arithmetic::F16)?;
        backend.variant = variant;
        let bytes = backend.gpu.facts().workgroup_bytes;
        backend.style = Style::new(variant, true, bytes);
        backend.style.emulated = variant.side() > 0;
        backend.style.tiles = shaders::brief_tiles();
        Ok(backend)
    }

    /// The same, taking the time of every pass; nothing is timed where the GPU has no clock.
    pub fn profiling(mut self) -> Self {
        self.profile = self.gpu.has_timestamps().then(Arc::default);
        self
    }

    /// The same with other tiles for products of many, some and few rows, to find the best ones.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] when a tile does not divide up or takes more workgroup memory than the GPU
    /// has.
    pub fn tiled(mut self, tiles: [MatrixTile; 3]) -> Result<Self, Error> {
        for tile in tiles {
            tile.check(self.style.side(), self.gpu.facts().workgroup_bytes)?;
        }
        self.style.tiles = tiles;
        Ok(self)
    }

    /// The tiles of products of many, some and few rows, on cooperative matrices.
    pub fn tiles(&self) -> [MatrixTile; 3] {
        self.style.tiles
    }

    /// The times of all passes waited for so far, the costliest first; empty unless profiling.
    pub fn profile(&self) -> Vec<PassTime> {
        self.profile.as_ref().map_or_else(Vec::new, |p| p.table())
    }

    /// Whether plain code plays the matrices.
    pub(crate) fn is_emulated(&self) -> bool {
        self.style.emulated
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// How products and attention are computed.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The arithmetic of its products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The result of `run` with every tile for all products, each with the tile's name.
    ///
    /// Meanwhile other forwards use that tile as well: they may take longer, their bits stay.
    pub(crate) fn with_each_tile<T>(
        &self,
        run: impl Fn() -> Result<T, Error>,
    ) -> Result<Vec<(String, T)>, Error> {
        let mut all = Vec::new();
        for tile in Tile::ALL {
            self.tile.store(tile as usize + 1, Ordering::Relaxed);
            let found = run();
            self.tile.store(0, Ordering::Relaxed);
            all.push((tile.to_string(), found?));
        }
        Ok(all)
    }

    /// The texts of the kernels for models with rows and heads of those sizes.
    pub(crate) fn texts(&self, widths: &[usize], heads: &[usize]) -> Result<Vec<String>, Error> {
        let mut kinds: Vec<Kind> = Tile::ALL.map(Kind::Product).into();
        for width in widths {
            let quads = (weights::padded(*width) / weights::WIDTH) as u32;
            kinds.extend([Kind::Embed(quads), Kind::Norm(quads), Kind::Pool(quads)]);
        }
        for head in heads {
            kinds.extend([Rows::Few, Rows::Many].map(|rows| Kind::Attention(*head as u32, rows)));
        }
        kinds
            .into_iter()
            .map(|kind| self.style.source(kind))
            .collect()
    }

    /// The texts of the kernels compiled so far.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> Result<Vec<String>, Error> {
        let kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels
            .keys()
            .map(|kind| self.style.source(*kind))
            .collect()
    }

    /// The tile that the self-test asks for.
    fn tile(&self) -> Option<Tile> {
        let tile = self.tile.load(Ordering::Relaxed);
        tile.checked_sub(1).map(|tile| Tile::ALL[tile])
    }

    /// A kernel, compiled when it is first asked for.
    fn kernel(&self, kind: Kind) -> Result<Arc<Kernel>, Error> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&kind) {
            return Ok(kernel.clone());
        }
        let name = kind.to_string();
        let kernel = Arc::new(self.gpu.kernel(&KernelSource {
            label: &name,
            wgsl: &self.style.source(kind)?,
            entry: "main",
            bindings: kind.bindings(self.style),
            immediate_bytes: kind.immediate_bytes(),
            // Rows and widths are padded to whole tiles, the tables are made in forward.rs, and
            // token ids and lengths are checked when a forward is recorded.
            unchecked: true,
        })?);
        kernels.insert(kind, kernel.clone());
        Ok(kernel)
    }
}

impl Encode for GpuEncode {
    type Embedding = GpuEmbedding;
    type Attention = GpuAttention;
    type FeedForward = GpuFeedForward;
    type Forward<'a> = GpuForward<'a>;
    type Ticket = GpuTicket;

    fn embedding(&self, tensors: EmbeddingTensors) -> Result<GpuEmbedding, Error> {
        GpuEmbedding::new(self, tensors)
    }

    fn attention(&self, tensors: AttentionTensors) -> Result<GpuAttention, Error> {
        GpuAttention::new(self, tensors)
    }

    fn feed_forward(&self, tensors: FeedForwardTensors) -> Result<GpuFeedForward, Error> {
        GpuFeedForward::new(self, tensors)
    }

    fn begin<'a>(&'a self, batch: &'a Ragged) -> Result<GpuForward<'a>, Error> {
        Ok(GpuForward::new(self, batch))
    }
}
