//! Qdrant's routes: collections and points.

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// The routes of Qdrant's clients.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
}
