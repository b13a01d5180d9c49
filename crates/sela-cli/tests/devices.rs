//! `--device` and `--gpu-cache`: what they refuse, what they choose, and that the choice shows.
#![allow(clippy::print_stdout)] // They say what this machine lacks.

mod common;

use common::{Sela, program};
use serde_json::Value;

/// A home with a collection `rows`, large enough to be worth a GPU's while.
fn with_rows() -> Sela {
    let mut sela = Sela::new();
    sela.on_cpu = false;
    sela.write_vectors("rows", 1_000, 64);
    sela.ok(&[
        "--quiet", "index", "-c", "rows", "-i", "rows.npy", "--ids", "rows.ids",
    ]);
    sela
}

/// What the doctor knows of this machine's GPUs.
fn gpus(sela: &Sela) -> Vec<Value> {
    let report: Value = serde_json::from_str(&sela.ok(&["doctor", "--json"])).unwrap();
    report["gpus"].as_array().unwrap().clone()
}

fn is_software(gpu: &Value) -> bool {
    gpu["kind"] == "software"
}

const SEARCH: [&str; 5] = ["search", "-c", "rows", "--vector", "rows.npy"];

#[test]
fn nonsense_is_refused_by_name_in_flags_and_in_the_environment() {
    let sela = with_rows();
    for (flag, variable, value, said) in [
        ("--device", "SELA_DEVICE", "tpu", "`tpu` is no device"),
        ("--device", "SELA_DEVICE", "gpu:x", "`gpu:x` is no device"),
        (
            "--gpu-cache",
            "SELA_GPU_CACHE",
            "2goats",
            "`2goats` is no size",
        ),
    ] {
        let stderr = sela.fails(2, &[&[flag, value], &SEARCH[..]].concat());
        assert!(stderr.contains(said), "{stderr}");
        let output = sela.command(&SEARCH).env(variable, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    let stderr = sela.fails(2, &[&["--device", "cpu,cpu"], &SEARCH[..]].concat());
    assert!(
        stderr.contains("only `bench` takes more than one"),
        "{stderr}"
    );
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_where_one_is_needed() {
    let sela = with_rows();
    let there = gpus(&sela);
    let absent = |device: &str| {
        let arguments = [&["--quiet", "--device", device], &SEARCH[..]].concat();
        let stderr = sela.fails(2, &arguments);
        assert!(
            stderr.starts_with(&format!("error: there is no device `{device}`: ")),
            "{stderr}"
        );
        assert!(stderr.contains("\nhint: "), "{stderr}");
        for gpu in &there {
            assert!(
                stderr.contains(gpu["device_name"].as_str().unwrap()),
                "{stderr}"
            );
        }
        if cfg!(not(feature = "gpu")) {
            assert!(stderr.contains("this build has no GPU kernels"), "{stderr}");
        }
    };
    absent("gpu:99");
    match there.iter().all(is_software) {
        true => absent("gpu"),
        false => println!("skipped: this machine has a GPU, so that asking for one is no error"),
    }
    // Nothing is embedded or searched here.
    sela.ok(&["--device", "gpu:99", "collection", "list"]);
    // The doctor tells it too, and still what there is.
    let output = sela.run(&["--device", "gpu:99", "doctor"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout.contains("nothing: there is no device `gpu:99`"),
        "{stdout}"
    );
    assert!(stdout.contains("  instruction sets"), "{stdout}");
}

#[test]
fn auto_takes_no_software_adapter_and_says_where_it_searched() {
    let sela = with_rows();
    if !gpus(&sela).iter().all(is_software) {
        println!("skipped: this machine has a GPU");
        return;
    }
    let output = sela.run(&[&SEARCH[..], &["--explain"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("searched on cpu"), "{stderr}");
    let told = sela.path("stats.json");
    let told = told.to_str().unwrap();
    sela.ok(&[&["--quiet", "--stats", told], &SEARCH[..]].concat());
    let stats: Value = serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!(stats["queries"], 1);
    assert_eq!(stats["searches"]["on_cpu"], 1);
    assert_eq!(stats["searches"]["on_gpu"], 0);
    assert_eq!(stats["fallbacks"], 0);
    assert!(stats["tier"].is_null(), "no text was embedded: {stats}");
}

#[test]
fn without_a_gpu_of_its_own_a_machine_is_told_so_once() {
    let sela = with_rows();
    if !gpus(&sela).iter().all(is_software) {
        println!("skipped: this machine has a GPU");
        return;
    }
    let told = |arguments: &[&str]| {
        let output = sela.run(&[arguments, &SEARCH[..]].concat());
        assert!(output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        stderr
            .matches("no GPU: everything is done by the CPU")
            .count()
    };
    // A build without kernels never has one: nothing to tell.
    assert_eq!(told(&[]), usize::from(cfg!(feature = "gpu")));
    assert_eq!(told(&["--quiet"]), 0);
    assert_eq!(told(&["--device", "cpu"]), 0, "it was asked for");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let sela = with_rows();
    let mut command = program();
    for name in ["SELA_HOME", "SELA_DATA", "SELA_DEVICE", "SELA_GPU_CACHE"] {
        command.env(name, "");
    }
    // Its default home is not asked for anything here.
    let output = command
        .arg("--home")
        .arg(sela.home.path())
        .args(SEARCH)
        .current_dir(sela.home.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 10);
}

#[test]
fn figures_are_written_when_a_command_fails_too() {
    let sela = with_rows();
    let told = sela.path("stats.json");
    let run = |collection: &str| {
        let arguments = ["--quiet", "--stats", told.to_str().unwrap(), "search", "-c"];
        sela.run(&[&arguments[..], &[collection, "--vector", "rows.npy"]].concat());
        let text = std::fs::read_to_string(&told).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let failed = run("rowz");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("rowz"), "{failed}");
    assert_eq!(failed["queries"], 0);
    let done = run("rows");
    assert_eq!(
        (&done["error"], &done["queries"]),
        (&Value::Null, &1.into())
    );
}

#[test]
fn the_doctor_tells_of_every_gpu_or_once_that_there_is_none() {
    let mut sela = Sela::new();
    sela.on_cpu = false;
    let there = gpus(&sela);
    let text = sela.ok(&["doctor"]);
    for (number, gpu) in there.iter().enumerate() {
        assert_eq!(gpu["device"], format!("gpu:{number}"));
        let name = gpu["device_name"].as_str().unwrap();
        assert!(text.contains(&format!("GPU {number}: {name}\n")), "{text}");
    }
    let none = match cfg!(feature = "gpu") {
        true => "no GPU, or no driver for one",
        false => "this build has no GPU kernels",
    };
    let times = usize::from(there.is_empty());
    assert_eq!(text.matches(none).count(), times, "{text}");
    let Some(gpu) = there.first() else {
        println!("skipped: no GPU to test");
        return;
    };
    let device = gpu["device"].as_str().unwrap();
    let report = sela.ok(&["--device", device, "doctor", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let tests = report["self_tests"].as_array().unwrap();
    let of_gpu: Vec<_> = tests
        .iter()
        .filter(|t| {
            t["what"]
                .as_str()
                .unwrap()
                .ends_with(&format!(" on {device}"))
        })
        .collect();
    assert!(of_gpu.len() >= 2, "{report}");
    assert!(of_gpu.iter().all(|t| t["outcome"] == "pass"), "{report}");
    assert!(
        report["search_probe"]["round_trip_us"].as_f64().unwrap() > 0.0,
        "{report}"
    );
}

#[test]
fn a_gpu_asked_for_by_number_gives_the_cpus_answers_and_shows_that_it_did() {
    let sela = with_rows();
    let there = gpus(&sela);
    let Some(gpu) = there.first() else {
        println!("skipped: no GPU");
        return;
    };
    let device = gpu["device"].as_str().unwrap();
    let search = |device: &str, more: &[&str]| {
        let arguments = [&["--device", device], &SEARCH[..], &["--json"], more].concat();
        sela.ok(&arguments)
    };
    let (by_cpu, by_gpu) = (search("cpu", &[]), search(device, &[]));
    assert_eq!(by_cpu.lines().count(), 10);
    assert_eq!(by_gpu, by_cpu);
    let explained = search(device, &["--explain"]);
    let last: Value = serde_json::from_str(explained.lines().last().unwrap()).unwrap();
    let searches = &last["explained"]["searches"];
    assert_eq!(searches["device"], device);
    assert_eq!(searches["device_name"], gpu["device_name"]);
    // The first search has tested the kernels, for this one too.
    assert_eq!(searches["self_test"], "remembered", "{last}");
    let memory = &last["explained"]["gpu_memory"];
    assert!(memory["rows"].as_u64() > Some(0), "{last}");
    assert!(memory["total"].as_u64() <= memory["peak"].as_u64());
    let counts = ["on_gpu", "gpu_queries", "gpu_left", "on_cpu"].map(|name| &searches[name]);
    assert_eq!(counts, [1, 1, 0, 0], "{last}");

    // By the environment too, and a flag is stronger.
    let told = sela.path("stats.json");
    let run = |arguments: &[&str]| -> Value {
        let mut command = sela.command(&["--quiet", "--stats", told.to_str().unwrap()]);
        command.args(arguments).args(SEARCH);
        command
            .env("SELA_DEVICE", device)
            .env("SELA_GPU_CACHE", "64MiB");
        assert!(command.output().unwrap().status.success());
        serde_json::from_str(&std::fs::read_to_string(&told).unwrap()).unwrap()
    };
    let stats = run(&[]);
    assert_eq!(stats["searches"]["on_gpu"], 1);
    assert_eq!(stats["searches"]["pages"]["budget"], 64 << 20);
    assert_eq!(run(&["--device", "cpu"])["searches"]["on_gpu"], 0);
}

#[test]
fn a_bench_measures_devices_side_by_side() {
    let sela = with_rows();
    sela.write_vectors("queries", 3, 64);
    let bench = |device: &str| -> Value {
        let out = sela.ok(&[
            "--quiet",
            "--device",
            device,
            "bench",
            "--only",
            "search",
            "--vectors",
            "rows.npy",
            "--queries",
            "queries.npy",
            "--json",
        ]);
        serde_json::from_str(&out).unwrap()
    };
    let devices = |report: &Value| -> Vec<String> {
        let results = report["results"].as_array().unwrap();
        results
            .iter()
            .map(|r| r["device"].as_str().unwrap().to_owned())
            .collect()
    };
    let report = bench("cpu");
    assert_eq!(devices(&report), ["cpu", "cpu"]);
    assert_eq!(report["speedups"].as_array().unwrap().len(), 0);
    let targets = report["targets"].as_array().unwrap();
    assert!(
        targets.len() >= 6 && targets.iter().all(|t| t["met"].is_null()),
        "{report}"
    );

    let there = gpus(&sela);
    let Some(gpu) = there.first() else {
        println!("skipped: no GPU");
        return;
    };
    let device = gpu["device"].as_str().unwrap();
    let report = bench(&format!("cpu,{device}"));
    assert_eq!(devices(&report), ["cpu", "cpu", device, device]);
    let used = &report["machine"]["devices"][1];
    assert_eq!(
        (&used["device_name"], &used["driver"]),
        (&gpu["device_name"], &gpu["driver"])
    );
    let speedups = report["speedups"].as_array().unwrap();
    assert_eq!(speedups.len(), 2);
    for speedup in speedups {
        let of = |what: &str| speedup[what].as_f64().unwrap();
        assert!(
            (of("speedup") - of("cpu") / of("gpu")).abs() < 1e-9,
            "{speedup}"
        );
    }
    let measured = |t: &&Value| t["found"].is_f64();
    let targets = report["targets"].as_array().unwrap();
    assert_eq!(targets.iter().filter(measured).count(), 2, "{report}");
}
