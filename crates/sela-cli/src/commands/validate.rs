//! `sela validate`: checks a user can run.

use sela::validate::{Check, Outcome as Ended};

use super::{print, print_json};
use crate::app::{App, Outcome, Result};
use crate::args::Validate;

pub(super) fn run(app: &App, args: &Validate) -> Result<Outcome> {
    let engine = app.engine_with_model()?;
    let mut failed = None;
    let checks = sela::validate::run(&engine, &mut |check| {
        let printed = if args.format.json {
            print_json(check)
        } else {
            print(&line(check))
        };
        if let Err(failure) = printed {
            failed.get_or_insert(failure);
        }
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let failures = checks.iter().filter(|c| c.is_failure()).count();
    let skipped = checks
        .iter()
        .filter(|c| matches!(c.outcome, Ended::Skipped { .. }))
        .count();
    let passed = checks.len() - failures - skipped;
    app.note(&format!(
        "{passed} passed, {failures} failed, {skipped} skipped"
    ));
    Ok(if failures == 0 {
        Outcome::Done
    } else {
        Outcome::Nothing
    })
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
