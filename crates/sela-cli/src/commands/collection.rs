//! `sela collection`: look after collections.

use std::path::Path;

use serde_json::json;

use super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Collection;
use crate::table;

pub(super) fn run(app: &App, command: Collection) -> Result<Outcome> {
    match command {
        Collection::List(format) => list(app, format.json),
        Collection::Info(args) => info(app, &args.name, args.format.json),
        Collection::Delete(args) => {
            app.engine()?.delete(&args.name)?;
            if args.format.json {
                print_json(&json!({"deleted": args.name}))?;
            }
            app.note(&format!("`{}` is deleted", args.name));
            Ok(Outcome::Done)
        }
        Collection::Verify(args) => verify(app, &args.name, args.format.json),
        Collection::Reindex(args) => {
            let (name, engine) = (&args.name, app.engine()?);
            // Opening it for writing makes what is missing, so that counts as the work, too.
            app.working(format!("indexing the texts of `{name}`"), || {
                engine.collection(name)?.renew_text_index()
            })?;
            if args.format.json {
                print_json(&json!({"reindexed": name}))?;
            }
            app.note(&format!("the texts of `{name}` are indexed"));
            Ok(Outcome::Done)
        }
        Collection::Snapshot {
            name,
            folder,
            format,
        } => snapshot(app, &name, &folder, format.json),
    }
}

fn list(app: &App, json: bool) -> Result<Outcome> {
    let engine = app.engine()?;
    let mut rows = Vec::new();
    for name in engine.collections()? {
        // One that cannot be opened is listed all the same.
        let found = engine.collection_read_only(&name).and_then(|c| {
            let info = c.info()?;
            Ok((
                info.rows_live,
                info.segment_bytes + info.catalog_bytes,
                c.schema().space.clone(),
            ))
        });
        rows.push((name, found));
    }
    if json {
        let line = |(name, found): &(String, sela::Result<(u64, u64, String)>)| match found {
            Ok((rows, bytes, space)) => {
                json!({"name": name, "rows": rows, "bytes": bytes, "space": space})
            }
            Err(error) => json!({"name": name, "error": error.to_string()}),
        };
        print_json(&rows.iter().map(line).collect::<Vec<_>>())?;
    } else {
        let line = |(name, found): &(String, sela::Result<(u64, u64, String)>)| match found {
            Ok((rows, bytes, _)) => {
                vec![
                    name.clone(),
                    format!("{} rows", table::count(*rows)),
                    table::bytes(*bytes),
                ]
            }
            Err(error) => vec![name.clone(), error.to_string()],
        };
        print(&table::columns(&rows.iter().map(line).collect::<Vec<_>>()))?;
    }
    Ok(Outcome::Done)
}

fn info(app: &App, name: &str, json: bool) -> Result<Outcome> {
    let collection = app.engine()?.collection_read_only(name)?;
    let (info, schema) = (collection.info()?, collection.schema());
    if json {
        print_json(&json!({"name": name, "schema": schema, "info": info}))?;
        return Ok(Outcome::Done);
    }
    let made = schema
        .provenance
        .pointer("/made/model")
        .and_then(|m| m.as_str());
    let mut rows = vec![
        ("rows", table::count(info.rows_live)),
        ("not in a segment yet", table::count(info.rows_pending)),
        ("dead rows", table::count(info.rows_dead)),
        (
            "vectors",
            format!("{} numbers, {:?}", schema.dim, schema.record).to_lowercase(),
        ),
        ("metric", sela::metric_name(collection.metric()).to_owned()),
        ("model", made.unwrap_or("none: made elsewhere").to_owned()),
        ("space", schema.space.clone()),
        (
            "segments",
            format!("{}, {}", info.segments, table::bytes(info.segment_bytes)),
        ),
        ("catalog", table::bytes(info.catalog_bytes)),
    ];
    if let Some(why) = info.poisoned {
        rows.push(("writes are refused", why));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(what, value)| vec![what.to_owned(), value])
        .collect();
    print(&table::columns(&rows))?;
    Ok(Outcome::Done)
}

fn verify(app: &App, name: &str, json: bool) -> Result<Outcome> {
    let engine = app.engine()?;
    let doing = format!("reading all of `{name}`");
    let report = app.working(doing, || engine.verify(name))?;
    let sound = report.is_sound();
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    let printed = match (json, sound) {
        (true, _) => print_json(&json!({
            "ok": sound, "rows": report.rows, "segments": report.segments,
            "blocks": report.blocks, "catalog_rows": report.catalog_rows, "faults": faults,
        })),
        (false, true) => print(&format!(
            "ok: {} rows, {} blocks of {} segments, {} rows of the catalog\n",
            table::count(report.rows),
            table::count(report.blocks),
            table::count(report.segments),
            table::count(report.catalog_rows)
        )),
        (false, false) => print(&faults.iter().map(|f| format!("{f}\n")).collect::<String>()),
    };
    if !json && !sound {
        let count = faults.len();
        app.note(&match report.only_text_index() {
            true => format!(
                "only the full-text index is at fault; make it anew with `sela collection reindex \
                 {name}`"
            ),
            false => format!("{count} faults; restore `{name}` from a snapshot"),
        });
    }
    let outcome = if sound {
        Outcome::Done
    } else {
        Outcome::Nothing
    };
    outcome.printed(printed)
}

fn snapshot(app: &App, name: &str, folder: &Path, json: bool) -> Result<Outcome> {
    if folder.exists() {
        return Err(Failure::say(format!(
            "`{}` is there already",
            folder.display()
        )));
    }
    let collection = app.engine()?.collection_read_only(name)?;
    app.working(format!("copying `{name}`"), || collection.snapshot(folder))?;
    if json {
        print_json(&json!({"snapshot": folder}))?;
    }
    app.note(&format!("`{name}` is copied to {}", folder.display()));
    Ok(Outcome::Done)
}
