//! Products of int8 codes: exact, so that all instruction sets give the same integers. Also what is done
//! with them by the register: the looks, the ranges of ranks, and coding itself, to the bit alike.
//!
//! Codes of rows come in lines of sixteen rows by four numbers ([`super::codes`]). A sum over
//! 65536 numbers of -127..=127 fits an i32, also with VNNI's queries, which are 128 larger.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::bound::{Look, Range};
use super::codes::{Coded, GROUP, Line, STEP, STRIP, Side, code};
use crate::isa::Isa;

/// Queries that the widest kernel takes at a time.
pub(super) const BLOCK: usize = 16;

/// One int8 plane of all queries.
pub(super) struct Plane {
    /// Bytes of a query: a multiple of [`STEP`].
    stride: usize,
    /// The codes, filled up with zeros to whole blocks of queries.
    signed: Vec<i8>,
    /// 128 more: as the unsigned side of VNNI's product.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    biased: Vec<u8>,
    /// The codes, widened: two of them a word of AVX2's product.
    #[cfg(target_arch = "x86_64")]
    wide: Vec<i16>,
}

impl Plane {
    pub(super) fn new(dim: usize, queries: usize) -> Self {
        let stride = dim.next_multiple_of(STEP);
        let len = queries.next_multiple_of(BLOCK) * stride;
        Self {
            stride,
            signed: vec![0; len],
            biased: vec![128; len],
            #[cfg(target_arch = "x86_64")]
            wide: vec![0; len],
        }
    }

    /// Sets a query's codes.
    pub(super) fn set(&mut self, query: usize, codes: &[i8]) {
        let at = query * self.stride;
        self.signed[at..at + codes.len()].copy_from_slice(codes);
        for (biased, code) in self.biased[at..].iter_mut().zip(codes) {
            *biased = (*code as u8) ^ 128;
        }
        #[cfg(target_arch = "x86_64")]
        for (wide, code) in self.wide[at..].iter_mut().zip(codes) {
            *wide = i16::from(*code);
        }
    }

    fn signed(&self, query: usize) -> &[i8] {
        &self.signed[query * self.stride..][..self.stride]
    }

    #[cfg(target_arch = "x86_64")]
    fn biased(&self, query: usize) -> &[u8] {
        &self.biased[query * self.stride..][..self.stride]
    }

    #[cfg(target_arch = "x86_64")]
    fn wide(&self, query: usize) -> &[i16] {
        &self.wide[query * self.stride..][..self.stride]
    }
}

/// Products of a strip's rows with queries.
pub(super) type Products = [i32; STRIP];

/// The products of a strip's lines with a query.
///
/// # Safety
///
/// The CPU has the instruction set; lines are as many as a query's stride asks for.
type OneFn =
    unsafe fn(lines: &[Line], side: &Side, plane: &Plane, query: usize, out: &mut Products);

/// The products of a strip with the queries from `first` on, one for each of `out`.
///
/// # Safety
///
/// As for [`OneFn`]; `first` is a multiple of [`BLOCK`], the length of `out` of the kernels' block.
type ManyFn =
    unsafe fn(lines: &[Line], side: &Side, plane: &Plane, first: usize, out: &mut [Products]);

/// For each query a bit for each row of a strip that may reach the threshold.
///
/// # Safety
///
/// The CPU has the instruction set.
type PassFn = unsafe fn(side: &Side, products: &[Products], looks: &[Look], out: &mut [u64]);

/// Codes a vector.
///
/// # Safety
///
/// The CPU has the instruction set.
type CodeFn = unsafe fn(numbers: &[f32], codes: &mut [i8]) -> Coded;

/// The least and the largest ranks that the rows of a strip can have.
///
/// # Safety
///
/// The CPU has the instruction set.
type RangesFn = unsafe fn(side: &Side, products: &Products, range: &Range) -> [[f32; STRIP]; 2];

/// The kernels of one kind.
#[derive(Clone, Copy)]
pub(super) struct Dots {
    pub(super) name: &'static str,
    one: OneFn,
    /// Without it, many are one after the other.
    many: Option<ManyFn>,
    /// Queries that `many` takes at a time: a divisor of [`BLOCK`].
    block: usize,
    pass: PassFn,
    ranges: RangesFn,
    code: CodeFn,
}

