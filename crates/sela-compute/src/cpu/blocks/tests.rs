//! Every unit of this CPU and every emulation against a product in f64, at shapes around the borders
//! of tiles, lines and blocks; the bits of a row alone and in company.

#![allow(clippy::print_stdout)] // They say what ran and what this CPU lacks.

mod midway;

use super::left::{CHUNK, LEFT_MOST, left_over, rounded};
use super::packed::per_step_wide;
use super::{
    Columns, Form, GROUP, How, Job, Line, Output, Packed, Room, Twice, Unit, first_line, units,
};
use crate::cpu::gemm::Rows;
use crate::isa::Isa;

const ROWS: [usize; 10] = [1, 2, 7, 13, 16, 17, 31, 32, 33, 70];
const INPUTS: [usize; 13] = [1, 3, 4, 5, 16, 31, 32, 48, 63, 64, 65, 200, 900];
const FORMS: [Form; 4] = [Form::Bf16, Form::Bf16x3, Form::Int8, Form::Int16];
const OUTPUTS: [usize; 7] = [1, 16, 32, 48, 64, 80, 112];

/// Everything that can multiply numbers of a form here, and word of what cannot.
fn all(form: Form) -> Vec<Unit> {
    let own = units(form);
    for unit in [Unit::Amx, Unit::Avx512, Unit::AvxVnni, Unit::Avx2] {
        let state = match own.contains(&unit) {
            true => "runs",
            false => "skipped: this CPU lacks it",
        };
        println!("{form:?} on {unit:?}: {state}");
    }
    let emulated = Isa::available().into_iter().map(Unit::Emulated);
    own.into_iter().chain(emulated).collect()
}

/// The same of the forms whose rows have scales.
fn all_of_codes() -> Vec<(Form, Unit)> {
    let forms = [Form::Int8, Form::Int16].into_iter();
    forms
        .flat_map(|form| all(form).into_iter().map(move |unit| (form, unit)))
        .collect()
}

