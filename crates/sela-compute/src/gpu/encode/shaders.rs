//! The kernels of the encoder: their texts, put together for a variant and a shape.

use std::fmt;

use super::Variant;
use super::emulate::emulated;
use crate::error::Error;
use crate::gpu::Binding;
use crate::gpu::template::{Names, expand};

/// What a shader needs of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Numbers of 16 bits.
    pub f16: bool,
    /// Subgroup operations.
    pub subgroup: bool,
    /// Cooperative matrices of that side, and barriers of subgroups with them; 0 for none.
    pub matrix: u32,
}

/// A shader as it is compiled, for tests that translate all of them.
#[derive(Clone, Debug)]
pub struct Shader {
    /// What it computes, in which variant and shape, and how much memory its workgroups may take.
    pub name: String,
    /// WGSL.
    pub source: String,
    /// What it needs.
    pub needs: Needs,
}

/// How all kernels of an encoder are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Style {
    pub(super) variant: Variant,
    /// Numbers in memory have 16 bits, not 32.
    pub(super) f16: bool,
    /// Large, medium and small tiles on cooperative matrices.
    pub(super) tiles: [MatrixTile; 3],
    /// Plain code plays the matrices and subgroups.
    pub(super) emulated: bool,
}

/// A kernel and the one shape it is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Embeddings, normalised; rows of that many times 128 numbers.
    Embed(u32),
    /// Residual and normalisation; rows of that many times 128 numbers.
    Norm(u32),
    /// Pooling; rows of that many times 128 numbers.
    Pool(u32),
    /// Attention with heads of that many numbers, and so many query rows a workgroup.
    Attention(u32, Rows),
    /// A matrix product in tiles of that size.
    Product(Tile),
}

/// Query rows of a workgroup of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rows {
    /// 32, for short sequences.
    Few,
    /// 64 where kernels on matrices share keys among them; else the same as `Few`.
    Many,
}

/// The size of a product's tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tile {
    /// For many rows.
    Large,
    /// For hundreds of rows.
    Medium,
    /// For a few rows.
    Small,
}

impl Tile {
    pub(super) const ALL: [Self; 3] = [Self::Large, Self::Medium, Self::Small];
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Large => "large",
            Self::Medium => "medium",
            Self::Small => "small",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed(quads) => write!(f, "embed, rows of {}", quads * 128),
            Self::Norm(quads) => write!(f, "norm, rows of {}", quads * 128),
            Self::Pool(quads) => write!(f, "pool, rows of {}", quads * 128),
            Self::Attention(head, Rows::Few) => write!(f, "attention, heads of {head}"),
            Self::Attention(head, Rows::Many) => write!(f, "attention in 64 rows, heads of {head}"),
            Self::Product(tile) => write!(f, "product, {tile} tiles"),
        }
    }
}

impl Kind {
    /// What it does with its buffers, in the order of its bindings.
    pub(super) fn bindings(self, style: Style) -> &'static [Binding] {
        use Binding::{Read, ReadWrite};
        match self {
            Self::Embed(_) => &[Read, ReadWrite, Read, Read, Read],
            Self::Norm(_) => &[Read, ReadWrite, Read],
            Self::Pool(_) => &[Read, Read, ReadWrite],
            Self::Attention(..) if style.side() > 0 => &[Read, Read, Read, ReadWrite],
            Self::Attention(..) => &[Read, Read, ReadWrite],
            Self::Product(_) => &[Read, Read, Read, ReadWrite],
        }
    }

    /// Bytes of its immediates.
    pub(super) fn immediate_bytes(self) -> u32 {
        match self {
            Self::Embed(_) | Self::Norm(_) | Self::Product(_) => 12,
            Self::Pool(_) => 16,
            Self::Attention(..) => 24,
        }
    }
}

/// Rows and columns of a product's tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileSize {
    pub(super) rows: u32,
    pub(super) cols: u32,
}

/// A tile of a product on cooperative matrices, through workgroup memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixTile {
    /// Subgroups down.
    pub sub_rows: u32,
    /// Subgroups across.
    pub sub_cols: u32,
    /// Squares of a subgroup down.
    pub rows: u32,
    /// Squares of a subgroup across.
    pub cols: u32,
    /// Numbers of depth in a step.
    pub depth: u32,
    /// Steps in workgroup memory: 1, or 2 for one barrier a step.
    pub buffers: u32,
}

