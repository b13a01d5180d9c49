//! `sela serve`: the server.

use std::fs;
use std::path::{Path, PathBuf};

use sela::Engine;
use sela_server::config::LogFormat as Written;
use sela_server::{ConfigError, Event, Layers, Settings, Stopped};

use super::print;
use crate::app::{App, Failure, Outcome, Result};
use crate::args::{self, LogFormat, Serve};
use crate::log;

/// The settings file of a home.
pub(super) const FILE: &str = "sela.toml";

pub(super) fn run(app: &App, args: &Serve) -> Result<Outcome> {
    let settings = settings(app, args.config.as_deref(), flags_of(args))?;
    if args.print_config {
        print(&settings.print())?;
        return Ok(Outcome::Done);
    }
    let format = match settings.server.log_format {
        Written::Text => LogFormat::Text,
        Written::Json => LogFormat::Json,
    };
    log::to_stderr(&app.global, format)?;
    let mut options = app.options().clone();
    settings.apply(&mut options)?;
    let engine = Engine::open(options)?;
    let name = engine.options().model.clone();
    app.pulling(&name, |watch| engine.models().find_or_pull(&name, watch))?;
    match sela_server::serve(engine, settings, &mut |event| tell(app, event))? {
        Stopped::Drained => Ok(Outcome::Done),
        Stopped::AtOnce => Err(Failure::Stopped(
            "what was still running was given up".to_owned(),
        )),
    }
}

/// The settings: the file's, the environment's and the flags'.
pub(super) fn settings(
    app: &App,
    config: Option<&Path>,
    mut flags: Vec<(String, String)>,
) -> Result<Settings> {
    let file = match config {
        Some(path) => Some(read(path)?),
        None => {
            let path = app.home().join(FILE);
            path.exists().then(|| read(&path)).transpose()?
        }
    };
    let global = &app.global;
    let mut own: Vec<(&str, Option<String>)> = vec![
        ("engine.model", global.model.clone()),
        ("engine.dtype", global.dtype.map(dtype)),
        ("engine.threads", global.threads.map(|n| n.to_string())),
        ("engine.gpu_cache", global.gpu_cache.map(|n| n.to_string())),
        (
            "engine.scan_cache",
            global.scan_cache.map(|n| n.to_string()),
        ),
        (
            "engine.device",
            global.device.first().map(ToString::to_string),
        ),
    ];
    if let Some(data) = &global.data {
        own.push(("engine.data", Some(utf8(data)?)));
    }
    let own = own.into_iter();
    let own = own.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    // What stands last is the strongest: a flag for one setting, and `--set` after all.
    let mut all: Vec<_> = own.collect();
    all.append(&mut flags);
    let env = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.into_string().ok()?))
    });
    let mut env: Vec<(String, String)> = env.collect();
    // What OpenTelemetry's own programs go by, unless ours says otherwise.
    let given = env
        .iter()
        .any(|(name, _)| name == "SELA_TELEMETRY_OTLP_ENDPOINT");
    let collector = crate::app::env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| crate::app::env("OTEL_EXPORTER_OTLP_ENDPOINT"));
    if let Some(collector) = collector.filter(|_| !given) {
        env.push(("SELA_TELEMETRY_OTLP_ENDPOINT".to_owned(), collector));
    }
    Ok(Settings::load(&Layers {
        file,
        env,
        flags: all,
    })?)
}

fn flags_of(args: &Serve) -> Vec<(String, String)> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
    let given = [
        ("server.bind", args.bind.map(|bind| bind.to_string())),
        ("server.no_auth", args.no_auth.then(|| "true".to_owned())),
        (
            "server.log_format",
            args.log_format.map(|f| f.name().to_owned()),
        ),
        ("tls.cert", path(&args.tls_cert)),
        ("tls.key", path(&args.tls_key)),
    ];
    let given = given.into_iter();
    let given = given.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    given.chain(args.set.iter().cloned()).collect()
}

fn read(path: &Path) -> Result<(String, String)> {
    let text = fs::read_to_string(path).map_err(Failure::file("read", path))?;
    Ok((path.display().to_string(), text))
}

/// A path as settings hold it.
pub(super) fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let shown = path.display();
        Failure::say(format!(
            "`{shown}` is no text, so no settings file can name it"
        ))
    })
}

fn dtype(dtype: args::Dtype) -> String {
    let name = match dtype {
        args::Dtype::Auto => "auto",
        args::Dtype::F32 => "f32",
        args::Dtype::Bf16 => "bf16",
        args::Dtype::Int8 => "int8",
    };
    name.to_owned()
}

/// Says what happens; the key that was made is data.
fn tell(app: &App, event: Event<'_>) {
    match event {
        Event::FirstKey(made) => {
            app.note(
                "there were no keys, so one was made with the role admin; it is told only now:",
            );
            // A reader who has gone away cannot be told; the server runs all the same.
            let _ = print(&format!("{}\n", made.secret));
        }
        Event::Listening { address, tls } => {
            let scheme = if tls { "https" } else { "http" };
            app.note(&format!("listening on {scheme}://{address}"));
        }
        Event::Ready { took } => app.note(&format!("ready after {} ms", took.as_millis())),
        Event::Draining => app.note("stopping when what runs is done; again to stop at once"),
        Event::Reloaded(Ok(())) => app.note("keys and certificates are read again"),
        Event::Reloaded(Err(reason)) => app.note(&format!("not read again: {reason}")),
        _ => {}
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint();
        Self::Said(error.to_string(), hint)
    }
}

impl From<sela_server::Error> for Failure {
    fn from(error: sela_server::Error) -> Self {
        match error {
            sela_server::Error::Engine(error) => Self::Sela(error),
            other => {
                let hint = other.hint();
                let cause = std::error::Error::source(&other);
                let text = match cause {
                    Some(cause) => format!("{other}: {cause}"),
                    None => other.to_string(),
                };
                Self::Said(text, hint)
            }
        }
    }
}
