//! Products of sixteen rows, on tiles or in registers.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::{Kind, TILE};
use crate::cpu::amx::Tiles;
use crate::cpu::blocks::{Line, Twice};

/// Up to 16 rows times two right sides of 16 columns each.
#[derive(Clone, Copy)]
pub(super) struct Product16 {
    pub(super) rows: usize,
    /// A tile a step.
    pub(super) left: Twice,
    pub(super) left_stride: usize,
    pub(super) right: [Twice; 2],
    pub(super) right_stride: usize,
    pub(super) steps: usize,
    /// Steps over which sums of codes are integers, and what they stand for.
    pub(super) chunk: usize,
    pub(super) step: f32,
}

/// The scores of a tile of queries and all keys, in rows of `padded` f32 numbers, 32 keys at a time: tiles
/// multiply while registers do something else.
pub(super) struct Scores {
    /// Its right sides are those of the first 32 keys.
    pub(super) product: Product16,
    pub(super) to: *mut Line,
    pub(super) padded: usize,
    /// Keys whose scores are there.
    pub(super) done: usize,
}

impl Scores {
    /// Goes on until the scores of `keys` keys, or of all, are there.
    ///
    /// # Safety
    ///
    /// There are as many lines as `product` says, of 16 rows, and room for the scores of 16. No other
    /// product is stored between the first call and the last.
    #[inline(always)]
    pub(super) unsafe fn go_on<K: Kind>(&mut self, tiles: Option<&Tiles>, keys: usize) {
        while self.done < keys.min(self.padded) {
            let (product, tile) = (&self.product, self.done / TILE);
            // SAFETY: the caller's promise.
            unsafe {
                let to = self.to.add(tile);
                let right = product
                    .right
                    .map(|keys| keys.add(tile * product.steps * TILE));
                match tiles {
                    // A tile of queries in all: it stays.
                    Some(tiles) if product.steps == 1 && !K::SPLIT => {
                        if self.done == 0 {
                            product.keep_left(tiles);
                        }
                        product.store_beside(tiles, right[0].at, to, self.padded);
                    }
                    tiles => Product16 { right, ..*product }.store::<K>(tiles, to, self.padded),
                }
            }
            self.done += 2 * TILE;
        }
    }
}

impl Product16 {
    /// Stores the sums, the two right sides' beside each other, in rows of `stride` f32 numbers;
    /// behind the last row there may be anything.
    ///
    /// # Safety
    ///
    /// There are as many lines as this says, of 16 rows, and room for the sums of 16.
    #[inline(always)]
    unsafe fn store<K: Kind>(&self, tiles: Option<&Tiles>, to: *mut Line, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match tiles {
                Some(tiles) => self.store_tiles::<K>(tiles, to, stride),
                None => self.store_registers::<K>(to.cast(), stride),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn store_registers<K: Kind>(&self, to: *mut f32, stride: usize) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: the caller's promise; no more rows than there are.
            unsafe {
                let to = to.add(row * stride);
                row += match self.rows - row {
                    8.. => (self.sum_rows::<K, 8>(row, to, stride), 8).1,
                    4.. => (self.sum_rows::<K, 4>(row, to, stride), 4).1,
                    2.. => (self.sum_rows::<K, 2>(row, to, stride), 2).1,
                    _ => (self.sum_rows::<K, 1>(row, to, stride), 1).1,
                };
            }
        }
    }