impl MatrixTile {
    /// Bytes of workgroup memory it takes.
    fn bytes(self, side: u32) -> u32 {
        let lines = (self.sub_rows * self.rows + self.sub_cols * self.cols) * side;
        let strips = self.sub_rows * self.sub_cols * 16 * 16 * 4;
        self.buffers * lines * (self.depth + 8) * 2 + strips
    }

    /// Whether the kernel can be written for it and the GPU has the memory.
    pub(super) fn check(self, side: u32, bytes: u32) -> Result<(), Error> {
        let limit = |what, value: u32, limit: u32| {
            let (value, limit) = (value as usize, limit as usize);
            Err(Error::Limit { what, value, limit })
        };
        let [down, across] = [
            self.sub_rows * self.rows * side,
            self.sub_cols * self.cols * side,
        ];
        let span = self.sub_rows * self.sub_cols * 32 * 4 / self.depth.max(4);
        // Divisors are never 0: what comes before sees to that.
        let whole = side > 0
            && matches!(self.buffers, 1 | 2)
            && span > 0
            && down > 0
            && across > 0
            && down.is_multiple_of(span)
            && across.is_multiple_of(span)
            && 128u32.is_multiple_of(across)
            && 128u32.is_multiple_of(down)
            && 128u32.is_multiple_of(self.depth)
            && self.depth.is_multiple_of(16)
            && (self.cols * side).is_multiple_of(16)
            && (self.rows * side).is_multiple_of(16);
        if !whole {
            return limit("remainder of a tile", 1, 0);
        }
        if self.bytes(side) > bytes {
            return limit(
                "bytes of workgroup memory of a tile",
                self.bytes(side),
                bytes,
            );
        }
        Ok(())
    }
}

/// The large, medium and small tiles of matrices of that side on a GPU whose workgroups have so
/// much memory.
///
/// Best of those tried on an H100, all of which its driver compiles: some others it does not.
fn matrix_tiles(side: u32, bytes: u32) -> [MatrixTile; 3] {
    let tile = |sub_rows, sub_cols, rows, cols, depth| MatrixTile {
        sub_rows,
        sub_cols,
        rows,
        cols,
        depth,
        buffers: 2,
    };
    let mut tiles = match side {
        16 => [
            tile(4, 2, 2, 4, 32),
            tile(2, 2, 2, 2, 64),
            tile(1, 2, 1, 1, 128),
        ],
        _ => [
            tile(2, 2, 4, 4, 32),
            tile(2, 2, 2, 2, 64),
            tile(1, 2, 2, 2, 64),
        ],
    };
    for tile in &mut tiles {
        if tile.bytes(side) > bytes {
            tile.buffers = 1;
        }
    }
    tiles
}

/// Tiles of few squares, for matrices played by plain code: what is written out for each of them
/// takes a software GPU long to compile. One and two buffers, one and several squares.
pub(super) fn brief_tiles() -> [MatrixTile; 3] {
    let tile = |sub_rows, cols, buffers| MatrixTile {
        sub_rows,
        sub_cols: 2,
        rows: 2,
        cols,
        depth: 16,
        buffers,
    };
    [tile(2, 4, 2), tile(2, 2, 1), tile(1, 2, 2)]
}

impl Style {
    /// For a GPU whose workgroups have so much memory.
    pub(super) fn new(variant: Variant, f16: bool, bytes: u32) -> Self {
        Self {
            variant,
            f16,
            tiles: matrix_tiles(variant.side(), bytes),
            emulated: false,
        }
    }

    /// Side of its cooperative matrices; 0 without.
    pub(super) fn side(self) -> u32 {
        self.variant.side()
    }

    /// Bytes of a number in memory.
    pub(super) fn bytes(self) -> usize {
        if self.f16 { 2 } else { 4 }
    }

    /// Size of a product's tiles.
    pub(super) fn tile(self, tile: Tile) -> TileSize {
        let (rows, cols) = match (self.side(), tile) {
            (0, Tile::Small) => (16, 64),
            (0, _) => (64, 64),
            (side, tile) => {
                let tile = self.tiles[tile as usize];
                (
                    tile.sub_rows * tile.rows * side,
                    tile.sub_cols * tile.cols * side,
                )
            }
        };
        TileSize { rows, cols }
    }

    /// Query rows of a workgroup of attention.
    pub(super) fn query_rows(self, rows: Rows) -> u32 {
        match rows {
            Rows::Many if self.side() > 0 => 64,
            Rows::Many | Rows::Few => 32,
        }
    }

    /// Heads of a workgroup of attention.
    pub(super) fn heads(self) -> usize {
        if self.side() > 0 { 1 } else { 2 }
    }

