//! What all commands share: where things live, how to speak, when to stop.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sela::models::{ModelOptions, PullEvent};
use sela::{Engine, Options};

use crate::args::Global;

/// How a command ended; its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Done = 0,
    /// Nothing was found, or a check did not pass.
    Nothing = 1,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of standard output went away, which is its right.
    BrokenPipe,
    /// The engine's error.
    Sela(sela::Error),
    /// An error of the command line's own: what, and advice.
    Said(String, Option<String>),
    /// Stopped by the user, with what was kept.
    Stopped(String),
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<sela::Error> for Failure {
    fn from(error: sela::Error) -> Self {
        Self::Sela(error)
    }
}

impl Failure {
    /// A failure in the command line's own words.
    pub(crate) fn say(what: impl Into<String>) -> Self {
        Self::Said(what.into(), None)
    }

    /// For `map_err` of writes to standard output.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::say(format!("cannot write to standard output: {error}")),
        }
    }

    /// For `map_err` of file operations.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Sela(sela::Error::Io { what, path, source })
    }

    /// The error and its advice, as lines for the reader.
    pub(crate) fn lines(&self) -> (String, Option<String>) {
        match self {
            Self::BrokenPipe => (String::new(), None),
            Self::Said(what, hint) => (what.clone(), hint.clone()),
            Self::Stopped(kept) => (format!("stopped; {kept}"), None),
            Self::Sela(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    let cause_text = cause.to_string();
                    if !text.ends_with(&cause_text) {
                        text = format!("{text}: {cause_text}");
                    }
                    source = cause.source();
                }
                (text, error.hint())
            }
        }
    }
}

/// Everything a command needs beside its own flags.
pub(crate) struct App {
    pub(crate) global: Global,
    options: Options,
    stop: Stop,
}

impl App {
    pub(crate) fn new(global: Global) -> Result<Self> {
        let home = match &global.home {
            Some(home) => home.clone(),
            None => default_home()?,
        };
        let mut options = Options::new(home);
        if let Some(data) = &global.data {
            options.data.clone_from(data);
        }
        options.model.clone_from(&global.model);
        options.dtype = global.dtype.into();
        options.threads = global.threads;
        options.models = model_options();
        Ok(Self {
            global,
            options,
            stop: Stop::listen(),
        })
    }

    /// An engine; the model is opened when it is needed, and must be here then.
    pub(crate) fn engine(&self) -> Result<Engine> {
        Ok(Engine::open(self.options.clone())?)
    }

    /// An engine with its model here, fetched now if need be.
    pub(crate) fn engine_with_model(&self) -> Result<Engine> {
        let engine = self.engine()?;
        self.pulling(|watch| engine.models().find_or_pull(&self.options.model, watch))?;
        engine.encoder()?;
        Ok(engine)
    }

    /// Runs a pull with a progress bar.
    pub(crate) fn pulling<T>(
        &self,
        pull: impl FnOnce(sela::models::Watch<'_>) -> sela::Result<T>,
    ) -> Result<T> {
        let mut bar: Option<ProgressBar> = None;
        let result = pull(&mut |event| {
            if let PullEvent::Bytes { done, total } = event {
                let bar = bar.get_or_insert_with(|| {
                    self.bar(
                        total,
                        "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}",
                    )
                });
                bar.set_message(self.options.model.clone());
                bar.set_position(done.min(total));
                return;
            }
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            match event {
                PullEvent::Trying { source } => {
                    self.note(&format!("fetching `{}` from {source}", self.options.model));
                }
                PullEvent::Failed { attempt } => {
                    self.note(&format!("{} failed: {}", attempt.source, attempt.reason));
                }
                PullEvent::Waiting => self.note("another process is fetching it; waiting"),
                _ => {}
            }
        });
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(result?)
    }

    pub(crate) fn home(&self) -> &Path {
        &self.options.home
    }

    /// Says something on standard error, unless asked to be quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.global.quiet {
            // Nobody to tell is no reason to fail.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A progress bar on standard error; unseen when that is no terminal, or when quiet.
    pub(crate) fn bar(&self, total: u64, template: &str) -> ProgressBar {
        let hidden = self.global.quiet || !io::stderr().is_terminal();
        let target = match hidden {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(10),
        };
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Runs work that must not be cut between two commits: Ctrl-C then only asks it to stop.
    pub(crate) fn stoppable<T>(&self, work: impl FnOnce(&Stop) -> T) -> T {
        self.stop.soft.store(SOFT, Ordering::SeqCst);
        let result = work(&self.stop);
        self.stop.soft.store(HARD, Ordering::SeqCst);
        result
    }
}

/// Whether the user has asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    soft: Arc<AtomicU8>,
}

/// Ctrl-C ends the process at once.
const HARD: u8 = 0;
/// Ctrl-C asks; a second one ends the process at once.
const SOFT: u8 = 1;
/// The exit code of a process that was interrupted.
const INTERRUPTED: i32 = 130;

impl Stop {
    fn listen() -> Self {
        let stop = Self::default();
        let seen = stop.clone();
        let handler = move || {
            let asked_before = seen.asked.swap(true, Ordering::SeqCst);
            if asked_before || seen.soft.load(Ordering::SeqCst) == HARD {
                std::process::exit(INTERRUPTED);
            }
            let _ = writeln!(
                io::stderr(),
                "stopping at the next commit; again to stop at once"
            );
        };
        // Without a handler Ctrl-C ends the process, which the store survives as well.
        let _ = ctrlc::set_handler(handler);
        stop
    }

    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The platform's place for a program's data.
fn default_home() -> Result<PathBuf> {
    let home = || std::env::home_dir().filter(|h| !h.as_os_str().is_empty());
    let found = if cfg!(windows) {
        env("LOCALAPPDATA").map(PathBuf::from)
    } else if cfg!(target_os = "macos") {
        home().map(|h| h.join("Library/Application Support"))
    } else {
        let xdg = env("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|p| p.is_absolute());
        xdg.or_else(|| home().map(|h| h.join(".local/share")))
    };
    found.map(|dir| dir.join("sela")).ok_or_else(|| {
        let hint = "name one with `--home DIR` or SELA_HOME".to_owned();
        Failure::Said(
            "this system names no folder for data".to_owned(),
            Some(hint),
        )
    })
}

/// Where models may come from, as the environment says.
fn model_options() -> ModelOptions {
    let mut options = ModelOptions::default();
    if let Some(hub) = env("SELA_HUB").or_else(|| env("HF_ENDPOINT")) {
        options.hub = Some(hub);
    }
    if env("SELA_OFFLINE").is_some_and(|v| v != "0") {
        options.hub = None;
        options.pip.clear();
    }
    options.proxy = options.hub.as_deref().and_then(proxy_for);
    options
}

/// The proxy the environment names for an address, by the usual variables.
fn proxy_for(address: &str) -> Option<String> {
    let secure = address.starts_with("https:");
    let names: [&str; 4] = match secure {
        true => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        false => ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let proxy = names.into_iter().find_map(env)?;
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split(['/', ':']).next().unwrap_or(rest);
    let spared = env("no_proxy")
        .or_else(|| env("NO_PROXY"))
        .unwrap_or_default();
    let spares = |entry: &str| {
        let entry = entry.trim().trim_start_matches('.');
        entry == "*"
            || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
    };
    (!spared.split(',').any(spares)).then_some(proxy)
}
