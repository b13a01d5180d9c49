//! Copies of rows come and go, devices fail, threads search at once: answers stay right.
#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)]

mod gpu_scan_support;
mod scan_support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use gpu_scan_support::*;
use scan_support::*;
use sela_compute::Error;
use sela_compute::error::BoxError;
use sela_compute::gpu::scan::{GpuScan, GpuScanOptions};
use sela_compute::gpu::{Fault, Faults, GpuOptions};
use sela_compute::scan::{Block, Metric, PageId, Queries, Record, Rows, Scan, Scanning, Seqs};

const DIM: usize = 64;

/// Blocks of random f16 rows, 1 MiB each.
fn blocks(count: usize, seed: u64) -> Vec<Held> {
    let mut dice = Dice(seed);
    let rows = (1 << 20) / DIM / 2;
    (0..count)
        .map(|i| {
            let numbers = dice.numbers(rows * DIM);
            named(Held::new(&numbers, DIM, Record::F16, (i * rows) as u64)).with_chunks(2_048)
        })
        .collect()
}

fn queries(vectors: &[f32]) -> Queries<'_> {
    Queries {
        vectors,
        dim: DIM,
        metric: Metric::Cosine,
        k: 10,
    }
}

fn assert_cpus(scan: &GpuScan, blocks: &[Held], vectors: &[f32]) {
    let expected = search(&*cpu(), blocks, Record::F16, queries(vectors)).unwrap();
    let found = search(scan, blocks, Record::F16, queries(vectors)).unwrap();
    assert_same(&found, &expected, 10, "a search");
}

/// What fits stays and is found again; deletes leave it valid.
#[test]
fn rows_stay_on_the_device() {
    let Some(scan) = scan(64 << 20) else { return };
    let mut blocks = blocks(8, 1);
    let vectors = Dice(2).numbers(3 * DIM);
    assert_cpus(&scan, &blocks, &vectors);
    let pages = scan.stats().pages;
    assert_eq!((pages.hits, pages.misses, pages.page_ins), (0, 8, 8));
    assert!(pages.resident_bytes >= 8 << 20 && pages.resident_bytes <= pages.reserved_bytes);
    assert!(pages.reserved_bytes <= pages.budget_bytes, "{pages:?}");
    for (i, held) in blocks.iter_mut().enumerate() {
        *held = held.clone().with_live(|row| row % 7 != i);
    }
    assert_cpus(&scan, &blocks, &vectors);
    let pages = scan.stats().pages;
    assert_eq!((pages.hits, pages.page_ins, pages.streamed), (8, 8, 0));
    let all = blocks.iter().map(|held| held.block(Record::F16));
    let weight = scan.weigh(all, DIM);
    assert_eq!((weight.resident_bytes, weight.missing_bytes), (8 << 20, 0));
}

/// Rows without a name go through and leave nothing.
#[test]
fn rows_without_a_name_are_not_kept() {
    let Some(scan) = scan(64 << 20) else { return };
    let mut blocks = blocks(3, 3);
    blocks.iter_mut().for_each(|held| held.page = None);
    let vectors = Dice(4).numbers(DIM);
    for _ in 0..3 {
        assert_cpus(&scan, &blocks, &vectors);
    }
    let pages = scan.stats().pages;
    assert_eq!((pages.hits, pages.page_ins, pages.streamed), (0, 0, 9));
}

/// A name whose rows now have another form is not taken for the old one.
#[test]
fn a_name_of_another_form_is_no_hit() {
    let Some(scan) = scan(64 << 20) else { return };
    let mut dice = Dice(5);
    let vectors = dice.numbers(DIM);
    let first = named(Held::new(&dice.numbers(999 * DIM), DIM, Record::F16, 0));
    let mut second = Held::new(&dice.numbers(1_000 * DIM), DIM, Record::F16, 0);
    second.page = first.page;
    assert_cpus(&scan, &[first], &vectors);
    assert_cpus(&scan, &[second], &vectors);
    assert_eq!(scan.stats().pages.hits, 0);
}

