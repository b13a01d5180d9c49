//! `sela model`: fetch models and look after them.

use sela::models::PullOptions;

use super::{print, print_json};
use crate::app::{App, Outcome, Result};
use crate::args::Model;
use crate::table;

pub(super) fn run(app: &App, command: Model) -> Result<Outcome> {
    let engine = app.engine()?;
    let models = engine.models();
    let named = |name: Option<String>| name.unwrap_or_else(|| app.options().model.clone());
    match command {
        Model::Pull {
            name,
            from,
            force,
            format,
        } => {
            let name = named(name);
            let options = PullOptions { from, force };
            let model = app.pulling(&name, |watch| models.pull_with(&name, &options, watch))?;
            if format.json {
                print_json(&serde_json::json!({
                    "name": model.name, "path": model.path, "bytes": model.bytes(),
                    "source": model.source, "files": model.files,
                }))?;
            } else {
                let size = table::bytes(model.bytes());
                app.note(&format!(
                    "`{}` is here, {size} from {}",
                    model.name, model.source
                ));
            }
        }
        Model::List(format) => {
            let list = models.list()?;
            if format.json {
                let line = |m: &sela::models::ListedModel| {
                    serde_json::json!({
                        "name": m.name, "present": m.present, "path": m.path, "bytes": m.bytes,
                        "source": m.source,
                    })
                };
                print_json(&list.iter().map(line).collect::<Vec<_>>())?;
            } else {
                let line = |m: &sela::models::ListedModel| {
                    let here = if m.present { "here" } else { "not here" };
                    let size = table::bytes(m.bytes);
                    let path = if m.present {
                        m.path.display().to_string()
                    } else {
                        String::new()
                    };
                    vec![m.name.clone(), here.to_owned(), size, path]
                };
                print(&table::columns(&list.iter().map(line).collect::<Vec<_>>()))?;
            }
        }
        Model::Verify { name, format } => return verify(app, &named(name), format.json),
        Model::Path { name } => {
            return match models.find(&named(name)) {
                Ok(model) => {
                    print(&format!("{}\n", model.path.display()))?;
                    Ok(Outcome::Done)
                }
                Err(sela::Error::ModelMissing { name, dir }) => {
                    app.note(&format!(
                        "`{name}` is not here; it would be in {}",
                        dir.display()
                    ));
                    Ok(Outcome::Nothing)
                }
                Err(error) => Err(error.into()),
            };
        }
    }
    Ok(Outcome::Done)
}

fn verify(app: &App, name: &str, json: bool) -> Result<Outcome> {
    let engine = app.engine()?;
    let files = app.working(format!("checking `{name}`"), || {
        engine.models().verify(name)
    })?;
    let outcome = match files.iter().all(|f| f.problem.is_none()) {
        true => Outcome::Done,
        false => Outcome::Nothing,
    };
    outcome.printed(if json {
        let line = |f: &sela::models::VerifiedFile| serde_json::json!({"path": f.path, "ok": f.problem.is_none(), "problem": f.problem});
        print_json(&files.iter().map(line).collect::<Vec<_>>())
    } else {
        let line = |f: &sela::models::VerifiedFile| {
            let state = f.problem.clone().unwrap_or_else(|| "ok".to_owned());
            vec![f.path.clone(), state]
        };
        print(&table::columns(&files.iter().map(line).collect::<Vec<_>>()))
    })
}
