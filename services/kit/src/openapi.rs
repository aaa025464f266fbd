//! What the OpenAPI documents of all REST faces share (feature `openapi`): the failed answers, `/health` and `/ready`.

use crate::http_server::{Health, Ready};
use crate::json_error::ErrorBody;
use std::collections::BTreeMap;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, OpenApi};

#[derive(OpenApi)]
#[openapi(paths(health, ready), components(schemas(ErrorBody)))]
struct Shared;

/// The document of a face: what is `described` of it, and what all faces have, as JSON.
pub fn document(mut described: utoipa::openapi::OpenApi) -> String {
    described.merge(Shared::openapi());
    // It is built of texts and numbers alone.
    described.to_pretty_json().expect("an OpenAPI document is JSON")
}

/// Whether the process answers
#[utoipa::path(get, path = "/health", tag = "service",
    responses((status = 200, description = "It does.", body = Health)))]
#[expect(dead_code, reason = "the handler is in `http_server`")]
fn health() {}

/// Whether the service can do its work
#[utoipa::path(get, path = "/ready", tag = "service", responses(
    (status = 200, description = "It can.", body = Ready),
    (status = 503, description = "It cannot yet, or not any more.", body = Ready)))]
#[expect(dead_code, reason = "the handler is in `http_server`")]
fn ready() {}

/// A failed answer in the shape of all of them.
fn failed(description: &str, may_be_tried_again: bool) -> RefOr<Response> {
    let schema = Ref::from_schema_name("ErrorBody");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response = ResponseBuilder::new().description(description).content("application/json", content);
    if may_be_tried_again {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let header = HeaderBuilder::new()
            .schema(seconds)
            .description(Some("Seconds after which to try again."))
            .build();
        response = response.header("Retry-After", header);
    }
    response.build().into()
}

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident: $status:literal, $description:literal, $again:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    BTreeMap::from([($status.to_owned(), failed($description, $again))])
                }
            }
        )*
    };
}

failures! {
    /// 400.
    BadRequest: "400", "The request is wrong (`invalid_input`): the same request gets the same answer.", false;
    /// 404.
    NotFound: "404", "There is no such thing (`not_found`).", false;
    /// 408.
    TooSlow: "408", "The body did not arrive in the time that a request may take (`invalid_input`).", false;
    /// 409.
    Conflict: "409", "The id belongs to another request (`already_exists`), or the user's data was erased after the request was received (`erased`).", false;
    /// 413.
    TooLarge: "413", "The request, or what it would need, is over a limit (`too_large`).", false;
    /// 415.
    UnsupportedMediaType: "415", "The body is of a type that is not taken here (`invalid_input`).", false;
    /// 429.
    Overloaded: "429", "The service has more work than it can do in time (`overloaded`).", true;
    /// 500.
    Internal: "500", "A fault of the service (`internal`): its log says more.", false;
    /// 503.
    Unavailable: "503", "It is starting or stopping, or its disk or a service behind it fails (`unavailable`).", true;
    /// 504.
    DeadlineExceeded: "504", "The time for the request passed (`deadline_exceeded`).", false;
}