/// A search over more rows than fit answers, keeps what was there, and streams the rest; another
/// collection moves in once it is searched again.
#[test]
fn more_rows_than_fit_are_streamed() {
    let Some(scan) = scan(16 << 20) else { return };
    let (small, large) = (blocks(4, 6), blocks(40, 7));
    let vectors = Dice(8).numbers(2 * DIM);
    assert_cpus(&scan, &small, &vectors);
    for _ in 0..3 {
        assert_cpus(&scan, &large, &vectors);
    }
    let pages = scan.stats().pages;
    assert!(pages.streamed > 60, "{pages:?}");
    assert!(pages.reserved_bytes <= pages.budget_bytes, "{pages:?}");
    // Of the large collection a part stays from search to search.
    assert!(pages.hits >= 8, "{pages:?}");
    let before = scan.stats().pages;
    let other = blocks(10, 9);
    for _ in 0..3 {
        assert_cpus(&scan, &other, &vectors);
    }
    let pages = scan.stats().pages;
    assert!(pages.page_outs > before.page_outs, "{pages:?}");
    assert!(pages.hits > before.hits, "the newcomers stay: {pages:?}");
}

/// Bindings of little more than a unit.
#[test]
fn small_bindings_do() {
    let Some(gpu) = gpu(GpuOptions {
        binding_bytes_max: Some(4 << 20),
        ..GpuOptions::default()
    }) else {
        return;
    };
    let scan = GpuScan::new(&gpu, cpu(), options(64 << 20)).unwrap();
    let blocks = blocks(12, 10);
    let vectors = Dice(11).numbers(20 * DIM);
    for _ in 0..2 {
        assert_cpus(&scan, &blocks, &vectors);
    }
    assert!(scan.stats().pages.hits >= 12, "{:?}", scan.stats());
}

/// Several threads, two collections, room for one.
#[test]
fn threads_search_at_once() {
    let Some(scan) = scan(16 << 20) else { return };
    let collections = [blocks(7, 12), blocks(9, 13)];
    let vectors = Dice(14).numbers(6 * DIM);
    let expected = collections
        .each_ref()
        .map(|blocks| search(&*cpu(), blocks, Record::F16, queries(&vectors)).unwrap());
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (scan, collections, vectors) = (&scan, &collections, &vectors);
            let expected = &expected;
            scope.spawn(move || {
                for i in 0..4 {
                    let which = (t + i) % 2;
                    let blocks = &collections[which];
                    let found = search(scan, blocks, Record::F16, queries(vectors)).unwrap();
                    assert_same(&found, &expected[which], 10, "a search among others");
                }
            });
        }
    });
}

/// Each chunk is asked for once in a search: while it is brought in, and then only where it holds
/// candidates.
#[test]
fn chunks_are_asked_for_once() {
    struct Counted(Held, Vec<AtomicUsize>);
    impl Rows for Counted {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            self.1[chunk as usize].fetch_add(1, Ordering::Relaxed);
            self.0.chunk(chunk)
        }
    }
    let Some(scan) = scan(64 << 20) else { return };
    let mut dice = Dice(15);
    let held = Held::new(&dice.numbers(20_000 * DIM), DIM, Record::F16, 0).with_chunks(128);
    let counts = (0..20_000usize.div_ceil(128)).map(|_| AtomicUsize::new(0));
    let counted = Counted(held, counts.collect());
    let vectors = dice.numbers(20 * DIM);
    let one = Queries {
        k: 5,
        ..queries(&vectors)
    };
    let run = || {
        let mut scanning = scan.begin(one).unwrap();
        let page = Some(PageId { owner: 1, page: 1 });
        let block = counted.0.block(Record::F16);
        scanning
            .scan(Block {
                rows: &counted,
                page,
                ..block
            })
            .unwrap();
        scanning.submit().unwrap();
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        counted.1.iter().map(take).collect::<Vec<_>>()
    };
    assert!(run().iter().all(|count| *count == 1), "all brought in");
    let again = run();
    assert!(again.iter().all(|count| *count <= 1));
    let touched: usize = again.iter().sum();
    assert!(
        (1..150).contains(&touched),
        "{touched} chunks of candidates"
    );
}