    /// Stores the sums of `MR` rows from row `row` on.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn sum_rows<K: Kind, const MR: usize>(&self, row: usize, to: *mut f32, stride: usize) {
        let [one, two] = self.right;
        // SAFETY: the caller's promise.
        unsafe {
            if K::CODES {
                return self.sum_codes::<K, MR>(row, to, stride);
            }
            let mut sums = [[_mm512_setzero_si512(); 2]; MR];
            let all = 0..self.steps;
            // The small ones first.
            if K::SPLIT {
                let right = [one.at, two.at];
                sums = self.sum_in::<K, MR>(sums, row, self.left.lower(), right, all.clone());
                let right = [one.lower(), two.lower()];
                sums = self.sum_in::<K, MR>(sums, row, self.left.at, right, all.clone());
            }
            sums = self.sum_in::<K, MR>(sums, row, self.left.at, [one.at, two.at], all);
            for r in 0..MR {
                for j in 0..2 {
                    _mm512_store_si512(to.add(r * stride + j * TILE).cast(), sums[r][j]);
                }
            }
        }
    }

    /// The same of codes, a chunk at a time.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn sum_codes<K: Kind, const MR: usize>(&self, row: usize, to: *mut f32, stride: usize) {
        let right = self.right.map(|right| right.at);
        // SAFETY: the caller's promise.
        unsafe {
            let step = _mm512_set1_ps(self.step);
            let mut sums = [[_mm512_setzero_ps(); 2]; MR];
            for first in (0..self.steps).step_by(self.chunk) {
                let chunk = first..self.steps.min(first + self.chunk);
                let zeros = [[_mm512_setzero_si512(); 2]; MR];
                let found = self.sum_in::<K, MR>(zeros, row, self.left.at, right, chunk);
                for r in 0..MR {
                    for j in 0..2 {
                        let found = _mm512_cvtepi32_ps(found[r][j]);
                        sums[r][j] = _mm512_fmadd_ps(found, step, sums[r][j]);
                    }
                }
            }
            for r in 0..MR {
                for j in 0..2 {
                    _mm512_store_ps(to.add(r * stride + j * TILE), sums[r][j]);
                }
            }
        }
    }

    /// Adds a product of `MR` rows from row `row` on to sums in registers, over some steps.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn sum_in<K: Kind, const MR: usize>(
        &self,
        mut sums: [[__m512i; 2]; MR],
        row: usize,
        left: *const Line,
        right: [*mut Line; 2],
        steps: Range<usize>,
    ) -> [[__m512i; 2]; MR] {
        for step in steps {
            for word in 0..TILE {
                // SAFETY: the caller's promise; a line is a register of sixteen words.
                unsafe {
                    let right = right.map(|at| at.add(step * self.right_stride + word));
                    let right = right.map(|line| _mm512_load_si512(line.cast()));
                    for r in 0..MR {
                        let line = left.add(step * self.left_stride + row + r).cast::<i32>();
                        let x = _mm512_set1_epi32(*line.add(word));
                        for j in 0..2 {
                            sums[r][j] = K::add_products(sums[r][j], x, right[j]);
                        }
                    }
                }
            }
        }
        sums
    }

    /// The same on tiles.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn store_tiles<K: Kind>(&self, _: &Tiles, to: *mut Line, stride: usize) {
        let [one, two] = self.right;
        // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between
        // them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                options(nostack, nomem, preserves_flags)
            );
            // The small ones first.
            if K::SPLIT {
                self.sum(self.left.lower(), [one.at, two.at]);
                self.sum(self.left.at, [one.lower(), two.lower()]);
            }
            self.sum(self.left.at, [one.at, two.at]);
            asm!(
                "tilestored [{to} + {row}*1], tmm0",
                "tilestored [{to} + {row}*1 + 64], tmm1",
                to = in(reg) to,
                row = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// Loads a left side of one step for the products that follow.
    ///
    /// # Safety
    ///
    /// There are sixteen rows of it; numbers are bf16, not split.
    #[inline(always)]
    unsafe fn keep_left(&self, _: &Tiles) {
        // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between
        // them.
        unsafe {
            asm!(
                "tileloadd tmm4, [{left} + {line}*1]",
                left = in(reg) self.left.at,
                line = in(reg) size_of::<Line>(),
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    /// Stores the sums of one step by the left side that was kept and two right sides, one behind the other.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store), and no product was stored since but by this.
    #[inline(always)]
    unsafe fn store_beside(&self, _: &Tiles, right: *const Line, to: *mut Line, stride: usize) {
        // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between
        // them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm6, [{right} + {line}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tilezero tmm1",
                "tileloadd tmm7, [{right} + {line}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tilestored [{to} + {row}*1], tmm0",
                "tilestored [{to} + {row}*1 + 64], tmm1",
                right = in(reg) right,
                to = in(reg) to,
                line = in(reg) size_of::<Line>(),
                row = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// Stores the sums, and behind sixteen rows those of a second left side of so many rows, if there is
    /// one, laid out alike.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store), of both.
    #[inline(always)]
    pub(super) unsafe fn store_both<K: Kind>(
        self,
        tiles: Option<&Tiles>,
        second: Option<(Twice, usize)>,
        to: *mut Line,
        stride: usize,
    ) {
        // SAFETY: the caller's promise; a line is sixteen numbers.
        unsafe {
            match (tiles, second) {
                (Some(tiles), Some((left, _))) if !K::SPLIT => {
                    self.store_two(tiles, left.at, [to, to.add(stride)], stride);
                }
                _ => {
                    self.store::<K>(tiles, to, stride);
                    if let Some((left, rows)) = second {
                        let product = Self { left, rows, ..self };
                        product.store::<K>(tiles, to.add(stride), stride);
                    }
                }
            }
        }
    }

    /// Of two left sides, the second's parts in the same places from `lower` on, on tiles: each tile that
    /// is loaded takes part in two products. The same sums as one by one.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store), of both; numbers are bf16, not split.
    #[inline(always)]
    unsafe fn store_two(
        &self,
        _: &Tiles,
        lower: *const Line,
        [to, second]: [*mut Line; 2],
        stride: usize,
    ) {
        let [one, two] = self.right;
        // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between
        // them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem, preserves_flags)
            );
            for step in 0..self.steps {
                asm!(
                    "tileloadd tmm6, [{one} + {line}*1]",
                    "tileloadd tmm4, [{upper} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{two} + {line}*1]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{lower} + {line}*1]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    upper = in(reg) self.left.at.add(step * self.left_stride),
                    lower = in(reg) lower.add(step * self.left_stride),
                    one = in(reg) one.at.add(step * self.right_stride),
                    two = in(reg) two.at.add(step * self.right_stride),
                    line = in(reg) size_of::<Line>(),
                    options(nostack, readonly, preserves_flags)
                );
            }
            asm!(
                "tilestored [{to} + {row}*1], tmm0",
                "tilestored [{to} + {row}*1 + 64], tmm1",
                "tilestored [{second} + {row}*1], tmm2",
                "tilestored [{second} + {row}*1 + 64], tmm3",
                to = in(reg) to,
                second = in(reg) second,
                row = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// Adds a product to the sums in tiles.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store), and tiles are laid out.
    #[inline(always)]
    unsafe fn sum(&self, left: *const Line, [one, two]: [*mut Line; 2]) {
        for step in 0..self.steps {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    "tileloadd tmm4, [{left} + {line}*1]",
                    "tileloadd tmm6, [{one} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{two} + {line}*1]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    left = in(reg) left.add(step * self.left_stride),
                    one = in(reg) one.add(step * self.right_stride),
                    two = in(reg) two.add(step * self.right_stride),
                    line = in(reg) size_of::<Line>(),
                    options(nostack, readonly, preserves_flags)
                );
            }
        }
    }
}
