//! What handlers take from requests, and how what they cannot take is refused.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::ApiError;
use crate::state::AppState;

/// Bodies up to this size are not counted together: connections are.
const SMALL: u64 = 64 << 10;
/// Bodies from this size on are parsed where other requests do not wait for it.
const LARGE: usize = 256 << 10;

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        check_json(request.headers())?;
        let limit = app.settings.limits.body_bytes_max.0;
        let body = read(app, request, limit, "body_bytes_max").await?;
        Ok(Self(parse(body).await?))
    }
}

/// A JSON body that may be left away.
pub(crate) struct OptionalJson<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let typed = check_json(request.headers());
        let limit = app.settings.limits.body_bytes_max.0;
        let body = read(app, request, limit, "body_bytes_max").await?;
        if body.bytes.trim_ascii().is_empty() {
            return Ok(Self(None));
        }
        typed?;
        Ok(Self(Some(parse(body).await?)))
    }
}

/// Parts of the path.
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, app).await;
        let Path(value) = path.map_err(|e| ApiError::malformed("malformed_path", e.body_text()))?;
        Ok(Self(value))
    }
}

/// The query of the address.
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        let Query(value) =
            query.map_err(|e| ApiError::malformed("malformed_query", e.body_text()))?;
        Ok(Self(value))
    }
}

/// A body that has come whole.
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// Its share of what all bodies may take together.
    _room: Option<OwnedSemaphorePermit>,
}

/// What a body is, as its header says, in lower case and without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next().unwrap_or_default();
    Some(kind.trim().to_ascii_lowercase())
}

/// Refuses bodies that do not say they are JSON.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    match content_type(headers) {
        Some(kind) if kind == "application/json" => Ok(()),
        Some(kind) if kind.starts_with("application/") && kind.ends_with("+json") => Ok(()),
        kind => Err(other_type(kind.as_deref(), "application/json")),
    }
}

/// The refusal of a body of another type.
pub(crate) fn other_type(kind: Option<&str>, wanted: &str) -> ApiError {
    let found = match kind {
        Some(kind) => format!("the body is `{kind}`"),
        None => "the body does not say what it is".to_owned(),
    };
    ApiError::malformed("content_type", found)
        .hint(format!("send it with the header `content-type: {wanted}`"))
}

/// Reads a body of at most `limit` bytes, the value of the limit `name`.
pub(crate) async fn read(
    app: &AppState,
    request: Request,
    limit: u64,
    name: &'static str,
) -> Result<Whole, ApiError> {
    let told = length(request.headers());
    let over = || {
        let detail = format!("the body is larger than {limit} bytes");
        ApiError::too_large(detail, name)
    };
    if told.is_some_and(|told| told > limit) {
        return Err(over());
    }
    let time = Duration::from_millis(app.settings.limits.body_ms);
    let mut taken = Taken::new(app, told)?;
    let body = Limited::new(
        request.into_body(),
        usize::try_from(limit).unwrap_or(usize::MAX),
    );
    let read = tokio::time::timeout(time, taken.all_of(body)).await;
    match read {
        Err(_) => Err(slow(app)),
        Ok(Err(Broken::Over)) => Err(over()),
        Ok(Err(Broken::Error(error))) => Err(error),
        Ok(Ok(())) => Ok(Whole {
            bytes: taken.bytes.into(),
            _room: taken.room,
        }),
    }
}

/// What has come of a body, and its room among all others.
struct Taken<'a> {
    app: &'a AppState,
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
    /// Bytes that there is room for.
    reserved: u64,
}

/// Why a body did not come whole.
enum Broken {
    /// It is over its limit.
    Over,
    /// Something else.
    Error(ApiError),
}

impl<'a> Taken<'a> {
    /// Room for a body that tells its length is taken before the first byte comes.
    fn new(app: &'a AppState, told: Option<u64>) -> Result<Self, ApiError> {
        let mut taken = Self {
            app,
            bytes: Vec::new(),
            room: None,
            reserved: SMALL,
        };
        if let Some(told) = told {
            taken.reserve(told)?;
            // A length that is only told makes nobody set memory aside beyond a small body.
            taken.bytes.reserve(told.min(SMALL) as usize);
        }
        Ok(taken)
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), ApiError> {
        if bytes > self.reserved {
            let more = room(self.app, bytes - self.reserved)?;
            match &mut self.room {
                Some(room) => room.merge(more),
                empty => *empty = Some(more),
            }
            self.reserved = bytes;
        }
        Ok(())
    }

    async fn all_of(&mut self, mut body: Limited<Body>) -> Result<(), Broken> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Broken::Over,
                false => Broken::Error(unreadable(&*error)),
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let bytes = (self.bytes.len() + data.len()) as u64;
            if bytes > self.reserved {
                // In steps, so that not every frame asks.
                let step = self.reserved.max(bytes).next_multiple_of(LARGE as u64);
                self.reserve(step).map_err(Broken::Error)?;
            }
            self.bytes.extend_from_slice(&data);
        }
        Ok(())
    }
}

/// 408: the body came too slowly.
pub(crate) fn slow(app: &AppState) -> ApiError {
    let ms = app.settings.limits.body_ms;
    let detail = format!("the body did not come whole within {ms} ms");
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow_body", detail)
        .hint("the setting `limits.body_ms` sets this")
}

/// 400: the body broke off or is not framed as HTTP frames it.
pub(crate) fn unreadable(error: &dyn std::error::Error) -> ApiError {
    let detail = format!("the body cannot be read: {error}");
    ApiError::malformed("unreadable_body", detail)
}

/// Room for a body among all others.
pub(crate) fn room(app: &AppState, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
    let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let taken = app.bodies.clone().try_acquire_many_owned(kib);
    taken.map_err(|_| {
        let detail = format!("other large bodies leave no room for one of {bytes} bytes");
        ApiError::busy(detail, 1)
    })
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads a body as JSON.
pub(crate) async fn parse<T: DeserializeOwned + Send + 'static>(
    body: Whole,
) -> Result<T, ApiError> {
    if body.bytes.len() < LARGE {
        return parse_json(&body.bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse_json(&body.bytes)).await;
    parsed.map_err(|error| ApiError::internal(&error))?
}

/// Reads a JSON object; what is wrong is told with its field.
pub(crate) fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    let invalid =
        |detail: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail);
    let error = match serde_json::from_slice(text) {
        // A list of an object's values would do for serde, in the order of our fields.
        Ok(_) if text.trim_ascii_start().starts_with(b"[") => {
            return Err(invalid(
                "the body is a list, but it must be an object".into(),
            ));
        }
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if !error.is_data() {
        if error.to_string().starts_with("number out of range") {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let detail = format!("the body holds a number beyond what can be stored: {error}");
            return Err(ApiError::new(status, "invalid_value", detail));
        }
        let detail = format!("the body is no JSON: {error}");
        return Err(ApiError::malformed("malformed_json", detail));
    }
    // Again, with an eye on where it happens: only errors pay for that.
    let mut json = serde_json::Deserializer::from_slice(text);
    let field = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => error.path().to_string(),
        Ok(_) => ".".to_owned(),
    };
    match field.as_str() {
        "." => Err(invalid(format!("the body is not as it must be: {error}"))),
        _ => Err(invalid(format!("`{field}`: {error}")).field(field)),
    }
}
