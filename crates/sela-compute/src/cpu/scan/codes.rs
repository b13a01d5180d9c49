//! Rows as int8 codes, for a first look at a quarter of the bytes.
//!
//! A row `x` becomes `s c + r`: a scale `s`, codes `c` in -127..=127 and a residual `r` of which
//! only the norm is kept, rounded up. Codes of sixteen rows lie side by side, four numbers of each
//! in a line of 64 bytes: the form that both VNNI and AMX multiply as it is.

use super::dots::Dots;
use crate::cpu::lanes::INTEGER;
use crate::scan::{Block, Record};

/// Rows that are looked at together: a word of a bitmap.
pub(super) const STRIP: usize = 64;
/// Rows that share a line.
pub(super) const GROUP: usize = 16;
/// Numbers that a step of the widest kernel takes.
pub(super) const STEP: usize = 64;
/// Norms of rows and queries between which no intermediate number vanishes or overflows.
pub(super) const NORM_MIN: f64 = 1e-12;
/// The other end.
pub(super) const NORM_MAX: f64 = 1e12;

/// Four codes of each of sixteen rows.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i8; 64]);

/// What is known of the sixty-four rows of a strip beside their codes.
#[derive(Clone, Copy)]
pub(super) struct Side {
    /// Scales.
    pub(super) scale: [f32; STRIP],
    /// Norms of the residuals, rounded up; infinite for a row that the codes say nothing of.
    pub(super) residual: [f32; STRIP],
    /// Euclidean norms of the rows, within 2^-23 of themselves.
    pub(super) norm: [f32; STRIP],
    /// `-128` times the sums of the codes: what VNNI's offset of the query adds is taken off.
    pub(super) offset: [i32; STRIP],
}

impl Side {
    pub(super) const EMPTY: Self = Self {
        scale: [0.0; STRIP],
        residual: [0.0; STRIP],
        norm: [0.0; STRIP],
        offset: [0; STRIP],
    };
}

/// A strip of rows on its way into [`Codes`].
pub(super) struct Strip {
    side: Side,
    lines: Vec<Line>,
}

/// The codes of a block's rows.
pub(super) struct Codes {
    lines: Vec<Line>,
    sides: Vec<Side>,
    dim: usize,
    rows: u32,
    record: Record,
}

/// Lines of a group of sixteen rows.
pub(super) fn lines_of(dim: usize) -> usize {
    dim.next_multiple_of(STEP) / 4
}

/// Bytes that the codes of so many rows take.
pub(super) fn bytes_of(rows: u32, dim: usize) -> u64 {
    let strips = (rows as usize).div_ceil(STRIP);
    let strip = lines_of(dim) * (STRIP / GROUP) * size_of::<Line>() + size_of::<Side>();
    (strips * strip) as u64
}

impl Codes {
    /// Codes from strips in order.
    pub(super) fn join(block: &Block<'_>, dim: usize, strips: Vec<Strip>) -> Self {
        let mut codes = Self {
            lines: Vec::with_capacity(strips.iter().map(|strip| strip.lines.len()).sum()),
            sides: Vec::with_capacity(strips.len()),
            dim,
            rows: block.len,
            record: block.record,
        };
        for strip in strips {
            codes.lines.extend_from_slice(&strip.lines);
            codes.sides.push(strip.side);
        }
        codes
    }

    /// Whether they can be codes of such a block.
    pub(super) fn fit(&self, block: &Block<'_>, dim: usize) -> bool {
        (self.dim, self.rows, self.record) == (dim, block.len, block.record)
    }

    /// The codes of strip `strip`, group by group.
    pub(super) fn lines(&self, strip: usize) -> &[Line] {
        let each = lines_of(self.dim) * (STRIP / GROUP);
        &self.lines[strip * each..][..each]
    }

    /// What else is known of the strip's rows.
    pub(super) fn side(&self, strip: usize) -> &Side {
        &self.sides[strip]
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(self.rows, self.dim)
    }
}

