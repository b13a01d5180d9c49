//! What all commands share: where things live, how to speak, when to stop.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sela::models::{ModelOptions, PullEvent};
use sela::{DeviceChoice, Engine, Options};

use crate::args::Global;

/// How a command ended; its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Done = 0,
    /// Nothing was found, or a check did not pass.
    Nothing = 1,
}

impl Outcome {
    /// This outcome, after it was printed. A reader who has seen enough and gone away does not
    /// make a success of a check that failed.
    pub(crate) fn printed(self, printed: Result<()>) -> Result<Self> {
        match printed {
            Err(Failure::BrokenPipe) if self != Self::Done => Ok(self),
            Err(failure) => Err(failure),
            Ok(()) => Ok(self),
        }
    }
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
    /// The engine opened last, to tell what it did.
    engine: RefCell<Option<Engine>>,
    stop: Stop,
}

impl App {
    /// A server has signals of its own: then Ctrl-C is not heard here.
    pub(crate) fn new(global: Global, serves: bool) -> Result<Self> {
        let home = match &global.home {
            Some(home) => home.clone(),
            None => default_home()?,
        };
        let mut options = Options::new(home);
        if let Some(data) = &global.data {
            options.data.clone_from(data);
        }
        if let Some(model) = &global.model {
            options.model.clone_from(model);
        }
        options.dtype = global.dtype.map_or(options.dtype, Into::into);
        options.device = global.device.first().copied().unwrap_or_default();
        options.gpu_cache = global.gpu_cache.unwrap_or(options.gpu_cache);
        options.scan_cache = global.scan_cache.unwrap_or(options.scan_cache);
        options.threads = global.threads;
        options.models = model_options();
        Ok(Self {
            global,
            options,
            engine: RefCell::new(None),
            stop: match serves {
                true => Stop::default(),
                false => Stop::listen(),
            },
        })
    }

    /// An engine; the model is opened when it is needed, and must be here then.
    pub(crate) fn engine(&self) -> Result<Engine> {
        let engine = Engine::open(self.options.clone())?;
        self.engine.replace(Some(engine.clone()));
        Ok(engine)
    }

    /// An engine for work on its device: one that was asked for and is not there is told first.
    pub(crate) fn engine_at_work(&self) -> Result<Engine> {
        let engine = self.engine()?;
        if self.options.device.insists() {
            engine.device()?;
        }
        Ok(engine)
    }

    /// Says, at most once a command, that there is no GPU where one would have been used. One that
    /// is there and does not open has been told by the log; a build without kernels never has one.
    pub(crate) fn note_no_gpu(&self, engine: &Engine) -> Result<()> {
        let auto = self.options.device == DeviceChoice::Auto;
        if auto
            && cfg!(feature = "gpu")
            && let Some(no) = engine.no_gpu()?.filter(|no| !no.failed)
        {
            self.note(&format!("no GPU: everything is done by {}", no.why));
        }
        Ok(())
    }

    /// Writes what was done to the file of `--stats`, if one is named, and why it went no further
    /// if something failed.
    pub(crate) fn write_stats(&self, failure: Option<&Failure>) -> Result<()> {
        let Some(path) = &self.global.stats else {
            return Ok(());
        };
        let stats = self.engine.borrow().as_ref().map(Engine::stats);
        let mut stats = serde_json::to_value(stats.unwrap_or_default())
            .map_err(|e| Failure::say(e.to_string()))?;
        if let Some(failure) = failure {
            stats["error"] = failure.lines().0.into();
        }
        let text = format!("{stats:#}");
        std::fs::write(path, text + "\n").map_err(Failure::file("write", path))
    }

    /// An engine with its model here, fetched now if need be.
    pub(crate) fn engine_with_model(&self) -> Result<Engine> {
        let engine = self.engine_at_work()?;
        let name = &self.options.model;
        self.pulling(name, |watch| engine.models().find_or_pull(name, watch))?;
        engine.encoder()?;
        self.note_no_gpu(&engine)?;
        Ok(engine)
    }