/// What goes with an instruction set is its own unit where there is one, as the plan is told.
#[test]
fn kernels_get_the_units_of_their_instruction_set() {
    for isa in Isa::available() {
        let of = |form| Unit::of(isa, form);
        let int8 = super::int8_units().into_iter().find(|u| u.isa() == isa);
        let int16 = super::int16_units().into_iter().find(|u| u.isa() == isa);
        for (form, planned) in [(Form::Int8, int8.is_some()), (Form::Int16, int16.is_some())] {
            let found = of(form);
            assert_eq!(found.fed_by(), isa);
            let own = !matches!(found, Unit::Emulated(_));
            assert!(own || !planned, "{isa} {form:?}: {found:?}");
        }
        match isa {
            Isa::Avx2 => assert!(matches!(of(Form::Int16), Unit::AvxVnni | Unit::Avx2)),
            Isa::Avx512 => {
                for form in FORMS {
                    assert!(!matches!(of(form), Unit::AvxVnni | Unit::Avx2), "{form:?}");
                }
            }
            _ => assert_eq!(FORMS.map(of), [Unit::Emulated(isa); 4]),
        }
    }
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

    /// Rounds the rows from `first` on and multiplies them, `each` panels at a time.
    ///
    /// # Safety
    ///
    /// There is room for so many rows of outputs in `to`.
    unsafe fn multiply(&self, packed: &Packed, first: usize, each: usize, to: Output) {
        let rows = self.left.len() / self.inputs - first;
        let mut room = Room::new(packed.form);
        room.fit(rows, self.inputs);
        let left = room.left(self.inputs);
        let from = Rows {
            at: self.left[first * self.inputs..].as_ptr(),
            stride: self.inputs,
        };
        // SAFETY: the caller's promise; there are so many rows, and there is room for them.
        unsafe {
            packed.unit.run(&Job::Round {
                from,
                inputs: self.inputs,
                rows: 0..rows,
                to: left,
            });
            for unit in (0..packed.units()).step_by(each) {
                packed.unit.run(&Job::Product {
                    packed,
                    rows,
                    left,
                    units: unit..unit + each,
                    to,
                });
            }
        }
    }

    /// The product over the rows from `first` on, unit by unit if `apart`.
    fn run(&self, packed: &Packed, first: usize, how: How, apart: bool) -> Vec<f32> {
        let mut c = self.before[first * self.outputs..].to_vec();
        let to = Rows {
            at: c.as_mut_ptr(),
            stride: self.outputs,
        };
        let each = if apart { 1 } else { packed.units() };
        // SAFETY: `c` is as many rows of outputs.
        unsafe { self.multiply(packed, first, each, Output::Rows { to, how }) };
        c
    }

    /// The product in lines of bf16, as bits of upper and lower parts, row after row.
    fn run_lines(&self, packed: &Packed, split: bool) -> Vec<[u16; 2]> {
        let rows = self.left.len() / self.inputs;
        let of_part = packed.units() * rows;
        let mut lines = vec![Line::default(); 2 * of_part];
        let to = Columns {
            lines: Twice {
                at: lines.as_mut_ptr(),
                low: of_part,
            },
            rows,
        };
        // SAFETY: there are lines for all rows of all panels, twice.
        unsafe { self.multiply(packed, 0, packed.units(), Output::Lines { to, split }) };
        let bits: &[u16] = bytemuck::cast_slice(&lines);
        let at = |part: usize, row: usize, column: usize| {
            bits[((part * packed.units() + column / 32) * rows + row) * 32 + column % 32]
        };
        (0..rows)
            .flat_map(|row| (0..self.outputs).map(move |column| (row, column)))
            .map(|(row, column)| [at(0, row, column), at(1, row, column)])
            .collect()
    }

    /// The product's GELU as the left side of the next, in numbers: its upper and lower parts.
    fn run_gelu(&self, packed: &Packed) -> Vec<[f32; 2]> {
        let rows = self.left.len() / self.inputs;
        let mut next = Room::new(packed.form);
        next.fit(rows, self.outputs);
        let to = next.left(self.outputs);
        // SAFETY: there is room for so many rows.
        unsafe { self.multiply(packed, 0, packed.units(), Output::Gelu(to)) };
        const DEPTH: usize = Form::Bf16.depth();
        let steps = packed.form.steps(self.outputs);
        let number = |lines: &[Line], row: usize, at: usize| {
            let line = first_line(row, steps) + at / DEPTH * GROUP;
            let word = lines.get(line).map_or(0, |line| line.0[at % DEPTH / 2]);
            f32::from_bits(word >> (at % 2 * 16) << 16)
        };
        let all = (0..rows).flat_map(|row| (0..self.outputs).map(move |at| (row, at)));
        all.map(|(row, at)| [number(&next.high, row, at), number(&next.low, row, at)])
            .collect()
    }

    /// The same in f64 over numbers rounded as the form has it, with the sum of absolute terms.
    fn expected(&self, form: Form, keep: bool) -> Vec<(f64, f64)> {
        let mut found = Vec::new();
        let weights: Vec<[Vec<f64>; 2]> = self
            .weight
            .chunks(self.inputs)
            .map(|weights| parts(form, weights, false))
            .collect();
        for (row, before) in self
            .left
            .chunks(self.inputs)
            .zip(self.before.chunks(self.outputs))
        {
            let [high, low] = parts(form, row, true);
            for (output, [w_high, w_low]) in weights.iter().enumerate() {
                let start = if keep { f64::from(before[output]) } else { 0.0 };
                let mut sum = (start + f64::from(self.bias[output]), 0.0);
                for i in 0..self.inputs {
                    let term = high[i] * w_high[i] + low[i] * w_high[i] + high[i] * w_low[i];
                    sum = (sum.0 + term, sum.1 + term.abs());
                }
                found.push(sum);
            }
        }
        found
    }
}

