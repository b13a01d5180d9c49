//! Every unit of this CPU and every emulation against a product in f64, at shapes around the borders
//! of tiles, lines and blocks; the bits of a row alone and in company.

#![allow(clippy::print_stdout)] // They say what ran and what this CPU lacks.

use super::{
    GROUP, Job, Line, Output, Packed, Room, STEP, Split, Unit, first_line, left_over, rounded,
    units,
};
use crate::cpu::gemm::Rows;
use crate::inventory::Bf16Unit;
use crate::isa::Isa;

const ROWS: [usize; 10] = [1, 2, 7, 13, 16, 17, 31, 32, 33, 70];
const INPUTS: [usize; 6] = [1, 16, 31, 32, 48, 200];
const OUTPUTS: [usize; 5] = [1, 16, 32, 48, 80];

/// Everything that can multiply here, and word of what cannot.
fn all() -> Vec<Unit> {
    let own = units();
    for unit in [Bf16Unit::Amx, Bf16Unit::Avx512Bf16] {
        let state = match own.contains(&unit) {
            true => "runs",
            false => "skipped: this CPU lacks it",
        };
        println!("bf16 unit {unit}: {state}");
    }
    let emulated = Isa::available().into_iter().map(Unit::Emulated);
    own.into_iter().map(Unit::Own).chain(emulated).collect()
}

/// Numbers in -1..1 that look random and differ in all their bits.
pub(crate) fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2f32.powi(31) - 1.0
    };
    (0..n).map(step).collect()
}

/// A layer with its input and what `c` holds before.
struct Case {
    inputs: usize,
    outputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    left: Vec<f32>,
    before: Vec<f32>,
}

impl Case {
    fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self {
            inputs,
            outputs,
            weight: noise(inputs * outputs, 1),
            bias: noise(outputs, 2),
            left: noise(rows * inputs, 3),
            before: noise(rows * outputs, 4),
        }
    }

    /// The product over the rows from `first` on, unit by unit if `apart`.
    fn run(&self, packed: &Packed, first: usize, keep: bool, apart: bool) -> Vec<f32> {
        let rows = self.left.len() / self.inputs - first;
        let mut c = self.before[first * self.outputs..].to_vec();
        let a = Rows {
            at: self.left[first * self.inputs..].as_ptr(),
            stride: self.inputs,
        };
        let to = Rows {
            at: c.as_mut_ptr(),
            stride: self.outputs,
        };
        let all = packed.units();
        let each = if apart { 1 } else { all };
        let mut room = Room::default();
        room.fit(rows, self.inputs, packed.split);
        let left = room.left(self.inputs);
        // SAFETY: `a` and `c` are `rows` rows of inputs and outputs, as many as there is room for.
        unsafe {
            packed.unit.run(&Job::Round {
                from: a,
                inputs: self.inputs,
                rows: 0..rows,
                to: left,
            });
            for unit in (0..all).step_by(each) {
                packed.unit.run(&Job::Product {
                    packed,
                    rows,
                    left,
                    units: unit..unit + each,
                    to: Output::Rows { to, keep },
                });
            }
        }
        c
    }

    /// The product's GELU as the left side of the next, in numbers: its upper and lower parts.
    fn run_gelu(&self, packed: &Packed) -> Vec<[f32; 2]> {
        let rows = self.left.len() / self.inputs;
        let (mut room, mut next) = (Room::default(), Room::default());
        room.fit(rows, self.inputs, packed.split);
        next.fit(rows, self.outputs, packed.split);
        let (left, to) = (room.left(self.inputs), next.left(self.outputs));
        let from = Rows {
            at: self.left.as_ptr(),
            stride: self.inputs,
        };
        // SAFETY: there are so many rows, and there is room for them.
        unsafe {
            packed.unit.run(&Job::Round {
                from,
                inputs: self.inputs,
                rows: 0..rows,
                to: left,
            });
            packed.unit.run(&Job::Product {
                packed,
                rows,
                left,
                units: 0..packed.units(),
                to: Output::Gelu(to),
            });
        }
        let steps = self.outputs.div_ceil(STEP);
        let number = |lines: &[Line], row: usize, at: usize| {
            let line = first_line(row, steps) + at / STEP * GROUP;
            let word = lines.get(line).map_or(0, |line| line.0[at % STEP / 2]);
            f32::from_bits(word >> (at % 2 * 16) << 16)
        };
        let all = (0..rows).flat_map(|row| (0..self.outputs).map(move |at| (row, at)));
        all.map(|(row, at)| [number(&next.high, row, at), number(&next.low, row, at)])
            .collect()
    }

    /// The same in f64 over numbers rounded (or split) to bf16, with the sum of absolute terms.
    fn expected(&self, split: Split, keep: bool) -> Vec<(f64, f64)> {
        let wide = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
        let mut found = Vec::new();
        for (row, before) in self
            .left
            .chunks(self.inputs)
            .zip(self.before.chunks(self.outputs))
        {
            for (output, weights) in self.weight.chunks(self.inputs).enumerate() {
                let start = if keep { f64::from(before[output]) } else { 0.0 };
                let mut sum = (start + f64::from(self.bias[output]), 0.0);
                for (&x, &w) in row.iter().zip(weights) {
                    let mut term = wide(rounded(x)) * wide(rounded(w));
                    if split == Split::Three {
                        term += wide(left_over(x)) * wide(rounded(w));
                        term += wide(rounded(x)) * wide(left_over(w));
                    }
                    sum = (sum.0 + term, sum.1 + term.abs());
                }
                found.push(sum);
            }
        }
        found
    }
}

