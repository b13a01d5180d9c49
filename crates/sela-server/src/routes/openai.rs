//! OpenAI's routes: embeddings and models.

use crate::json::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Role, at_least};
use crate::dto::openai::{
    Embedding, EmbeddingsRequest, EmbeddingsResponse, EncodingFormat, Input, Model, Models, Usage,
    Written,
};
use crate::error::ApiError;
use crate::extract::{JsonBody, PathOf};
use crate::state::AppState;
use crate::time;
use crate::work;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    let read = OpenApiRouter::default()
        .routes(routes!(embeddings))
        .routes(routes!(models))
        .routes(routes!(model));
    at_least(Role::Read, read)
}

/// Embeds texts as OpenAI does
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "openai",
    request_body = EmbeddingsRequest,
    responses((status = 200, description = "Their vectors", body = EmbeddingsResponse))
)]
async fn embeddings(
    State(app): State<AppState>,
    JsonBody(request): JsonBody<EmbeddingsRequest>,
) -> Result<Json<EmbeddingsResponse>, ApiError> {
    check_model(&app, &request.model)?;
    let texts = match request.input {
        Input::Text(text) => vec![text],
        Input::Texts(texts) if texts.is_empty() => {
            return Err(ApiError::invalid("input", "input is an empty list"));
        }
        Input::Texts(texts) => texts,
        Input::Tokens => {
            let detail = "input is numbers of tokens, which only the model that made them can read";
            return Err(ApiError::malformed("tokens", detail).field("input").hint(
                "send texts; with LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False",
            ));
        }
    };
    let whole = app.model()?.dim;
    let dim = request.dimensions.unwrap_or(whole);
    if !(1..=whole).contains(&dim) {
        let detail = format!("dimensions is {dim}, and the model's vectors have {whole}");
        return Err(ApiError::invalid("dimensions", detail));
    }
    let user = request.user.as_deref().unwrap_or_default();
    tracing::debug!(user, texts = texts.len(), "embeddings are asked for");
    let embedded = work::embed(&app, texts).await?;
    let tokens = embedded.info.iter().map(|info| info.tokens).sum();
    let format = request.encoding_format.unwrap_or_default();
    let vectors = embedded.vectors.chunks_exact(whole);
    let data = vectors.enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: write(shorten(vector, dim), format),
    });
    Ok(Json(EmbeddingsResponse {
        object: "list",
        data: data.collect(),
        model: request.model,
        usage: Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    }))
}

/// The first numbers of a vector, at length 1 if any were left away.
fn shorten(vector: &[f32], dim: usize) -> Vec<f32> {
    let mut short = vector[..dim].to_vec();
    if dim < vector.len() {
        let squares: f64 = short.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        if squares > 0.0 {
            let scale = 1.0 / squares.sqrt();
            short
                .iter_mut()
                .for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
    }
    short
}

fn write(vector: Vec<f32>, format: EncodingFormat) -> Written {
    match format {
        EncodingFormat::Float => Written::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Written::Base64(STANDARD.encode(bytes))
        }
    }
}

/// The models that can be asked for
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "openai",
    responses((status = 200, description = "The model and its aliases", body = Models))
)]
async fn models(State(app): State<AppState>) -> Result<Json<Models>, ApiError> {
    Ok(Json(Models {
        object: "list",
        data: names(&app)?.into_iter().map(|id| facts(&app, id)).collect(),
    }))
}

/// A model
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "openai",
    params(("model" = String, Path, description = "Its name, or an alias")),
    responses((status = 200, description = "The model", body = Model))
)]
async fn model(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Model>, ApiError> {
    check_model(&app, &name)?;
    Ok(Json(facts(&app, name)))
}

/// The model's name, and the aliases that mean it.
fn names(app: &AppState) -> Result<Vec<String>, ApiError> {
    let name = &app.model()?.name;
    let aliases = app.settings.openai.aliases.iter();
    let meant = aliases.filter(|(_, target)| *target == name);
    let aliases = meant.map(|(alias, _)| alias.clone());
    Ok([name.clone()].into_iter().chain(aliases).collect())
}

fn check_model(app: &AppState, asked: &str) -> Result<(), ApiError> {
    let name = &app.model()?.name;
    let target = app.settings.openai.aliases.get(asked);
    if asked == name || target == Some(name) {
        return Ok(());
    }
    let shown: String = asked.chars().take(100).collect();
    let error = ApiError::not_found(
        "model_not_found",
        format!("the model `{shown}` is not served here; this server has `{name}`"),
    );
    Err(error
        .field("model")
        .hint("names in the settings table `openai.aliases` can be pointed to it"))
}

fn facts(app: &AppState, id: String) -> Model {
    Model {
        id,
        object: "model",
        created: time::now_seconds().saturating_sub(app.started.elapsed().as_secs()),
        owned_by: app.settings.openai.owned_by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn shortened_vectors_have_length_one() {
        let vector = [0.6, 0.0, 0.8];
        assert_eq!(shorten(&vector, 3), vector);
        assert_eq!(shorten(&vector, 1), [1.0]);
        assert_eq!(shorten(&[0.0, 1.0], 1), [0.0]);
    }
}
