//! The engine: one model, one data folder, many collections.

mod writers;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[cfg(feature = "gpu")]
use sela_compute::gpu::Gpu;
use sela_compute::inventory::GpuFacts;
use sela_compute::{DeviceChoice, Inventory};
use sela_encoder::{Dtype, Embeddings, Encoder, EncoderOptions, ModelFiles, TextInfo};
use sela_index::{RouteChoice, Searcher, SearcherOptions};
use sela_store::disk::{Disk, Mapped, OsDisk};

use crate::collection::{Collection, CollectionOptions, Vectors};
use crate::device::{Device, Opened};
use crate::error::{Error, Result};
use crate::models::{DEFAULT_MODEL, ModelDir, ModelOptions, Models};
use crate::names;
use crate::schedule::{EmbedOptions, QueueOptions, Scheduler, Ticket};
use crate::stats::{Capabilities, Counters, SearchStats, Stats};
pub(crate) use writers::OpenStore;
use writers::{SharedSearcher, Writers};

/// How an engine is opened.
///
/// ```
/// let mut options = sela::Options::new("/var/lib/sela");
/// options.threads = Some(4);
/// assert_eq!(options.data, std::path::Path::new("/var/lib/sela/data"));
/// assert_eq!(options.model, "all-MiniLM-L6-v2");
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Where fetched models live.
    pub home: PathBuf,
    /// Where collections live; default: `data` under the home. Set it to keep them on another
    /// disk than the models.
    pub data: PathBuf,
    /// The model, by name or by folder; default: [`DEFAULT_MODEL`].
    pub model: String,
    /// The precision promised for vectors; default: the fastest this machine has with a mean
    /// cosine of 0.9999 to f32. Set it to `F32` where vectors must match other programs' closely.
    pub dtype: Dtype,
    /// Where the heavy work is done; default: on the best GPU if there is one, else on the CPU.
    /// Under `Auto` a search too small to gain from the GPU stays on the CPU. A GPU that is asked
    /// for does every search that it can, and its absence is an error once it is needed. A software
    /// adapter is used only when its number is asked for.
    pub device: DeviceChoice,
    /// Bytes of vectors that may stay in the GPU's memory from search to search; default:
    /// [`GPU_CACHE`]. Raise it where collections are larger and the card has room; rows beyond it
    /// pass through it at each search.
    pub gpu_cache: u64,
    /// Bytes of memory for int8 codes of vectors, by which the CPU searches a collection from the
    /// third time on, with the same answers; default: [`SCAN_CACHE`], enough for 2.7 million
    /// vectors of 384 numbers. Raise it where collections are larger; 0 turns it off.
    pub scan_cache: u64,
    /// Threads one call may use; default: all that the system gives. Lower it to leave room for
    /// other work.
    pub threads: Option<usize>,
    /// How much text may wait to be embedded, in requests of [`Engine::submit`].
    pub queue: QueueOptions,
    /// Where models may be fetched from. The engine itself never does; see
    /// [`Models::find_or_pull`].
    pub models: ModelOptions,
    /// A GPU that is open already, taken unless the device is the CPU: for tests that make it fail.
    #[doc(hidden)]
    #[cfg(feature = "gpu")]
    pub gpu: Option<Gpu>,
}

/// Bytes of vectors that stay in the GPU's memory unless the options say otherwise: 2 GiB.
pub const GPU_CACHE: u64 = 2 << 30;

/// Bytes of codes of vectors that stay in memory unless the options say otherwise: 1 GiB.
pub const SCAN_CACHE: u64 = 1 << 30;

/// Texts of a direct call up to which somebody probably waits for it: bulk work in the queue then
/// keeps its batches short.
const FEW: usize = 16;

impl Options {
    /// The defaults, with everything under `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Self {
            data: home.join("data"),
            home,
            model: DEFAULT_MODEL.to_owned(),
            dtype: Dtype::Auto,
            device: DeviceChoice::Auto,
            gpu_cache: GPU_CACHE,
            scan_cache: SCAN_CACHE,
            threads: None,
            queue: QueueOptions::default(),
            models: ModelOptions::default(),
            #[cfg(feature = "gpu")]
            gpu: None,
        }
    }
}

