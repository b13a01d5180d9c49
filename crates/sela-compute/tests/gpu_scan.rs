//! Search on a GPU gives the CPU's answers to the bit, on whatever adapter this machine has, a
//! software one included. Without any it says so and passes.
#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)]

mod gpu_scan_support;
mod scan_support;

use gpu_scan_support::*;
use scan_support::*;
use sela_compute::gpu::GpuOptions;
use sela_compute::gpu::scan::{GpuScan, GpuScanOptions, Variant};
use sela_compute::scan::{Metric, Queries, Record};

/// Every variant that this device has. The plain one is compiled with wgpu's checks, which must
/// not change anything.
fn variants() -> Vec<GpuScan> {
    let mut scans = Vec::new();
    for variant in [Variant::Matrix, Variant::Subgroup, Variant::Plain] {
        let Some(gpu) = gpu(GpuOptions {
            checked: variant == Variant::Plain,
            ..GpuOptions::default()
        }) else {
            break;
        };
        let options = GpuScanOptions {
            variant,
            // On one of them the device always chooses the groups.
            ranks_on_cpu_max: match variant {
                Variant::Subgroup => 0,
                _ => GpuScanOptions::default().ranks_on_cpu_max,
            },
            ..options(64 << 20)
        };
        let scan = GpuScan::new(&gpu, cpu(), options).unwrap();
        let name = &gpu.facts().name;
        if scan.variant() == variant {
            println!("ran: {variant} on {name}");
            scans.push(scan);
        } else {
            println!("skipped: {variant} ({name} lacks it)");
        }
    }
    scans
}

/// Rows that are hard to order: copies, copies but for one bit, zeros, multiples.
fn mixed_rows(dice: &mut Dice, rows: usize, dim: usize) -> Vec<f32> {
    let mut all = dice.numbers(rows * dim);
    for row in 1..rows {
        let from = dice.below(row);
        let (before, at) = all.split_at_mut(row * dim);
        let (from, at) = (&before[from * dim..][..dim], &mut at[..dim]);
        match dice.below(8) {
            0 => at.copy_from_slice(from),
            1 => {
                at.copy_from_slice(from);
                let x = &mut at[dice.below(dim)];
                // A zero would become a denormal, which is another test's.
                if x.abs() > 1e-3 {
                    *x = f32::from_bits(x.to_bits() ^ 1);
                }
            }
            2 => at.fill(if dice.below(2) == 0 { 0.0 } else { -0.0 }),
            3 => at.iter_mut().zip(from).for_each(|(x, y)| *x = 3.0 * y),
            _ => {}
        }
    }
    all
}

/// Asserts that a search by way of the device gives the CPU's answer.
fn assert_cpus(scan: &GpuScan, blocks: &[Held], record: Record, queries: Queries<'_>) {
    let expected = search(&*cpu(), blocks, record, queries).unwrap();
    let found = search(scan, blocks, record, queries).unwrap();
    let Queries { dim, metric, k, .. } = queries;
    let batch = queries.vectors.len() / dim;
    let what = format!(
        "{}: {dim} {metric:?} {record:?}, {batch} queries, k {k}",
        scan.variant()
    );
    assert_same(&found, &expected, k, &what);
}

/// Blocks with rows around the borders of groups and tiles, some masked, one in chunks.
fn blocks(dice: &mut Dice, dim: usize, record: Record) -> Vec<Held> {
    let counts = [31usize, 32, 33, 127, 128, 129, 2_500, 1];
    let mut first_seq = 50_000;
    let block = |(i, count): (usize, &usize)| {
        first_seq -= 5_000;
        let rows = mixed_rows(dice, *count, dim);
        let mut held = named(Held::new(&rows, dim, record, first_seq));
        if i % 3 == 2 {
            held = held.with_live(|row| row % 5 != 1);
        }
        if *count == 2_500 {
            held = held.with_chunks(192);
        }
        held
    };
    counts.iter().enumerate().map(block).collect()
}

/// Dimensions around the borders of pieces of 16 bytes and teams of eight, both records; metrics,
/// batches and `k` in turn.
#[test]
fn answers_are_the_cpus() {
    let mut dice = Dice(11);
    let mut turn = 0;
    for scan in variants() {
        for dim in [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 384, 768] {
            for record in RECORDS {
                let blocks = blocks(&mut dice, dim, record);
                let vectors = dice.numbers(65 * dim);
                turn += 1;
                let all = METRICS.into_iter().zip([[1, 17], [2, 65], [7, 9]]);
                for (at, (metric, batches)) in all.enumerate() {
                    // All metrics at one dimension, one of them at each of the others.
                    if dim != 33 && (turn + dim) % 3 != at {
                        continue;
                    }
                    for batch in batches {
                        let queries = Queries {
                            vectors: &vectors[..batch * dim],
                            dim,
                            metric,
                            k: [1, 10, 32, 100, 1_024][(turn + batch) % 5],
                        };
                        assert_cpus(&scan, &blocks, record, queries);
                    }
                }
            }
        }
        let stats = scan.stats();
        assert_eq!(stats.unsound, 0, "{stats:?}");
        assert!(stats.queries > 100, "the device has ranked them: {stats:?}");
    }
}