/// While rows are read, which lasts where they come from a disk, others can ask for figures.
#[test]
fn figures_are_told_while_rows_are_read() {
    struct Slow(Held, Sender<()>, Mutex<Receiver<()>>);
    impl Rows for Slow {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            self.1.send(())?;
            let told = self.2.lock().expect("one reader");
            told.recv_timeout(Duration::from_secs(20))?;
            self.0.chunk(chunk)
        }
    }
    let Some(scan) = scan(64 << 20) else { return };
    let mut dice = Dice(16);
    let rows = 1_000;
    let held = Held::new(&dice.numbers(rows * DIM), DIM, Record::F16, 0).with_chunks(rows);
    let vectors = dice.numbers(DIM);
    let (reading, is_reading) = channel();
    let (tell, told) = channel();
    let slow = Slow(held.clone(), reading, Mutex::new(told));
    let page = Some(PageId { owner: 2, page: 0 });
    let found = std::thread::scope(|scope| {
        let search = scope.spawn(|| {
            let mut scanning = scan.begin(queries(&vectors)).unwrap();
            let rows = Block {
                rows: &slow,
                page,
                ..held.block(Record::F16)
            };
            scanning.scan(rows).unwrap();
            scanning.submit()
        });
        let mut asked = 0;
        while !search.is_finished() {
            if is_reading.recv_timeout(Duration::from_millis(20)).is_err() {
                continue;
            }
            asked += 1;
            let pages = scan.stats().pages;
            assert_eq!((pages.misses, pages.hits), (1, 0));
            let weight = scan.weigh([held.block(Record::F16)].into_iter(), DIM);
            assert_eq!(weight.resident_bytes, 0);
            tell.send(()).unwrap();
        }
        assert!(asked > 0, "rows were read");
        search.join().unwrap().unwrap()
    });
    let expected = search(&*cpu(), &[held], Record::F16, queries(&vectors)).unwrap();
    assert_same(&found, &expected, 10, "a search whose rows came slowly");
}

/// Copies of what is gone make room at once, and others stay.
#[test]
fn what_is_gone_is_forgotten() {
    let Some(scan) = scan(64 << 20) else { return };
    let all = blocks(4, 17);
    let vectors = Dice(18).numbers(DIM);
    assert_cpus(&scan, &all, &vectors);
    let before = scan.stats().pages.resident_bytes;
    let gone = all[1].page.expect("a name");
    scan.forget(gone.owner);
    let pages = scan.stats().pages;
    assert_eq!(pages.resident_bytes, before / 4 * 3);
    assert_eq!(pages.page_outs, 0, "nothing had to go for others");
    assert_cpus(&scan, &all, &vectors);
    let pages = scan.stats().pages;
    assert_eq!((pages.hits, pages.page_ins), (3, 5));
}

/// A chunk that cannot be read fails the search by its name, and nothing of its unit is kept.
#[test]
fn an_unreadable_chunk_is_named() {
    struct Torn(Vec<u8>);
    impl Rows for Torn {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            match chunk {
                2 => Err("checksum differs".into()),
                _ => Ok(&self.0),
            }
        }
    }
    let Some(scan) = scan(64 << 20) else { return };
    let torn = Torn(vec![0; 128 * DIM * 2]);
    let good = &blocks(1, 16)[0];
    let vectors = Dice(17).numbers(DIM);
    for _ in 0..2 {
        let mut scanning = scan.begin(queries(&vectors)).unwrap();
        scanning.scan(good.block(Record::F16)).unwrap();
        scanning
            .scan(Block {
                rows: &torn,
                len: 128 * 4,
                chunk_rows: 128,
                record: Record::F16,
                page: Some(PageId { owner: 2, page: 0 }),
                live: None,
                seqs: Seqs::Run(0),
            })
            .unwrap();
        match scanning.submit() {
            Err(Error::Rows {
                block: 1,
                chunk: 2,
                source,
            }) => assert_eq!(source.to_string(), "checksum differs"),
            other => panic!("{other:?}"),
        }
    }
    let pages = scan.stats().pages;
    assert_eq!(
        pages.resident_bytes, 0,
        "no search has proven the good block"
    );
    assert_cpus(&scan, std::slice::from_ref(good), &vectors);
    assert_cpus(&scan, std::slice::from_ref(good), &vectors);
    assert_eq!(scan.stats().pages.hits, pages.hits + 1);
}

/// A chunk that nobody asks for may be unreadable: answers are the CPU's, which never reads it.
#[test]
fn an_unreadable_chunk_of_dead_rows_is_passed_over() {
    struct Torn(Vec<u8>);
    impl Rows for Torn {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            match chunk {
                2 => Err("checksum differs".into()),
                _ => Ok(&self.0[chunk as usize * 128 * DIM * 2..][..128 * DIM * 2]),
            }
        }
    }
    let Some(scan) = scan(64 << 20) else { return };
    let mut dice = Dice(23);
    let held = Held::new(&dice.numbers(512 * 4 * DIM), DIM, Record::F16, 0);
    let torn = Torn(held.bytes.clone());
    let live: Vec<u64> = (0..32).map(|w| if w / 2 == 2 { 0 } else { !0 }).collect();
    let vectors = dice.numbers(2 * DIM);
    let block = Block {
        rows: &torn,
        len: 512 * 4,
        chunk_rows: 128,
        record: Record::F16,
        page: Some(PageId { owner: 3, page: 0 }),
        live: Some(&live),
        seqs: Seqs::Run(0),
    };
    let cpu = cpu();
    let mut scanning = cpu.begin(queries(&vectors)).unwrap();
    scanning.scan(block).unwrap();
    let expected = scanning.submit().unwrap();
    for _ in 0..2 {
        let mut scanning = scan.begin(queries(&vectors)).unwrap();
        scanning.scan(block).unwrap();
        assert_eq!(scanning.submit().unwrap(), expected);
    }
    let pages = scan.stats().pages;
    assert_eq!((pages.hits, pages.resident_bytes), (0, 0), "{pages:?}");
    assert_eq!(scan.stats().queries, 4, "the device ranked them");
}

