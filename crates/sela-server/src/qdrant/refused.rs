//! Routes of Qdrant's for what is not there: they answer 400 and name it.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::unsupported;
use crate::dto::error::QdrantError;
use crate::error::ApiError;
use crate::state::AppState;

/// A route that refuses, and what.
macro_rules! refused {
    ($handler:ident, $method:ident, $path:literal, $feature:literal) => {
        #[doc = concat!("Refuses ", $feature)]
        #[utoipa::path(
                            $method,
                            path = $path,
                            tag = "qdrant",
                            params(("collection" = String, Path, description = "Its name")),
                            responses((status = 400, description = "Always", body = QdrantError))
                        )]
        async fn $handler() -> ApiError {
            unsupported($feature)
        }
    };
}

refused!(
    query_groups,
    post,
    "/collections/{collection}/points/query/groups",
    "searches in groups"
);
refused!(
    search_groups,
    post,
    "/collections/{collection}/points/search/groups",
    "searches in groups"
);
refused!(
    recommend,
    post,
    "/collections/{collection}/points/recommend",
    "recommend"
);
refused!(
    recommend_batch,
    post,
    "/collections/{collection}/points/recommend/batch",
    "recommend"
);
refused!(
    discover,
    post,
    "/collections/{collection}/points/discover",
    "discover"
);
refused!(
    discover_batch,
    post,
    "/collections/{collection}/points/discover/batch",
    "discover"
);
refused!(
    matrix_pairs,
    post,
    "/collections/{collection}/points/search/matrix/pairs",
    "matrices of distances"
);
refused!(
    matrix_offsets,
    post,
    "/collections/{collection}/points/search/matrix/offsets",
    "matrices of distances"
);
refused!(facet, post, "/collections/{collection}/facet", "facets");
refused!(
    recover,
    put,
    "/collections/{collection}/snapshots/recover",
    "recovery from a snapshot over HTTP"
);
refused!(
    upload,
    post,
    "/collections/{collection}/snapshots/upload",
    "recovery from a snapshot over HTTP"
);

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(query_groups))
        .routes(routes!(search_groups))
        .routes(routes!(recommend))
        .routes(routes!(recommend_batch))
        .routes(routes!(discover))
        .routes(routes!(discover_batch))
        .routes(routes!(matrix_pairs))
        .routes(routes!(matrix_offsets))
        .routes(routes!(facet))
        .routes(routes!(recover))
        .routes(routes!(upload))
}
