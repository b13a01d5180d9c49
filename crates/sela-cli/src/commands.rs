//! One module a command.

mod bench;
mod collection;
mod demo;
mod doctor;
mod embed;
mod index;
mod init;
mod key;
mod model;
mod search;
mod serve;
mod validate;

use std::io::{self, Write};

use serde::Serialize;

use crate::app::{App, Failure, Outcome, Result};
use crate::args::Command;

/// Runs a command.
pub(crate) fn run(app: &App, command: Command) -> Result<Outcome> {
    if app.global.device.len() > 1 && !matches!(command, Command::Bench(_)) {
        return Err(Failure::say(format!(
            "there are {} devices, and only `bench` takes more than one",
            app.global.device.len()
        )));
    }
    match command {
        Command::Embed(args) => embed::run(app, &args),
        Command::Index(args) => index::run(app, &args),
        Command::Search(args) => search::run(app, args),
        Command::Collection(args) => collection::run(app, args),
        Command::Model(args) => model::run(app, args),
        Command::Serve(args) => serve::run(app, &args),
        Command::Key(args) => key::run(app, args),
        Command::Init(args) => init::run(app, &args),
        Command::Doctor(format) => doctor::run(app, format),
        Command::Demo(format) => demo::run(app, format),
        Command::Bench(args) => bench::run(app, args),
        Command::Validate(args) => validate::run(app, &args),
    }
}

/// Prints an answer.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Failure::stdout)
}

/// Prints an answer as one line of JSON.
fn print_json(answer: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(answer).map_err(|e| Failure::say(e.to_string()))?;
    print(&(text + "\n"))
}