    /// What all its kernels need, or may need.
    pub(super) fn needs(self, kind: Kind) -> Needs {
        let matrix = match kind {
            Kind::Attention(..) | Kind::Product(_) => self.side(),
            Kind::Embed(_) | Kind::Norm(_) | Kind::Pool(_) => 0,
        };
        let norm = matches!(kind, Kind::Embed(_) | Kind::Norm(_));
        Needs {
            f16: self.f16,
            subgroup: matrix > 0 || norm && self.variant != Variant::Plain && !self.emulated,
            matrix,
        }
    }

    /// The text of a kernel.
    pub(super) fn source(self, kind: Kind) -> Result<String, Error> {
        let needs = self.needs(kind);
        let mut names: Names<'_> = vec![("SUBGROUPS", needs.subgroup.into())];
        let text = match kind {
            Kind::Embed(quads) | Kind::Norm(quads) => {
                let embed = matches!(kind, Kind::Embed(_));
                // The variants with matrices are for subgroups of 32.
                let whole = self.side() == 16 && !self.emulated;
                names.extend([
                    ("EMBED", embed.into()),
                    ("QUADS", quads),
                    ("WHOLE", whole.into()),
                ]);
                include_str!("norm.wgsl")
            }
            Kind::Pool(quads) => {
                names.extend([("ROW", quads * 32), ("QUADS", quads.div_ceil(4))]);
                include_str!("pool.wgsl")
            }
            Kind::Attention(head, rows) if needs.matrix > 0 => {
                matrix_names(&mut names, needs.matrix);
                attention_names(&mut names, needs.matrix, head, self.query_rows(rows));
                include_str!("attention_matrix.wgsl")
            }
            Kind::Attention(head, _) => {
                let keys = (1024 / head).min(32) / 4 * 4;
                names.extend([("KEYS", keys), ("HEAD_QUADS", head / 4)]);
                include_str!("attention_rows.wgsl")
            }
            Kind::Product(tile) if needs.matrix > 0 => {
                matrix_names(&mut names, needs.matrix);
                product_names(&mut names, needs.matrix, self.tiles[tile as usize]);
                include_str!("product_matrix.wgsl")
            }
            Kind::Product(tile) => {
                let (down, rows, across, cols) = match tile {
                    Tile::Small => (4, 4, 16, 4),
                    Tile::Medium | Tile::Large => (8, 8, 8, 8),
                };
                names.extend([("DOWN", down), ("ROWS", rows), ("ACROSS", across)]);
                names.extend([("COLS", cols), ("COL_QUADS", cols / 4)]);
                names.extend([
                    ("LEFT_LOADS", down * rows / 16),
                    ("RIGHT_LOADS", across * cols / 16),
                ]);
                include_str!("product_tile.wgsl")
            }
        };
        let mut source = prelude(needs, &names);
        if matches!(kind, Kind::Product(_)) {
            source += include_str!("gelu.wgsl");
        }
        source += &expand(text, &names)?;
        if self.emulated && needs.matrix > 0 {
            source = emulated(&source, needs.matrix);
        }
        Ok(source)
    }
}

/// Names of all kernels on cooperative matrices.
///
/// Vulkan reads matrices from memory of vectors, Metal from memory of numbers only.
fn matrix_names(names: &mut Names<'_>, side: u32) {
    let wide = side == 16;
    let cell = if wide { 4 } else { 1 };
    names.extend([
        ("SIDE", side),
        ("WIDE", wide.into()),
        ("CELL", cell),
        ("SUM", cell),
    ]);
    names.extend([
        ("STRIP_I", 16 / side),
        ("SIDE_QUADS", side / 4),
        ("SIDE_OCTETS", side / 8),
    ]);
}

fn attention_names(names: &mut Names<'_>, side: u32, head: u32, rows: u32) {
    // As many keys at a time as leave workgroup memory under 32 KiB.
    let keys = if head <= 96 { 32 } else { 16 };
    let threads = rows * 2;
    names.extend([
        ("HEAD", head),
        ("HEAD_SIDES", head / side),
        ("HEAD_QUADS", head / 4),
    ]);
    names.extend([
        ("HEAD_STRIPS", head / 16),
        ("KEYS", keys),
        ("KEY_SIDES", keys / side),
    ]);
    names.extend([
        ("KEY_OCTETS", keys / 8),
        ("KEY_LOADS", keys * head / 4 / threads),
    ]);
    names.extend([
        ("SUBS", rows / 16),
        ("THREADS", threads),
        ("ROW_SIDES", 16 / side),
    ]);
}