impl Dots {
    /// The kernels that go with an instruction set on this CPU, the fastest first.
    pub(super) fn available(isa: Isa) -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if isa == Isa::Avx512 && isa.is_available() && is_x86_feature_detected!("avx512vnni") {
                if crate::cpu::amx::Product::Int8.is_available() {
                    found.push(vnni::with("amx-int8", amx::many, BLOCK));
                }
                found.push(vnni::with("avx512-vnni", vnni::many, vnni::QUERIES));
            }
            if matches!(isa, Isa::Avx512 | Isa::Avx2) && isa.is_available() {
                found.push(avx2::dots());
            }
        }
        let _ = isa;
        found.push(plain());
        found
    }

    /// The fastest kernels of an instruction set that pass their self-test, a comparison with the
    /// plain loop. It may only veto, which is logged.
    pub(super) fn choose(isa: Isa) -> Self {
        for dots in Self::available(isa) {
            if dots.is_right() {
                return dots;
            }
            tracing::warn!(
                kernels = dots.name,
                "self-test of the products of codes failed"
            );
        }
        plain()
    }

    /// Whether it gives the integers of the plain loop, and lets the same rows pass.
    fn is_right(&self) -> bool {
        const QUERIES: usize = 2 * BLOCK;
        let mut state = 1u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 24) as i32 - 128).max(-127) as i8
        };
        [STEP, 3 * STEP].iter().all(|&dim| {
            let mut plane = Plane::new(dim, QUERIES);
            for query in 0..QUERIES {
                let codes: Vec<i8> = (0..dim).map(|_| number()).collect();
                plane.set(query, &codes);
            }
            let lines: Vec<Line> = (0..dim * STRIP / 64)
                .map(|_| Line(std::array::from_fn(|_| number())))
                .collect();
            let mut side = Side::EMPTY;
            for (row, offset) in side.offset.iter_mut().enumerate() {
                let group = lines.chunks_exact(dim / 4).nth(row / GROUP).unwrap_or(&[]);
                let of = |line: &Line| {
                    line.0[row % GROUP * 4..][..4]
                        .iter()
                        .map(|c| i32::from(*c))
                        .sum::<i32>()
                };
                *offset = -128 * group.iter().map(of).sum::<i32>();
                side.scale[row] = 1.0;
                side.residual[row] = (row % 5) as f32;
                side.norm[row] = (row % 7) as f32;
            }
            [(0, 1), (0, QUERIES)].iter().all(|&(first, count)| {
                let mut expected = vec![[0; STRIP]; count];
                let mut found = vec![[1; STRIP]; count];
                // SAFETY: the kernels are those that this CPU has.
                unsafe {
                    plain().strip(&lines, &side, &plane, first, &mut expected);
                    self.strip(&lines, &side, &plane, first, &mut found);
                }
                // Whole numbers, so that no rounding decides.
                let looks = expected.iter().map(|products| Look {
                    a: 1.0,
                    b: 2.0,
                    c: -3.0,
                    d: 1.0,
                    f: -(products[7] as f32),
                });
                let looks: Vec<_> = looks.collect();
                let words = [plain(), *self].map(|dots| {
                    let mut words = vec![0; count];
                    // SAFETY: the same.
                    unsafe { dots.pass(&side, &expected, &looks, &mut words) };
                    words
                });
                expected == found && words[0] == words[1]
            })
        })
    }

    /// Room that the products of so many queries take; one alone has a kernel of its own.
    pub(super) fn room(&self, queries: usize) -> usize {
        match queries {
            1 => 1,
            _ => queries.next_multiple_of(self.block),
        }
    }

    /// The products of a strip with `out.len()` queries from `first` on, a multiple of [`BLOCK`];
    /// there is [`Self::room`] for them.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set: [`Self::available`] told of the kernels.
    pub(super) unsafe fn strip(
        &self,
        lines: &[Line],
        side: &Side,
        plane: &Plane,
        first: usize,
        out: &mut [Products],
    ) {
        assert_eq!(lines.len() * GROUP, plane.stride * STRIP / 4, "a strip");
        // SAFETY: the caller's promise, and the lengths were checked or are by slicing.
        unsafe {
            match out {
                [out] => (self.one)(lines, side, plane, first, out),
                out => {
                    assert!(first.is_multiple_of(BLOCK) && out.len().is_multiple_of(self.block));
                    assert!((first + out.len()) * plane.stride <= plane.signed.len());
                    match self.many {
                        Some(many) => many(lines, side, plane, first, out),
                        None => {
                            for (query, out) in (first..).zip(out) {
                                (self.one)(lines, side, plane, query, out);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Which rows of a strip may reach the thresholds that `looks` were made for, a word of bits for
    /// each query.
    ///
    /// # Safety
    ///
    /// As for [`Self::strip`].
    pub(super) unsafe fn pass(
        &self,
        side: &Side,
        products: &[Products],
        looks: &[Look],
        out: &mut [u64],
    ) {
        // SAFETY: the caller's promise.
        unsafe { (self.pass)(side, products, looks, out) }
    }

    /// Codes a vector, to the bit as a plain loop does.
    pub(super) fn code(&self, numbers: &[f32], codes: &mut [i8]) -> Coded {
        // SAFETY: kernels are those of an instruction set that this CPU has.
        unsafe { (self.code)(numbers, codes) }
    }

    /// The least and the largest ranks that the rows of a strip can have.
    ///
    /// # Safety
    ///
    /// As for [`Self::strip`].
    pub(super) unsafe fn ranges(
        &self,
        side: &Side,
        products: &Products,
        range: &Range,
    ) -> [[f32; STRIP]; 2] {
        // SAFETY: the caller's promise.
        unsafe { (self.ranges)(side, products, range) }
    }
}

/// The looks, a plain loop that compilers make the best of.
#[inline(always)]
fn passing(side: &Side, products: &[Products], looks: &[Look], out: &mut [u64]) {
    for ((products, look), out) in products.iter().zip(looks).zip(out) {
        let mut any = false;
        let mut bits = [false; STRIP];
        for i in 0..STRIP {
            let norm = side.norm[i];
            let product = look.a * (side.scale[i] * products[i] as f32);
            let row = look.b * side.residual[i] + norm * (look.c + look.d * norm);
            // What is no number passes.
            #[allow(clippy::neg_cmp_op_on_partial_ord)]
            let passes = !(product + row + look.f < 0.0);
            bits[i] = passes;
            any |= passes;
        }
        *out = match any {
            true => (0..STRIP).fold(0, |word, i| word | u64::from(bits[i]) << i),
            false => 0,
        };
    }
}

fn plain() -> Dots {
    unsafe fn one(lines: &[Line], _: &Side, plane: &Plane, query: usize, out: &mut Products) {
        let query = plane.signed(query);
        let groups = lines.chunks_exact(query.len() / 4);
        for (lines, out) in groups.zip(out.as_chunks_mut::<GROUP>().0) {
            out.fill(0);
            for (line, four) in lines.iter().zip(query.as_chunks::<4>().0) {
                for (sum, row) in out.iter_mut().zip(line.0.as_chunks::<4>().0) {
                    for (x, y) in row.iter().zip(four) {
                        *sum += i32::from(*x) * i32::from(*y);
                    }
                }
            }
        }
    }
    unsafe fn pass(side: &Side, products: &[Products], looks: &[Look], out: &mut [u64]) {
        passing(side, products, looks, out);
    }
    unsafe fn all(side: &Side, products: &Products, range: &Range) -> [[f32; STRIP]; 2] {
        range.of_strip(products, side)
    }
    unsafe fn coded(numbers: &[f32], codes: &mut [i8]) -> Coded {
        code(numbers, codes)
    }
    Dots {
        name: "plain",
        one,
        many: None,
        block: 1,
        pass,
        ranges: all,
        code: coded,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bound::Query;
    use super::super::codes;
    use super::*;
    use crate::scan::{Metric, Record};

    /// Every kernel gives the integers of the plain loop, at lengths around every border.
    #[test]
    fn kernels_agree() {
        let mut state = 7u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for dim in [
            1usize, 3, 4, 5, 15, 16, 17, 63, 64, 65, 128, 200, 384, 1_030,
        ] {
            let bytes: Vec<u8> = (0..STRIP * dim)
                .flat_map(|_| number().to_le_bytes())
                .collect();
            let block = crate::scan::Block {
                rows: &bytes,
                len: STRIP as u32,
                chunk_rows: STRIP as u32,
                record: Record::F32,
                page: None,
                live: None,
                seqs: crate::scan::Seqs::Run(0),
            };
            let strip = codes::encode(plain(), &bytes, dim, Record::F32);
            let codes = codes::Codes::join(&block, dim, vec![strip]);
            let mut plane = Plane::new(dim, 33);
            for query in 0..33 {
                let numbers: Vec<i8> = (0..dim).map(|_| (number() * 127.9) as i8).collect();
                plane.set(query, &numbers);
            }
            let (lines, side) = (codes.lines(0), codes.side(0));
            for isa in Isa::available() {
                for dots in Dots::available(isa) {
                    for (first, count) in [(0, 1), (32, 1), (0, 2), (0, 16), (16, 17), (16, 32)] {
                        let count = dots.room(count);
                        let mut expected = vec![[0; STRIP]; count];
                        let mut found = vec![[1; STRIP]; count];
                        // SAFETY: the kernels are those that this CPU has.
                        unsafe {
                            plain().strip(lines, side, &plane, first, &mut expected);
                            dots.strip(lines, side, &plane, first, &mut found);
                        }
                        assert!(expected == found, "{} {dim} {first} {count}", dots.name);
                    }
                }
            }
        }
    }

    /// Vectors are coded, and ranges of strips told, to the bit as one by one by the plain loop: with
    /// zeros, a vector too long for codes, and lengths around every border of registers.
    #[test]
    fn codes_and_ranges_agree() {
        let mut state = 11u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let same = |a: Coded, b: Coded| {
            a.scale.to_bits() == b.scale.to_bits()
                && a.residual.to_bits() == b.residual.to_bits()
                && a.norm.to_bits() == b.norm.to_bits()
        };
        for dim in [1usize, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 384] {
            let mut side = Side::EMPTY;
            let mut products = [0; STRIP];
            let query: Vec<f32> = (0..dim).map(|_| number()).collect();
            let coded = plain().code(&query, &mut vec![0; dim]);
            let queries = [Metric::Dot, Metric::Cosine, Metric::L2]
                .map(|metric| Query::new(metric, dim, coded).expect("a query with a norm"));
            for (row, product) in products.iter_mut().enumerate() {
                let size = match row {
                    3 => 0.0,
                    5 => 1e20,
                    _ => 1.0,
                };
                let numbers: Vec<f32> = (0..dim).map(|_| size * number()).collect();
                let mut expected = vec![1i8; dim];
                let coded = plain().code(&numbers, &mut expected);
                for dots in Isa::available().into_iter().flat_map(Dots::available) {
                    let mut found = vec![2i8; dim];
                    let also = dots.code(&numbers, &mut found);
                    let what = format!("{} {dim} {row}: {coded:?} {also:?}", dots.name);
                    assert!(same(coded, also) && expected == found, "{what}");
                }
                side.scale[row] = coded.scale;
                side.residual[row] = coded.residual;
                side.norm[row] = coded.norm as f32;
                *product = expected.iter().map(|code| 100 * i32::from(*code)).sum();
            }
            for range in queries.map(|query| query.range()) {
                for dots in Isa::available().into_iter().flat_map(Dots::available) {
                    // SAFETY: the kernels are those that this CPU has.
                    let [least, most] = unsafe { dots.ranges(&side, &products, &range) };
                    for row in 0..STRIP {
                        let (scale, norm) = (side.scale[row], side.norm[row]);
                        let one = range.of(products[row], scale, side.residual[row], norm);
                        let found = [least[row], most[row]];
                        let what = format!("{} {dim} {row}: {one:?} {found:?}", dots.name);
                        assert!(one.map(f32::to_bits) == found.map(f32::to_bits), "{what}");
                    }
                }
            }
        }
    }
}
