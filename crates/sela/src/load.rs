//! Loading many items: resumable, in bounded memory, each commit acknowledged.
//!
//! The store alone decides what is there: a load that starts again passes over the items whose
//! content is stored already. A record of progress beside the collection only saves looking:
//! it holds how many items of a source were committed, a digest of them, and the state the
//! collection was in; where anything of that does not fit, every item is looked up.

mod progress;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use sela_store::{Bulk, Fields, Id, Op, Row, Written};

use crate::collection::{Collection, Item};
use crate::error::{Error, Result};
use progress::{Digest, Progress};
pub(crate) use progress::{forget, now_ns};

/// How a load goes about it.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Items between two commits; default: 512 for texts, 65,536 for vectors. Less loses less
    /// work in a crash, more is quicker.
    pub commit_items: Option<usize>,
    /// Bytes of texts, vectors and payloads that make a commit come sooner; default: 64 MiB.
    pub commit_bytes_max: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            commit_items: None,
            commit_bytes_max: 64 << 20,
        }
    }
}

const COMMIT_TEXTS: usize = 512;
const COMMIT_VECTORS: usize = 65_536;

/// From how many items a commit of vectors is written as a segment of its own.
const BULK_ITEMS_MIN: usize = 8_192;

/// Items that are looked up and handed on together.
const STEP_ITEMS: usize = 4_096;

/// What a load is doing, for whoever watches.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadEvent {
    /// The first `items` items of the source are known to be stored: nothing is done for them.
    Resumed {
        /// How many.
        items: u64,
    },
    /// The first `items` items of the source are on disk.
    Committed {
        /// How many, those stored before included.
        items: u64,
    },
}

/// Whoever watches a load; [`ControlFlow::Break`] stops it after the commit it is told of.
pub type LoadWatch<'a> = &'a mut dyn FnMut(LoadEvent) -> ControlFlow<()>;

/// What a load did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Items of the source that are stored now.
    pub items: u64,
    /// Those among them that were stored already, with the same content.
    pub unchanged: u64,
    /// Rows that were replaced.
    pub replaced: u64,
    /// Texts that were longer than the model reads and were cut.
    pub truncated: u64,
    /// Whether the watcher stopped it before the end.
    pub stopped: bool,
}

/// Items one after another, as many as the source has.
pub type Items<'a> = Box<dyn Iterator<Item = Result<Item>> + 'a>;

impl Collection {
    /// Stores all items of a source; where an earlier load of it was cut short, goes on there.
    ///
    /// `source` names the source across runs, such as a file's path; `open` opens it and must
    /// give the same items each time. An item is acknowledged by [`LoadEvent::Committed`], and
    /// then survives whatever happens to this process. An error of the source comes back after
    /// the items before it are committed. Vectors are taken as [`Collection::upsert`] takes them.
    pub fn load(
        &self,
        source: &str,
        open: &mut dyn FnMut() -> Result<Items<'static>>,
        options: &LoadOptions,
        watch: LoadWatch<'_>,
    ) -> Result<Loaded> {
        let info = self.info()?;
        let progress = Progress::read(self, source)?;
        let mut load = Load {
            collection: self,
            options,
            compare: info.rows_live > 0,
            digest: Digest::new(),
            loaded: Loaded::default(),
            bulk: None,
            in_bulk: HashSet::new(),
            commit_items: 0,
        };
        let mut items = open()?;
        if let Some(progress) = progress.filter(|p| p.fits(&info)) {
            if load.skip(&progress, &mut items) {
                load.loaded.unchanged = progress.items;
                if watch(LoadEvent::Resumed {
                    items: progress.items,
                })
                .is_break()
                {
                    load.loaded.stopped = true;
                    return Ok(load.loaded);
                }
            } else {
                // Another content than last time: from the start, item by item.
                load.digest = Digest::new();
                load.loaded = Loaded::default();
                items = open()?;
            }
        }
        load.run(source, items, watch)?;
        self.settle()?;
        Ok(load.loaded)
    }

    /// Puts what a load left in the catalog into a segment, so that opening it stays quick.
    fn settle(&self) -> Result<()> {
        const WORTH_IT: u64 = 1_024;
        if self.info()?.rows_pending >= WORTH_IT {
            self.store().seal()?;
        }
        Ok(())
    }
}

struct Load<'a> {
    collection: &'a Collection,
    options: &'a LoadOptions,
    /// Whether items may be stored already, so that each must be looked up.
    compare: bool,
    digest: Digest,
    loaded: Loaded,
    /// A segment under way, where commits are large enough.
    bulk: Option<Bulk<'a>>,
    /// What is in that segment, which a look into the store does not see: a later item of such an
    /// id is always written. At most a commit's ids.
    in_bulk: HashSet<Id>,
    commit_items: usize,
}

/// Items gathered for the next step.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

impl<'a> Load<'a> {
    /// Passes over the items of an earlier load; whether they were the same as then.
    fn skip(&mut self, progress: &Progress, items: &mut Items<'_>) -> bool {
        while self.loaded.items < progress.items {
            let Some(Ok(item)) = items.next() else {
                return false;
            };
            self.digest.update(&item);
            self.loaded.items += 1;
        }
        self.digest.hex() == progress.digest
    }

