//! Outputs of int8 as codes of 16 bits, and those as the left side of the next product.

use super::super::Steps;
use super::super::left::Narrowing;
use super::{
    Case, Form, GROUP, Job, Output, Packed, ROWS, Room, Rows, Unit, all, first_line, noise,
};

/// A layer of int8 with its left side rounded.
struct Product<'a> {
    case: &'a Case,
    packed: Packed,
    room: Room,
}

impl<'a> Product<'a> {
    fn new(case: &'a Case, unit: Unit) -> Self {
        let packed = Packed::pack(&case.weight, &case.bias, case.inputs, Form::Int8, unit);
        let rows = case.left.len() / case.inputs;
        let mut room = Room::new(Form::Int8);
        room.fit(rows, case.inputs);
        let to = room.left(case.inputs);
        let from = Rows {
            at: case.left.as_ptr(),
            stride: case.inputs,
        };
        let job = Job::Round {
            from,
            inputs: case.inputs,
            rows: 0..rows,
            to,
        };
        // SAFETY: there are so many rows, and there is room for them.
        unsafe { unit.run(&job) };
        Self { case, packed, room }
    }

    fn rows(&self) -> usize {
        self.case.left.len() / self.case.inputs
    }

    /// What a code of a row stands for.
    fn step(&mut self, row: usize) -> f32 {
        let left = self.room.left(self.case.inputs);
        // SAFETY: there is such a row.
        let scale = unsafe { *left.scales.add(row) };
        let reach = self.packed.reach_of(0..self.packed.units());
        self.packed.midway(scale, reach).step
    }

    /// The GELU of all rows as words of codes.
    fn codes(&mut self) -> Vec<u32> {
        let mut words = vec![0; self.rows() * self.packed.words()];
        let job = Job::Product {
            packed: &self.packed,
            rows: self.rows(),
            left: self.room.left(self.case.inputs),
            units: 0..self.packed.units(),
            to: Output::GeluCodes(Rows {
                at: words.as_mut_ptr(),
                stride: self.packed.words(),
            }),
        };
        // SAFETY: there is room for all rows.
        unsafe { self.packed.unit.run(&job) };
        words
    }

    /// The codes of int8 that words become, line by line and word by word, and the rows' scales.
    fn narrowed(&mut self, words: &[u32]) -> (Vec<[u8; 4]>, Vec<[f32; 2]>) {
        let rows = self.rows();
        let mut next = Room::new(Form::Int8);
        next.fit(rows, self.packed.outputs);
        let to = next.left(self.packed.outputs);
        let job = Job::Narrow {
            from: Rows {
                at: words.as_ptr(),
                stride: self.packed.words(),
            },
            words: self.packed.words(),
            steps: Steps::Of(&self.packed, self.room.left(self.case.inputs)),
            rows: 0..rows,
            to,
        };
        // SAFETY: there are so many rows, and there is room for them.
        unsafe { self.packed.unit.run(&job) };
        let steps = Form::Int8.steps(self.packed.outputs);
        let line = |row: usize, step: usize| next.high[first_line(row, steps) + step * GROUP].0;
        let codes = (0..rows).flat_map(|row| (0..steps).map(move |step| (row, step)));
        let codes = codes.flat_map(|(row, step)| line(row, step));
        let codes = codes.map(u32::to_le_bytes).collect();
        // SAFETY: rows have scales.
        let scale = |row| unsafe { *to.scales.add(row) };
        let scales = (0..rows).map(|row| [scale(row).step, scale(row).base]);
        (codes, scales.collect())
    }
}

/// The code of an output in a row's words.
fn code(words: &[u32], at: usize) -> i16 {
    let word = words[at / 32 * GROUP + at % GROUP];
    (word >> (at / GROUP % 2 * 16)) as i16
}