/// What numbers are rounded to: upper and lower parts. Of int8 the left side has codes from the
/// least number to the largest, zero among them, weights codes around zero; of int16 both have codes
/// around zero.
fn parts(form: Form, numbers: &[f32], left: bool) -> [Vec<f64>; 2] {
    let wide = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
    let all = |part: &dyn Fn(f32) -> f64| numbers.iter().map(|&x| part(x)).collect::<Vec<_>>();
    let none = vec![0.0; numbers.len()];
    let least = numbers.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Codes in f32, as the kernels have them, held against the numbers that they stand for.
    let even = |step: f64, code: &dyn Fn(f32) -> f64| {
        let coded = |x: f32| step * code(x);
        for &x in numbers {
            let off = (coded(x) - f64::from(x)).abs();
            // Codes of 16 bits are products of as many digits as f32 has twice over; what is below
            // 5e-35 is nothing to them.
            assert!(off <= 0.502 * step + 5e-35, "{x} as {}", coded(x));
        }
        all(&coded)
    };
    let nearest = |per_step: f32| move |x: f32| f64::from((x * per_step).round_ties_even());
    match form {
        Form::Bf16 => [all(&|x| wide(rounded(x))), none],
        Form::Bf16x3 => [all(&|x| wide(rounded(x))), all(&|x| wide(left_over(x)))],
        Form::Int8 if left => {
            let codes = Codes::of(numbers);
            [even(codes.step, &|x| codes.code(x) - codes.zero), none]
        }
        Form::Int16 if left => {
            let most = largest.max(-least);
            let per_step = LEFT_MOST / most;
            let per_step = if per_step.is_finite() { per_step } else { 0.0 };
            [even(f64::from(most / LEFT_MOST), &nearest(per_step)), none]
        }
        Form::Int16 => {
            let per_step = per_step_wide(numbers);
            let step = if per_step > 0.0 { 1.0 / per_step } else { 0.0 };
            [even(f64::from(step), &nearest(per_step)), none]
        }
        Form::Int8 => {
            let most = largest.max(-least);
            let per_step = if most > 0.0 { 127.0 / most } else { 0.0 };
            [even(f64::from(most) / 127.0, &nearest(per_step)), none]
        }
    }
}

/// What a row of a left side of int8 becomes.
struct Codes {
    per_step: f32,
    zero: f64,
    step: f64,
}

impl Codes {
    fn of(row: &[f32]) -> Self {
        let least = row.iter().copied().fold(0.0, f32::min);
        let largest = row.iter().copied().fold(0.0, f32::max);
        let range: f32 = largest - least;
        let per_step = 254.0 / range;
        let per_step = if per_step.is_finite() { per_step } else { 0.0 };
        Self {
            per_step,
            zero: f64::from((-least * per_step).floor()) + 1.0,
            step: f64::from(range / 254.0),
        }
    }

    /// Rounded once, as nothing of a product is lost in f64, nor of a sum that matters.
    fn code(&self, x: f32) -> f64 {
        let code = (f64::from(x) * f64::from(self.per_step) + self.zero).round_ties_even();
        assert!((0.0..=255.0).contains(&code), "the code {code} of {x}");
        code
    }
}