/// A failing device is an error that says so; the next search, if the device still lives, is
/// right, with nothing on the device that is in doubt.
#[test]
fn faults_are_errors_and_leave_nothing_wrong() {
    let faults = Faults::default();
    let Some(gpu) = gpu(GpuOptions {
        faults: faults.clone(),
        ..GpuOptions::default()
    }) else {
        return;
    };
    let scan = GpuScan::new(&gpu, cpu(), options(64 << 20)).unwrap();
    let vectors = Dice(19).numbers(2 * DIM);
    for (seed, fault) in [(18, Fault::OutOfMemory), (20, Fault::Unfinished)] {
        let blocks = blocks(3, seed);
        let before = scan.stats().pages.resident_bytes;
        faults.arm(fault, 1);
        let failed = search(&scan, &blocks, Record::F16, queries(&vectors));
        assert!(
            matches!(failed, Err(Error::Device { .. })),
            "{fault:?}: {failed:?}"
        );
        assert_eq!(faults.armed(fault), 0);
        assert_eq!(scan.stats().pages.resident_bytes, before, "{fault:?}");
        assert_cpus(&scan, &blocks, &vectors);
        assert_cpus(&scan, &blocks, &vectors);
    }
    let blocks = blocks(3, 18);
    faults.arm(Fault::Lost, 1);
    for _ in 0..2 {
        let failed = search(&scan, &blocks, Record::F16, queries(&vectors));
        assert!(matches!(failed, Err(Error::Device { .. })), "{failed:?}");
    }
    assert!(gpu.is_lost());
}

/// A variant that gives wrong answers is passed over; when all do, there is no search on the
/// device.
#[test]
fn wrong_answers_are_vetoed() {
    let faults = Faults::default();
    let Some(gpu) = gpu(GpuOptions {
        faults: faults.clone(),
        ..GpuOptions::default()
    }) else {
        return;
    };
    let best = GpuScan::new(&gpu, cpu(), options(64 << 20))
        .unwrap()
        .variant();
    faults.arm(Fault::WrongAnswer, 1);
    let lesser = GpuScan::new(&gpu, cpu(), options(64 << 20));
    match lesser {
        Ok(scan) => println!("{best} vetoed: {}", scan.variant()),
        // There were plain kernels only.
        Err(error) => assert!(matches!(error, Error::SelfTest(_)), "{error:?}"),
    }
    assert_eq!(faults.armed(Fault::WrongAnswer), 0);
    faults.arm(Fault::WrongAnswer, 10);
    let none = GpuScan::new(&gpu, cpu(), options(64 << 20));
    assert!(matches!(none, Err(Error::SelfTest(_))), "{none:?}");
}

/// Memory beside the copies of rows is counted and stays what a search needs; ranks that come back
/// whole take no room for lists.
#[test]
fn work_space_of_searches_is_counted_and_does_not_grow() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let memory = || gpu.memory();
    let vectors = Dice(33).numbers(2 * DIM);
    let mut taken = Vec::new();
    for ranks_on_cpu_max in [4_096, 0] {
        let options = GpuScanOptions {
            ranks_on_cpu_max,
            ..options(64 << 20)
        };
        let scan = GpuScan::new(&gpu, cpu(), options).unwrap();
        assert_eq!(memory().search, 0, "the self-test's is gone");
        let blocks = blocks(1, 34);
        assert_cpus(&scan, &blocks, &vectors);
        let first = memory();
        assert_eq!(first.rows, scan.stats().pages.reserved_bytes);
        for _ in 0..5 {
            assert_cpus(&scan, &blocks, &vectors);
        }
        assert_eq!(memory().search, first.search);
        taken.push(first.search);
        drop(scan);
        assert_eq!((memory().search, memory().rows), (0, 0));
    }
    // Queries and ranks, 64 KiB at least each; and the lists.
    assert_eq!(taken[0], 128 << 10);
    assert!(taken[1] >= taken[0] + (64 << 10), "{taken:?}");
}
