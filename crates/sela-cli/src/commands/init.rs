//! `sela init`: a settings file, the model and the first key, by a few questions.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use sela::Engine;
use sela_server::Role;
use sela_server::config::Bytes;

use super::{key, print, serve};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Init;
use crate::size;

/// The name of the key that is made here.
const KEY: &str = "first";

pub(super) fn run(app: &App, args: &Init) -> Result<Outcome> {
    let path = app.home().join(serve::FILE);
    if path.exists() && !args.force {
        let hint = "change it by hand, or replace it with `--force`".to_owned();
        let said = format!("there is a settings file already: `{}`", path.display());
        return Err(Failure::Said(said, Some(hint)));
    }
    let mut asks = Asks::new(args)?;
    // A file that is replaced has no say any more.
    let mut settings = sela_server::Settings::default();
    let options = app.options();
    let data = asks.ask(
        "Where shall collections live?",
        options.data.clone(),
        |text| Ok(PathBuf::from(text)),
    )?;
    let model = asks.ask("Which model?", options.model.clone(), |text| {
        Ok(text.to_owned())
    })?;
    let bind = asks.ask(
        "Where shall the server listen?",
        args.bind.unwrap_or(settings.server.bind),
        |text| {
            text.parse::<SocketAddr>()
                .map_err(|_| "an address with a port".to_owned())
        },
    )?;
    let cache = asks.ask(
        "How much of the GPU's memory may vectors take?",
        Bytes(options.gpu_cache),
        |text| size::parse(text).map(Bytes),
    )?;
    let fetch = !args.no_model && asks.yes("Fetch the model now?")?;
    let with_key = !args.no_key && asks.yes("Make a key with the role admin?")?;
    if data != app.home().join("data") {
        serve::utf8(&data)?;
        settings.engine.data = Some(data);
    }
    settings.engine.model.clone_from(&model);
    settings.engine.gpu_cache = cache;
    settings.server.bind = bind;
    fs::create_dir_all(app.home()).map_err(Failure::file("write", app.home()))?;
    fs::write(&path, settings.print()).map_err(Failure::file("write", &path))?;
    app.note(&format!("the settings are in `{}`", path.display()));
    if fetch {
        let mut options = options.clone();
        settings.apply(&mut options)?;
        let engine = Engine::open(options)?;
        let found = app.pulling(&model, |watch| engine.models().find_or_pull(&model, watch))?;
        app.note(&format!("the model `{}` is here", found.name));
    }
    if with_key {
        let file = key::file(app, None)?;
        if file.list()?.iter().any(|key| key.name == KEY) {
            app.note(&format!("there is a key called `{KEY}` already"));
        } else {
            let made = key::create(app, &file, KEY, Role::Admin)?;
            app.note("the key is told only now:");
            print(&format!("{}\n", made.secret))?;
        }
    }
    app.note("start the server with `sela serve`");
    Ok(Outcome::Done)
}

/// Asks on the terminal, or takes what is proposed.
struct Asks {
    silent: bool,
}

impl Asks {
    fn new(args: &Init) -> Result<Self> {
        if !args.yes && !io::stdin().is_terminal() {
            let hint = "take the defaults with `--yes`, and change them with flags".to_owned();
            let said = "there is no terminal to ask questions on".to_owned();
            return Err(Failure::Said(said, Some(hint)));
        }
        Ok(Self { silent: args.yes })
    }

    fn ask<T: Shown>(
        &mut self,
        question: &str,
        proposed: T,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T> {
        if self.silent {
            return Ok(proposed);
        }
        loop {
            let answer = line(&format!("{question} [{}] ", proposed.shown()))?;
            if answer.is_empty() {
                return Ok(proposed);
            }
            match read(&answer) {
                Ok(answer) => return Ok(answer),
                Err(wanted) => {
                    let _ = writeln!(io::stderr(), "this is not it: {wanted}");
                }
            }
        }
    }

    fn yes(&mut self, question: &str) -> Result<bool> {
        if self.silent {
            return Ok(true);
        }
        loop {
            match line(&format!("{question} [Y/n] "))?.to_lowercase().as_str() {
                "" | "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => {}
            }
        }
    }
}

fn line(question: &str) -> Result<String> {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(0) => Err(Failure::say(
            "the questions were not answered; nothing was done",
        )),
        Ok(_) => Ok(answer.trim().to_owned()),
        Err(error) => Err(Failure::say(format!("cannot read the answer: {error}"))),
    }
}

/// What can be proposed.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl Shown for SocketAddr {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Bytes {
    fn shown(&self) -> String {
        self.to_string()
    }
}
