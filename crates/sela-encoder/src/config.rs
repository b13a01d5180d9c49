//! What the configuration files of a model folder say, or a refusal that names what we cannot do.

use std::collections::BTreeMap;

use sela_compute::encode::Pooling;
use serde::Deserialize;

use crate::error::Error;
use crate::files::ModelFiles;

const CONFIG: &str = "config.json";
const PROMPTS: &str = "config_sentence_transformers.json";

/// Shape and semantics of a sentence-transformers BERT model.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
    pub(crate) token_types: usize,
    pub(crate) epsilon: f32,
    pub(crate) tokens_max: usize,
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    pub(crate) lowercase: bool,
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) default_prompt: Option<String>,
}

#[derive(Deserialize)]
struct BertFile {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_token_types")]
    type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "default_activation")]
    hidden_act: String,
    position_embedding_type: Option<String>,
}

fn default_token_types() -> usize {
    2
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".into()
}

#[derive(Deserialize)]
struct ModuleFile {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
struct SentenceFile {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default = "yes")]
    include_prompt: bool,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
struct PromptsFile {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

#[derive(Default, Deserialize)]
struct TokenizerFile {
    /// A number, sometimes absurdly large for "no limit".
    model_max_length: Option<f64>,
}

impl Config {
    pub(crate) fn read(files: &ModelFiles) -> Result<Self, Error> {
        let bert: BertFile = files
            .json(CONFIG)?
            .ok_or_else(|| Error::MissingFile(CONFIG.into()))?;
        check_architecture(&bert)?;
        check_sizes(&bert)?;
        let (has_pooling, normalize) = modules(files)?;
        let pooling = if has_pooling {
            pooling(files)?
        } else {
            Pooling::Mean
        };
        let sentence: SentenceFile = files.json("sentence_bert_config.json")?.unwrap_or_default();
        let tokenizer: TokenizerFile = files.json("tokenizer_config.json")?.unwrap_or_default();
        let prompts: PromptsFile = files.json(PROMPTS)?.unwrap_or_default();
        check_prompts(&prompts)?;
        let positions = bert.max_position_embeddings;
        let declared = sentence.max_seq_length.or(tokenizer
            .model_max_length
            .filter(|n| *n < 1e6)
            .map(|n| n as usize));
        Ok(Self {
            hidden: bert.hidden_size,
            inner: bert.intermediate_size,
            layers: bert.num_hidden_layers,
            heads: bert.num_attention_heads,
            vocabulary: bert.vocab_size,
            positions,
            token_types: bert.type_vocab_size,
            epsilon: bert.layer_norm_eps as f32,
            // There is no embedding for a position beyond the table, whatever is declared.
            tokens_max: declared.unwrap_or(positions).min(positions),
            pooling,
            normalize,
            lowercase: sentence.do_lower_case,
            prompts: prompts.prompts,
            default_prompt: prompts.default_prompt_name,
        })
    }
}

fn unsupported<T>(what: &'static str, value: impl Into<String>) -> Result<T, Error> {
    Err(Error::Unsupported {
        what,
        value: value.into(),
    })
}

fn bad(name: &str, reason: String) -> Error {
    Error::BadFile {
        name: name.into(),
        reason,
    }
}

fn check_architecture(bert: &BertFile) -> Result<(), Error> {
    if let Some(other) = bert.model_type.as_deref().filter(|t| *t != "bert") {
        return unsupported("model_type", other);
    }
    if bert.model_type.is_none() && !bert.architectures.iter().any(|a| a.starts_with("Bert")) {
        return unsupported("architecture", bert.architectures.join(", "));
    }
    if bert.hidden_act != "gelu" {
        return unsupported("hidden_act", &bert.hidden_act);
    }
    if let Some(other) = bert
        .position_embedding_type
        .as_deref()
        .filter(|t| *t != "absolute")
    {
        return unsupported("position_embedding_type", other);
    }
    Ok(())
}

/// Refuses numbers that no weights can have.
fn check_sizes(bert: &BertFile) -> Result<(), Error> {
    let sizes = [
        ("hidden_size", bert.hidden_size),
        ("intermediate_size", bert.intermediate_size),
        ("num_hidden_layers", bert.num_hidden_layers),
        ("num_attention_heads", bert.num_attention_heads),
        ("vocab_size", bert.vocab_size),
        ("max_position_embeddings", bert.max_position_embeddings),
        ("type_vocab_size", bert.type_vocab_size),
    ];
    if let Some((what, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(bad(CONFIG, format!("{what} is 0")));
    }
    let (hidden, heads) = (bert.hidden_size, bert.num_attention_heads);
    if hidden % heads != 0 {
        let reason =
            format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}");
        return Err(bad(CONFIG, reason));
    }
    let epsilon = bert.layer_norm_eps;
    if !(epsilon as f32).is_finite() || epsilon < 0.0 {
        return Err(bad(CONFIG, format!("layer_norm_eps is {epsilon:?}")));
    }
    Ok(())
}

fn check_prompts(file: &PromptsFile) -> Result<(), Error> {
    match &file.default_prompt_name {
        Some(name) if !file.prompts.contains_key(name) => {
            let reason = format!("default_prompt_name is `{name}`, which is none of its prompts");
            Err(bad(PROMPTS, reason))
        }
        _ => Ok(()),
    }
}

/// Whether the pipeline pools by a configuration, and whether it normalises.
fn modules(files: &ModelFiles) -> Result<(bool, bool), Error> {
    let Some(modules) = files.json::<Vec<ModuleFile>>("modules.json")? else {
        return Ok((files.get("1_Pooling/config.json").is_ok(), false));
    };
    let mut kinds = modules
        .iter()
        .map(|m| m.kind.rsplit('.').next().unwrap_or(&m.kind));
    match kinds.next() {
        Some("Transformer") => {}
        other => return unsupported("first module", other.unwrap_or("none")),
    }
    let (mut pools, mut normalizes) = (false, false);
    for kind in kinds {
        match kind {
            "Pooling" if !pools && !normalizes => pools = true,
            "Normalize" if pools => normalizes = true,
            other => return unsupported("module", other),
        }
    }
    if !pools {
        return unsupported("pooling", "none");
    }
    Ok((true, normalizes))
}

fn pooling(files: &ModelFiles) -> Result<Pooling, Error> {
    const NAME: &str = "1_Pooling/config.json";
    let file: PoolingFile = files
        .json(NAME)?
        .ok_or_else(|| Error::MissingFile(NAME.into()))?;
    if !file.include_prompt {
        return unsupported("include_prompt", "false");
    }
    // Older files have a switch a mode, newer ones a `pooling_mode` name.
    let on = |(name, value): (&String, &serde_json::Value)| {
        let name = name.strip_prefix("pooling_mode_")?;
        (value == &serde_json::Value::Bool(true)).then(|| name.to_owned())
    };
    let mut modes: Vec<String> = file.rest.iter().filter_map(on).collect();
    if let Some(mode) = file.rest.get("pooling_mode") {
        modes = vec![
            mode.as_str()
                .map_or_else(|| mode.to_string(), str::to_owned),
        ];
    }
    match modes.join(" + ").as_str() {
        "mean_tokens" | "mean" => Ok(Pooling::Mean),
        "cls_token" | "cls" => Ok(Pooling::Cls),
        "" => unsupported("pooling", "none"),
        other => unsupported("pooling", other),
    }
}