#[test]
fn every_unit_multiplies_as_f64_does() {
    for unit in all() {
        for (rows, inputs, outputs) in ROWS
            .into_iter()
            .flat_map(|r| INPUTS.map(|i| (r, i)))
            .flat_map(|(r, i)| OUTPUTS.map(|o| (r, i, o)))
        {
            let case = Case::new(rows, inputs, outputs);
            for (split, keep) in [
                (Split::One, false),
                (Split::One, true),
                (Split::Three, true),
            ] {
                let packed = Packed::pack(&case.weight, &case.bias, inputs, split, unit);
                let found = case.run(&packed, 0, keep, false);
                let expected = case.expected(split, keep);
                for (at, (x, (y, size))) in found.iter().zip(expected).enumerate() {
                    // f32 sums of up to 600 terms.
                    let most = 2e-6 * (1.0 + size);
                    assert!(
                        (f64::from(*x) - y).abs() <= most,
                        "{unit:?} {split:?}: {rows} x {inputs} x {outputs}, number {at}: {x}, not {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn gelu_goes_rounded_into_the_next_left_side() {
    for unit in all() {
        for (rows, outputs) in [(1, 32), (17, 48), (33, 80), (70, 16)] {
            let case = Case::new(rows, 48, outputs);
            for split in [Split::One, Split::Three] {
                let packed = Packed::pack(&case.weight, &case.bias, 48, split, unit);
                let plain = case.run(&packed, 0, false, false);
                let found = case.run_gelu(&packed);
                assert_eq!(found.len(), plain.len());
                for ([high, low], x) in found.into_iter().zip(plain) {
                    let y = crate::reference::gelu(x);
                    // A rounding of 2^-9 behind a GELU to 9e-5, or of 2^-17 behind one to about 1e-6.
                    let most = match split {
                        Split::One => y.abs() / 256.0 + 1e-4,
                        Split::Three => y.abs() / 65_536.0 + 2e-6,
                    };
                    assert!(
                        (high + low - y).abs() <= most,
                        "{unit:?} {split:?}: {high} + {low}, not {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn three_products_are_nearly_those_of_f32() {
    let case = Case::new(33, 384, 48);
    for unit in all() {
        let packed = Packed::pack(&case.weight, &case.bias, 384, Split::Three, unit);
        let found = case.run(&packed, 0, false, false);
        for (row, found) in case.left.chunks(384).zip(found.chunks(48)) {
            let expected = crate::reference::linear(row, &case.weight, &case.bias);
            for (x, y) in found.iter().zip(expected) {
                // What is dropped is 2^-16 of each term; terms have random signs.
                assert!((x - y).abs() < 2e-4, "{unit:?}: {x}, not {y}");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let bits = |c: &[f32]| c.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (rows, outputs) = (70, 80);
    let case = Case::new(rows, 200, outputs);
    for unit in all() {
        for split in [Split::One, Split::Three] {
            let packed = Packed::pack(&case.weight, &case.bias, 200, split, unit);
            let whole = bits(&case.run(&packed, 0, true, false));
            for first in [0, 1, 20, 37, 54, 69] {
                let found = bits(&case.run(&packed, first, true, true));
                assert!(found == whole[first * outputs..], "{unit:?} {split:?}");
            }
        }
    }
}

#[test]
fn rounding_is_to_the_nearest_and_ties_go_to_even() {
    for (x, expected) in [
        (1.0, 0x3f80),
        (1.0 + 1.0 / 256.0, 0x3f80),
        (1.0 + 3.0 / 256.0, 0x3f82),
        (1.0 + 1.01 / 256.0, 0x3f81),
        (-0.0, 0x8000),
        (f32::INFINITY, 0x7f80),
        (f32::MAX, 0x7f80),
    ] {
        assert_eq!(rounded(x), expected, "{x}");
        assert_eq!(rounded(x), half::bf16::from_f32(x).to_bits(), "{x}");
    }
    assert!(half::bf16::from_bits(rounded(f32::NAN)).is_nan());
}