/// Codes at most [`STRIP`] rows from their stored bytes, by the kernels of some instruction set.
pub(super) fn encode(dots: Dots, bytes: &[u8], dim: usize, record: Record) -> Strip {
    let mut strip = Strip {
        side: Side::EMPTY,
        lines: vec![Line([0; 64]); lines_of(dim) * (STRIP / GROUP)],
    };
    let mut numbers = vec![0f32; dim];
    let mut codes = vec![0i8; dim];
    for (row, bytes) in bytes.chunks_exact(dim * record.bytes()).enumerate() {
        match record {
            Record::F32 => {
                let from = bytes.as_chunks().0;
                let each = numbers.iter_mut().zip(from);
                each.for_each(|(x, b)| *x = f32::from_le_bytes(*b));
            }
            Record::F16 => {
                let from = bytes.as_chunks().0;
                let each = numbers.iter_mut().zip(from);
                each.for_each(|(x, b)| *x = half::f16::from_le_bytes(*b).to_f32());
            }
        }
        let coded = dots.code(&numbers, &mut codes);
        strip.side.scale[row] = coded.scale;
        strip.side.residual[row] = coded.residual;
        strip.side.norm[row] = coded.norm as f32;
        strip.side.offset[row] = -128 * codes.iter().map(|c| i32::from(*c)).sum::<i32>();
        let lines = &mut strip.lines[row / GROUP * lines_of(dim)..];
        for (four, line) in codes.chunks(4).zip(lines) {
            line.0[row % GROUP * 4..][..four.len()].copy_from_slice(four);
        }
    }
    strip
}

/// A vector as `scale * codes` and what is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coded {
    pub(super) scale: f32,
    /// Norm of the residual, rounded up; infinite where the norm is beyond what codes are for.
    pub(super) residual: f32,
    /// The vector's own norm; 0 beyond the limits.
    pub(super) norm: f64,
}

/// A number that is not less, in f32.
fn up(x: f64) -> f32 {
    // A relative 1e-6 is more than an ulp of f32 and all roundings of sums in f64.
    ((x * (1.0 + 1e-6)) as f32).max(if x > 0.0 { f32::MIN_POSITIVE } else { 0.0 })
}

/// The sum of a term for each pair, in several chains so that no addition waits for the one before.
#[inline(always)]
fn sum_of<T: Copy>(numbers: &[f32], others: &[T], term: impl Fn(f32, T) -> f64) -> f64 {
    const CHAINS: usize = 8;
    let mut chains = [0f64; CHAINS];
    let (numbers, last) = numbers.as_chunks::<CHAINS>();
    let (others, last_others) = others.as_chunks::<CHAINS>();
    for (x, y) in numbers.iter().zip(others) {
        for i in 0..CHAINS {
            chains[i] += term(x[i], y[i]);
        }
    }
    let last = last.iter().zip(last_others).map(|(x, y)| term(*x, *y));
    chains.iter().sum::<f64>() + last.sum::<f64>()
}

/// The Euclidean norm, in f64.
#[inline(always)]
fn norm(numbers: &[f32]) -> f64 {
    sum_of(numbers, numbers, |x, y| f64::from(x) * f64::from(y)).sqrt()
}

/// The largest absolute value.
#[inline(always)]
fn largest(numbers: &[f32]) -> f32 {
    let mut most = [0f32; 16];
    let (chunks, last) = numbers.as_chunks::<16>();
    for chunk in chunks {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = most.max(x.abs());
        }
    }
    let all = most.iter().copied().chain(last.iter().map(|x| x.abs()));
    all.fold(0f32, f32::max)
}

/// Codes a vector, a plain loop that compilers make the best of. Zeros are coded exactly; a vector whose norm is beyond the limits, or no
/// number, is said to be unknown.
#[inline(always)]
pub(super) fn code(numbers: &[f32], codes: &mut [i8]) -> Coded {
    let norm = norm(numbers);
    if norm == 0.0 {
        codes.fill(0);
        return Coded {
            scale: 0.0,
            residual: 0.0,
            norm,
        };
    }
    if !(NORM_MIN..=NORM_MAX).contains(&norm) {
        codes.fill(0);
        return Coded {
            scale: 0.0,
            residual: f32::INFINITY,
            norm: 0.0,
        };
    }
    let largest = largest(numbers);
    let scale = largest / 127.0;
    let inverse = 127.0 / largest;
    for (x, code) in numbers.iter().zip(&mut *codes) {
        let near = (x * inverse).clamp(-127.0, 127.0);
        *code = (near + INTEGER).to_bits() as i8;
    }
    let squares = sum_of(numbers, codes, |x, code| {
        let left = f64::from(x) - f64::from(scale) * f64::from(code);
        left * left
    });
    Coded {
        scale,
        residual: up(squares.sqrt()),
        norm,
    }
}