fn product_names(names: &mut Names<'_>, side: u32, tile: MatrixTile) {
    let threads = tile.sub_rows * tile.sub_cols * 32;
    let rows = tile.sub_rows * tile.rows * side;
    let cols = tile.sub_cols * tile.cols * side;
    // Rows of a step that all threads fetch at once, 4 numbers each.
    let span = threads / (tile.depth / 4);
    names.extend([
        ("THREADS", threads),
        ("SUB_ROWS", tile.sub_rows),
        ("SUB_COLS", tile.sub_cols),
    ]);
    names.extend([
        ("ROWS", tile.rows),
        ("COLS", tile.cols),
        ("DEPTH", tile.depth),
    ]);
    names.extend([("TILE_ROWS", rows), ("TILE_COLS", cols), ("SPAN", span)]);
    names.extend([("LEFT_LOADS", rows / span), ("RIGHT_LOADS", cols / span)]);
    names.extend([
        ("DEPTH_SIDES", tile.depth / side),
        ("STRIP_SIDES", 16 / side),
    ]);
    names.extend([
        ("STRIPS_DOWN", tile.rows * side / 16),
        ("STRIPS_ACROSS", tile.cols * side / 16),
    ]);
    names.extend([
        ("BUFFERS", tile.buffers),
        ("DOUBLE", (tile.buffers == 2).into()),
    ]);
}

/// What comes before every kernel: the types of numbers, and its names as constants.
fn prelude(needs: Needs, names: &Names<'_>) -> String {
    let mut text = String::new();
    let num = if needs.f16 { "f16" } else { "f32" };
    if needs.f16 {
        text += "enable f16;\n";
    }
    if needs.matrix > 0 {
        text += "enable wgpu_cooperative_matrix;\n";
    }
    text += &format!("alias Num = {num};\nalias Quad = vec4<Num>;\n");
    if needs.matrix > 0 {
        let side = needs.matrix;
        text += &format!("alias Left = coop_mat{side}x{side}<f16, A>;\n");
        text += &format!("alias Right = coop_mat{side}x{side}<f16, B>;\n");
        text += &format!("alias Sums = coop_mat{side}x{side}<f32, C>;\n");
        let wide = side == 16;
        text += &format!("alias Cell = {};\n", if wide { "vec4<f16>" } else { "f16" });
        text += &format!("alias Sum = {};\n", if wide { "vec4<f32>" } else { "f32" });
    }
    for (name, n) in names {
        text += &format!("const {name}: u32 = {n}u;\n");
    }
    text
}

/// All shaders in all variants, at the shapes of common models, for GPUs with 32 KiB of memory a
/// workgroup and for those with more.
///
/// # Errors
///
/// None, unless a shader's text is broken.
pub fn shaders() -> Result<Vec<Shader>, Error> {
    let mut all = Vec::new();
    for variant in Variant::ALL {
        for (f16, kilobytes) in [(true, 32), (true, 48), (false, 32)] {
            let style = Style::new(variant, f16, kilobytes << 10);
            let same = style == Style::new(variant, f16, 32 << 10);
            if style.side() > 0 && !f16 || kilobytes > 32 && same {
                continue;
            }
            let number = if f16 { "f16" } else { "f32" };
            for kind in kinds(style, kilobytes > 32) {
                all.push(Shader {
                    name: format!("{kind} ({variant}, {number}, {kilobytes} KiB)"),
                    source: style.source(kind)?,
                    needs: style.needs(kind),
                });
            }
        }
    }
    Ok(all)
}

/// Kernels of common models; those that use more memory alone if there are others.
fn kinds(style: Style, more: bool) -> Vec<Kind> {
    let mut kinds = vec![];
    if !more {
        kinds.extend([1, 3, 6, 8].map(Kind::Embed));
        kinds.extend([1, 3, 6, 8].map(Kind::Norm));
        kinds.extend([1, 3, 6, 8].map(Kind::Pool));
        for head in [16, 32, 48, 64, 96, 128] {
            kinds.extend([Rows::Few, Rows::Many].map(|rows| Kind::Attention(head, rows)));
        }
    }
    kinds.extend(Tile::ALL.map(Kind::Product));
    kinds.retain(|kind| match kind {
        Kind::Product(tile) if more => style.tiles[*tile as usize].bytes(style.side()) > 32 << 10,
        _ => true,
    });
    kinds
}
