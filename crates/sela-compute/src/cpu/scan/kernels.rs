//! The kernels of exact search: canonical sums of a strip of rows against a group of queries.
//!
//! A tile keeps the sixteen virtual lanes of `NA` queries times `NR` rows in registers, so each
//! number read takes part in several pairs. Every pair has accumulators of its own and every sum
//! the canonical tree, so the bits of a score do not depend on the tile it was computed in.

use super::sums::Sums;
use crate::cpu::lanes::{Lanes, plain::Plain};
use crate::isa::Isa;
use crate::reference::LANES;
use crate::scan::{Metric, Record};

/// Most rows in a strip.
pub(super) const STRIP_ROWS: usize = 64;
/// Numbers between two queries' scores: a strip, rounded up to whole tiles, and a tile's slack.
pub(super) const SCORES_STRIDE: usize = STRIP_ROWS + 8;
/// Bytes of a strip's rows, widened to f32, when many queries share it: they stay in the
/// first-level cache beside the queries of a tile.
const STRIP_BYTES: usize = 24 << 10;
/// The same for one query, which only hands over less often with more.
const STREAM_BYTES: usize = 128 << 10;

/// Some rows and some queries to be compared.
pub(super) struct Strip<'a> {
    /// The rows' first bytes: `len` of them, then the last one three times more, for whole tiles.
    pub(super) rows: &'a [*const u8; SCORES_STRIDE],
    /// Number of rows, at least one.
    pub(super) len: usize,
    /// Numbers in a vector.
    pub(super) dim: usize,
    /// Queries, each filled up with zeros to a multiple of sixteen.
    pub(super) queries: &'a [[f32; LANES]],
    /// The queries' canonical norms.
    pub(super) norms: &'a [f32],
    /// For each query, the rank below which a row is of no interest.
    pub(super) thresholds: &'a [f32],
    /// Where the ranks go, `SCORES_STRIDE` for each query.
    pub(super) ranks: &'a mut [f32],
    /// For each query, whether any rank reaches the threshold.
    pub(super) hits: &'a mut [bool],
    /// Room for the strip's rows in f32, filled up with zeros to a multiple of sixteen.
    pub(super) wide: &'a mut Vec<[f32; LANES]>,
}

/// Ranks a strip's rows for a group of queries.
///
/// # Safety
///
/// The CPU has the instruction set; each of the first `len + 3` of `rows` points to `dim` numbers
/// of the record; `queries` holds `norms.len() * ceil(dim / 16)` groups; `thresholds` and `hits`
/// are as long as `norms`, `ranks` `SCORES_STRIDE` times that.
pub(super) type StripFn = unsafe fn(Strip<'_>);

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    strips: [[StripFn; 3]; 2],
    /// Rows are padded to a multiple of this many.
    tile_rows: usize,
}

impl Kernels {
    /// The kernels of an instruction set, if this build has them.
    pub(super) fn of(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Plain => Some(plain()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(avx2()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(avx512()),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(neon()),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// The kernel for a kind of rows and a metric.
    pub(super) fn strip(&self, record: Record, metric: Metric) -> StripFn {
        let record = match record {
            Record::F32 => 0,
            Record::F16 => 1,
        };
        let metric = match metric {
            Metric::Cosine => 0,
            Metric::Dot => 1,
            Metric::L2 => 2,
        };
        self.strips[record][metric]
    }

    /// How many rows a strip should have.
    pub(super) fn strip_rows(&self, dim: usize, queries: usize) -> usize {
        // The rows of a single query are not used again.
        let bytes = if queries == 1 {
            STREAM_BYTES
        } else {
            STRIP_BYTES
        };
        let fit = bytes / (dim.next_multiple_of(LANES) * size_of::<f32>());
        (fit / self.tile_rows * self.tile_rows).clamp(self.tile_rows, STRIP_ROWS)
    }
}

/// How stored numbers are read.
trait Number: Copy {
    const ZERO: Self;

    /// Loads a register of them, widened to f32.
    ///
    /// # Safety
    ///
    /// As for [`Lanes`].
    unsafe fn load<V: Lanes>(from: *const Self) -> V;
}

impl Number for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
}

impl Number for u16 {
    const ZERO: Self = 0;

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(from) }
    }
}

/// What a metric sums up, and how a sum becomes a rank: the larger, the nearer.
trait Rule {
    /// Whether ranks need the rows' norms.
    const NORM: bool = false;

    /// # Safety
    ///
    /// As for [`Lanes`].
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V;

