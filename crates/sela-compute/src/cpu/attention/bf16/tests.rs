//! Attention in bf16, on tiles and in registers, against f64.

#![allow(clippy::print_stdout)] // It says what this CPU lacks.

use super::*;
use crate::cpu::attention::has_bf16;
use crate::cpu::blocks::{Form, Room, Unit};

/// Numbers in -2..2.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    crate::cpu::blocks::tests::noise(n, seed)
        .iter()
        .map(|x| 2.0 * x)
        .collect()
}

/// What this CPU has.
fn all() -> Vec<Unit> {
    let mut all = vec![Unit::Amx, Unit::Avx512];
    all.retain(|unit| {
        let has = has_bf16(*unit);
        if !has {
            println!("skipped: this CPU has no attention in bf16 by {unit:?}");
        }
        has
    });
    all
}

/// Two heads of a sequence that begins in the third row, as numbers.
fn attend<const THREE: bool>(unit: Unit, projected: &[f32], len: usize, dim: usize) -> Vec<f32> {
    const BEFORE: usize = 3;
    let (heads, stride) = (2, 6 * dim);
    let form = if THREE { Form::Bf16x3 } else { Form::Bf16 };
    let mut room = Room::new(form);
    room.fit(BEFORE + len, heads * dim);
    let left = room.left(heads * dim);
    // What an earlier call left there must not matter.
    let mut scratch = vec![Line::NAN; scratch_lines(len, dim, form)];
    let (mut found, mut plain) = (Vec::new(), vec![f32::NAN; len * heads * dim]);
    // SAFETY: the caller has found the unit on this CPU; all rows and lines are there.
    unsafe {
        let tiles = (unit == Unit::Amx).then(|| Tiles::lay_out());
        for head in 0..heads {
            let query = projected.as_ptr().add(head * dim);
            let to = To::Lines {
                left,
                row: BEFORE,
                step: head * lines(dim),
            };
            let of = Head {
                query,
                key: query.add(heads * dim),
                value: query.add(2 * heads * dim),
                stride,
                len,
                dim,
            };
            attention::<THREE>(tiles.as_ref(), &of, to, scratch.as_mut_ptr());
            let to = To::Rows(Rows {
                at: plain.as_mut_ptr().add(head * dim),
                stride: heads * dim,
            });
            attention::<THREE>(tiles.as_ref(), &of, to, scratch.as_mut_ptr());
        }
        drop(tiles);
        for row in 0..len {
            for step in 0..heads * lines(dim) {
                let [upper, lower] = left.line(BEFORE + row, step);
                let numbers = |line: *mut Line| {
                    let numbers = *line.cast::<[u16; DEPTH]>();
                    numbers.map(|bits| f32::from_bits(u32::from(bits) << 16))
                };
                let lower = if THREE { numbers(lower) } else { [0.0; DEPTH] };
                found.extend(numbers(upper).iter().zip(lower).map(|(x, y)| x + y));
            }
        }
    }
    // Rows are what lines are before they are rounded.
    for (x, y) in found.iter().zip(&plain) {
        let most = y.abs() / if THREE { 65_536.0 } else { 256.0 };
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
        .flat_map(|by| [32, 64, 96].map(|dim| (by, dim)))
    {
        for len in [1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65, 200, 512] {
            let projected = noise(len * 6 * dim, (len * dim) as u32);
            let found = [
                attend::<false>(by, &projected, len, dim),
                attend::<true>(by, &projected, len, dim),
            ];
            // Weights and results are rounded by up to 2^-9, or 2^-17; values are below 2.
            for (found, (exact, most)) in found.iter().zip([(false, 8e-3), (true, 1e-4)]) {
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
}

#[test]
fn scores_beyond_what_an_exponential_holds_are_no_trouble() {
    let (len, dim) = (40, 32);
    let mut projected = noise(len * 6 * dim, 7);
    // Scores beyond what an exponential of f32 holds.
    projected.iter_mut().for_each(|x| *x *= 40.0);
    for by in all() {
        let found = attend::<false>(by, &projected, len, dim);
        for (x, y) in found.iter().zip(expected(&projected, len, dim, false)) {
            let off = (f64::from(*x) - y).abs();
            assert!(off <= 80.0 * 2e-2, "{by:?}: {x}, not {y}");
        }
        assert!(found.iter().all(|x| x.is_finite()));
    }
}
