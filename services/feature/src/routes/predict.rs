//! `POST /predict`: an image to a stored prediction.

use super::{App, call};
use crate::Error;
use crate::body;
use crate::error::Failure;
use crate::openapi::{PredictForm, PredictJson, PredictQuery, RawImage};
use crate::predict_request::{self, Form, Ids, PredictRequest};
use crate::prediction::{Job, Prediction};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use service_kit::http_server;
use service_kit::openapi::{
    BadRequest, Conflict, DeadlineExceeded, Internal, NotFound, Overloaded, TooLarge, TooSlow, Unavailable,
    UnsupportedMediaType,
};

/// An image to a stored prediction
///
/// Answered once the prediction is on disk. After a 503 the same request may be sent again, with the `request_id` that the
/// error names: the same id, image, user and model give one stored prediction and the same answer.
#[utoipa::path(post, path = "/predict", tag = "images", params(PredictQuery),
    request_body(description = "The image in one of three ways.", content(
        (PredictJson = "application/json"),
        (PredictForm = "multipart/form-data"),
        (RawImage = "image/jpeg"), (RawImage = "image/png"), (RawImage = "application/octet-stream"))),
    responses((status = 200, description = "It is stored.", body = Prediction),
        BadRequest, NotFound, TooSlow, Conflict, TooLarge, UnsupportedMediaType, Overloaded, Unavailable,
        DeadlineExceeded, Internal))]
pub(super) async fn predict(State(app): State<App>, request: Request) -> Result<Json<Prediction>, Failure> {
    // Before the body is read: whoever is erased while it is still being sent is not stored after that.
    let received_at = Timestamp::now();
    let (parts, body) = request.into_parts();
    let form_and_query = Form::of(body::media_type(&parts.headers)).map_err(Failure::from).and_then(|form| {
        let query = Ids::of_query(&parts.uri)?;
        Ok((form, query))
    });
    let (form, query) = match form_and_query {
        Ok(both) => both,
        Err(failure) => {
            http_server::discard(body);
            return Err(failure);
        }
    };
    let bounds = app.bounds(form.body_limit(app.max_image_bytes));
    // The image stays in memory until the answer is made.
    let (bytes, _memory) = app
        .bodies
        .read(&parts.headers, body, bounds)
        .await
        .map_err(|error| error.of(query.request_id.as_deref()))?;
    let job = job(&app, form, &parts.headers, bytes, query, received_at).await?;
    let call = call(bounds.deadline, &parts.headers);
    let prediction =
        app.predictor.predict(&job, &call).await.map_err(|error| error.of(Some(&job.request_id)))?;
    Ok(Json(prediction))
}

/// Reads the form that the body has, and hashes its content.
async fn job(
    app: &App,
    form: Form,
    headers: &HeaderMap,
    bytes: Bytes,
    query: Ids,
    received_at: Timestamp,
) -> Result<Job, Failure> {
    let max_image = app.max_image_bytes;
    let size = bytes.len();
    let request_id = query.request_id.clone();
    let busy = |error: Error| error.of(request_id.as_deref());
    let content_type = headers.get(CONTENT_TYPE).cloned();
    let work = move || -> Result<Job, Failure> {
        let request: PredictRequest = match form {
            Form::Json => predict_request::from_json(&bytes, &query, max_image)?,
            Form::Multipart => {
                predict_request::from_multipart(content_type.as_ref(), bytes, &query, max_image)?
            }
            Form::Raw => predict_request::from_raw(bytes, query, max_image)?,
        };
        Ok(Job::new(request, received_at))
    };
    app.offload.run(size, work).await.map_err(busy)?
}
