//! `POST /predictions`: one prediction, or an array of them.

use super::Service;
use super::new_prediction::{Fields, elements};
use crate::error::RequestError;
use crate::openapi::{OneOrMany, element_body};
use crate::store::{NewPrediction, Prediction, PredictionStore, Put, StoreError};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use service_kit::JsonError;
use service_kit::json_error::ErrorBody;
use service_kit::openapi::{
    BadRequest, Conflict, Internal, Overloaded, TooLarge, Unavailable, UnsupportedMediaType,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Most predictions in one array.
pub(crate) const MAX_ELEMENTS: usize = 1_000;

#[derive(Serialize, ToSchema)]
struct Created {
    /// Always `success`.
    status: &'static str,
    request_id: String,
    /// The record's, so that a caller that shows it need not read the record back.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// The answer to an array: what became of each element, in their order.
#[derive(Serialize, ToSchema)]
struct Many {
    /// How many are stored now that were not before.
    created: usize,
    results: Vec<ElementResult>,
}

/// What an element would have got as a request of its own.
#[derive(Serialize, ToSchema)]
struct ElementResult {
    /// The HTTP status.
    status: u16,
    #[serde(flatten)]
    body: ElementBody,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ElementBody {
    Created { request_id: String, timestamp: String },
    Repeated(Box<Prediction>),
    Refused(ErrorBody),
}

impl PartialSchema for ElementBody {
    fn schema() -> RefOr<Schema> {
        element_body()
    }
}

impl ToSchema for ElementBody {}

/// Store a prediction, or up to 1,000
///
/// Answered once everything is on the disk. The same `request_id`, `user_id` and `content_sha256` again: the stored record.
/// An array is stored in one transaction, and its answer is 200 with the status that each element would have got alone.
#[utoipa::path(post, path = "/predictions", tag = "predictions", request_body = OneOrMany,
    responses((status = 201, description = "It is stored.", body = Created),
        (status = 200, description = "The same request was stored before: its record. Of an array: what became of each element.",
            body = RepeatedOrMany),
        BadRequest, Conflict, TooLarge, UnsupportedMediaType, Overloaded, Unavailable, Internal))]
pub(super) async fn create(State(service): State<Service>, request: Request) -> Result<Response, JsonError> {
    // From here on an erasure of the user wins, however long the body takes.
    let arrived = service.store.get().map(PredictionStore::now);
    // The body's memory is accounted for until the answer is made.
    let body = service.bodies.read_json(request).await?;
    match elements(&body.bytes)? {
        None => create_one(&service, Fields::parse(&body.bytes)?, arrived).await,
        Some(elements) if elements.len() > MAX_ELEMENTS => {
            Err(RequestError::TooManyElements { limit: MAX_ELEMENTS }.into())
        }
        Some(elements) => {
            let fields = elements.into_iter().map(|text| Fields::parse(text.get().as_bytes()));
            create_many(&service, fields.collect(), arrived).await
        }
    }
}

async fn create_one(
    service: &Service,
    fields: Fields<'_>,
    arrived: Option<jiff::Timestamp>,
) -> Result<Response, JsonError> {
    let request_id = fields.request_id();
    let named = |error: RequestError| error.named(request_id.clone());
    let prediction = received(fields.to_prediction().map_err(named)?, arrived);
    let store = service.store.opened().map_err(named)?;
    let audit = Audit::of(&prediction);
    match store.put(prediction).await.map_err(|error| named(error.into()))? {
        Put::Stored { timestamp } => {
            audit.stored();
            let request_id = audit.request_id;
            Ok((StatusCode::CREATED, Json(Created { status: "success", request_id, timestamp }))
                .into_response())
        }
        Put::Repeated(stored) => {
            audit.repeated();
            Ok(Json(stored).into_response())
        }
        Put::Exists => Err(named(RequestError::Exists)),
        Put::Erased => Err(named(RequestError::Erased)),
    }
}

/// All elements that can be stored are, in one transaction; each of the others says why it is not.
async fn create_many(
    service: &Service,
    elements: Vec<Result<Fields<'_>, RequestError>>,
    arrived: Option<jiff::Timestamp>,
) -> Result<Response, JsonError> {
    let store = service.store.opened()?;
    let (mut predictions, mut audits, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for fields in elements {
        let request_id = fields.as_ref().ok().and_then(Fields::request_id);
        match fields.and_then(|fields| fields.to_prediction()) {
            Ok(prediction) => {
                audits.push(Audit::of(&prediction));
                predictions.push(received(prediction, arrived));
                results.push(None);
            }
            Err(error) => results.push(Some(refused(error, request_id))),
        }
    }
    let outcomes = if predictions.is_empty() {
        Vec::new()
    } else {
        store.put_many(predictions).await.map_err(RequestError::from)?
    };
    let mut stored = audits.into_iter().zip(outcomes).map(|(audit, outcome)| element(audit, outcome));
    let results: Vec<_> =
        results.into_iter().map(|refused| refused.or_else(|| stored.next())).map_while(|r| r).collect();
    let created = results.iter().filter(|r| r.status == StatusCode::CREATED.as_u16()).count();
    Ok(Json(Many { created, results }).into_response())
}

fn received(prediction: NewPrediction, arrived: Option<jiff::Timestamp>) -> NewPrediction {
    NewPrediction { received_at: prediction.received_at.or(arrived), ..prediction }
}

fn element(audit: Audit, outcome: Result<Put, StoreError>) -> ElementResult {
    match outcome {
        Ok(Put::Stored { timestamp }) => {
            audit.stored();
            let body = ElementBody::Created { request_id: audit.request_id, timestamp };
            ElementResult { status: StatusCode::CREATED.as_u16(), body }
        }
        Ok(Put::Repeated(stored)) => {
            audit.repeated();
            ElementResult { status: StatusCode::OK.as_u16(), body: ElementBody::Repeated(stored) }
        }
        Ok(Put::Exists) => refused(RequestError::Exists, Some(audit.request_id)),
        Ok(Put::Erased) => refused(RequestError::Erased, Some(audit.request_id)),
        Err(error) => refused(error.into(), Some(audit.request_id)),
    }
}

fn refused(error: RequestError, request_id: Option<String>) -> ElementResult {
    let error = error.named(request_id);
    ElementResult { status: error.status().as_u16(), body: ElementBody::Refused(error.body()) }
}

/// What the log says of a stored prediction: neither the user nor what was predicted, since logs outlive an erasure.
struct Audit {
    request_id: String,
    model_version: String,
    predictions_bytes: usize,
}

impl Audit {
    fn of(prediction: &NewPrediction) -> Self {
        Self {
            request_id: prediction.request_id.clone(),
            model_version: prediction.model_version.clone(),
            predictions_bytes: prediction.predictions.get().len(),
        }
    }

    fn stored(&self) {
        let Self { request_id, model_version, predictions_bytes } = self;
        tracing::info!(request_id, model_version, predictions_bytes, "prediction stored");
    }

    fn repeated(&self) {
        let request_id = &self.request_id;
        tracing::info!(request_id, "a repeated request was answered with its stored prediction");
    }
}

/// The body of a 200.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is the documentation of two answers with one status")]
enum RepeatedOrMany {
    Repeated(Prediction),
    Many(Many),
}
