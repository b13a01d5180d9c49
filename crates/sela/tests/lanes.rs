//! Requests through the queue: the bits of a direct call, whoever asks beside, whatever fails.

#[path = "../../sela-encoder/tests/common/mod.rs"]
mod small;

use std::thread;
use std::time::{Duration, Instant};

use sela::{DeviceChoice, Dtype, EmbedOptions, Embeddings, Engine, Error, Lane, Options};
use small::Folder;

fn options(home: &tempfile::TempDir, model: &Folder) -> Options {
    let mut options = Options::new(home.path());
    options.model = model.path("").display().to_string();
    options.dtype = Dtype::F32;
    options.device = DeviceChoice::Cpu;
    options
}

fn text(n: usize) -> String {
    let words = small::WORDS;
    let words = (0..1 + n % 13).map(|i| words[(n * 5 + i * i + i) % words.len()]);
    words.collect::<Vec<_>>().join(" ")
}

fn on(lane: Lane) -> EmbedOptions {
    EmbedOptions {
        lane,
        ..EmbedOptions::default()
    }
}

fn bits(found: &Embeddings) -> Vec<u32> {
    found.vectors.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn texts_have_the_same_bits_through_the_queue() {
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let engine = Engine::open(options(&home, &model)).unwrap();
    let texts: Vec<String> = (0..400).map(text).collect();
    let expected = engine.embed_batch(&texts).unwrap();
    let all = engine.submit(texts.clone(), &on(Lane::Bulk)).unwrap();
    thread::scope(|scope| {
        for caller in 0..8 {
            let (engine, texts, expected) = (&engine, &texts, &expected);
            scope.spawn(move || {
                for n in (caller..400).step_by(8) {
                    let lane = Lane::ALL[n % 2];
                    let ticket = engine.submit(vec![texts[n].clone()], &on(lane)).unwrap();
                    let found = ticket.wait().unwrap();
                    assert!(found.vectors == expected.vector(n), "text {n}");
                    assert_eq!(found.info, [expected.info[n]]);
                }
            });
        }
    });
    let all = all.wait().unwrap();
    assert!(bits(&all) == bits(&expected));
    assert_eq!((all.dim, &all.info), (expected.dim, &expected.info));
    let stats = engine.stats();
    let [interactive, bulk] = &stats.lanes[..] else {
        panic!("{:?}", stats.lanes)
    };
    assert_eq!((interactive.requests, interactive.texts), (200, 200));
    assert_eq!((bulk.requests, bulk.texts), (201, 600));
    assert_eq!(interactive.took.count, 200);
    let written = serde_json::to_value(&stats).unwrap();
    assert_eq!(written["lanes"][1]["lane"], "bulk");
    assert!(written["lanes"][0]["took"]["p99_seconds"].is_f64());
}

#[test]
fn what_is_wrong_with_a_request_is_told_at_once() {
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let mut options = options(&home, &model);
    options.queue.texts_max = 10;
    let engine = Engine::open(options).unwrap();
    let ask = |options: &EmbedOptions, count| {
        engine
            .submit((0..count).map(text).collect(), options)
            .map(drop)
    };
    let unknown = EmbedOptions {
        prompt: Some("none".into()),
        ..EmbedOptions::default()
    };
    let error = ask(&unknown, 1).unwrap_err();
    assert!(error.to_string().contains("`none`"), "{error}");
    let error = ask(&on(Lane::Bulk), 11).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request has 11 texts, the limit is 10"
    );
    let late = EmbedOptions {
        deadline: Some(Instant::now()),
        ..EmbedOptions::default()
    };
    assert!(matches!(ask(&late, 1), Err(Error::Deadline { .. })));
    let far = EmbedOptions {
        deadline: Some(Instant::now() + Duration::from_secs(3600)),
        ..EmbedOptions::default()
    };
    assert!(engine.submit(vec![text(1)], &far).unwrap().wait().is_ok());
}

#[test]
fn tickets_end_when_the_engine_does() {
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let engine = Engine::open(options(&home, &model)).unwrap();
    let ask = |n| {
        let texts = (n..n + 300).map(text).collect();
        engine.submit(texts, &on(Lane::Bulk)).unwrap()
    };
    let tickets: Vec<_> = (0..30).map(ask).collect();
    drop(engine);
    // Done before the end, or told of it; none waits for ever.
    for ticket in tickets {
        match ticket.wait() {
            Ok(found) => assert_eq!(found.info.len(), 300),
            Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
        }
    }
}

#[test]
#[cfg(feature = "gpu")]
#[allow(clippy::print_stdout)] // It says what this machine lacks.
fn a_gpu_lost_midway_is_replaced_by_the_cpu() {
    use sela_compute::gpu::{Fault, Faults, Gpu, GpuOptions};
    let Some(number) = sela::Inventory::probe().gpus.first().map(|gpu| gpu.index) else {
        println!("skipped: no GPU");
        return;
    };
    let (home, model) = (tempfile::tempdir().unwrap(), Folder::new());
    let on_cpu = Engine::open(options(&home, &model)).unwrap();
    let texts: Vec<String> = (0..40).map(text).collect();
    let expected = on_cpu.embed_batch(&texts).unwrap();

    let mut options = options(&home, &model);
    let faults = Faults::default();
    options.device = DeviceChoice::Number(number);
    options.dtype = Dtype::Bf16;
    let opened = GpuOptions {
        faults: faults.clone(),
        ..GpuOptions::default()
    };
    options.gpu = Some(Gpu::open(number, opened).unwrap());
    let engine = Engine::open(options).unwrap();
    let direct = engine.embed_batch(&texts).unwrap();
    let queued = engine.submit(texts.clone(), &on(Lane::Bulk)).unwrap();
    assert!(bits(&queued.wait().unwrap()) == bits(&direct));
    assert_eq!(engine.stats().texts_on_gpu, 80);

    faults.arm(Fault::Lost, 1);
    for lane in Lane::ALL {
        let found = engine
            .submit(texts.clone(), &on(lane))
            .unwrap()
            .wait()
            .unwrap();
        for (n, info) in found.info.iter().enumerate() {
            let pairs = found.vector(n).iter().zip(expected.vector(n));
            let cosine: f32 = pairs.map(|(a, b)| a * b).sum();
            assert!(cosine >= 0.999, "text {n}: {cosine}");
            assert!(info.degraded);
        }
    }
    let stats = engine.stats();
    assert!(stats.fallbacks >= 1 && stats.last_fallback.is_some());
    assert_eq!((stats.texts_on_gpu, stats.texts_on_cpu), (80, 80));
}
