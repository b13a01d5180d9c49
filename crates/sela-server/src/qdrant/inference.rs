//! Texts where Qdrant's clients may give them instead of vectors.

use sela::{Collection, Embeddings, Error};

use crate::dto::qdrant::vectors::ModelText;
use crate::error::ApiError;
use crate::state::AppState;
use crate::work;

/// Under which name of its metadata a collection declares its vectors to be a model's.
pub(super) const MODEL_KEY: &str = "sela_model";

/// How hubs name models of this family; what follows is the model's name.
const FAMILY: &str = "sentence-transformers/";

/// Refuses models that are not the server's.
pub(super) fn check_model(app: &AppState, asked: &str) -> Result<(), ApiError> {
    let name = &app.model()?.name;
    let plain = asked.strip_prefix(FAMILY).unwrap_or(asked);
    let mut known = [asked, plain].into_iter();
    if known.any(|a| a == name || app.settings.openai.aliases.get(a) == Some(name)) {
        return Ok(());
    }
    let shown: String = asked.chars().take(100).collect();
    let detail = format!("the model `{shown}` is not served here; this server has `{name}`");
    Err(ApiError::malformed("model_not_found", detail)
        .field("model")
        .hint("names in the settings table `openai.aliases` can be pointed to it"))
}

/// Refuses texts for collections whose vectors are not the model's. Blocks.
pub(super) fn check_space(collection: &Collection) -> Result<(), ApiError> {
    collection.check_texts().map_err(|error| {
        let external = matches!(error.cause(), Error::ExternalSpace { .. });
        let mut error = ApiError::from(error);
        if external {
            error = error.hint(format!(
                "ask it with vectors, or create a collection whose metadata names the server's \
                 model as `{MODEL_KEY}`"
            ));
        }
        error
    })
}

/// Embeds texts, whose models are checked first.
pub(super) async fn embed(
    app: &AppState,
    texts: Vec<ModelText>,
) -> Result<Option<Embeddings>, ApiError> {
    if texts.is_empty() {
        return Ok(None);
    }
    for text in &texts {
        check_model(app, &text.model)?;
    }
    let texts = texts.into_iter().map(|text| text.text).collect();
    work::embed(app, texts).await.map(Some)
}