    fn rank(sum: f32, query_norm: f32, row_norm: f32) -> f32;
}

struct Cosine;
struct Dot;
struct L2;

impl Rule for Cosine {
    const NORM: bool = true;

    #[inline(always)]
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { query.fma(row, sum) }
    }

    #[inline(always)]
    fn rank(sum: f32, query_norm: f32, row_norm: f32) -> f32 {
        let norms = query_norm * row_norm;
        if norms == 0.0 { 0.0 } else { sum / norms }
    }
}

impl Rule for Dot {
    #[inline(always)]
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { query.fma(row, sum) }
    }

    #[inline(always)]
    fn rank(sum: f32, _: f32, _: f32) -> f32 {
        sum
    }
}

impl Rule for L2 {
    #[inline(always)]
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let difference = query.sub(row);
            difference.fma(difference, sum)
        }
    }

    #[inline(always)]
    fn rank(sum: f32, _: f32, _: f32) -> f32 {
        -sum.sqrt()
    }
}

/// Sixteen numbers of each query and row of a tile. With `NORM` the last set of sums is of the
/// rows with themselves, and the last query is not read.
///
/// # Safety
///
/// As for [`Lanes`]; the pointers have sixteen numbers each.
#[inline(always)]
unsafe fn step<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NA: usize,
    const NR: usize,
    const NORM: bool,
>(
    sums: &mut [[[V; NV]; NR]; NA],
    queries: [*const f32; NA],
    rows: [*const T; NR],
) {
    for h in 0..NV {
        // SAFETY: the caller's promise.
        unsafe {
            let mut numbers = [V::splat(0.0); NR];
            for r in 0..NR {
                numbers[r] = T::load(rows[r].add(h * V::LANES));
            }
            for a in 0..NA {
                if NORM && a == NA - 1 {
                    for r in 0..NR {
                        sums[a][r][h] = numbers[r].fma(numbers[r], sums[a][r][h]);
                    }
                } else {
                    let query = V::load(queries[a].add(h * V::LANES));
                    for r in 0..NR {
                        sums[a][r][h] = M::term(query, numbers[r], sums[a][r][h]);
                    }
                }
            }
        }
    }
}

/// The canonical sums of `NA` queries with `NR` rows, at most four; `out` has room for four
/// numbers for each query.
///
/// # Safety
///
/// As for [`Lanes`]; a query has `dim` numbers rounded up to sixteen, a row has `dim`.
#[inline(always)]
unsafe fn tile<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NA: usize,
    const NR: usize,
    const NORM: bool,
>(
    queries: [*const f32; NA],
    rows: &[*const u8],
    dim: usize,
    out: [*mut f32; NA],
) {
    const { assert!(NV * V::LANES == LANES && NR <= 4) };
    let mut from = [std::ptr::null::<T>(); NR];
    for r in 0..NR {
        from[r] = rows[r].cast();
    }
    // SAFETY: the caller's promise; the tail is read from copies filled up with zeros.
    unsafe {
        let mut sums = [[[V::splat(0.0); NV]; NR]; NA];
        let whole = dim / LANES * LANES;
        let mut at = 0;
        while at < whole {
            step::<V, T, M, NV, NA, NR, NORM>(
                &mut sums,
                queries.map(|q| q.wrapping_add(at)),
                from.map(|row| row.add(at)),
            );
            at += LANES;
        }
        if whole < dim {
            let mut tails = [[T::ZERO; LANES]; NR];
            for r in 0..NR {
                let tail = from[r].add(whole).cast::<u8>();
                let bytes = (dim - whole) * size_of::<T>();
                std::ptr::copy_nonoverlapping(tail, tails[r].as_mut_ptr().cast(), bytes);
            }
            let mut rows = [std::ptr::null::<T>(); NR];
            for r in 0..NR {
                rows[r] = tails[r].as_ptr();
            }
            let queries = queries.map(|q| q.wrapping_add(whole));
            step::<V, T, M, NV, NA, NR, NORM>(&mut sums, queries, rows);
        }
        let mut a = 0;
        while a < NA {
            // An odd last query goes twice, to the same place.
            let b = (a + 1).min(NA - 1);
            let row = |r: usize| r.min(NR - 1);
            V::sum8(
                [
                    V::eight(sums[a][row(0)]),
                    V::eight(sums[a][row(1)]),
                    V::eight(sums[a][row(2)]),
                    V::eight(sums[a][row(3)]),
                    V::eight(sums[b][row(0)]),
                    V::eight(sums[b][row(1)]),
                    V::eight(sums[b][row(2)]),
                    V::eight(sums[b][row(3)]),
                ],
                out[a],
                out[b],
            );
            a += 2;
        }
    }
}

