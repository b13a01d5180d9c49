//! `sela doctor`: what the machine has, what was chosen, and why.

mod gpu;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Instant;

use sela::{Arithmetic, Engine, Inventory, Isa};
use serde_json::{Value, json};

use self::gpu::{InUse, gpu_json, gpu_rows, probe_json, probe_rows};
use super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Format;
use crate::table;

pub(super) fn run(app: &App, format: Format) -> Result<Outcome> {
    let machine = Inventory::probe();
    let engine = app.engine()?;
    let mut tests = self_tests(&machine);
    let gpu = gpu::in_use(&engine, &machine.gpus, &mut tests);
    // Told as well when there is no model yet, and nothing is fetched for it.
    let chosen = chosen(&engine, gpu.as_ref().err());
    let passed = tests.iter().all(|t| !matches!(t.ended, Ended::Fail(_)));
    let usable = chosen.as_ref().map_or_else(|nothing| nothing.yet, |_| true);
    let outcome = if passed && usable {
        Outcome::Done
    } else {
        Outcome::Nothing
    };
    let printed = match format.json {
        true => print_json(&report_json(app, &machine, &gpu, &chosen, &tests)),
        false => print(&report(app, &machine, &gpu, &chosen, &tests)),
    };
    if !format.json
        && let Err(Nothing {
            hint: Some(hint), ..
        }) = &chosen
    {
        app.note(&format!("hint: {hint}"));
    }
    outcome.printed(printed)
}

fn report(app: &App, machine: &Inventory, gpu: &InUse, chosen: &Chosen, tests: &[Test]) -> String {
    let mut text = String::from("This machine\n");
    text += &indented(&machine_rows(machine));
    for facts in &machine.gpus {
        text += &format!("\nGPU {}: {}\n", facts.index, facts.name);
        text += &indented(&gpu_rows(facts));
    }
    text += "\nChosen\n";
    match chosen {
        Ok(chosen) => text += &indented(&chosen_rows(chosen)),
        Err(Nothing {
            yet: true, error, ..
        }) => text += &format!("  nothing yet: {error}\n"),
        Err(Nothing { error, .. }) => text += &format!("  nothing: {error}\n"),
    }
    if let Ok(Some(probe)) = gpu {
        text += "\nThe GPU as the router of searches sees it\n";
        text += &indented(&probe_rows(probe));
    }
    text += "\nSelf-tests against the reference\n";
    text += &indented(&tests.iter().map(Test::row).collect::<Vec<_>>());
    text += "\nPlaces\n";
    let data = data(app);
    let places = [("home", app.home()), ("data", &data)];
    text += &indented(&places.map(|(what, p)| vec![what.to_owned(), p.display().to_string()]));
    text
}

fn report_json(
    app: &App,
    machine: &Inventory,
    gpu: &InUse,
    chosen: &Chosen,
    tests: &[Test],
) -> Value {
    let probe = gpu.as_ref().ok().and_then(Option::as_ref);
    json!({
        "sela": env!("CARGO_PKG_VERSION"),
        "machine": machine_json(machine),
        "gpus": machine.gpus.iter().map(gpu_json).collect::<Vec<_>>(),
        "search_probe": probe.map(probe_json),
        "chosen": match chosen {
            Ok(chosen) => chosen_json(chosen),
            Err(nothing) => json!({"error": nothing.error}),
        },
        "self_tests": tests.iter().map(Test::json).collect::<Vec<_>>(),
        "home": app.home(), "data": data(app),
    })
}

/// What the engine chose, or why it chose nothing.
type Chosen = Result<sela::Capabilities, Nothing>;

/// Where collections live, engine or none.
fn data(app: &App) -> PathBuf {
    let given = app.global.data.clone();
    given.unwrap_or_else(|| app.home().join("data"))
}

/// Why no encoder was chosen.
struct Nothing {
    /// Whether only the model has not been fetched yet, which is no fault.
    yet: bool,
    error: String,
    hint: Option<String>,
}

fn chosen(engine: &Engine, no_device: Option<&sela::Error>) -> Chosen {
    // A device that was asked for and is not there is the first thing to tell.
    let absent = no_device.map(|error| (error.to_string(), error.hint(), false));
    let opened = match absent {
        Some(absent) => Err(absent),
        None => engine.capabilities().map_err(|error| {
            let yet = matches!(error, sela::Error::ModelMissing { .. });
            let (error, hint) = Failure::Sela(error).lines();
            (error, hint, yet)
        }),
    };
    opened.map_err(|(error, hint, yet)| Nothing { yet, error, hint })
}

/// How a self-test ended.
enum Ended {
    Pass,
    /// With what was wrong.
    Fail(String),
    /// With why it was not run.
    Skipped(String),
}