    fn run(&mut self, source: &str, items: Items<'_>, watch: LoadWatch<'_>) -> Result<()> {
        let mut batch = Batch::default();
        // Items and bytes since the last commit, those in the batch included.
        let (mut open_items, mut open_bytes) = (0, 0);
        let mut failed = None;
        for item in items {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            if self.commit_items == 0 {
                self.begin(&item);
            }
            let bytes = weight(&item);
            open_items += 1;
            open_bytes += bytes;
            self.digest.update(&item);
            batch.items.push(item);
            batch.bytes += bytes;
            let full =
                open_items >= self.commit_items || open_bytes >= self.options.commit_bytes_max;
            if full || batch.items.len() >= STEP_ITEMS {
                self.step(&mut batch)?;
            }
            if full {
                (open_items, open_bytes) = (0, 0);
                if self.commit(source, watch)?.is_break() {
                    self.loaded.stopped = true;
                    return Ok(());
                }
            }
        }
        if open_items > 0 {
            self.step(&mut batch)?;
            self.loaded.stopped = self.commit(source, watch)?.is_break() && failed.is_some();
        }
        failed.map_or(Ok(()), Err)
    }

    /// Chooses by the first item how large commits are.
    fn begin(&mut self, first: &Item) {
        let usual = if first.vector.is_some() {
            COMMIT_VECTORS
        } else {
            COMMIT_TEXTS
        };
        self.commit_items = self.options.commit_items.unwrap_or(usual).max(1);
    }

    /// Hands the batch's new items to the store; they are durable after the next commit.
    fn step(&mut self, batch: &mut Batch) -> Result<()> {
        let Batch { items, .. } = std::mem::take(batch);
        let first = self.loaded.items;
        self.loaded.items += items.len() as u64;
        let fresh = self.changed(items)?;
        if fresh.is_empty() {
            return Ok(());
        }
        let bulk = self.commit_items >= BULK_ITEMS_MIN && fresh.iter().all(|i| i.vector.is_some());
        let (rows, truncated) = self
            .collection
            .rows_of(&fresh)
            .map_err(|e| e.in_items(first, &fresh))?;
        self.loaded.truncated += truncated;
        if bulk {
            let load = match &mut self.bulk {
                Some(load) => load,
                none => none.insert(self.collection.store().bulk()?),
            };
            for row in rows {
                // Only a comparison asks for them.
                if self.compare {
                    self.in_bulk.insert(row.id.clone());
                }
                load.push(row)?;
            }
            return Ok(());
        }
        self.finish_bulk()?;
        let ops: Vec<Op> = rows.into_iter().map(Op::Upsert).collect();
        let written = self.collection.store().write(&ops)?;
        self.count(written);
        Ok(())
    }

    fn finish_bulk(&mut self) -> Result<()> {
        if let Some(bulk) = self.bulk.take() {
            let written = bulk.commit()?;
            self.count(written);
        }
        self.in_bulk.clear();
        Ok(())
    }

    fn count(&mut self, written: Written) {
        self.loaded.replaced += written.replaced;
    }

    fn commit(&mut self, source: &str, watch: LoadWatch<'_>) -> Result<ControlFlow<()>> {
        self.finish_bulk()?;
        let items = self.loaded.items;
        Progress::write(self.collection, source, items, &self.digest)?;
        Ok(watch(LoadEvent::Committed { items }))
    }

    /// Leaves out the items that are stored already just as they are.
    fn changed(&mut self, mut items: Vec<Item>) -> Result<Vec<Item>> {
        if !self.compare {
            return Ok(items);
        }
        let fields = Fields {
            vector: items.iter().any(|i| i.vector.is_some()),
            ..Fields::DOC
        };
        let ids: Vec<Id> = items.iter().map(|i| i.id.clone()).collect();
        let stored = self.collection.get(&ids, fields)?;
        let before = items.len();
        let mut stored = stored.into_iter();
        // An id that comes twice in the batch is written twice, in order.
        let mut seen = HashSet::new();
        let twice = ids.iter().any(|id| !seen.insert(id));
        items.retain(|item| {
            let same = stored
                .next()
                .flatten()
                .is_some_and(|row| is_same(item, &row));
            twice || !same || self.in_bulk.contains(&item.id)
        });
        self.loaded.unchanged += (before - items.len()) as u64;
        Ok(items)
    }
}

/// Whether a stored row holds what the item says; a vector the model makes follows the text.
fn is_same(item: &Item, row: &Row) -> bool {
    let vector = item.vector.as_ref().is_none_or(|v| {
        v.len() == row.vector.len()
            && v.iter()
                .zip(&row.vector)
                .all(|(a, b)| a.to_bits() == b.to_bits())
    });
    vector && item.text == row.text && item.payload == row.payload
}

/// Bytes of an item as a batch of the store counts them.
fn weight(item: &Item) -> usize {
    let text = item.text.as_ref().map_or(0, String::len);
    let payload = item.payload.as_ref().map_or(0, |payload| {
        serde_json::to_string(payload).map_or(0, |json| json.len())
    });
    text + payload + item.vector.as_ref().map_or(0, |v| 4 * v.len())
}

impl Error {
    /// Names the item an encoder's complaint is about, by its place in the source.
    fn in_items(self, first: u64, items: &[Item]) -> Self {
        let Self::Encoder(error) = &self else {
            return self;
        };
        let index = match error {
            sela_encoder::Error::TextTooLong { index, .. }
            | sela_encoder::Error::Tokenize { index, .. }
            | sela_encoder::Error::NotFinite { index } => *index,
            _ => return self,
        };
        let id = items
            .iter()
            .filter(|i| i.vector.is_none())
            .nth(index)
            .map(|i| i.id.to_string());
        Self::Item {
            near: first + 1,
            id: id.unwrap_or_default(),
            source: Box::new(self),
        }
    }
}

/// A path as the name of a source: the same from every working folder.
pub fn source_name(path: &Path) -> String {
    let full = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    full.to_string_lossy().into_owned()
}
