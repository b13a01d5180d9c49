//! The command `sela`.
#![forbid(unsafe_code)]

mod app;
mod args;
mod commands;
mod npy;
mod readers;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use app::{App, Failure, Outcome};
use args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.global.verbose);
    let ended = App::new(cli.global).and_then(|app| commands::run(&app, cli.command));
    match ended {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(Failure::BrokenPipe) => ExitCode::from(Outcome::Done as u8),
        Err(failure) => {
            report(&failure);
            ExitCode::from(2)
        }
    }
}

/// Tells an error: one line, and one with advice if there is some.
fn report(failure: &Failure) {
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (error, hint, plain) = match colour {
        true => ("\x1b[1;31merror\x1b[0m", "\x1b[1;36mhint\x1b[0m", ""),
        false => ("error", "hint", ""),
    };
    let (text, advice) = failure.lines();
    let mut stderr = io::stderr().lock();
    // Nobody to tell is no reason to fail differently.
    let _ = writeln!(stderr, "{error}: {text}{plain}");
    if let Some(advice) = advice {
        let _ = writeln!(stderr, "{hint}: {advice}");
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    };
    let ours = [
        "sela",
        "sela_encoder",
        "sela_store",
        "sela_index",
        "sela_compute",
    ];
    let filter: String = ours.map(|name| format!("{name}={level}")).join(",");
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
}