/// A pass of `NA` sets of sums over all rows of a strip.
///
/// # Safety
///
/// As for [`tile`], for `len` rows rounded up to `NR`; each `out` has room for that many and four.
#[inline(always)]
unsafe fn pass<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NA: usize,
    const NR: usize,
    const NORM: bool,
>(
    queries: [*const f32; NA],
    rows: &[*const u8],
    len: usize,
    dim: usize,
    out: [*mut f32; NA],
) {
    for r in (0..len).step_by(NR) {
        // SAFETY: the caller's promise; what a tile writes too much, the next one overwrites.
        unsafe {
            let out = out.map(|to| to.add(r));
            tile::<V, T, M, NV, NA, NR, NORM>(queries, &rows[r..r + NR], dim, out);
        }
    }
}

/// Turns a query's sums into ranks; whether any reaches the threshold.
#[inline(always)]
fn rank<M: Rule>(sums: &mut [f32], query_norm: f32, row_norms: &[f32], threshold: f32) -> bool {
    let mut hits = 0u32;
    for (sum, norm) in sums.iter_mut().zip(row_norms) {
        *sum = M::rank(*sum, query_norm, *norm);
        hits |= u32::from(*sum >= threshold);
    }
    hits != 0
}

/// The strip for one query: rows are read once, from far away, several at a time.
///
/// # Safety
///
/// As for [`StripFn`].
#[inline(always)]
unsafe fn single<V: Sums, T: Number, M: Rule, const NV: usize>(strip: Strip<'_>) {
    let Strip {
        rows,
        len,
        dim,
        ranks,
        ..
    } = strip;
    let mut norms = [0f32; SCORES_STRIDE];
    let query = strip.queries.as_ptr().cast();
    let out = ranks.as_mut_ptr();
    // SAFETY: the caller's promise.
    unsafe {
        if M::NORM {
            let queries = [query, std::ptr::null()];
            let out = [out, norms.as_mut_ptr()];
            pass::<V, T, M, NV, 2, 3, true>(queries, rows, len, dim, out);
            for norm in &mut norms[..len] {
                *norm = norm.sqrt();
            }
        } else {
            pass::<V, T, M, NV, 1, 4, false>([query], rows, len, dim, [out]);
        }
    }
    strip.hits[0] = rank::<M>(
        &mut ranks[..len],
        strip.norms[0],
        &norms,
        strip.thresholds[0],
    );
}

/// The strip for several queries: the rows' norms once, then `NQ` queries at a time.
///
/// # Safety
///
/// As for [`StripFn`].
#[inline(always)]
unsafe fn several<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NQ: usize,
    const NR: usize,
>(
    strip: &mut Strip<'_>,
    rows: &[*const u8],
    dim: usize,
) {
    let len = strip.len;
    let groups = strip.dim.div_ceil(LANES);
    let mut norms = [0f32; SCORES_STRIDE];
    if M::NORM {
        // SAFETY: the caller's promise; the query is not read.
        unsafe {
            let none = [std::ptr::null()];
            pass::<V, T, M, NV, 1, NR, true>(none, rows, len, dim, [norms.as_mut_ptr()]);
        }
        for norm in &mut norms[..len] {
            *norm = norm.sqrt();
        }
    }
    let query = strip.queries.as_ptr();
    let ranks = strip.ranks.as_mut_ptr();
    // SAFETY (of both uses): the caller's promise for each query.
    let at = |q: usize| unsafe { query.add(q * groups).cast::<f32>() };
    let out = |q: usize| unsafe { ranks.add(q * SCORES_STRIDE) };
    let mut q = 0;
    while q < strip.norms.len() {
        let left = strip.norms.len() - q;
        // SAFETY: the caller's promise; `taken` queries are left.
        let taken = unsafe {
            if left >= NQ {
                let mut queries = [at(q); NQ];
                let mut outs = [out(q); NQ];
                for i in 1..NQ {
                    queries[i] = at(q + i);
                    outs[i] = out(q + i);
                }
                pass::<V, T, M, NV, NQ, NR, false>(queries, rows, len, dim, outs);
                NQ
            } else if left >= 2 {
                let queries = [at(q), at(q + 1)];
                pass::<V, T, M, NV, 2, NR, false>(queries, rows, len, dim, [out(q), out(q + 1)]);
                2
            } else {
                pass::<V, T, M, NV, 1, NR, false>([at(q)], rows, len, dim, [out(q)]);
                1
            }
        };
        for i in q..q + taken {
            // SAFETY: the caller's promise.
            let sums = unsafe { std::slice::from_raw_parts_mut(out(i), len) };
            strip.hits[i] = rank::<M>(sums, strip.norms[i], &norms, strip.thresholds[i]);
        }
        q += taken;
    }
}