    /// Runs a pull and shows how it goes on.
    pub(crate) fn pulling<T>(
        &self,
        name: &str,
        pull: impl FnOnce(sela::models::Watch<'_>) -> sela::Result<T>,
    ) -> Result<T> {
        let mut shown = Pulling {
            app: self,
            name,
            spinner: None,
            bar: None,
        };
        let result = pull(&mut |event| shown.show(event));
        shown.clear();
        Ok(result?)
    }

    /// What engines are opened with.
    pub(crate) fn options(&self) -> &Options {
        &self.options
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

    /// A sign of life for work whose length is not known; seen where a bar is.
    pub(crate) fn spinner(&self, doing: impl Into<String>) -> ProgressBar {
        let spinner = self.bar(0, "{spinner} {msg} {elapsed}");
        spinner.set_message(doing.into());
        spinner
    }

    /// Does something that may take a while, with a sign of life.
    pub(crate) fn working<T>(&self, doing: impl Into<String>, work: impl FnOnce() -> T) -> T {
        let spinner = self.spinner(doing);
        let result = work();
        spinner.finish_and_clear();
        result
    }

    /// Runs work that must not be cut between two commits: Ctrl-C then only asks it to stop.
    pub(crate) fn stoppable<T>(&self, work: impl FnOnce(&Stop) -> T) -> T {
        self.stop.soft.store(SOFT, Ordering::SeqCst);
        let result = work(&self.stop);
        self.stop.soft.store(HARD, Ordering::SeqCst);
        result
    }
}

/// What is seen of a pull: a spinner until bytes come (pip counts none), then a bar.
struct Pulling<'a> {
    app: &'a App,
    name: &'a str,
    spinner: Option<ProgressBar>,
    bar: Option<ProgressBar>,
}

impl Pulling<'_> {
    fn show(&mut self, event: PullEvent<'_>) {
        if let PullEvent::Bytes { done, total } = event {
            if self.bar.is_none() {
                self.clear();
            }
            let bar = self.bar.get_or_insert_with(|| {
                let template =
                    "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}";
                self.app.bar(total, template)
            });
            bar.set_message(self.name.to_owned());
            bar.set_position(done.min(total));
            return;
        }
        // A note on a line that something moves on would be overwritten.
        self.clear();
        let (app, name) = (self.app, self.name);
        match event {
            PullEvent::Trying { source } => {
                app.note(&format!("fetching `{name}` from {source}"));
                self.spinner = Some(app.spinner("fetching"));
            }
            PullEvent::Failed { attempt } => {
                app.note(&format!("{} failed: {}", attempt.source, attempt.reason));
            }
            PullEvent::Waiting => {
                app.note("another process is fetching it; waiting");
                self.spinner = Some(app.spinner("waiting"));
            }
            PullEvent::Kept { path } => {
                let path = path.display();
                app.note(&format!(
                    "what lay in its place was not `{name}`; it is kept in {path}"
                ));
            }
            _ => {}
        }
    }

    fn clear(&mut self) {
        for shown in [self.spinner.take(), self.bar.take()].into_iter().flatten() {
            shown.finish_and_clear();
        }
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
                // Nothing is dropped: each kind of leftover is swept by the next that makes one.
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

/// A variable that is set and not empty.
pub(crate) fn env(name: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_went_away_hides_no_failed_check() {
        let gone = || Err(Failure::BrokenPipe);
        assert!(matches!(
            Outcome::Nothing.printed(gone()),
            Ok(Outcome::Nothing)
        ));
        assert!(matches!(
            Outcome::Done.printed(gone()),
            Err(Failure::BrokenPipe)
        ));
        let full = Failure::say("cannot write to standard output: the disk is full");
        assert!(Outcome::Nothing.printed(Err(full)).is_err());
    }
}
