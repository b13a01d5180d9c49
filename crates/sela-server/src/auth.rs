//! Who asks, and what they may do.
//!
//! [`admit`] stands before everything, the paths that do not exist included: without a key there
//! is nothing to learn here but 401. [`at_least`] then holds the caller's role against the route's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;

use crate::error::ApiError;
use crate::keys::PREFIX;
use crate::metrics;
use crate::openapi;
use crate::state::AppState;

/// What a key allows; each role may do all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Embed, search, read.
    Read,
    /// Store and delete too.
    Write,
    /// Everything.
    Admin,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| format!("`{name}` is no role; there are read, write, admin"))
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What they may do.
    pub(crate) role: Role,
    /// Who they are, for the log: a key's id, or a token's subject.
    pub(crate) who: Arc<str>,
}

/// Paths that need no key.
pub(crate) const PUBLIC: [&str; 4] = ["/health/live", "/health/ready", "/docs", "/openapi.json"];

/// Lets nobody past without a key; says who asks, which is nobody on public paths.
pub(crate) fn admit(app: &AppState, request: &mut Request) -> Result<Option<Caller>, ApiError> {
    let path = request.uri().path();
    if PUBLIC.contains(&path) {
        return Ok(None);
    }
    let open = app.settings.telemetry.metrics_open && path == metrics::PATH;
    let caller = match open {
        true => Caller {
            role: Role::Read,
            who: "anybody".into(),
        },
        false => identify(app, request.headers())?,
    };
    request.extensions_mut().insert(caller.clone());
    Ok(Some(caller))
}

fn identify(app: &AppState, headers: &HeaderMap) -> Result<Caller, ApiError> {
    if app.settings.server.no_auth {
        return Ok(Caller {
            role: Role::Admin,
            who: "anybody".into(),
        });
    }
    let Some(shown) = credential(headers) else {
        return Err(ApiError::unauthorized(
            "no_key",
            "this needs a key, and the request shows none",
        )
        .hint("send `Authorization: Bearer KEY`; `sela key create` makes keys"));
    };
    let wrong = || ApiError::unauthorized("wrong_key", "the key is not known here");
    if shown.starts_with(PREFIX) {
        return app.keys.find(shown).ok_or_else(wrong);
    }
    match &app.jwt {
        Some(jwt) if shown.bytes().filter(|&b| b == b'.').count() == 2 => jwt.check(shown),
        _ => Err(wrong()),
    }
}

/// The key of a request: a bearer's, or that of Qdrant's clients.
fn credential(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| key.trim())
            .filter(|key| !key.is_empty());
    }
    let key = headers.get("api-key")?.to_str().ok()?.trim();
    Some(key).filter(|key| !key.is_empty())
}

/// The routes for callers of at least this role; the document says so too.
pub(crate) fn at_least(role: Role, mut router: OpenApiRouter<AppState>) -> OpenApiRouter<AppState> {
    openapi::guarded(router.get_openapi_mut(), role);
    router.route_layer(middleware::from_fn_with_state(role, require))
}

async fn require(State(role): State<Role>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.role >= role => next.run(request).await,
        Some(caller) => {
            let (has, needs) = (caller.role.name(), role.name());
            let detail = format!("this needs the role `{needs}`, and the key has `{has}`");
            let error = ApiError::new(StatusCode::FORBIDDEN, "role_too_low", detail);
            error.into_response()
        }
        // A route that `admit` does not stand before is a fault of ours: nobody gets past.
        None => ApiError::unauthorized("no_key", "this needs a key").into_response(),
    }
}