/// Widens rows to f32, filled up with zeros to groups of sixteen, and points to the copies.
///
/// # Safety
///
/// As for [`StripFn`].
#[inline(always)]
unsafe fn widen<V: Sums, T: Number>(
    rows: &[*const u8],
    dim: usize,
    wide: &mut Vec<[f32; LANES]>,
) -> [*const u8; SCORES_STRIDE] {
    let groups = dim.div_ceil(LANES);
    wide.resize(rows.len() * groups, [0.0; LANES]);
    let mut copies = [std::ptr::null(); SCORES_STRIDE];
    for ((row, copy), to) in rows
        .iter()
        .zip(&mut copies)
        .zip(wide.chunks_exact_mut(groups))
    {
        *copy = to.as_ptr().cast();
        let from = row.cast::<T>();
        for (g, to) in to.iter_mut().enumerate() {
            let at = g * LANES;
            // SAFETY: the caller's promise; a last group is read from a copy filled up with zeros.
            unsafe {
                let mut tail = [T::ZERO; LANES];
                let mut group = from.add(at);
                if dim - at < LANES {
                    let bytes = (dim - at) * size_of::<T>();
                    std::ptr::copy_nonoverlapping(
                        group.cast::<u8>(),
                        tail.as_mut_ptr().cast(),
                        bytes,
                    );
                    group = tail.as_ptr();
                }
                for i in (0..LANES).step_by(V::LANES) {
                    T::load::<V>(group.add(i)).store(to.as_mut_ptr().add(i));
                }
            }
        }
    }
    copies
}

/// A kernel, over all choices.
///
/// # Safety
///
/// As for [`StripFn`].
#[inline(always)]
unsafe fn strip<V: Sums, T: Number, M: Rule, const NV: usize, const NQ: usize, const NR: usize>(
    mut strip: Strip<'_>,
) {
    let (rows, len, dim) = (strip.rows, strip.len, strip.dim);
    let queries = strip.norms.len();
    debug_assert!((1..=STRIP_ROWS).contains(&len));
    // SAFETY: the caller's promise.
    unsafe {
        if queries == 1 {
            single::<V, T, M, NV>(strip);
        } else if queries <= NQ || (size_of::<T>() == 4 && dim.is_multiple_of(LANES)) {
            several::<V, T, M, NV, NQ, NR>(&mut strip, rows, dim);
        } else {
            let padded = &rows[..len.next_multiple_of(NR)];
            let copies = widen::<V, T>(padded, dim, strip.wide);
            let dim = dim.next_multiple_of(LANES);
            several::<V, f32, M, NV, NQ, NR>(&mut strip, &copies, dim);
        }
    }
}

/// The table of an instruction set: the kernels are instances inside a function that enables it.
macro_rules! table {
    ($(#[$attribute:meta])* $name:ident, $lanes:ty, $nv:literal, $queries:literal, $rows:literal) => {
        fn $name() -> Kernels {
            /// # Safety
            ///
            /// As for [`StripFn`].
            $(#[$attribute])*
            unsafe fn run<T: Number, M: Rule>(of: Strip<'_>) {
                // SAFETY: the caller's promise; the instruction set is enabled here.
                unsafe { strip::<$lanes, T, M, $nv, $queries, $rows>(of) }
            }
            Kernels {
                strips: [
                    [run::<f32, Cosine>, run::<f32, Dot>, run::<f32, L2>],
                    [run::<u16, Cosine>, run::<u16, Dot>, run::<u16, L2>],
                ],
                tile_rows: $rows,
            }
        }
    };
}

table!(plain, Plain, 4, 2, 2);
#[cfg(target_arch = "x86_64")]
table!(
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2,
    crate::cpu::lanes::x86::Avx2,
    2,
    2,
    3
);
#[cfg(target_arch = "x86_64")]
table!(
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")]
    avx512,
    crate::cpu::lanes::x86::Avx512,
    1,
    6,
    4
);
#[cfg(target_arch = "aarch64")]
table!(
    #[target_feature(enable = "neon")]
    neon,
    crate::cpu::lanes::neon::Neon,
    4,
    2,
    3
);
