//! The command `sela`.
#![forbid(unsafe_code)]

mod app;
mod args;
mod commands;
mod log;
mod npy;
mod part;
mod readers;
mod size;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use app::{App, Failure, Outcome};
use args::{Command, LogFormat};

fn main() -> ExitCode {
    let cli = args::parse();
    let serves = matches!(cli.command, Command::Serve(_));
    // A server's settings say how it writes its log.
    let logs = match serves {
        true => Ok(()),
        false => log::to_stderr(&cli.global, LogFormat::Text),
    };
    let opened = logs.and_then(|()| App::new(cli.global, serves));
    let ended = opened.and_then(|app| {
        let ended = commands::run(&app, cli.command);
        let failure = ended.as_ref().err();
        let told = app.write_stats(failure.filter(|f| !matches!(f, Failure::BrokenPipe)));
        // What failed first is what is told.
        ended.and_then(|outcome| told.map(|()| outcome))
    });
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
