//! The kernels of exact search: the ranks of a strip of rows for a group of queries, and the
//! table of them that a search is given.

use super::padded::Padded;
use super::sums::Sums;
use super::tile::{Ahead, Cosine, Dot, L2, Number, Rows, Rule, TILE_ROWS_MAX, Tails, pass};
use crate::cpu::lanes::plain::Plain;
use crate::isa::Isa;
use crate::reference::LANES;
use crate::scan::{Metric, Record};

/// Most rows in a strip.
pub(super) const STRIP_ROWS: usize = 64;
/// Rows of a strip with those that fill up its last tile, and numbers between the ranks of two
/// queries: a multiple of eight.
pub(super) const STRIP_ROOM: usize = STRIP_ROWS + 8;
/// Bytes of a strip's rows when several queries share it: they stay in the first-level cache
/// beside the queries of a tile.
const STRIP_BYTES: usize = 24 << 10;
/// The same for one query: a strip is computed while the next one is fetched.
const STREAM_BYTES: usize = 16 << 10;

/// Some rows and some queries to be compared.
pub(super) struct Strip<'a> {
    /// The rows' first bytes: `len` of them, then the last one three times more, for whole tiles.
    pub(super) rows: &'a [*const u8; STRIP_ROOM],
    /// Number of rows, at least one, at most `STRIP_ROWS`.
    pub(super) len: usize,
    /// What will probably be read next.
    pub(super) ahead: &'a [u8],
    /// Numbers in a vector.
    pub(super) dim: usize,
    /// All queries; this group is `norms.len()` of them.
    pub(super) queries: &'a Padded,
    /// The group's first query.
    pub(super) first: usize,
    /// The queries' canonical norms.
    pub(super) norms: &'a [f32],
    /// For each query, the rank below which a row is of no interest.
    pub(super) thresholds: &'a [f32],
    /// Where the ranks go, `STRIP_ROOM` for each query.
    pub(super) ranks: &'a mut [f32],
    /// For each query, whether any rank reaches the threshold.
    pub(super) hits: &'a mut [bool],
}

/// Ranks a strip's rows for a group of queries; the other argument is room for the rows' tails.
///
/// # Safety
///
/// The CPU has the instruction set; each of the first `len + 3` of `rows` points to `dim` numbers
/// of the record; `queries` holds the group's, of `dim` numbers; `thresholds` and `hits` are as
/// long as `norms`, `ranks` `STRIP_ROOM` times that.
pub(super) type StripFn = unsafe fn(Strip<'_>, &mut Tails<STRIP_ROOM>);

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    strips: [[StripFn; 3]; 2],
    norm: unsafe fn(&[f32]) -> f32,
    /// Rows of a tile.
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

    /// The canonical norm of a vector filled up with zeros to a multiple of sixteen.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set.
    pub(super) unsafe fn norm(&self, vector: &[f32]) -> f32 {
        assert!(vector.len().is_multiple_of(LANES), "a padded vector");
        // SAFETY: the caller's promise and the line above.
        unsafe { (self.norm)(vector) }
    }

    /// How many rows a strip should have.
    pub(super) fn strip_rows(&self, dim: usize, queries: usize) -> usize {
        let bytes = if queries == 1 {
            STREAM_BYTES
        } else {
            STRIP_BYTES
        };
        let fit = bytes / (dim.next_multiple_of(LANES) * size_of::<f32>());
        (fit / self.tile_rows * self.tile_rows).clamp(self.tile_rows, STRIP_ROWS)
    }
}

/// Turns a query's sums into ranks; whether any reaches the threshold. Works on whole registers:
/// a few numbers beyond the strip's may be among them.
#[inline(always)]
fn rank<M: Rule>(sums: &mut [f32], query_norm: f32, row_norms: &[f32], threshold: f32) -> bool {
    let sums = sums.as_chunks_mut::<8>().0;
    let norms = row_norms.as_chunks::<8>().0;
    let mut hits = [false; 8];
    for (sums, norms) in sums.iter_mut().zip(norms) {
        for i in 0..8 {
            sums[i] = M::rank(sums[i], query_norm, norms[i]);
            hits[i] |= sums[i] >= threshold;
        }
    }
    hits.contains(&true)
}

