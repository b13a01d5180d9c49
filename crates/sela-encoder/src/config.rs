//! What the configuration files of a model folder say, or a refusal that names what we cannot do.

use std::collections::BTreeMap;

use sela_compute::encode::Pooling;
use serde::Deserialize;

use crate::error::Error;
use crate::files::ModelFiles;

/// Shape and semantics of a sentence-transformers BERT model.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) vocabulary: usize,
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
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "default_activation")]
    hidden_act: String,
    position_embedding_type: Option<String>,
}

fn default_epsilon() -> f32 {
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
            .json("config.json")?
            .ok_or_else(|| Error::MissingFile("config.json".into()))?;
        check_architecture(&bert)?;
        let (has_pooling, normalize) = modules(files)?;
        let pooling = if has_pooling {
            pooling(files)?
        } else {
            Pooling::Mean
        };
        let sentence: SentenceFile = files.json("sentence_bert_config.json")?.unwrap_or_default();
        let tokenizer: TokenizerFile = files.json("tokenizer_config.json")?.unwrap_or_default();
        let prompts: PromptsFile = files
            .json("config_sentence_transformers.json")?
            .unwrap_or_default();
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
            epsilon: bert.layer_norm_eps,
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
    Ok((pools, normalizes))
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
    if let Some(mode) = file.rest.get("pooling_mode").and_then(|m| m.as_str()) {
        modes = vec![mode.into()];
    }
    match modes
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        _ => unsupported("pooling", modes.join(" + ")),
    }
}