/// Rows that differ in the last bits of a few numbers, so that ranks in f32 cannot order them;
/// copies in several blocks, which only their numbers order.
#[test]
fn near_ties_are_ordered_as_the_cpu_orders_them() {
    let (dim, rows) = (96, 6_000);
    for scan in variants() {
        let mut dice = Dice(12);
        let base = dice.numbers(dim);
        for record in RECORDS {
            let mut numbers = Vec::new();
            for row in 0..rows {
                // One row in forty is near the base, the others are anywhere.
                if row % 40 != 0 {
                    numbers.extend(dice.numbers(dim));
                    continue;
                }
                numbers.extend(base.iter().map(|x| {
                    let bits = match record {
                        Record::F32 => dice.below(4) as u32,
                        Record::F16 => 0,
                    };
                    f32::from_bits(x.to_bits() ^ bits)
                }));
            }
            let late = named(Held::new(&numbers, dim, record, 10_000));
            let early = named(Held::new(&numbers, dim, record, 0));
            let other = named(Held::new(&numbers[..dim * 41], dim, record, 20_000));
            let blocks = [late, early, other];
            let noise = dice.numbers(dim);
            let vectors: Vec<f32> = base.iter().zip(noise).map(|(x, n)| x + n / 8.0).collect();
            for metric in METRICS {
                for k in [3, 40] {
                    let queries = Queries {
                        vectors: &vectors,
                        dim,
                        metric,
                        k,
                    };
                    assert_cpus(&scan, &blocks, record, queries);
                }
            }
        }
        assert_eq!(scan.stats().too_many, 0, "{:?}", scan.stats());
    }
}

/// Where nearly all rows are alike there are more candidates than a list holds: the CPU answers,
/// the count says so, and the other queries of the batch stay on the device.
#[test]
fn too_many_near_copies_are_the_cpus() {
    let (dim, rows) = (8, 200_000);
    for scan in variants() {
        let mut dice = Dice(13);
        // All of them the same but for some of the first.
        let mut numbers = [1.0, 0.5, 0.25, -1.0, 0.0, 0.0, 0.0, 0.0].repeat(rows);
        for row in 0..300 {
            numbers[row * 7 * dim + 4] = row as f32 / 100.0;
        }
        let blocks = [named(Held::new(&numbers, dim, Record::F16, 0))];
        let mut vectors = dice.numbers(10 * dim);
        // This one ends in a tie of nearly all, the next does not.
        vectors[..dim].copy_from_slice(&[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        vectors[dim..2 * dim].copy_from_slice(&[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        let queries = Queries {
            vectors: &vectors,
            dim,
            metric: Metric::Dot,
            k: 10,
        };
        assert_cpus(&scan, &blocks, Record::F16, queries);
        let stats = scan.stats();
        assert!(stats.too_many > 0 && stats.queries > 0, "{stats:?}");
    }
}

/// Numbers whose squares f32 does not hold, huge and tiny ones, are left to the CPU and counted.
#[test]
fn numbers_at_the_ends_are_the_cpus() {
    let dim = 20;
    for scan in variants() {
        let mut dice = Dice(14);
        for (scale, unsound) in [(1e-30, true), (1e-14, true), (1e-5, false), (4e17, true)] {
            let mut rows = dice.numbers(3_000 * dim);
            rows.iter_mut().for_each(|x| *x *= scale);
            // Zeros are no tiny numbers.
            rows[40 * dim..80 * dim].fill(0.0);
            let blocks = [named(Held::new(&rows, dim, Record::F32, 0))];
            let vectors = dice.numbers(2 * dim);
            for metric in METRICS {
                let before = scan.stats().unsound;
                let queries = Queries {
                    vectors: &vectors,
                    dim,
                    metric,
                    k: 5,
                };
                assert_cpus(&scan, &blocks, Record::F32, queries);
                let marked = scan.stats().unsound - before;
                assert_eq!(marked > 0, unsound, "{scale:e} {metric:?}");
            }
            // Queries of that size.
            let vectors: Vec<f32> = vectors.iter().map(|x| x * scale * 4.0).collect();
            let plain = [named(Held::new(
                &dice.numbers(300 * dim),
                dim,
                Record::F16,
                0,
            ))];
            for metric in METRICS {
                let queries = Queries {
                    vectors: &vectors,
                    dim,
                    metric,
                    k: 5,
                };
                assert_cpus(&scan, &plain, Record::F16, queries);
            }
        }
    }
}

/// What the device does not take on at all, and nothing at all.
#[test]
fn the_rest_is_the_cpus() {
    let Some(scan) = scan(64 << 20) else { return };
    let mut dice = Dice(15);
    let dim = 4;
    let blocks = [named(Held::new(
        &dice.numbers(3_000 * dim),
        dim,
        Record::F32,
        0,
    ))];
    let vectors = dice.numbers(2 * dim);
    let queries = Queries {
        vectors: &vectors,
        dim,
        metric: Metric::L2,
        k: 2_000,
    };
    assert_cpus(&scan, &blocks, Record::F32, queries);
    assert_eq!(scan.stats().beyond, 2);
    for none in [0, dim] {
        let queries = Queries {
            vectors: &vectors[..none],
            k: 3,
            ..queries
        };
        assert_cpus(&scan, &[], Record::F32, queries);
    }
    let dead = [named(
        Held::new(&dice.numbers(300 * dim), dim, Record::F32, 0).with_live(|_| false),
    )];
    assert_cpus(&scan, &dead, Record::F32, Queries { k: 3, ..queries });
    // A row of half a megabyte.
    let dim = 60_000;
    let long = [named(Held::new(
        &dice.numbers(3 * dim),
        dim,
        Record::F32,
        0,
    ))];
    let vectors = dice.numbers(dim);
    let queries = Queries {
        vectors: &vectors,
        dim,
        k: 2,
        ..queries
    };
    assert_cpus(&scan, &long, Record::F32, queries);
    assert_eq!(scan.stats().beyond, 3);
}