/// The strip for one query: rows are read once, from far away, several at a time. With `NORM`,
/// their norms in the same pass.
///
/// # Safety
///
/// As for [`StripFn`].
#[inline(always)]
unsafe fn single<V: Sums, T: Number, M: Rule, const NV: usize>(
    strip: Strip<'_>,
    rows: Rows<'_, STRIP_ROOM>,
) {
    let mut norms = [0f32; STRIP_ROOM];
    let query = strip.queries.get(strip.first).as_ptr();
    let out = strip.ranks.as_mut_ptr();
    let tile_rows = if M::NORM { 3 } else { 4 };
    let ahead = &mut Ahead::over(strip.ahead, strip.len.div_ceil(tile_rows));
    // SAFETY: the caller's promise.
    unsafe {
        if M::NORM {
            let queries = [query, std::ptr::null()];
            let out = [out, norms.as_mut_ptr()];
            pass::<V, T, M, NV, 2, 3, true, STRIP_ROOM>(queries, rows, out, ahead);
            norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
        } else {
            pass::<V, T, M, NV, 1, 4, false, STRIP_ROOM>([query], rows, [out], ahead);
        }
    }
    let ranks = &mut strip.ranks[..strip.len.next_multiple_of(8)];
    strip.hits[0] = rank::<M>(ranks, strip.norms[0], &norms, strip.thresholds[0]);
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
    strip: Strip<'_>,
    rows: Rows<'_, STRIP_ROOM>,
) {
    let mut norms = [0f32; STRIP_ROOM];
    if M::NORM {
        let (none, out) = ([std::ptr::null()], [norms.as_mut_ptr()]);
        let ahead = &mut Ahead::default();
        // SAFETY: the caller's promise; the query is not read.
        unsafe { pass::<V, T, M, NV, 1, NR, true, STRIP_ROOM>(none, rows, out, ahead) };
        norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
    }
    let count = strip.norms.len();
    let ahead = &mut Ahead::over(strip.ahead, count.div_ceil(NQ) * strip.len.div_ceil(NR));
    let at = |q: usize| strip.queries.get(strip.first + q).as_ptr();
    let mut q = 0;
    while q < count {
        let ranks = &mut strip.ranks[q * STRIP_ROOM..];
        let to = ranks.as_mut_ptr();
        // SAFETY: the caller's promise; `taken` queries are left, each with room for its ranks.
        let taken = unsafe {
            if count - q >= NQ {
                let (mut queries, mut out) = ([at(q); NQ], [to; NQ]);
                for i in 1..NQ {
                    (queries[i], out[i]) = (at(q + i), to.add(i * STRIP_ROOM));
                }
                pass::<V, T, M, NV, NQ, NR, false, STRIP_ROOM>(queries, rows, out, ahead);
                NQ
            } else if count - q >= 2 {
                let (queries, out) = ([at(q), at(q + 1)], [to, to.add(STRIP_ROOM)]);
                pass::<V, T, M, NV, 2, NR, false, STRIP_ROOM>(queries, rows, out, ahead);
                2
            } else {
                pass::<V, T, M, NV, 1, NR, false, STRIP_ROOM>([at(q)], rows, [to], ahead);
                1
            }
        };
        for (i, ranks) in ranks.chunks_exact_mut(STRIP_ROOM).take(taken).enumerate() {
            let ranks = &mut ranks[..strip.len.next_multiple_of(8)];
            let (norm, threshold) = (strip.norms[q + i], strip.thresholds[q + i]);
            strip.hits[q + i] = rank::<M>(ranks, norm, &norms, threshold);
        }
        q += taken;
    }
}

/// A kernel, over all choices.
///
/// # Safety
///
/// As for [`StripFn`].
#[inline(always)]
unsafe fn run<V: Sums, T: Number, M: Rule, const NV: usize, const NQ: usize, const NR: usize>(
    strip: Strip<'_>,
    tails: &mut Tails<STRIP_ROOM>,
) {
    assert!((1..=STRIP_ROWS).contains(&strip.len), "a strip of rows");
    // SAFETY: the caller's promise.
    unsafe {
        tails.copy::<T>(&strip.rows[..strip.len + TILE_ROWS_MAX - 1], strip.dim);
        let rows = Rows {
            rows: strip.rows,
            tails,
            len: strip.len,
            dim: strip.dim,
        };
        if strip.norms.len() == 1 {
            single::<V, T, M, NV>(strip, rows);
        } else {
            several::<V, T, M, NV, NQ, NR>(strip, rows);
        }
    }
}

/// The canonical norm of a vector that is a multiple of sixteen long.
///
/// # Safety
///
/// As for [`Lanes`](crate::cpu::lanes::Lanes).
#[inline(always)]
unsafe fn norm<V: Sums, const NV: usize>(vector: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (none, out) = ([std::ptr::null()], [sums.as_mut_ptr()]);
    let (at, tails) = ([vector.as_ptr().cast(); 4], &Tails::new());
    let rows = Rows {
        rows: &at,
        tails,
        len: 1,
        dim: vector.len(),
    };
    // SAFETY: the caller's promise; the query is not read and the vector has no tail.
    unsafe { pass::<V, f32, Dot, NV, 1, 1, true, 4>(none, rows, out, &mut Ahead::default()) };
    sums[0].sqrt()
}

/// The table of an instruction set: the kernels are instances inside functions that enable it.
macro_rules! table {
    ($(#[$attribute:meta])* $name:ident, $lanes:ty, $nv:literal, $queries:literal, $rows:literal) => {
        fn $name() -> Kernels {
            /// # Safety
            ///
            /// As for [`StripFn`].
            $(#[$attribute])*
            unsafe fn strip<T: Number, M: Rule>(of: Strip<'_>, tails: &mut Tails<STRIP_ROOM>) {
                // SAFETY: the caller's promise; the instruction set is enabled here.
                unsafe { run::<$lanes, T, M, $nv, $queries, $rows>(of, tails) }
            }
            /// # Safety
            ///
            /// The CPU has the instruction set; the vector is a multiple of sixteen long.
            $(#[$attribute])*
            unsafe fn own_norm(vector: &[f32]) -> f32 {
                // SAFETY: the caller's promise; the instruction set is enabled here.
                unsafe { norm::<$lanes, $nv>(vector) }
            }
            Kernels {
                strips: [
                    [strip::<f32, Cosine>, strip::<f32, Dot>, strip::<f32, L2>],
                    [strip::<u16, Cosine>, strip::<u16, Dot>, strip::<u16, L2>],
                ],
                norm: own_norm,
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
