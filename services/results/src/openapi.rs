//! The OpenAPI documents of the two faces, and the bodies that the code reads or writes without a type of their own.

use crate::routes::MAX_ELEMENTS;
use crate::store::Prediction;
use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat};
use utoipa::{OpenApi, PartialSchema, ToSchema};

/// The service's own face.
#[derive(OpenApi)]
#[openapi(
    info(title = "Convoy results-service", description = "Predictions in SQLite: durable when acknowledged, listed and exported per user, and really erased.\n\nIds (`request_id`, `user_id`) are any Unicode up to 256 bytes of UTF-8 without control characters, and neither `.` nor `..`; in a path they are percent-encoded."),
    tags(
        (name = "predictions", description = "Storing and reading."),
        (name = "users", description = "What belongs to one person: all of it, as a file, and its erasure."),
        (name = "service", description = "For whoever runs it."),
    )
)]
pub(crate) struct Public;

/// The operator's face.
#[derive(OpenApi)]
#[openapi(
    info(title = "Convoy results-service, operator's address", description = "What only an operator may ask: who reaches this address needs no password."),
    tags(
        (name = "operator", description = "All users' predictions, and the state of the database."),
        (name = "service", description = "For whoever runs it."),
    )
)]
pub(crate) struct Operator;

/// A prediction to be stored. Fields that are not known are passed over.
#[derive(ToSchema)]
#[schema(as = NewPrediction)]
#[expect(dead_code, reason = "it is the documentation of what `routes::new_prediction` reads")]
pub(crate) struct NewPredictionBody {
    /// Unique among all predictions.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "bus-1"
    )]
    request_id: String,
    /// The person or client that it belongs to.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "user-7"
    )]
    user_id: String,
    /// Any JSON; it comes back byte for byte.
    #[schema(value_type = Value, required, example = json!([{"class_name": "bus", "confidence": 0.97}]))]
    predictions: Value,
    /// The version of the model.
    #[schema(max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "1")]
    model_version: String,
    /// How long the inference took, in milliseconds.
    #[schema(minimum = 0, maximum = 1e300, example = 41.25)]
    inference_time_ms: f64,
    /// The model that made it.
    #[schema(max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "vehicle-detector")]
    model_name: Option<String>,
    /// The client's SHA-256 over the request's content: with the same one, the same request is known again.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    content_sha256: Option<String>,
    /// When the request was taken in by the service that the person talked to: if the user was erased after that, it is
    /// refused with 409 `erased`. Now when missing.
    #[schema(format = DateTime)]
    received_at: Option<String>,
}

/// What `POST /predictions` takes.
pub(crate) enum OneOrMany {}

impl PartialSchema for OneOrMany {
    /// A prediction, or an array of anything: an element that is no prediction is refused alone, and the others are
    /// stored.
    fn schema() -> RefOr<Schema> {
        let anything = ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("What is refused alone."));
        let element = AnyOfBuilder::new().item(Ref::from_schema_name("NewPrediction")).item(anything);
        let array = ArrayBuilder::new().items(element).max_items(Some(MAX_ELEMENTS));
        OneOfBuilder::new().item(Ref::from_schema_name("NewPrediction")).item(array).into()
    }
}

impl ToSchema for OneOrMany {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("NewPrediction".to_owned(), NewPredictionBody::schema()));
    }
}

/// What stands beside the `status` of an array's element. A stored record has all that the answer to a new one has, and
/// more: this is no `oneOf`.
pub(crate) fn element_body() -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let instant = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let stored = ObjectBuilder::new()
        .description(Some("201: it is stored."))
        .property("request_id", text())
        .property("timestamp", instant)
        .required("request_id")
        .required("timestamp");
    let others = ["Prediction", "ErrorBody"].map(Ref::from_schema_name);
    others.into_iter().fold(AnyOfBuilder::new().item(stored), AnyOfBuilder::item).into()
}

/// A user's predictions.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is the documentation of what `routes::listing` writes")]
pub(crate) struct UserListing {
    user_id: String,
    /// Newest first.
    predictions: Vec<Prediction>,
    /// How many there are in this answer.
    count: u64,
    /// Where the listing goes on, if the limit left some out: the `cursor` of the next request.
    #[schema(nullable = false, pattern = "^[0-9a-f]{32}$")]
    next_cursor: Option<String>,
}

/// Predictions of all users.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is the documentation of what `routes::listing` writes")]
pub(crate) struct Listing {
    /// Newest first.
    predictions: Vec<Prediction>,
    /// How many there are in this answer.
    count: u64,
    /// Where the listing goes on, if the limit left some out: the `cursor` of the next request.
    #[schema(nullable = false, pattern = "^[0-9a-f]{32}$")]
    next_cursor: Option<String>,
}