/// Kernels held against the reference.
struct Test {
    what: String,
    millis: Option<f64>,
    ended: Ended,
}

impl Test {
    fn run<E: std::fmt::Display>(what: String, test: impl FnOnce() -> Result<(), E>) -> Self {
        let began = Instant::now();
        let ended = match test() {
            Ok(()) => Ended::Pass,
            Err(veto) => Ended::Fail(veto.to_string()),
        };
        Self {
            what,
            millis: Some(began.elapsed().as_secs_f64() * 1e3),
            ended,
        }
    }

    fn skipped(what: String, why: impl Into<String>) -> Self {
        Self {
            what,
            millis: None,
            ended: Ended::Skipped(why.into()),
        }
    }

    fn row(&self) -> Vec<String> {
        let millis = self.millis.map(|ms| format!("{ms:.1} ms"));
        let ended = match &self.ended {
            Ended::Pass => "pass".to_owned(),
            Ended::Fail(veto) => format!("FAIL: {veto}"),
            Ended::Skipped(why) => format!("skipped: {why}"),
        };
        vec![self.what.clone(), millis.unwrap_or_default(), ended]
    }

    fn json(&self) -> Value {
        let (outcome, why) = match &self.ended {
            Ended::Pass => ("pass", None),
            Ended::Fail(veto) => ("fail", Some(veto)),
            Ended::Skipped(why) => ("skipped", Some(why)),
        };
        json!({"what": self.what, "ms": self.millis, "outcome": outcome, "why": why})
    }
}

const LACKS: &str = "this CPU lacks it";

/// A test of everything that a CPU of this architecture may have, and a word on what this one has
/// not.
fn self_tests(machine: &Inventory) -> Vec<Test> {
    let mut tests = Vec::new();
    for &isa in sela::validate::instruction_sets() {
        if !machine.cpu.isas.contains(&isa) {
            tests.push(Test::skipped(format!("{isa} kernels"), LACKS));
            continue;
        }
        for arithmetic in [
            Arithmetic::F32,
            Arithmetic::Bf16x3,
            Arithmetic::Bf16,
            Arithmetic::Int16,
            Arithmetic::Int8,
        ] {
            tests.push(Test::run(
                format!("{arithmetic} products with {isa} kernels"),
                || sela::self_test(isa, arithmetic),
            ));
        }
        tests.push(Test::run(format!("search with {isa} kernels"), || {
            sela::scan_self_test(isa)
        }));
    }
    let cpu = &machine.cpu;
    tests.extend(skipped_units(sela::validate::bf16_units(), cpu.bf16));
    for unit in sela::validate::int8_units() {
        let first = cpu.int8.iter().find(|here| here.isa() == unit.isa());
        let why = match first {
            _ if !cpu.int8.contains(unit) => LACKS.to_owned(),
            Some(better) if better != unit => format!("{better} is used instead"),
            _ => continue,
        };
        tests.push(Test::skipped(format!("{unit} unit"), why));
    }
    tests
}

/// The units besides the one in use, which was tested with the instruction set that feeds it: those
/// before it are missing, those after it are not asked for.
fn skipped_units<U: Copy + PartialEq + Display>(all: &[U], used: Option<U>) -> Vec<Test> {
    let mut better = None;
    let mut tests = Vec::new();
    for &unit in all {
        if used == Some(unit) {
            better = Some(unit);
            continue;
        }
        let why = better.map_or(LACKS.to_owned(), |better| {
            format!("{better} is used instead")
        });
        tests.push(Test::skipped(format!("{unit} unit"), why));
    }
    tests
}

fn names(isas: &[Isa]) -> Vec<&'static str> {
    isas.iter().map(|isa| isa.name()).collect()
}

fn machine_rows(machine: &Inventory) -> Vec<Vec<String>> {
    let cpu = &machine.cpu;
    let unknown = || "unknown".to_owned();
    [
        ("cpu", cpu.name.clone().unwrap_or_else(unknown)),
        ("architecture", cpu.arch.to_owned()),
        ("threads", cpu.threads.to_string()),
        (
            "memory",
            cpu.memory_bytes.map_or_else(unknown, table::bytes),
        ),
        ("instruction sets", names(&cpu.isas).join(", ")),
        (
            "bf16 unit",
            cpu.bf16
                .map_or_else(|| "none".to_owned(), |unit| unit.to_string()),
        ),
        (
            "int8 unit",
            cpu.int8
                .first()
                .map_or_else(|| "none".to_owned(), ToString::to_string),
        ),
        ("int16 units", int16_units(machine)),
    ]
    .map(|(what, value)| vec![what.to_owned(), value])
    .into_iter()
    .chain(no_gpu(machine))
    .collect()
}