#[test]
fn codes_on_the_way_are_gelu_to_half_a_step_and_words_are_full() {
    for unit in all(Form::Int8) {
        for (rows, outputs) in ROWS
            .into_iter()
            .flat_map(|r| super::OUTPUTS.map(|o| (r, o)))
        {
            let case = Case::new(rows, 100, outputs);
            let mut product = Product::new(&case, unit);
            let plain = case.run(&product.packed, 0, super::How::Set, false);
            let words = product.codes();
            for row in 0..rows {
                let words = &words[row * product.packed.words()..][..product.packed.words()];
                let step = product.step(row);
                for at in 0..product.packed.words() * 2 {
                    let found = f32::from(code(words, at)) * step;
                    // Behind the last output there are zeros.
                    let x = plain.get(row * outputs + at).filter(|_| at < outputs);
                    let expected = x.map_or(0.0, |&x| crate::reference::gelu(x));
                    assert!(
                        (found - expected).abs() <= 0.51 * step + 1.2e-3,
                        "{unit:?}: {rows} x {outputs}, row {row}, number {at}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}

/// A row along the weights of an output makes the largest number that a row of its length can.
#[test]
fn no_row_goes_beyond_the_codes_on_the_way() {
    for (inputs, size) in [
        (1, 1.0),
        (1, 1e3),
        (3, 1e3),
        (100, 1.0),
        (384, 3.0),
        (900, 1e-3),
    ] {
        let mut case = Case::new(4, inputs, 32);
        case.bias.fill(0.0);
        // The first output's are the longest.
        case.weight[0] = 1.0;
        case.weight[inputs..].iter_mut().for_each(|w| *w *= 0.01);
        for (row, sign) in [(0, 1.0), (1, -1.0)] {
            for i in 0..inputs {
                case.left[row * inputs + i] = case.weight[i] * size * sign;
            }
        }
        for unit in all(Form::Int8) {
            let mut product = Product::new(&case, unit);
            let plain = case.run(&product.packed, 0, super::How::Set, false);
            let words = product.codes();
            let most = (0..2).map(|row| {
                let words = &words[row * product.packed.words()..];
                let found = f32::from(code(words, 0)) * product.step(row);
                let expected = crate::reference::gelu(plain[row * 32]);
                let off = (found - expected).abs();
                assert!(
                    off <= 0.51 * product.step(row) + 1.2e-3,
                    "{unit:?}, {inputs} inputs: {found}, not {expected}"
                );
                code(words, 0)
            });
            let most = most.max().unwrap();
            // The bound is no further away than what a row's rounding may add; of small numbers GELU leaves
            // half.
            assert!(
                most >= 28_000 || plain[0] < 5.0,
                "{unit:?}, {inputs} inputs: {most}"
            );
        }
    }
}

#[test]
fn every_unit_narrows_codes_alike_and_to_half_a_step() {
    let rows = 19;
    for outputs in super::OUTPUTS {
        let case = Case::new(rows, 40, outputs);
        let seeds = noise(rows * outputs.next_multiple_of(32), 9);
        // Rows of all sizes and signs, of zeros, and of few codes.
        let parts = [
            (-1.0, 1.0),
            (0.0, 1.0),
            (-1.0, 0.0),
            (-0.005, 1.0),
            (0.004, 0.004),
            (0.0, 0.0),
            (-0.002, 0.0077),
            (0.0, 0.0078),
        ];
        let mut words = vec![0u32; rows * outputs.div_ceil(32) * GROUP];
        for (row, words) in words.chunks_mut(outputs.div_ceil(32) * GROUP).enumerate() {
            let (least, largest) = parts[row % parts.len()];
            let own = &seeds[row * words.len() * 2..][..words.len() * 2];
            let code = |at: usize| {
                let x = (own[at].abs() * (largest - least) + least) * 32_767.0;
                if at < outputs { x.round() as i16 } else { 0 }
            };
            for (i, word) in words.iter_mut().enumerate() {
                let at = i / GROUP * 32 + i % GROUP;
                *word = u32::from(code(at) as u16) | u32::from(code(at + GROUP) as u16) << 16;
            }
        }
        let mut first = None;
        for unit in all(Form::Int8) {
            let mut product = Product::new(&case, unit);
            let (codes, scales) = product.narrowed(&words);
            let lines = codes.len() / rows;
            for row in 0..rows {
                let own = &words[row * product.packed.words()..][..product.packed.words()];
                let step = f64::from(product.step(row));
                let [narrow, base] = scales[row].map(f64::from);
                for at in 0..lines * 4 {
                    let found = codes[row * lines + at / 64 * GROUP + at % GROUP][at % 64 / GROUP];
                    let wide = match at < own.len() * 2 {
                        true => f64::from(code(own, at)) * step,
                        false => 0.0,
                    };
                    let off = (base + f64::from(found) * narrow - wide).abs();
                    assert!(
                        off <= 0.501 * narrow,
                        "{unit:?}: {outputs} outputs, row {row}, number {at}: {found} for {wide}"
                    );
                }
            }
            // Steps are sums of a row, whose order differs.
            let found = first.get_or_insert_with(|| codes.clone());
            assert!(*found == codes, "{unit:?}: {outputs} outputs");
        }
    }
}

/// AVX2's way of it is that of AVX-VNNI, which fewer CPUs have.
#[cfg(target_arch = "x86_64")]
#[test]
fn avx2_narrows_codes_as_the_plain_loop_does() {
    if !crate::isa::Isa::Avx2.is_available() {
        return;
    }
    for panels in 1..=7 {
        let n = panels * GROUP;
        let noise = noise(2 * n, panels as u32);
        for (size, special) in [
            (32_000.0, 0),
            (300.0, 0),
            (0.0, 0),
            (9.0, i16::MIN),
            (1.0, 32_000),
        ] {
            let mut codes: Vec<u32> = (0..n)
                .map(|i| {
                    let [a, b] = [noise[2 * i], noise[2 * i + 1]].map(|x| (x * size) as i16 as u16);
                    u32::from(a) | u32::from(b) << 16
                })
                .collect();
            if special != 0 {
                codes[n / 2] = u32::from(special as u16) << 16 | codes[n / 2] & 0xffff;
            }
            let narrowed = |by_avx2: bool| {
                let mut room = Room::new(Form::Int8);
                room.fit(3, 2 * n);
                let left = room.left(2 * n);
                // SAFETY: the CPU has AVX2, and there is room for three rows.
                unsafe {
                    match by_avx2 {
                        true => super::super::avx2::narrow(&codes, 0.25, 2, left),
                        false => left.put_codes(2, &codes, 0.25),
                    }
                    let scale = *left.scales.add(2);
                    let lines: Vec<_> = room.high.iter().map(|line| line.0).collect();
                    (lines, [scale.step, scale.base].map(f32::to_bits))
                }
            };
            assert!(
                narrowed(true) == narrowed(false),
                "{panels} {size} {special}"
            );
        }
    }
}

#[test]
fn the_ends_of_codes_are_held() {
    for (least, largest) in [
        (i16::MIN, i16::MAX),
        (0, i16::MAX),
        (i16::MIN, 0),
        (0, 0),
        (-1, 0),
        (-127, 127),
        (-100, 155),
        (-32_000, 1),
    ] {
        let narrowing = Narrowing::new(least, largest);
        let [low, zero, high] = [least, 0, largest].map(|code| narrowing.apply(code));
        assert!(low == 0 && zero == narrowing.zero && (0..=255).contains(&high));
        let range = i32::from(largest) - i32::from(least);
        // Nearly all codes are used where there are enough.
        assert!(
            i32::from(high) >= range.min(251),
            "{least} to {largest}: {high}"
        );
    }
}

#[test]
fn a_row_that_is_not_finite_stays_so_on_the_way_and_no_other_becomes_so() {
    for unit in all(Form::Int8) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(19, 100, 80);
            case.left[717] = bad;
            // Large numbers are none: their squares only are infinite.
            case.left[800..900].fill(1e25);
            let mut product = Product::new(&case, unit);
            let words = product.codes();
            let (_, scales) = product.narrowed(&words);
            for (row, [step, _]) in scales.iter().enumerate() {
                assert_eq!(step.is_finite(), row != 7, "{unit:?}, {bad}: row {row}");
            }
        }
    }
}

#[test]
fn rows_of_any_size_stay_within_their_codes_or_are_no_numbers() {
    for size in [
        1e-38f32, 1e-33, 1e-25, 1e-18, 1e-3, 1.0, 1e15, 1e25, 1e30, 1e36,
    ] {
        let mut case = Case::new(2, 100, 32);
        case.bias.fill(0.0);
        case.weight.fill(1.0);
        case.left.fill(size);
        for unit in all(Form::Int8) {
            let mut product = Product::new(&case, unit);
            let words = product.codes();
            let step = f64::from(product.step(1));
            let found = f64::from(code(&words[product.packed.words()..], 5)) * step;
            let expected = f64::from(crate::reference::gelu(100.0 * size));
            let close = (found - expected).abs() <= 0.51 * step + 2e-3 * expected;
            assert_eq!(found.is_nan(), size > 1e28, "{unit:?}: {size}: {found}");
            // Of what is too small for codes nothing is left.
            assert!(
                close || found.is_nan() || expected < 1e-33,
                "{unit:?}: {size}: {found}, not {expected}"
            );
        }
    }
}
