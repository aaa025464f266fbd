//! `POST …/infer`: from a body to its answer.

use super::admission::OwnBytes;
use super::answer::{self, AnswerBody};
use super::{Named, admission, encoding, failure, find, request};
use crate::error::ServingError;
use crate::grpc::MAX_MESSAGE_BYTES;
use crate::inference::compression::{DECOMPRESSION_COST, Encoding};
use crate::inference::{self, Ask, Caller};
use crate::limits::Permit;
use crate::repository::ModelVersion;
use crate::state::ServingState;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::LengthLimitError;
use service_kit::{ErrorCode, JsonError};
use std::convert::Infallible;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Instant;

/// Says how many bytes of a body are its JSON; those of the binary tensors follow.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

pub(super) async fn infer(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
    Extension(permit): Extension<Permit>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, JsonError> {
    let arrival = Instant::now();
    let Path(named) = named?;
    // What can be refused without its body is.
    let model = find(&state, &named)?;
    let refused = |error: ServingError| {
        model.count_failure(error.code());
        failure::answer(&error, model.name(), "")
    };
    let encoding = encoding::of_request(&headers).map_err(|name| {
        model.count_failure(ErrorCode::InvalidInput);
        unknown_encoding(name)
    })?;
    let header_length = header_length(&headers).map_err(refused)?;
    let body = read_body(&headers, body).await.map_err(|error| match error {
        // It was cut off: that caller has gone.
        ServingError::InvalidInput(_) => failure::answer(&error, model.name(), ""),
        error => refused(error),
    })?;

    let caller = Caller {
        deadline: None,
        arrived: Some(arrival),
        traceparent: traceparent(&headers),
        permit: Some(&permit),
    };
    let ask = read(&state, &model, &permit, body, encoding, header_length).await.map_err(refused)?;
    let id = if inference::check_id(&ask.id).is_ok() { ask.id.clone() } else { String::new() };
    let failed = |error: ServingError| failure::answer(&error, model.name(), &id);
    let (answer, audited) = inference::infer(&state, &model, caller, arrival, ask).await.map_err(failed)?;

    let cost = answer::cost(&answer);
    let (name, version) = (model.name().to_owned(), model.version().to_owned());
    let write = move || answer::write(&name, &version, answer);
    let body = state.offload.run(cost, write).await.and_then(|written| written).map_err(failed)?;
    let response = respond(&state, body, encoding::for_answer(&headers)).await.map_err(failed)?;
    audited.write(&state, &model, caller);
    Ok(response)
}

async fn read(
    state: &ServingState,
    model: &Arc<ModelVersion>,
    permit: &Permit,
    body: Bytes,
    encoding: Option<Encoding>,
    header_length: Option<usize>,
) -> Result<Ask, ServingError> {
    let cost = match encoding {
        Some(_) => body.len().saturating_mul(DECOMPRESSION_COST),
        // Binary tensors are not looked at.
        None => header_length.unwrap_or(body.len()),
    };
    let (model, permit) = (Arc::clone(model), permit.clone());
    let read = move || {
        let body = match encoding {
            Some(encoding) => decoded(encoding, body, &permit)?,
            None => body,
        };
        match header_length {
            Some(0) => request::raw(&model, body),
            header_length => request::read(&body, header_length, &|bytes| permit.grow(bytes)),
        }
    };
    state.offload.run(cost, read).await?
}

/// The whole of a body that came compressed, which is given back.
fn decoded(encoding: Encoding, body: Bytes, permit: &Permit) -> Result<Bytes, ServingError> {
    let pieces = encoding.decode(&body, MAX_MESSAGE_BYTES, permit)?;
    permit.give_back(body.len());
    drop(body);
    let bytes = pieces.iter().map(Bytes::len).sum();
    permit.grow(bytes)?;
    let whole = pieces.concat().into();
    permit.give_back(bytes);
    Ok(whole)
}

/// The length of the JSON, where binary tensors follow it.
fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ServingError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    value.to_str().ok().and_then(|text| text.trim().parse().ok()).map(Some).ok_or_else(|| {
        ServingError::InvalidInput(
            "The header Inference-Header-Content-Length is no number of bytes: send that of the JSON in the body."
                .to_owned(),
        )
    })
}

/// The whole of a body.
///
/// # Errors
/// `TooLarge` for one over the limit, `InvalidInput` for one that is cut off, `Overloaded` for one that there is no
/// memory for, `BodyTooSlow` for one that stops coming.
pub(super) async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, ServingError> {
    let too_large = || {
        ServingError::TooLarge(format!(
            "The request body is larger than the limit of {MAX_MESSAGE_BYTES} bytes: send less at once."
        ))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > MAX_MESSAGE_BYTES as u64) {
        return Err(too_large());
    }
    to_bytes(body, MAX_MESSAGE_BYTES).await.map_err(|error| {
        if let Some(refusal) = admission::refusal(&error) {
            return refusal;
        }
        match error.source().is_some_and(|source| source.is::<LengthLimitError>()) {
            true => too_large(),
            false => ServingError::InvalidInput("The request body could not be read to its end.".to_owned()),
        }
    })
}

fn unknown_encoding(name: String) -> JsonError {
    // It is the caller's word, and only so much of it is said again.
    let name: String = name.chars().take(40).collect();
    let sentence = format!("The Content-Encoding `{name}` is not supported: send gzip, deflate or none.");
    JsonError::new(ErrorCode::InvalidInput, sentence).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// The trace context, unless it is longer than any version of it: it goes into the log.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get("traceparent")?.to_str().ok().filter(|text| text.len() <= 128)
}

async fn respond(
    state: &ServingState,
    body: AnswerBody,
    encoding: Option<Encoding>,
) -> Result<Response, ServingError> {
    let mut headers = HeaderMap::new();
    let kind = if body.binary { "application/octet-stream" } else { "application/json" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if body.binary {
        headers.insert(HEADER_LENGTH, HeaderValue::from(body.parts[0].len()));
    }
    let (mut parts, mut own_bytes) = (body.parts, body.own_bytes);
    if let Some(encoding) = encoding {
        let bytes = parts.iter().map(Bytes::len).sum();
        let encoded = state.offload.run(bytes, move || encoding.encode(&parts)).await?;
        let encoded = encoded
            .map_err(|error| ServingError::Internal(format!("The answer cannot be compressed: {error}.")))?;
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
        own_bytes = encoded.len();
        parts = vec![encoded];
    }
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    let mut response = Response::new(match <[Bytes; 1]>::try_from(parts) {
        Ok([whole]) => Body::from(whole),
        Err(parts) => Body::from_stream(stream::iter(parts.into_iter().map(Ok::<_, Infallible>))),
    });
    *response.headers_mut() = headers;
    response.extensions_mut().insert(OwnBytes(own_bytes));
    Ok(response)
}
