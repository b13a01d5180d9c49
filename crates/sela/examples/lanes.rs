//! How long an interactive request takes, idle and beside a bulk load; what merging costs.
//!
//! `cargo run --release --example lanes -- MODEL_DIR`
#![allow(clippy::print_stdout)] // It is there to print.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sela::{DeviceChoice, EmbedOptions, Engine, Lane, Options};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let model = std::env::args()
        .nth(1)
        .ok_or("usage: lanes MODEL_DIR [DEVICE]")?;
    let mut options = Options::new(std::env::temp_dir().join("sela-lanes"));
    options.model = model;
    if let Some(device) = std::env::args().nth(2) {
        options.device = device.parse::<DeviceChoice>()?;
    }
    let engine = Engine::open(options)?;
    engine.warm_up()?;
    let idle = queries(&engine, 150)?;
    println!("idle: {}", told(&idle));
    beside_bulk(&engine, &idle)?;
    bulk_alone(&engine)?;
    merged(&engine)?;
    for lane in engine.stats().lanes {
        println!("{}", serde_json::to_string(&lane)?);
    }
    Ok(())
}

fn verses() -> Result<Vec<String>, Failure> {
    let verses = sela::demo::verses()?;
    Ok(verses.into_iter().map(|verse| verse.text).collect())
}

/// Times of single queries, a short pause between them.
fn queries(engine: &Engine, count: usize) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for n in 0..count {
        let text = format!("Who keeps the {n} sheep in the hills?");
        let began = Instant::now();
        engine
            .submit(vec![text], &EmbedOptions::default())?
            .wait()?;
        times.push(began.elapsed());
        // Others think between two queries.
        thread::sleep(Duration::from_millis(7 + n as u64 % 11));
    }
    times.sort_unstable();
    Ok(times)
}

fn told(times: &[Duration]) -> String {
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    format!("p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99))
}

fn beside_bulk(engine: &Engine, idle: &[Duration]) -> Result<(), Failure> {
    let (stop, texts) = (AtomicBool::new(false), AtomicU64::new(0));
    let bulk = EmbedOptions {
        lane: Lane::Bulk,
        ..EmbedOptions::default()
    };
    let verses = verses()?;
    let (took, loaded) = thread::scope(|scope| {
        for part in verses.chunks(verses.len() / 2).take(2) {
            let (stop, texts, bulk) = (&stop, &texts, &bulk);
            scope.spawn(move || {
                for some in part.chunks(32).cycle() {
                    let done = engine
                        .submit(some.to_vec(), bulk)
                        .and_then(sela::Ticket::wait);
                    if stop.load(Ordering::Relaxed) || done.is_err() {
                        break;
                    }
                    texts.fetch_add(some.len() as u64, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let before = texts.load(Ordering::Relaxed);
        let loaded = queries(engine, 150);
        let done = texts.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        (done as f64 / began.elapsed().as_secs_f64(), loaded)
    });
    let loaded = loaded?;
    let (a, b) = (idle[idle.len() * 99 / 100], loaded[loaded.len() * 99 / 100]);
    println!("beside bulk: {} ({took:.0} bulk texts/s)", told(&loaded));
    println!("p99: {:.2} times idle", b.as_secs_f64() / a.as_secs_f64());
    Ok(())
}

fn bulk_alone(engine: &Engine) -> Result<(), Failure> {
    let verses = &verses()?[..200];
    thread::sleep(Duration::from_millis(1100));
    let bulk = EmbedOptions {
        lane: Lane::Bulk,
        ..EmbedOptions::default()
    };
    let mut ratios = Vec::new();
    for _ in 0..4 {
        let began = Instant::now();
        let direct = engine.embed_batch(verses)?;
        let direct_took = began.elapsed();
        let began = Instant::now();
        let queued = engine.submit(verses.to_vec(), &bulk)?.wait()?;
        let queued_took = began.elapsed();
        assert!(direct.vectors == queued.vectors, "the same bits");
        ratios.push(queued_took.as_secs_f64() / direct_took.as_secs_f64());
        println!("bulk alone: direct {direct_took:?}, queued {queued_took:?}");
    }
    ratios.sort_by(f64::total_cmp);
    println!("bulk alone: {:.3} times the direct call", ratios[1]);
    Ok(())
}

/// Short requests of 64 callers against one call with all of them.
fn merged(engine: &Engine) -> Result<(), Failure> {
    const CALLERS: usize = 64;
    const EACH: usize = 10;
    let verses = verses()?;
    let text = |n: usize| verses[n].chars().take(40).collect::<String>();
    let all: Vec<String> = (0..CALLERS * EACH).map(text).collect();
    let began = Instant::now();
    for some in all.chunks(CALLERS) {
        engine.embed_batch(some)?;
    }
    let direct = began.elapsed();
    let barrier = Barrier::new(CALLERS + 1);
    let began = thread::scope(|scope| {
        for part in all.chunks(EACH) {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for text in part {
                    let options = EmbedOptions::default();
                    let ticket = engine.submit(vec![text.clone()], &options);
                    assert!(ticket.and_then(sela::Ticket::wait).is_ok());
                }
            });
        }
        barrier.wait();
        Instant::now()
    });
    let queued = began.elapsed();
    let each = (queued.as_secs_f64() - direct.as_secs_f64()) * 1e6 / all.len() as f64;
    println!(
        "{CALLERS} callers: {queued:?}, in batches of {CALLERS}: {direct:?}, {each:.1} us more each"
    );
    Ok(())
}