/// The int16 units that outpace f32.
fn int16_units(machine: &Inventory) -> String {
    let names: Vec<_> = machine.cpu.int16.iter().map(|unit| unit.name()).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// A line for a machine without GPUs; the others are told one by one.
fn no_gpu(machine: &Inventory) -> Option<Vec<String>> {
    let why = match cfg!(feature = "gpu") {
        true => "no GPU, or no driver for one",
        false => "this build has no GPU kernels",
    };
    let none = machine.gpus.is_empty();
    none.then(|| vec!["gpu".to_owned(), why.to_owned()])
}

fn machine_json(machine: &Inventory) -> Value {
    let cpu = &machine.cpu;
    json!({
        "cpu": cpu.name, "architecture": cpu.arch, "threads": cpu.threads,
        "memory_bytes": cpu.memory_bytes, "instruction_sets": names(&cpu.isas),
        "bf16_unit": cpu.bf16.map(|unit| unit.to_string()),
        "bf16_outpaces_f32": cpu.bf16_outpaces_f32,
        "int8_unit": cpu.int8.first().map(ToString::to_string),
        "int16_units": cpu.int16.iter().map(|unit| unit.name()).collect::<Vec<_>>(),
    })
}

fn chosen_rows(chosen: &sela::Capabilities) -> Vec<Vec<String>> {
    let report = &chosen.report;
    let budget = chosen.searches.pages.budget;
    let mut rows = vec![
        vec!["model".to_owned(), chosen.model.clone()],
        vec![
            "vectors".to_owned(),
            format!(
                "{} numbers, from at most {} tokens",
                chosen.dim, chosen.tokens_max
            ),
        ],
        vec![
            "runs on".to_owned(),
            match report.tier {
                sela::Tier::Cpu => format!("cpu, {} threads", report.threads),
                tier => {
                    let name = report.device_name.as_deref().unwrap_or_default();
                    format!("{tier}: {} {name}", report.device)
                }
            },
        ],
        vec![
            "arithmetic".to_owned(),
            match &report.variant {
                Some(variant) => format!("{} with {variant} kernels", report.arithmetic),
                None => format!("{} with {} kernels", report.arithmetic, report.isa),
            },
        ],
        vec![
            "searches".to_owned(),
            match &chosen.searches.device {
                Some(gpu) => format!("by {gpu}, up to {} kept there", table::bytes(budget)),
                None => "by the cpu".to_owned(),
            },
        ],
    ];
    rows.extend(known_right(chosen));
    rows.extend(chosen.gpu_memory.map(|memory| {
        let of = |bytes| table::bytes(bytes);
        let told = format!(
            "{} taken: weights {}, work space {}, rows {}, searches {}, transfers {}",
            of(memory.total),
            of(memory.weights),
            of(memory.work),
            of(memory.rows),
            of(memory.search),
            of(memory.transfer)
        );
        vec!["gpu memory".to_owned(), told]
    }));
    rows.extend(
        report
            .reasons
            .iter()
            .map(|why| vec!["because".to_owned(), why.clone()]),
    );
    rows
}

/// How it is known that the GPU's kernels in use are right.
fn known_right(chosen: &sela::Capabilities) -> Option<Vec<String>> {
    let search = chosen.searches.self_test.as_deref();
    let encoder = match chosen.report.tier {
        sela::Tier::Cpu => None,
        _ => chosen.report.self_tests.last().map(sela::SelfTest::outcome),
    };
    let parts = [("encoder", encoder), ("search", search)];
    let known = parts
        .into_iter()
        .filter_map(|(what, outcome)| Some(format!("{what} {}", outcome?)));
    let known: Vec<String> = known.collect();
    (!known.is_empty()).then(|| vec!["self-tests".to_owned(), known.join(", ")])
}

fn chosen_json(chosen: &sela::Capabilities) -> Value {
    let report = &chosen.report;
    json!({
        "model": chosen.model, "space": chosen.space, "dim": chosen.dim,
        "tokens_max": chosen.tokens_max, "tier": report.tier.to_string(),
        "device": report.device, "device_name": report.device_name, "variant": report.variant, "searches": chosen.searches,
        "threads": report.threads, "arithmetic": report.arithmetic.to_string(),
        "isa": report.isa.name(), "reasons": report.reasons,
        "gpu_memory": chosen.gpu_memory,
        "self_test": report.self_tests.last().map(sela::SelfTest::outcome),
    })
}

fn indented(rows: &[Vec<String>]) -> String {
    table::columns(rows)
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect()
}
