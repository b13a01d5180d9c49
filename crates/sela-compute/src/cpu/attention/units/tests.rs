//! Attention by the units of blocks, on tiles and in registers, against f64.

#![allow(clippy::print_stdout)] // It says what this CPU lacks.

use super::kind::WEIGHT_MOST;
use super::*;
use crate::cpu::attention::has_bf16;
use crate::cpu::blocks::{Columns, Room, Unit};

/// Numbers in -2..2.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    crate::cpu::blocks::tests::noise(n, seed)
        .iter()
        .map(|x| 2.0 * x)
        .collect()
}

/// What this CPU has.
fn all() -> Vec<(Unit, Form)> {
    let vnni = crate::isa::Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni");
    let mut all = vec![
        (Unit::Amx, Form::Bf16),
        (Unit::Amx, Form::Bf16x3),
        (Unit::Avx512, Form::Bf16),
        (Unit::Avx512, Form::Bf16x3),
        (Unit::Avx512, Form::Int16),
    ];
    all.retain(|(unit, form)| {
        let has = match form {
            Form::Int16 => vnni,
            _ => has_bf16(*unit),
        };
        if !has {
            println!("skipped: this CPU has no attention in {form:?} by {unit:?}");
        }
        has
    });
    all
}

/// Rows before a sequence, in what attention reads and in what it writes, and behind it.
const BEFORE: usize = 3;
const BEHIND: usize = 2;

/// Rows of numbers as panels of bf16, first all upper parts, then what they leave; NaNs before, behind and
/// in the lines that a tile reads past the end.
fn in_panels(numbers: &[f32], stride: usize) -> Vec<Line> {
    let rows = numbers.len() / stride;
    let all = BEFORE + rows + BEHIND;
    let mut lines = vec![Line::NAN; 2 * all * stride / DEPTH + TILE - 1];
    for (part, panel, row) in (0..2)
        .flat_map(|part| (0..stride / DEPTH).map(move |panel| (part, panel)))
        .flat_map(|(part, panel)| (0..rows).map(move |row| (part, panel, row)))
    {
        let numbers = &numbers[row * stride + panel * DEPTH..][..DEPTH];
        let numbers: [u16; DEPTH] = std::array::from_fn(|i| {
            let upper = half::bf16::from_f32(numbers[i]);
            let lower = half::bf16::from_f32(numbers[i] - upper.to_f32());
            [upper, lower][part].to_bits()
        });
        // SAFETY: a line is so many numbers of 16 bits.
        lines[(part * stride / DEPTH + panel) * all + BEFORE + row] =
            unsafe { std::mem::transmute::<[u16; DEPTH], Line>(numbers) };
    }
    lines
}

/// The rows of a sequence that begins in row `BEFORE`, as numbers: upper and, if split, lower parts.
fn numbers_of(left: Left, len: usize, steps: usize, split: bool) -> Vec<f32> {
    let mut found = Vec::new();
    for (row, step) in (0..len).flat_map(|row| (0..steps).map(move |step| (row, step))) {
        // SAFETY: the rows are there.
        let lines = unsafe { left.line(BEFORE + row, step) };
        let numbers = |line: *mut Line| {
            // SAFETY: a line is so many numbers of 16 bits.
            let numbers = unsafe { *line.cast::<[u16; DEPTH]>() };
            numbers.map(|bits| f32::from_bits(u32::from(bits) << 16))
        };
        let lower = if split {
            numbers(lines[1])
        } else {
            [0.0; DEPTH]
        };
        found.extend(numbers(lines[0]).iter().zip(lower).map(|(x, y)| x + y));
    }
    found
}

/// Codes to a unit, where no result goes beyond the values that it lies between.
fn per_code(projected: &[f32]) -> f32 {
    let finite = projected.iter().filter(|x| x.is_finite());
    32_000.0 / finite.fold(0f32, |most, x| most.max(x.abs()))
}

/// Where a head's codes go, two to a word, from one on.
fn rows_of_codes(coded: &mut [u32], first: usize, stride: usize, per: f32) -> To {
    let rows = Rows {
        at: coded[first..].as_mut_ptr(),
        stride,
    };
    To::Codes { rows, per }
}

/// Holds codes against the numbers that they are of; what is none has a code of its own.
fn hold_codes(coded: &[u32], plain: &[f32], per: f32) {
    for (at, x) in plain.iter().enumerate() {
        let word = coded[at / DEPTH * TILE + at % TILE];
        let code = (word >> (at % DEPTH / TILE * 16)) as i16;
        let found = f32::from(code) / per;
        // All of a line, as a row becomes one NaN in the end.
        match plain[at / DEPTH * DEPTH..][..DEPTH]
            .iter()
            .any(|x| x.is_nan())
        {
            true => assert_eq!(code, i16::MIN, "the code of what is no number"),
            false => assert!(
                (found - x).abs() <= 0.502 / per,
                "{found} of code {code}, {x} in rows"
            ),
        }
    }
}

