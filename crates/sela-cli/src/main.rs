//! The command `sela`.
#![forbid(unsafe_code)]

mod app;
mod args;
mod commands;
mod npy;
mod part;
mod readers;
mod size;
mod table;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use app::{App, Failure, Outcome};
use args::{Cli, Global};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(&cli.global);
    let ended = App::new(cli.global).and_then(|app| {
        let outcome = commands::run(&app, cli.command)?;
        app.write_stats()?;
        Ok(outcome)
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

fn log_to_stderr(global: &Global) {
    let level = match global.verbose {
        0 if global.quiet => "error",
        0 => "warn",
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
        .event_format(Told)
        .init();
}

/// The log in the voice of the command's errors: `warning: self-test failed what=... veto=...`.
struct Told;

impl<S, N> FormatEvent<S, N> for Told
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        write!(writer, "{level}: ")?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    #[test]
    fn the_log_speaks_as_errors_do() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let log = tracing_subscriber::fmt()
            .with_writer(file.clone())
            .with_ansi(false)
            .event_format(super::Told)
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(isa = %"avx2", got = 3, "fewer threads than asked for");
        });
        let mut text = String::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_string(&mut text).unwrap();
        assert_eq!(
            text,
            "warning: fewer threads than asked for isa=avx2 got=3\n"
        );
    }
}
