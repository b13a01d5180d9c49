//! The log, on standard error.

use std::fmt;
use std::io;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::app::{Failure, Result, env};
use crate::args::{Global, LogFormat};

/// The variable that says which parts of the log are written.
const FILTER: &str = "SELA_LOG";

/// Writes the log to standard error from now on. `SELA_LOG` is stronger than the flags: a level, or
/// parts with their levels, such as `sela_server::access=info,sela=warn`.
pub(crate) fn to_stderr(global: &Global, format: LogFormat) -> Result<()> {
    let level = match global.verbose {
        0 if global.quiet => "error",
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let ours = [
        "sela",
        "sela_encoder",
        "sela_server",
        "sela_store",
        "sela_index",
        "sela_compute",
    ];
    let of_flags: String = ours.map(|name| format!("{name}={level}")).join(",");
    let filter = match env(FILTER) {
        // A bare level is for our own parts, as the flags are.
        Some(level) if level.parse::<Level>().is_ok() => {
            ours.map(|name| format!("{name}={level}")).join(",")
        }
        Some(parts) => parts,
        None => of_flags,
    };
    let parsed = EnvFilter::builder().parse(&filter).map_err(|error| {
        let hint = "such as SELA_LOG=info or SELA_LOG=sela_server::access=info,sela=warn";
        let what = format!("{FILTER} is `{filter}`, which cannot be used: {error}");
        Failure::Said(what, Some(hint.to_owned()))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(io::stderr)
        .with_ansi(false);
    match format {
        LogFormat::Text => log.event_format(Told).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
    Ok(())
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
