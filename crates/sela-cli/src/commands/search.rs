//! `sela search`: the rows of a collection that are nearest, or have the words, or both.

use sela::{Filter, Hit, Query};

use super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::{Mode, Search};
use crate::{npy, table};

pub(super) fn run(app: &App, args: Search) -> Result<Outcome> {
    let filter = args.filter.as_deref().map(parse_filter).transpose()?;
    let mut query = match (args.text, &args.vector, args.mode) {
        (_, Some(path), Mode::Vector) => {
            let first = npy::open(path)?.next();
            Query::vector(first.ok_or_else(|| Failure::say("the file holds no vector"))??)
        }
        (_, Some(_), _) => {
            return Err(Failure::Said(
                "a vector has no words to look for".to_owned(),
                Some("give a text, or leave `--mode` out".to_owned()),
            ));
        }
        (Some(text), None, Mode::Vector) => Query::text(text),
        (Some(text), None, Mode::Text) => Query::words(text),
        (Some(text), None, Mode::Hybrid) => Query::hybrid(text),
        (None, None, _) => return Err(Failure::say("there is nothing to look for")),
    };
    query.k = args.k;
    query.filter = filter;
    query.metric = args.metric.map(Into::into);
    let engine = app.engine_at_work()?;
    // A wrong name is told before a model is fetched for it.
    let collection = engine.collection_read_only(&args.collection)?;
    let external = collection.schema().space.starts_with("external:");
    if args.vector.is_none() && args.mode != Mode::Text && !external {
        let model = &engine.options().model;
        app.pulling(model, |watch| engine.models().find_or_pull(model, watch))?;
    }
    let (hits, info) = collection.query_with_info(&query)?;
    app.note_no_gpu(&engine)?;
    if let Some(info) = info.filter(|info| info.truncated) {
        app.note(&format!(
            "the text is longer than the model reads: the first {} of its {} tokens were looked for",
            info.tokens, info.tokens_total
        ));
    }
    if args.format.json {
        for hit in &hits {
            print_json(&json(hit, args.mode))?;
        }
    } else {
        print(&lines(&hits))?;
    }
    if args.explain {
        let stats = engine.stats();
        match args.format.json {
            true => print_json(&serde_json::json!({ "explained": stats }))?,
            false => app.note(&explained(&stats, args.mode)),
        }
    }
    if hits.is_empty() {
        app.note("nothing was found");
        return Ok(Outcome::Nothing);
    }
    Ok(Outcome::Done)
}

/// Where the text was embedded and the rows were searched, and why there.
fn explained(stats: &sela::Stats, mode: Mode) -> String {
    if mode == Mode::Text {
        return "the words were looked for in the full-text index, on the CPU".to_owned();
    }
    let mut told = String::new();
    if let (Some(tier), Some(device)) = (stats.tier, &stats.device) {
        told += &format!("embedded on {device} (");
        if let Some(name) = &stats.device_name {
            told += &format!("{name}, ");
        }
        told += &tier.to_string();
        if let Some(variant) = &stats.variant {
            told += &format!(", {variant} kernels");
        }
        told += ")\n";
    }
    told += &format!(
        "searched on {}",
        stats.searches.last.as_deref().unwrap_or("nothing")
    );
    let pages = stats.searches.pages;
    if stats.searches.on_gpu > 0 {
        told += &format!(
            "\n{} pages were in the GPU's memory, {} were brought there, {} of {} in use",
            table::count(pages.hits),
            table::count(pages.page_ins),
            table::bytes(pages.bytes),
            table::bytes(pages.budget)
        );
    }
    told
}

fn parse_filter(text: &str) -> Result<Filter> {
    let hint =
        r#"for example {"and": [{"eq": {"book": "Psalms"}}, {"range": {"chapter": {"gte": 3}}}]}"#;
    serde_json::from_str(text).map_err(|e| {
        Failure::Said(
            format!("the filter cannot be read: {e}"),
            Some(hint.to_owned()),
        )
    })
}

fn json(hit: &Hit, mode: Mode) -> serde_json::Value {
    let mut line = serde_json::json!({"id": hit.id, "score": hit.score});
    if mode == Mode::Hybrid {
        for (name, value) in [
            ("vector_score", hit.vector_score.map(Into::into)),
            ("vector_rank", hit.vector_rank.map(Into::into)),
            ("text_score", hit.text_score.map(Into::into)),
            ("text_rank", hit.text_rank.map(Into::into)),
        ] {
            line[name] = value.unwrap_or(serde_json::Value::Null);
        }
    }
    if let Some(text) = &hit.text {
        line["text"] = text.as_str().into();
    }
    if let Some(payload) = &hit.payload {
        line["payload"] = serde_json::Value::Object(payload.clone());
    }
    line
}

/// Hits as columns: score, id, the start of the text.
pub(super) fn lines(hits: &[Hit]) -> String {
    let line = |hit: &Hit| {
        let text = hit
            .text
            .as_deref()
            .map_or_else(String::new, |t| table::one_line(t, 100));
        vec![format!("{:.4}", hit.score), hit.id.to_string(), text]
    };
    table::columns(&hits.iter().map(line).collect::<Vec<_>>())
}