#[test]
fn codes_of_rows_of_any_signs_and_sizes_lie_where_products_read_them() {
    let noise = noise(150, 5);
    for size in [1.0f32, 1e-42, 1e-38, 7.5e-37, 1e-30, 1e30, 1.6e38] {
        for (least, largest) in [
            (0.0, 1.0),
            (0.5, 1.0),
            (-1.0, 0.0),
            (-1.0, -0.5),
            (-1.0, 1.0),
            // Zero's code comes to an integer.
            (-127.0 / 254.0, 127.0 / 254.0),
            (-54.0 / 254.0, 200.0 / 254.0),
            (-1e-3, 1.0),
        ] {
            let mut row: Vec<f32> = (noise.iter())
                .map(|x| ((x.abs().fract() * (largest - least)) + least) * size)
                .collect();
            (row[17], row[149]) = (least * size, largest * size);
            let expected = Codes::of(&row);
            for unit in all(Form::Int8) {
                // A number less than lines hold, and some more.
                for inputs in [150, 63, 64, 65] {
                    let row = &row[150 - inputs..];
                    let expected = match inputs {
                        150 => &expected,
                        _ => &Codes::of(row),
                    };
                    let mut room = Room::new(Form::Int8);
                    room.fit(1, inputs);
                    let job = Job::Round {
                        from: Rows {
                            at: row.as_ptr(),
                            stride: inputs,
                        },
                        inputs,
                        rows: 0..1,
                        to: room.left(inputs),
                    };
                    // SAFETY: there is a row, and room for it.
                    unsafe { unit.run(&job) };
                    for (at, &x) in row.iter().enumerate() {
                        let line: &[u8; 64] = bytemuck::cast_ref(&room.high[at / 64 * GROUP]);
                        let found = line[at % 16 * 4 + at % 64 / 16];
                        assert_eq!(
                            f64::from(found),
                            expected.code(x),
                            "{unit:?}: {x} between {least} and {largest} times {size}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_unit_multiplies_as_f64_does() {
    for form in FORMS {
        for unit in all(form) {
            for (rows, inputs, outputs) in ROWS
                .into_iter()
                .flat_map(|r| INPUTS.map(|i| (r, i)))
                .flat_map(|(r, i)| OUTPUTS.map(|o| (r, i, o)))
            {
                let case = Case::new(rows, inputs, outputs);
                let packed = Packed::pack(&case.weight, &case.bias, inputs, form, unit);
                for how in [How::Set, How::Add, How::Gelu] {
                    let found = case.run(&packed, 0, how, false);
                    let expected = case.expected(form, matches!(how, How::Add));
                    for (at, (x, (y, size))) in found.iter().zip(expected).enumerate() {
                        // f32 sums of up to 2,700 terms; of int8 the sum of two products, each
                        // larger than what they come to.
                        let most = match form {
                            Form::Bf16 | Form::Bf16x3 | Form::Int16 => 2e-6 * (1.0 + size),
                            Form::Int8 => 4e-6 * (1.0 + size),
                        };
                        // What GELU is off by where it is not the exact one.
                        let coarse = if form == Form::Int8 { 1.2e-3 } else { 1e-4 };
                        let (y, most) = match how {
                            How::Set | How::Add => (y, most),
                            How::Gelu => {
                                (f64::from(crate::reference::gelu(y as f32)), most + coarse)
                            }
                        };
                        assert!(
                            (f64::from(*x) - y).abs() <= most,
                            "{unit:?} {form:?}: {rows} x {inputs} x {outputs}, number {at}: {x}, not {y}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_in_all_that_its_row_becomes_and_in_no_other_row() {
    let (rows, inputs, outputs) = (19, 100, 40);
    for (form, unit) in all_of_codes() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (row, at) in [(0, 0), (3, 15), (16, 63), (18, 64), (7, 97), (5, 99)] {
                let mut case = Case::new(rows, inputs, outputs);
                case.left[row * inputs + at] = bad;
                let packed = Packed::pack(&case.weight, &case.bias, inputs, form, unit);
                let found = case.run(&packed, 0, How::Set, false);
                for (i, x) in found.iter().enumerate() {
                    let same = i / outputs == row;
                    assert_eq!(
                        x.is_nan(),
                        same,
                        "{unit:?} {form:?}: {bad} in row {row}, number {i}: {x}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_of_int8_whose_range_has_no_end_is_not_a_number_and_no_other_row_is() {
    for unit in all(Form::Int8) {
        let mut case = Case::new(3, 100, 40);
        (case.left[110], case.left[180]) = (3e38, -3e38);
        let packed = Packed::pack(&case.weight, &case.bias, 100, Form::Int8, unit);
        let found = case.run(&packed, 0, How::Set, false);
        for (i, x) in found.iter().enumerate() {
            assert_eq!(x.is_finite(), i / 40 != 1, "{unit:?}: number {i}: {x}");
        }
    }
}

#[test]
fn the_deepest_sums_of_int8_are_held() {
    let inputs = Form::Int8.inputs_max().unwrap();
    for unit in all(Form::Int8) {
        let mut case = Case::new(1, inputs, 1);
        case.weight.fill(1.0);
        // The largest code.
        case.left.fill(1.0);
        let packed = Packed::pack(&case.weight, &case.bias, inputs, Form::Int8, unit);
        let found = case.run(&packed, 0, How::Set, false)[0];
        let expected = inputs as f32 + case.bias[0];
        assert!(
            (found - expected).abs() <= 0.05,
            "{unit:?}: {found}, not {expected}"
        );
    }
}

#[test]
fn no_row_makes_the_sums_of_int16_overflow() {
    // A chunk, one more input, and several chunks; weights alike, and one that outweighs all others.
    let chunk = CHUNK * Form::Int16.depth();
    for (inputs, unit) in [chunk, chunk + 1, 4 * chunk]
        .into_iter()
        .flat_map(|inputs| all(Form::Int16).into_iter().map(move |unit| (inputs, unit)))
    {
        // The last two have the most codes that are nearly half of one above their weight.
        for (large, first, rest) in [
            (1, 1.0, 1.0),
            (1, -1.0, -1.0),
            (1, 1.0, 0.001),
            (5, 1.0, 3.2e-5),
            (6, 1.0, 2.4e-5),
        ] {
            let mut case = Case::new(1, inputs, 1);
            case.weight.fill(rest);
            case.weight[..large].fill(first);
            case.left.fill(-3.0);
            let packed = Packed::pack(&case.weight, &case.bias, inputs, Form::Int16, unit);
            let found = f64::from(case.run(&packed, 0, How::Set, false)[0]);
            let exact = -3.0 * case.weight.iter().map(|&w| f64::from(w)).sum::<f64>();
            // Each weight is rounded by half a code at most.
            let rounding = 3.0 * 0.51 / f64::from(per_step_wide(&case.weight));
            let most = rounding * inputs as f64 + 1e-4 * exact.abs();
            let off = (found - f64::from(case.bias[0]) - exact).abs();
            assert!(
                off <= most,
                "{unit:?}, {inputs} inputs: {found}, not {exact}"
            );
        }
    }
}

#[test]
fn rows_behind_others_have_their_own_scales() {
    let (rows, inputs, outputs) = (70, 100, 40);
    for (form, unit) in all_of_codes() {
        let case = Case::new(rows, inputs, outputs);
        let packed = Packed::pack(&case.weight, &case.bias, inputs, form, unit);
        let whole = case.run(&packed, 0, How::Set, false);
        let mut room = Room::new(form);
        room.fit(rows, inputs);
        let left = room.left(inputs);
        let mut found = vec![0.0; (rows - 32) * outputs];
        let from = Rows {
            at: case.left.as_ptr(),
            stride: inputs,
        };
        let to = Rows {
            at: found.as_mut_ptr(),
            stride: outputs,
        };
        // SAFETY: there are so many rows, and there is room for them.
        unsafe {
            packed.unit.run(&Job::Round {
                from,
                inputs,
                rows: 0..rows,
                to: left,
            });
            packed.unit.run(&Job::Product {
                packed: &packed,
                rows: rows - 32,
                left: left.skip_rows(32),
                units: 0..packed.units(),
                to: Output::Rows { to, how: How::Set },
            });
        }
        assert!(found == whole[32 * outputs..], "{unit:?} {form:?}");
    }
}

#[test]
fn rows_and_weights_of_one_number_only_are_no_trouble() {
    for (form, unit) in all_of_codes() {
        for x in [0.0f32, 3.5, -1e-30, 1e-38, -1e-42, 1e30] {
            let mut case = Case::new(5, 70, 33);
            case.left.fill(x);
            case.weight[..70].fill(0.0);
            let packed = Packed::pack(&case.weight, &case.bias, 70, form, unit);
            let found = case.run(&packed, 0, How::Set, false);
            assert_eq!(found[0], case.bias[0], "{unit:?} {form:?}: weights of zero");
            for (y, (expected, size)) in found.iter().zip(case.expected(form, false)) {
                let off = (f64::from(*y) - expected).abs();
                assert!(
                    off <= 1e-5 * (1.0 + size),
                    "{unit:?} {form:?}: {x}: {y}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn gelu_goes_rounded_into_the_next_left_side() {
    for form in [Form::Bf16, Form::Bf16x3] {
        for unit in all(form) {
            for (rows, outputs) in [(1, 32), (17, 48), (33, 80), (70, 16)] {
                let case = Case::new(rows, 48, outputs);
                let packed = Packed::pack(&case.weight, &case.bias, 48, form, unit);
                let plain = case.run(&packed, 0, How::Set, false);
                let found = case.run_gelu(&packed);
                assert_eq!(found.len(), plain.len());
                for ([high, low], x) in found.into_iter().zip(plain) {
                    let y = crate::reference::gelu(x);
                    // A rounding of 2^-9 behind a GELU to 9e-5, or of 2^-17 behind one to about 1e-6.
                    let most = match form {
                        Form::Bf16x3 => y.abs() / 65_536.0 + 2e-6,
                        _ => y.abs() / 256.0 + 1e-4,
                    };
                    assert!(
                        (high + low - y).abs() <= most,
                        "{unit:?} {form:?}: {high} + {low}, not {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn three_products_are_nearly_those_of_f32() {
    let case = Case::new(33, 384, 48);
    for unit in all(Form::Bf16x3) {
        let packed = Packed::pack(&case.weight, &case.bias, 384, Form::Bf16x3, unit);
        let found = case.run(&packed, 0, How::Set, false);
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
    // Of int16 more than a chunk.
    let case = Case::new(rows, 400, outputs);
    for form in FORMS {
        for unit in all(form) {
            let packed = Packed::pack(&case.weight, &case.bias, 400, form, unit);
            let whole = bits(&case.run(&packed, 0, How::Add, false));
            for first in [0, 1, 20, 37, 54, 69] {
                let found = bits(&case.run(&packed, first, How::Add, true));
                assert!(found == whole[first * outputs..], "{unit:?} {form:?}");
            }
        }
    }
}

#[test]
fn lines_are_rows_rounded() {
    for (form, rows) in FORMS
        .into_iter()
        .flat_map(|form| [1, 15, 16, 17, 31, 32, 33, 65].map(|rows| (form, rows)))
    {
        let case = Case::new(rows, 48, 64);
        for unit in all(form) {
            let packed = Packed::pack(&case.weight, &case.bias, 48, form, unit);
            let plain = case.run(&packed, 0, How::Set, false);
            for split in [false, true] {
                let found = case.run_lines(&packed, split);
                for (i, x) in plain.iter().enumerate() {
                    let expected = [rounded(*x), if split { left_over(*x) } else { 0 }];
                    assert_eq!(found[i], expected, "{form:?} on {unit:?}, {rows} rows: {x}");
                }
            }
        }
    }
}

#[test]
fn every_unit_rounds_alike() {
    let numbers = [
        1.0,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        -1.0 - 1.01 / 256.0,
        -0.0,
        1e-30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::NAN,
        0.3,
        -7e8,
    ];
    for unit in all(Form::Bf16x3) {
        let mut room = Room::new(Form::Bf16x3);
        room.fit(1, numbers.len());
        let left = room.left(numbers.len());
        let from = Rows {
            at: numbers.as_ptr(),
            stride: numbers.len(),
        };
        let job = Job::Round {
            from,
            inputs: numbers.len(),
            rows: 0..1,
            to: left,
        };
        // SAFETY: the row is there on both sides.
        unsafe { unit.run(&job) };
        for (part, lines) in [&room.high, &room.low].into_iter().enumerate() {
            let line: &[u16] = bytemuck::cast_slice(&lines[..1]);
            for (i, x) in numbers.iter().enumerate() {
                let expected = half::bf16::from_bits([rounded(*x), left_over(*x)][part]);
                let found = half::bf16::from_bits(line[i]);
                let alike = found == expected || found.is_nan() && expected.is_nan();
                assert!(
                    alike,
                    "{x}, part {part} on {unit:?}: {found}, not {expected}"
                );
            }
            assert!(line[numbers.len()..].iter().all(|bits| *bits == 0));
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