/// Turns text into vectors, and keeps and searches collections of them.
///
/// Opening is cheap: the model is read when the first text is embedded. Clones share everything.
///
/// ```
/// # let home = tempfile::tempdir()?;
/// use sela::{CollectionOptions, Engine, Item, Options, Query};
///
/// let engine = Engine::open(Options::new(home.path()))?;
/// let colours = engine.create("colours", &CollectionOptions::external(3))?;
/// colours.upsert(&[
///     Item::vector("red", vec![1.0, 0.0, 0.0]),
///     Item::vector("green", vec![0.0, 1.0, 0.0]),
/// ])?;
/// let hits = colours.query(&Query::vector(vec![0.9, 0.2, 0.0]).k(1))?;
/// assert_eq!(hits[0].id.to_string(), "red");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    models: Models,
    device: Device,
    encoder: Mutex<Option<Arc<Encoder>>>,
    scheduler: Mutex<Option<Arc<Scheduler<Encoder>>>>,
    searcher: SharedSearcher,
    writers: Writers,
    counters: Counters,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens an engine; creates nothing, reads no model and looks for no GPU yet.
    pub fn open(options: Options) -> Result<Self> {
        let models = Models::new(&options.home, options.models.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                models,
                device: Device::default(),
                encoder: Mutex::new(None),
                scheduler: Mutex::new(None),
                searcher: SharedSearcher::default(),
                writers: Writers::default(),
                counters: Counters::default(),
            }),
        })
    }

    /// What the engine was opened with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The models under the engine's home.
    pub fn models(&self) -> &Models {
        &self.inner.models
    }

    /// The encoder, opened at the first call.
    ///
    /// Fails when the model is not on this machine; nothing is fetched.
    pub fn encoder(&self) -> Result<Arc<Encoder>> {
        let mut slot = lock(&self.inner.encoder);
        if let Some(encoder) = &*slot {
            return Ok(encoder.clone());
        }
        let options = &self.inner.options;
        let model = self.inner.models.find(&options.model)?;
        let device = self.inner.device.get(options)?;
        let encoder = Arc::new(open_encoder(&model, options, device)?);
        *slot = Some(encoder.clone());
        Ok(encoder)
    }

    /// Opens the device that the options ask for, unless that was done; the GPU, if it is one.
    ///
    /// Everything that needs the device does this by itself. Do it first to learn that a GPU which
    /// was asked for is not there before anything else is begun.
    pub fn device(&self) -> Result<Option<GpuFacts>> {
        let opened = self.inner.device.get(&self.inner.options)?;
        Ok(opened.facts().cloned())
    }

    /// The device that was opened, or what came of it.
    pub(crate) fn opened(&self) -> Result<Opened> {
        self.inner.device.get(&self.inner.options)
    }

    /// The GPU in use.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu(&self) -> Result<Option<Gpu>> {
        Ok(self.inner.device.get(&self.inner.options)?.gpu)
    }

    /// Opens the device, the model and the searcher now, so that the first call need not.
    pub fn warm_up(&self) -> Result<()> {
        self.scheduler()?;
        self.searcher()?;
        Ok(())
    }

    /// Embeds one text. If it was longer than the model reads, only the log tells; use
    /// [`Engine::embed_batch`] to know.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>> {
        let embedded = self.embed_batch(&[text])?;
        warn_of_cut(embedded.info.first());
        Ok(embedded.vectors)
    }

    /// Embeds texts; the answer holds their vectors in order and what is known of each text.
    ///
    /// A text gives the same bits alone and in any batch. The call waits in no queue and is merged
    /// with no other: where many call at once, [`Engine::submit`] serves them better.
    pub fn embed_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embeddings> {
        let encoder = self.encoder()?;
        if texts.len() <= FEW
            && let Some(scheduler) = &*lock(&self.inner.scheduler)
        {
            scheduler.see_interactive();
        }
        let began = Instant::now();
        let embedded = encoder.embed(texts)?;
        self.inner.counters.embed.add_time(began.elapsed());
        Ok(embedded)
    }

    /// Puts texts into a queue to be embedded together with those of other callers; an error at
    /// once when there is no room. The answer comes by the ticket: block on it, or await it.
    ///
    /// A text gives the same bits here, alone and in any batch.
    ///
    /// ```no_run
    /// use sela::{EmbedOptions, Lane};
    ///
    /// # let engine = sela::Engine::open(sela::Options::new("/var/lib/sela"))?;
    /// let bulk = EmbedOptions { lane: Lane::Bulk, ..EmbedOptions::default() };
    /// let book = engine.submit(vec!["In the beginning".into(), "And the earth".into()], &bulk)?;
    /// let query = engine.submit(vec!["Who made the light?".into()], &EmbedOptions::default())?;
    /// assert_eq!(query.wait()?.info.len(), 1);
    /// assert_eq!(book.wait()?.info.len(), 2);
    /// # Ok::<(), sela::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when the queue is full, [`Error::RequestTooLarge`], [`Error::Deadline`] when
    /// it is over already, and what is wrong with a text or the prompt's name.
    pub fn submit(&self, texts: Vec<String>, options: &EmbedOptions) -> Result<Ticket> {
        self.scheduler()?.submit(texts, options)
    }

    /// The scheduler with its threads, made at the first call.
    fn scheduler(&self) -> Result<Arc<Scheduler<Encoder>>> {
        let mut slot = lock(&self.inner.scheduler);
        if let Some(scheduler) = &*slot {
            return Ok(scheduler.clone());
        }
        let made = Scheduler::new(self.encoder()?, self.inner.options.queue)?;
        let made = Arc::new(made);
        *slot = Some(made.clone());
        Ok(made)
    }

    /// Creates a collection and opens it for writing.
    pub fn create(&self, name: &str, options: &CollectionOptions) -> Result<Collection> {
        let dir = self.dir_of(name)?;
        let schema = options.schema(self)?;
        sweep_deleted(&self.root());
        let exists = || Error::CollectionExists {
            name: name.to_owned(),
        };
        let slot = self.inner.writers.slot(name);
        let mut slot = lock(&slot);
        if slot.open_or_closed().is_some() {
            return Err(exists());
        }
        match sela_store::Collection::create(&dir, &schema, &store_options(false)) {
            Ok(store) => Ok(Collection::new(
                self.clone(),
                name,
                slot.fill(store, self.inner.searcher.clone()),
            )),
            Err(sela_store::Error::AlreadyExists { .. }) => Err(exists()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a collection for reading and writing; one process at a time may.
    pub fn collection(&self, name: &str) -> Result<Collection> {
        let dir = self.existing(name)?;
        let slot = self.inner.writers.slot(name);
        let mut slot = lock(&slot);
        let store = match slot.open_or_closed() {
            Some(store) => store,
            None => slot.fill(
                self.open_store(name, &dir, false)?,
                self.inner.searcher.clone(),
            ),
        };
        Ok(Collection::new(self.clone(), name, store))
    }

    /// Opens a collection for reading, beside a writer in this or another process.
    pub fn collection_read_only(&self, name: &str) -> Result<Collection> {
        let dir = self.existing(name)?;
        let open = lock(&self.inner.writers.slot(name)).open();
        let store = match open {
            Some(store) => store,
            None => Arc::new(OpenStore::read_only(
                self.open_store(name, &dir, true)?,
                self.inner.searcher.clone(),
            )),
        };
        Ok(Collection::new(self.clone(), name, store))
    }

    /// Opens a collection for writing, creating it when there is none.
    ///
    /// One that exists is opened as it was created, whatever the options say.
    pub fn collection_or_create(
        &self,
        name: &str,
        options: &CollectionOptions,
    ) -> Result<Collection> {
        match self.collection(name) {
            Err(Error::NoCollection { .. }) => {}
            opened => return opened,
        }
        match self.create(name, options) {
            // Another thread or process was quicker.
            Err(Error::CollectionExists { .. }) => self.collection(name),
            created => created,
        }
    }

    /// The names of the collections, in order.
    pub fn collections(&self) -> Result<Vec<String>> {
        let root = self.root();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("read", &root)(e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if names::check(&name).is_ok() && is_collection(&entry.path()) {
                found.push(name);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Deletes a collection with everything in it.
    ///
    /// Fails when it is open for writing elsewhere.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.delete_within(name, Duration::ZERO)
    }

    /// The same, waiting for those who have it open for writing to let go of it. Whoever wants to
    /// open it meanwhile waits as well.
    pub fn delete_within(&self, name: &str, wait: Duration) -> Result<()> {
        self.existing(name)?;
        let slot = self.inner.writers.slot(name);
        let slot = lock(&slot);
        // Asked again now that nobody else opens or deletes it.
        let dir = self.existing(name)?;
        let open = slot.open().is_some() && !slot.is_closed_within(wait);
        if open || slot.open_or_closed().is_some() {
            return Err(sela_store::Error::Locked { dir }.into());
        }
        // Taking the writer's lock shows that nobody writes; a collection too damaged to open
        // may be deleted all the same.
        let lock = match sela_store::Collection::open(&dir, &store_options(false)) {
            Err(error @ sela_store::Error::Locked { .. }) => return Err(error.into()),
            opened => opened.ok(),
        };
        // Gone under its name at once, however long removing the files takes.
        let (process, stamp) = (std::process::id(), crate::load::now_ns());
        let trash = self
            .root()
            .join(format!("{DELETED}{name}-{process}-{stamp}"));
        fs::rename(&dir, &trash).map_err(Error::io("remove", &dir))?;
        crate::load::forget(&self.inner.options.data, name);
        drop((lock, slot));
        match fs::remove_dir_all(&trash) {
            // Somebody else's sweep got there first.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(Error::io("remove", &trash))?,
        }
        sweep_deleted(&self.root());
        Ok(())
    }

    /// Reads all of a collection, one that does not open included, and names every fault.
    pub fn verify(&self, name: &str) -> Result<sela_store::Report> {
        let dir = self.existing(name)?;
        match sela_store::verify(&dir, &store_options(true)) {
            Err(sela_store::Error::NotACollection { .. }) => Err(self.none_called(name)?),
            verified => Ok(verified?),
        }
    }

    /// What this machine has and what the engine chose; opens the encoder.
    pub fn capabilities(&self) -> Result<Capabilities> {
        let encoder = self.encoder()?;
        self.searcher()?;
        let opened = self.inner.device.get(&self.inner.options)?;
        let mut report = encoder.report();
        if opened.failed.is_some() {
            // The encoder was told to use the CPU: here is who told it, and why.
            report.reasons.splice(..1, opened.reasons.iter().cloned());
        }
        Ok(Capabilities {
            inventory: Inventory::probe(),
            gpu: opened.facts().cloned(),
            searches: self.searches(),
            gpu_memory: opened.memory(),
            model: encoder.space().model,
            space: encoder.space().to_string(),
            dim: encoder.dim(),
            tokens_max: encoder.tokens_max(),
            dtype: self.inner.options.dtype,
            report,
        })
    }

    /// What has been done since the engine was opened.
    pub fn stats(&self) -> Stats {
        let report = lock(&self.inner.encoder).as_ref().map(|e| e.report());
        let opened = self.inner.device.seen().unwrap_or_default();
        let memory = opened.memory();
        let unopened = opened.failed;
        let mut stats = Stats::of(&self.inner.counters, report, self.searches(), unopened);
        let scheduler = lock(&self.inner.scheduler).clone();
        stats.gpu_memory = memory;
        stats.lanes = scheduler.map_or_else(Vec::new, |scheduler| scheduler.stats());
        stats
    }

    /// Where searches were done, once there was one.
    fn searches(&self) -> SearchStats {
        let searcher = lock(&self.inner.searcher).clone();
        searcher.map_or_else(SearchStats::default, |searcher| searcher.stats())
    }

    /// The searcher, made at the first call.
    pub(crate) fn searcher(&self) -> Result<Arc<Searcher>> {
        let mut slot = lock(&self.inner.searcher);
        if let Some(searcher) = &*slot {
            return Ok(searcher.clone());
        }
        let options = &self.inner.options;
        let device = self.inner.device.get(options)?;
        let searcher = Arc::new(Searcher::new(searcher_options(options, device))?);
        *slot = Some(searcher.clone());
        Ok(searcher)
    }

    pub(crate) fn count_query(&self, took: Duration) {
        self.inner.counters.query.add_time(took);
    }

    fn root(&self) -> PathBuf {
        self.inner.options.data.join("collections")
    }

    fn dir_of(&self, name: &str) -> Result<PathBuf> {
        names::check(name)?;
        Ok(self.root().join(name))
    }

    fn existing(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir_of(name)?;
        if is_collection(&dir) {
            return Ok(dir);
        }
        Err(self.none_called(name)?)
    }

    fn none_called(&self, name: &str) -> Result<Error> {
        let mut others = self.collections()?;
        others.retain(|other| other != name);
        let name = name.to_owned();
        Ok(Error::NoCollection { name, others })
    }

    fn open_store(
        &self,
        name: &str,
        dir: &Path,
        read_only: bool,
    ) -> Result<sela_store::Collection> {
        match sela_store::Collection::open(dir, &store_options(read_only)) {
            // A creation that was cut short: as good as none, and `create` starts afresh.
            Err(sela_store::Error::NotACollection { .. }) => Err(self.none_called(name)?),
            opened => Ok(opened?),
        }
    }
}

impl CollectionOptions {
    fn schema(&self, engine: &Engine) -> Result<sela_store::Schema> {
        let (dim, space, made) = match self.vectors {
            Vectors::External { dim } => {
                let dim = u32::try_from(dim).unwrap_or(u32::MAX);
                (dim, external_space(dim as usize), serde_json::Value::Null)
            }
            Vectors::Model => {
                let encoder = engine.encoder()?;
                let report = encoder.report();
                let made = serde_json::json!({
                    "model": encoder.space().model,
                    "prompt": encoder.default_prompt(),
                    "tokens_max": encoder.tokens_max(),
                    "dtype": dtype_name(engine.options().dtype),
                    "tier": report.tier.to_string(),
                    "device": report.device,
                    "device_name": report.device_name,
                    "arithmetic": report.arithmetic.to_string(),
                });
                (encoder.dim() as u32, encoder.space().to_string(), made)
            }
        };
        let mut schema = sela_store::Schema::new(dim, space);
        schema.record = self.record;
        schema.metric = Some(crate::query::metric_name(self.metric).to_owned());
        schema.provenance = serde_json::json!({
            "made": made,
            // Tells a collection from a later one of the same name.
            "created_ns": crate::load::now_ns().to_string(),
        });
        if !self.notes.is_null() {
            schema.provenance["notes"] = self.notes.clone();
        }
        Ok(schema)
    }
}

/// The space of vectors that no model of ours made.
pub(crate) fn external_space(dim: usize) -> String {
    format!("external:{dim}")
}

pub(crate) fn store_options(read_only: bool) -> sela_store::Options {
    sela_store::Options {
        read_only,
        // Fresh rows are held in memory too: half the store's default halves that.
        seal_rows: 32_768,
        ..sela_store::Options::default()
    }
}

/// How the names of collections begin whose files are being removed.
const DELETED: &str = ".deleted-";

/// Removes what deletions have left that were cut short.
fn sweep_deleted(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(DELETED) {
            // What cannot be removed is in nobody's way: its name never comes again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_collection(dir: &Path) -> bool {
    dir.join("catalog.sqlite").is_file()
}

/// A mapped file as the encoder wants it.
struct MappedFile(Arc<dyn Mapped>);

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        // A file shortened under us reads as empty, which the encoder refuses.
        self.0.bytes().unwrap_or_default()
    }
}

fn open_encoder(model: &ModelDir, options: &Options, device: Opened) -> Result<Encoder> {
    let mut files = ModelFiles::new(&model.name);
    files.weights_sha256 = model.sha256(crate::models::WEIGHTS).map(str::to_owned);
    for (name, _) in ModelFiles::names() {
        let path = model.path.join(name);
        if path.is_file() {
            let mapped = OsDisk.map(&path).map_err(Error::io("read", &path))?;
            files.insert(name, Arc::new(MappedFile(mapped)));
        }
    }
    let encoder = EncoderOptions {
        dtype: options.dtype,
        // A GPU that does not open is tried once, not by everyone anew.
        device: match device.failed {
            Some(_) => DeviceChoice::Cpu,
            None => options.device,
        },
        #[cfg(feature = "gpu")]
        gpu: device.gpu,
        threads: options.threads,
        golden: crate::golden::of(model)?,
        tokenizer_sha256: model.sha256("tokenizer.json").map(str::to_owned),
        ..EncoderOptions::default()
    };
    Ok(Encoder::open(&files, &encoder)?)
}

#[cfg_attr(
    not(feature = "gpu"),
    expect(unused_variables, reason = "there is no GPU to hand on")
)]
fn searcher_options(options: &Options, device: Opened) -> SearcherOptions {
    SearcherOptions {
        threads: options.threads.unwrap_or(0),
        #[cfg(feature = "gpu")]
        gpu: device.gpu,
        gpu_cache: options.gpu_cache,
        scan_cache: options.scan_cache,
        route: match options.device {
            DeviceChoice::Cpu => RouteChoice::Cpu,
            DeviceChoice::Auto => RouteChoice::Auto,
            // Who asks for a GPU wants to see it work, not the router's opinion.
            _ => RouteChoice::Gpu,
        },
        ..SearcherOptions::default()
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Auto => "auto",
        Dtype::F32 => "f32",
        Dtype::Bf16 => "bf16",
        Dtype::Int8 => "int8",
    }
}

/// Tells the log of a cut that the caller does not get to know.
pub(crate) fn warn_of_cut(info: Option<&TextInfo>) {
    if let Some(info) = info.filter(|info| info.truncated) {
        let (tokens, tokens_total) = (info.tokens, info.tokens_total);
        tracing::warn!(
            tokens,
            tokens_total,
            "a text was longer than the model reads and was cut"
        );
    }
}

/// What the mutex holds, also after a panic elsewhere: each is replaced whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
