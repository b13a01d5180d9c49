//! `sela index`: items of a file into a collection, resumable.

use std::ops::ControlFlow;
use std::time::Instant;

use sela::{Collection, CollectionOptions, Engine, LoadEvent, LoadOptions, Loaded, Vectors};

use super::print_json;
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Index;
use crate::readers::Input;
use crate::table;

pub(super) fn run(app: &App, args: &Index) -> Result<Outcome> {
    let input = Input::new(args)?;
    let dim = input.dim()?;
    let texts_only = dim.is_none();
    let engine = match texts_only || args.declare {
        true => app.engine_with_model()?,
        false => app.engine_at_work()?,
    };
    let collection = open(&engine, args, dim)?;
    let options = LoadOptions {
        commit_items: args.commit_every,
        ..LoadOptions::default()
    };
    let source = sela::source_name(&args.input);
    let mut open = || input.open();
    let load = Load {
        app,
        total: input.count(),
        json: args.json,
    };
    let loaded = load.run(&collection, &source, &mut open, &options)?;
    tell(app, &collection, &loaded);
    match loaded.stopped {
        true => {
            let kept = format!(
                "the first {} items are kept; run it again to go on",
                table::count(loaded.items)
            );
            Err(Failure::Stopped(kept))
        }
        false => Ok(Outcome::Done),
    }
}

/// Opens the collection, or makes one that fits the input.
fn open(engine: &Engine, args: &Index, dim: Option<usize>) -> Result<Collection> {
    let vectors = match dim {
        Some(dim) if !args.declare => Vectors::External { dim },
        _ => Vectors::Model,
    };
    let options = CollectionOptions {
        vectors,
        metric: args.metric.into(),
        ..CollectionOptions::default()
    };
    let collection = engine.collection_or_create(&args.collection, &options)?;
    Ok(match args.declare {
        true => collection.declare_vectors()?,
        false => collection,
    })
}

fn tell(app: &App, collection: &Collection, loaded: &Loaded) {
    let mut said = format!(
        "{} items in `{}`",
        table::count(loaded.items),
        collection.name()
    );
    if loaded.unchanged > 0 {
        said += &format!(", {} of them unchanged", table::count(loaded.unchanged));
    }
    if loaded.replaced > 0 {
        said += &format!(", {} rows replaced", table::count(loaded.replaced));
    }
    if loaded.truncated > 0 {
        said += &format!(
            "; {} texts were too long for the model and were cut",
            table::count(loaded.truncated)
        );
    }
    app.note(&said);
}

/// A load with a progress bar, acknowledgements, and a way to stop it.
pub(super) struct Load<'a> {
    pub(super) app: &'a App,
    /// Items to come, if known.
    pub(super) total: Option<u64>,
    /// Whether to print each commit.
    pub(super) json: bool,
}

impl Load<'_> {
    pub(super) fn run(
        &self,
        collection: &Collection,
        source: &str,
        open: &mut dyn FnMut() -> sela::Result<sela::Items<'static>>,
        options: &LoadOptions,
    ) -> Result<Loaded> {
        let bar = self.app.bar(
            self.total.unwrap_or(0),
            "{bar:30} {human_pos}/{human_len} {msg} eta {eta}",
        );
        let mut began: Option<(Instant, u64)> = None;
        let mut failed = None;
        let loaded = self.app.stoppable(|stop| {
            collection.load(source, open, options, &mut |event| {
                let items = match event {
                    LoadEvent::Committed { items } => items,
                    LoadEvent::Resumed { items } => {
                        bar.set_position(items);
                        bar.reset_eta();
                        items
                    }
                    _ => return ControlFlow::Continue(()),
                };
                let (since, first) = *began.get_or_insert((Instant::now(), items));
                let rate = (items - first) as f64 / since.elapsed().as_secs_f64().max(1e-3);
                bar.set_position(items);
                if items > first {
                    bar.set_message(format!("{rate:.0} texts/s"));
                }
                if self.json
                    && let Err(failure) = print_json(&serde_json::json!({"committed": items}))
                {
                    failed = Some(failure);
                    return ControlFlow::Break(());
                }
                if stop.asked() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        });
        bar.finish_and_clear();
        match failed {
            Some(failure) => Err(failure),
            None => Ok(loaded?),
        }
    }
}
