//! The document of all routes, made from the routes themselves.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Content, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder, SecurityRequirement,
};
use utoipa::{Modify, OpenApi as _};

use crate::auth::Role;
use crate::dto;
use crate::error::Shape;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Sela",
        description = "The local-first engine that embeds text and keeps and searches vectors.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(
        dto::error::Problem,
        dto::error::OpenAiError,
        dto::error::QdrantError,
        // What refers to itself, or stands in addresses, is not found by itself.
        dto::qdrant::Ordering,
        dto::qdrant::filter::Filter,
        dto::qdrant::filter::Condition,
        dto::qdrant::filter::MinShould,
        dto::qdrant::filter::Nested
    )),
    modifiers(&Keys),
    tags(
        (name = "metal4", description = "Embed, search, store"),
        (name = "openai", description = "As OpenAI's clients ask"),
        (name = "qdrant", description = "As Qdrant's clients ask"),
        (name = "documents", description = "Texts in collections"),
        (name = "server", description = "How the server is")
    )
)]
struct Base;

/// The two ways to show a key.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKey::Header(ApiKeyValue::new("api-key"));
        components.add_security_scheme("api-key", SecurityScheme::ApiKey(header));
    }
}

/// The document before any route is in it.
pub(crate) fn base() -> OpenApi {
    Base::openapi()
}

/// The document of all routes, as `/openapi.json` gives it.
pub fn document() -> OpenApi {
    crate::routes::all().split_for_parts().1
}

/// Statuses that any route with a key may answer, and why.
const ANY: [(&str, &str); 8] = [
    ("400", "The request is malformed"),
    ("401", "No key, or a wrong one"),
    ("403", "The key's role is too low"),
    ("404", "There is no such thing"),
    NO_METHOD,
    (
        "429",
        "Too much is under way; try again after `retry-after` seconds",
    ),
    ("500", "The server failed; its log tells why"),
    (
        "503",
        "The server is starting, or the request took too long",
    ),
];

/// What a path answers to methods that it does not have; `allow` tells those it has.
const NO_METHOD: (&str, &str) = ("405", "The path does not answer to this method");

/// Statuses that any route with a body may answer.
const WITH_BODY: [(&str, &str); 2] = [
    ("408", "The body came too slowly"),
    ("413", "The body, or what is in it, is over its limit"),
];

/// The status of any route that takes a value from its caller.
const WITH_VALUES: (&str, &str) = ("422", "A value is one that it cannot have");

/// The status of any route to a collection.
const OF_COLLECTION: (&str, &str) = ("409", "The collection is in use elsewhere");

/// Says of every operation that it may answer these statuses too, and why.
pub(crate) fn also(document: &mut OpenApi, statuses: &[(&str, &str)]) {
    for (path, item) in &mut document.paths.paths {
        let shape = Shape::of(path);
        for operation in operations(item) {
            for said in statuses {
                add(operation, shape, *said);
            }
        }
    }
}

/// Says of operations that need no key what they answer when they do not do their work.
pub(crate) fn open(document: &mut OpenApi) {
    also(document, &[NO_METHOD]);
}

fn add(operation: &mut Operation, shape: Shape, (status, why): (&str, &str)) {
    let responses = &mut operation.responses.responses;
    responses
        .entry(status.to_owned())
        .or_insert_with(|| RefOr::T(problem(shape, why)));
}

/// Says of every operation which role it needs, and what it answers when it does not do its work.
pub(crate) fn guarded(document: &mut OpenApi, role: Role) {
    for (path, item) in &mut document.paths.paths {
        let shape = Shape::of(path);
        for operation in operations(item) {
            let security = ["bearer", "api-key"]
                .map(|scheme| SecurityRequirement::new(scheme, Vec::<String>::new()));
            operation.security = Some(security.to_vec());
            let needs = format!("Needs a key with the role `{}`.", role.name());
            let before = operation.description.take().unwrap_or_default();
            operation.description = Some(format!("{before}\n\n{needs}").trim().to_owned());
            let with_body = operation.request_body.is_some();
            let with_values = with_body || operation.parameters.is_some();
            // OpenAI says 400 to all of these.
            let with_values = with_values && shape != Shape::OpenAi;
            let of_collection = path.contains("{collection").then_some(OF_COLLECTION);
            let said = ANY
                .into_iter()
                .chain(with_body.then_some(WITH_BODY).into_iter().flatten())
                .chain(with_values.then_some(WITH_VALUES))
                .chain(of_collection);
            said.for_each(|said| add(operation, shape, said));
        }
    }
}

fn problem(shape: Shape, why: &str) -> Response {
    let schema = match shape {
        Shape::Own => "Problem",
        Shape::OpenAi => "OpenAiError",
        Shape::Qdrant => "QdrantError",
    };
    let content = Content::new(Some(Ref::from_schema_name(schema)));
    ResponseBuilder::new()
        .description(why)
        .content("application/json", content)
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
        &mut item.head,
        &mut item.options,
        &mut item.trace,
    ]
    .into_iter()
    .flatten()
}
