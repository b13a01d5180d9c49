//! `sela doctor`: what the machine has, what was chosen, and why.

use std::time::Instant;

use sela::{Arithmetic, Inventory, Isa};
use serde_json::{Value, json};

use super::{print, print_json};
use crate::app::{App, Outcome, Result};
use crate::args::Format;
use crate::table;

pub(super) fn run(app: &App, format: Format) -> Result<Outcome> {
    let machine = Inventory::probe();
    let tests = self_tests(&machine);
    let engine = app.engine()?;
    // Told as well when there is no model yet, and nothing is fetched for it.
    let chosen = engine.capabilities();
    let passed = tests.iter().all(|t| t.veto.is_none());
    if format.json {
        print_json(&json!({
            "sela": env!("CARGO_PKG_VERSION"),
            "machine": machine_json(&machine),
            "chosen": match &chosen { Ok(c) => chosen_json(c), Err(e) => json!({"error": e.to_string()}) },
            "self_tests": tests.iter().map(Test::json).collect::<Vec<_>>(),
            "home": app.home(), "data": engine.options().data,
        }))?;
    } else {
        let mut text = String::from("This machine\n");
        text += &indented(&machine_rows(&machine));
        text += "\nChosen\n";
        match &chosen {
            Ok(chosen) => text += &indented(&chosen_rows(chosen)),
            Err(error) => text += &format!("  nothing yet: {error}\n"),
        }
        text += "\nSelf-tests against the reference\n";
        text += &indented(&tests.iter().map(Test::row).collect::<Vec<_>>());
        text += "\nPlaces\n";
        let places = [("home", app.home()), ("data", &engine.options().data)];
        text += &indented(&places.map(|(what, p)| vec![what.to_owned(), p.display().to_string()]));
        print(&text)?;
        if let Err(error) = &chosen
            && let Some(hint) = error.hint()
        {
            app.note(&format!("hint: {hint}"));
        }
    }
    Ok(if passed {
        Outcome::Done
    } else {
        Outcome::Nothing
    })
}

/// One kernel variant held against the reference.
struct Test {
    what: String,
    millis: f64,
    veto: Option<String>,
}

impl Test {
    fn row(&self) -> Vec<String> {
        let state = self.veto.clone().unwrap_or_else(|| "pass".to_owned());
        vec![self.what.clone(), format!("{:.1} ms", self.millis), state]
    }

    fn json(&self) -> Value {
        json!({"what": self.what, "ms": self.millis, "pass": self.veto.is_none(), "veto": self.veto})
    }
}

fn self_tests(machine: &Inventory) -> Vec<Test> {
    let mut tests = Vec::new();
    for &isa in &machine.cpu.isas {
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16x3, Arithmetic::Bf16] {
            if arithmetic != Arithmetic::F32 && machine.cpu.bf16.is_none() {
                continue;
            }
            let began = Instant::now();
            let veto = sela::self_test(isa, arithmetic)
                .err()
                .map(|e| e.to_string());
            let millis = began.elapsed().as_secs_f64() * 1e3;
            tests.push(Test {
                what: format!("{arithmetic} products with {isa} kernels"),
                millis,
                veto,
            });
        }
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
    ]
    .map(|(what, value)| vec![what.to_owned(), value])
    .into()
}

fn machine_json(machine: &Inventory) -> Value {
    let cpu = &machine.cpu;
    json!({
        "cpu": cpu.name, "architecture": cpu.arch, "threads": cpu.threads,
        "memory_bytes": cpu.memory_bytes, "instruction_sets": names(&cpu.isas),
        "bf16_unit": cpu.bf16.map(|unit| unit.to_string()),
    })
}

fn chosen_rows(chosen: &sela::Capabilities) -> Vec<Vec<String>> {
    let report = &chosen.report;
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
            format!("{}, {} threads", report.tier, report.threads),
        ],
        vec![
            "arithmetic".to_owned(),
            format!("{} with {} kernels", report.arithmetic, report.isa),
        ],
    ];
    rows.extend(
        report
            .reasons
            .iter()
            .map(|why| vec!["because".to_owned(), why.clone()]),
    );
    rows
}

fn chosen_json(chosen: &sela::Capabilities) -> Value {
    let report = &chosen.report;
    json!({
        "model": chosen.model, "space": chosen.space, "dim": chosen.dim,
        "tokens_max": chosen.tokens_max, "tier": report.tier.to_string(),
        "threads": report.threads, "arithmetic": report.arithmetic.to_string(),
        "isa": report.isa.name(), "reasons": report.reasons,
    })
}

fn indented(rows: &[Vec<String>]) -> String {
    table::columns(rows)
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect()
}
