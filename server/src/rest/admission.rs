//! Decides on a request's headers whether it is taken, and counts the memory it holds, as the gRPC face does.

use super::{Named, failure};
use crate::error::ServingError;
use crate::limits::{CountedBody, Due, HeldBody, Reason};
use crate::state::ServingState;
use axum::RequestPartsExt as _;
use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, Version, header};
use service_kit::ConnectionHandle;
use service_kit::http_server::discard;
use std::error::Error;
use std::sync::Arc;

/// Bytes of a request that carries no tensors that are not counted: what operators ask is answered always.
const FREE_BYTES: usize = 64 * 1024;

/// What an inference may need of the model that its path names.
const INFER: &str = "/infer";

/// Of an answer that takes its outputs from its batch, where they are counted already, the bytes that are its own. A
/// handler puts it into the response's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnBytes(pub(super) usize);

/// Refuses an inference before its body is read when the body cannot matter; counts the bodies of all requests.
pub(super) async fn admit(State(state): State<Arc<ServingState>>, request: Request, next: Next) -> Response {
    let carrying = request.uri().path().ends_with(INFER);
    let (mut parts, body) = request.into_parts();
    if carrying && let Ok(Path(named)) = parts.extract::<Path<Named>>().await {
        let model = (named.model.as_str(), named.version.as_str());
        if let Some(error) = state.refuses_early(Some(model), None) {
            // A client that asks first whether to send its body is told not to; another is sending it.
            if !parts.headers.contains_key(header::EXPECT) {
                discard(body);
            }
            return failure::answer(&error, &named.model, "").into_response();
        }
    }
    let connection = parts.extensions.get::<ConnectInfo<ConnectionHandle>>().map(|info| info.0.clone());
    let permit = state.in_flight.permit();
    parts.extensions.insert(permit.clone());
    let free = if carrying { 0 } else { FREE_BYTES };
    let body = CountedBody::new(body, permit.clone(), free, state.progress(Due::Body), refuse);
    let has_header = parts.version <= Version::HTTP_11;
    let mut response = next.run(Request::from_parts(parts, Body::new(body))).await;
    if response.status() == StatusCode::REQUEST_TIMEOUT && has_header {
        // What may still come of the body is nobody's.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if permit.was_refused() {
        state.early_refusals.count(Reason::Memory);
    }
    let announced =
        response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let own = response.extensions_mut().remove::<OwnBytes>().map(|OwnBytes(bytes)| bytes);
    permit.answered(own.or(bytes).or(announced).unwrap_or(0));
    response.map(|body| Body::new(HeldBody::new(body, permit, false, &state.unread, connection)))
}

/// The error of a body that found no room or came too slowly; see [`refusal`]. What a client still sends at its own speed
/// is read and thrown away.
fn refuse(error: ServingError, rest: Body) -> Box<dyn Error + Send + Sync> {
    if !matches!(error, ServingError::BodyTooSlow(_)) {
        discard(rest);
    }
    Box::new(error)
}

/// Why a body could not be read, if it was refused here.
pub(super) fn refusal(error: &(dyn Error + 'static)) -> Option<ServingError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<ServingError>() {
            return Some(refused.clone());
        }
        cause = error.source();
    }
    None
}