/// Two heads of a sequence, as numbers.
fn attend((unit, form): (Unit, Form), projected: &[f32], len: usize, dim: usize) -> Vec<f32> {
    let (heads, stride) = (2, 6 * dim);
    let mut room = Room::new(form);
    room.fit(BEFORE + len, heads * dim);
    let left = room.left(heads * dim);
    // What an earlier call left there must not matter.
    let mut scratch = vec![Line::NAN; scratch_lines(len, dim, form)];
    let scratch = scratch.as_mut_ptr();
    let mut plain = vec![f32::NAN; len * heads * dim];
    let mut coded = vec![u32::MAX; len * heads * dim / 2];
    let per = per_code(projected);
    let mut rounded = in_panels(projected, stride);
    let rows = BEFORE + len + BEHIND;
    let columns = Columns {
        lines: Twice {
            at: rounded.as_mut_ptr(),
            low: stride / DEPTH * rows,
        },
        rows,
    };
    // SAFETY: the caller has found the unit on this CPU; all rows and lines are there.
    unsafe {
        let tiles = (unit == Unit::Amx).then(|| Tiles::lay_out());
        for head in 0..heads {
            let query = projected.as_ptr().add(head * dim);
            let of = Head {
                query,
                key: query.add(heads * dim),
                value: query.add(2 * heads * dim),
                stride,
                len,
                dim,
            };
            let rows = Rows {
                at: plain.as_mut_ptr().add(head * dim),
                stride: heads * dim,
            };
            let codes = rows_of_codes(&mut coded, head * dim / 2, heads * dim / 2, per);
            if form == Form::Int16 {
                attention_in_codes(&of, To::Rows(rows), scratch);
                attention_in_codes(&of, codes, scratch);
                continue;
            }
            let [query, key, value] = [0, 1, 2]
                .map(|part| Rounded::new(columns, BEFORE, (part * heads + head) * dim / DEPTH));
            let of = Of {
                query,
                key,
                value,
                len,
                dim,
            };
            let lines = To::Lines {
                left,
                row: BEFORE,
                step: head * lines(dim),
            };
            for to in [lines, To::Rows(rows), codes] {
                match form {
                    Form::Bf16x3 => attention_in_bf16::<true>(tiles.as_ref(), &of, to, scratch),
                    _ => attention_in_bf16::<false>(tiles.as_ref(), &of, to, scratch),
                }
            }
        }
    }
    hold_codes(&coded, &plain, per);
    if form == Form::Int16 {
        return plain;
    }
    let split = form == Form::Bf16x3;
    let found = numbers_of(left, len, heads * lines(dim), split);
    // Rows are what lines are before they are rounded.
    for (x, y) in found.iter().zip(&plain) {
        let most = y.abs() / if split { 65_536.0 } else { 256.0 };
        assert!((x - y).abs() <= most, "{x} in lines, {y} in rows");
    }
    found
}

/// The same in f64, of numbers rounded to bf16 unless they are `exact`.
fn expected(projected: &[f32], len: usize, dim: usize, exact: bool) -> Vec<f64> {
    let number = |row: usize, part: usize, at: usize| {
        let x = projected[row * 6 * dim + part * 2 * dim + at];
        match exact {
            true => f64::from(x),
            false => half::bf16::from_f32(x).to_f64(),
        }
    };
    let mut found = vec![0.0; len * 2 * dim];
    for (head, row) in (0..2).flat_map(|head| (0..len).map(move |row| (head, row))) {
        let first = head * dim;
        let score = |key: usize| {
            let products = (0..dim).map(|i| number(row, 0, first + i) * number(key, 1, first + i));
            products.sum::<f64>() / (dim as f64).sqrt()
        };
        let scores: Vec<f64> = (0..len).map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for i in 0..dim {
            let values = (0..len).map(|key| weights[key] * number(key, 2, first + i));
            found[row * 2 * dim + first + i] = values.sum::<f64>() / sum;
        }
    }
    found
}

#[test]
fn attention_is_as_in_f64_at_lengths_around_every_border() {
    for (by, dim) in all()
        .into_iter()
        .flat_map(|by| [32, 64, 96, 160].map(|dim| (by, dim)))
    {
        for len in [
            1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65, 127, 128, 129, 200, 512,
        ] {
            let projected = noise(len * 6 * dim, (len * dim) as u32);
            let found = attend(by, &projected, len, dim);
            // Weights and results are rounded by up to 2^-9, 2^-17 or, of codes, 2^-12 of the largest;
            // values are below 2.
            let (exact, most) = match by.1 {
                Form::Bf16x3 => (true, 1e-4),
                Form::Int16 => (true, 3e-3),
                _ => (false, 8e-3),
            };
            let expected = expected(&projected, len, dim, exact);
            assert_eq!(found.len(), expected.len());
            for (at, (x, y)) in found.iter().zip(expected).enumerate() {
                let off = (f64::from(*x) - y).abs();
                assert!(
                    off <= most,
                    "{by:?}, {len} tokens, {dim}: number {at} is {x}, not {y}"
                );
            }
        }
    }
}

