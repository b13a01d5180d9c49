//! `sela validate`: checks a user can run.

use sela::validate::{Check, Outcome as Ended};

use super::{print, print_json};
use crate::app::{App, Outcome, Result};
use crate::args::Validate;

pub(super) fn run(app: &App, args: &Validate) -> Result<Outcome> {
    let engine = app.engine_with_model()?;
    let spinner = app.spinner(progress(0));
    let mut printed = Ok(());
    let mut done = 0;
    let checks = sela::validate::run(&engine, &mut |check| {
        // The checks go on without a reader: the exit code is still to come.
        if printed.is_ok() {
            printed = spinner.suspend(|| match args.format.json {
                true => print_json(check),
                false => print(&line(check)),
            });
        }
        done += 1;
        spinner.set_message(progress(done));
    });
    spinner.finish_and_clear();
    let checks = checks?;
    let failures = checks.iter().filter(|c| c.is_failure()).count();
    let skipped = checks
        .iter()
        .filter(|c| matches!(c.outcome, Ended::Skipped { .. }))
        .count();
    let passed = checks.len() - failures - skipped;
    app.note(&format!(
        "{passed} passed, {failures} failed, {skipped} skipped"
    ));
    let outcome = match failures {
        0 => Outcome::Done,
        _ => Outcome::Nothing,
    };
    outcome.printed(printed)
}

/// What the spinner says.
fn progress(done: usize) -> String {
    format!("checking vectors, batches, search and storage; {done} checks done")
}

fn line(check: &Check) -> String {
    let (state, detail) = match &check.outcome {
        Ended::Pass { found } => ("pass", found.clone()),
        Ended::Fail { found } => ("FAIL", found.clone()),
        Ended::Skipped { lacks } => ("skip", format!("this machine lacks {lacks}")),
    };
    format!(
        "{state}  {} ({:.1} s): {detail}\n",
        check.name,
        check.took.as_secs_f64()
    )
}
