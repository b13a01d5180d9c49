//! The log, on standard error.

use std::fmt;
use std::io;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::{Global, LogFormat};

/// Writes the log to standard error from now on.
pub(crate) fn to_stderr(global: &Global, format: LogFormat) {
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
    let filter: String = ours.map(|name| format!("{name}={level}")).join(",");
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(false);
    match format {
        LogFormat::Text => log.event_format(Told).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
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