/// What attends in codes here.
fn in_codes() -> impl Iterator<Item = (Unit, Form)> {
    all().into_iter().filter(|(_, form)| *form == Form::Int16)
}

#[test]
fn no_head_makes_the_sums_of_codes_overflow() {
    for by in in_codes() {
        for (len, dim) in [(1, 32), (128, 128), (300, 160)] {
            // All codes are the largest there are, of scores and of values.
            let mut projected = vec![-1.5; len * 6 * dim];
            for x in attend(by, &projected, len, dim) {
                assert!((x + 1.5).abs() <= 1e-3, "{len} tokens, {dim}: {x}");
            }
            // All keys but the first point away from the queries: it is alone, or scores wrapped.
            for (row, of_row) in projected.chunks_mut(6 * dim).enumerate() {
                of_row[2 * dim..4 * dim].fill(if row == 0 { -1.5 } else { 1.5 });
                of_row[4 * dim..].fill(if row == 0 { 1.5 } else { -1.5 });
            }
            for x in attend(by, &projected, len, dim) {
                assert!((x - 1.5).abs() <= 1e-3, "{len} tokens, {dim}: {x}");
            }
        }
    }
}

#[test]
fn many_small_weights_in_codes_are_parts_of_a_whole() {
    let (len, dim) = (512, 32);
    for by in in_codes() {
        // A first key of a score so much above all others that their weights are a few codes, or less
        // than half of one.
        for above in [7.0, 8.0, 9.0, 9.05, 10.0, 11.0] {
            let mut projected = noise(len * 6 * dim, 11);
            let size = (above / (dim as f32).sqrt()).sqrt();
            for (row, of_row) in projected.chunks_mut(6 * dim).enumerate() {
                of_row[..2 * dim].fill(size);
                of_row[2 * dim..4 * dim].fill(if row == 0 { size } else { 0.0 });
                // Alike in one head, of all sizes in the other.
                of_row[4 * dim..5 * dim].fill(1.5);
            }
            let found = attend(by, &projected, len, dim);
            let expected = expected(&projected, len, dim, true);
            for (i, (x, y)) in found.iter().zip(expected).enumerate() {
                // All of 511 weights may be off by the same half of a code.
                let most = match i % (2 * dim) < dim {
                    true => 1e-3,
                    false => 511.0 * 0.5 / f64::from(WEIGHT_MOST) * 2.0,
                };
                let off = (f64::from(*x) - y).abs();
                assert!(off <= most, "{above} above, number {i}: {x}, not {y}");
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_not_lost_in_codes() {
    let (len, dim) = (40, 32);
    for by in in_codes() {
        for (part, bad) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
            let mut projected = noise(len * 6 * dim, 9);
            projected[17 * 6 * dim + part * 2 * dim + 5] = bad;
            let found = attend(by, &projected, len, dim);
            for (i, x) in found.iter().enumerate() {
                // Of the first of two heads.
                let bad = i % (2 * dim) < dim;
                assert_eq!(x.is_nan(), bad, "part {part}, number {i}: {x}");
            }
        }
    }
}

#[test]
fn heads_of_zeros_and_of_next_to_nothing_are_no_trouble_in_codes() {
    let (len, dim) = (20, 32);
    for by in in_codes() {
        for x in [0.0, 1e-40, -1e-30] {
            let found = attend(by, &vec![x; len * 6 * dim], len, dim);
            assert!(found.iter().all(|y| (y - x).abs() <= 1e-33), "{x}");
        }
    }
}

#[test]
fn large_scores_that_are_alike_are_no_trouble() {
    let (len, dim) = (300, 160);
    for by in all() {
        // Up to 1e16: what is taken off a score before it is multiplied is the same number exactly.
        for size in [20.0, 33.3, 1e3, 1.234e4, 1e7] {
            let mut projected = vec![size; len * 6 * dim];
            for of_row in projected.chunks_mut(6 * dim) {
                of_row[4 * dim..].fill(1.5);
            }
            for x in attend(by, &projected, len, dim) {
                assert!((x - 1.5).abs() <= 1e-2, "{by:?}, {size}: {x}");
            }
        }
    }
}

#[test]
fn scores_beyond_what_an_exponential_holds_are_no_trouble() {
    let (len, dim) = (40, 32);
    let mut projected = noise(len * 6 * dim, 7);
    // Scores beyond what an exponential of f32 holds.
    projected.iter_mut().for_each(|x| *x *= 40.0);
    for by in all() {
        let found = attend(by, &projected, len, dim);
        assert!(found.iter().all(|x| x.is_finite()));
        // Of codes, scores of thousands are off by more than weights can bear.
        if by.1 == Form::Int16 {
            assert!(found.iter().all(|x| x.abs() <= 80.0 * 1.001));
            continue;
        }
        for (x, y) in found.iter().zip(expected(&projected, len, dim, false)) {
            let off = (f64::from(*x) - y).abs();
            assert!(off <= 80.0 * 2e-2, "{by:?}: {x}, not {y}");
        }
    }
}
