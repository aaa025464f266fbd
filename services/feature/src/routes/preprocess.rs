//! `POST /preprocess`: an image to a small JPEG and its features.

use super::App;
use crate::Error;
use crate::body::{self, Text, is_json, json_object};
use crate::error::Failure;
use crate::openapi::PreprocessJson;
use crate::predict_request::{check_id, decode_image, json_limit};
use crate::prediction::Predictor;
use axum::Json;
use axum::extract::{Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sandbox::{Color, Decode, Filter, Fit, Preprocessed, Resize, SourceImage};
use serde::{Deserialize, Serialize};
use service_kit::http_server;
use service_kit::openapi::{
    BadRequest, DeadlineExceeded, Internal, Overloaded, TooLarge, TooSlow, Unavailable, UnsupportedMediaType,
};
use service_kit::timestamp::now_rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// Width and height of the result, unless the request says otherwise.
const DEFAULT_SIZE: u32 = 224;
/// The largest width and height of the result.
const MAX_SIZE: u32 = 4096;

#[derive(Deserialize)]
struct JsonBody<'a> {
    #[serde(borrow)]
    image: Option<Text<'a>>,
    request_id: Option<String>,
    // Wider than a size is, so that a negative one is refused with the sentence for sizes.
    width: Option<i64>,
    height: Option<i64>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Preprocessed)]
pub(super) struct Answer {
    /// The resized image: a JPEG in base64.
    #[schema(content_encoding = "base64")]
    preprocessed_image: String,
    features: Features,
    original: SourceFields,
    request_id: String,
    timestamp: String,
}

/// The resized image, before it was encoded.
#[derive(Debug, Serialize, ToSchema)]
struct Features {
    width: u32,
    height: u32,
    format: &'static str,
    mode: &'static str,
    mean_brightness: f64,
    std_brightness: f64,
    min_pixel: u8,
    max_pixel: u8,
}

/// The image that was sent, upright.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Original)]
struct SourceFields {
    width: u32,
    height: u32,
    format: String,
    mode: String,
}

struct Job {
    image: Bytes,
    resize: Resize,
    /// Made here where the client gave none.
    request_id: String,
}

/// An image to a small JPEG and its features
#[utoipa::path(post, path = "/preprocess", tag = "images", request_body = PreprocessJson,
    responses((status = 200, description = "The resized image.", body = Answer),
        BadRequest, TooSlow, TooLarge, UnsupportedMediaType, Overloaded, Unavailable, DeadlineExceeded, Internal))]
pub(super) async fn preprocess(State(app): State<App>, request: Request) -> Result<Json<Answer>, Failure> {
    let (parts, body) = request.into_parts();
    let media_type = body::media_type(&parts.headers);
    if !media_type.as_deref().is_some_and(is_json) {
        http_server::discard(body);
        return Err(Error::UnsupportedMediaType { found: media_type, expected: "application/json" }.into());
    }
    let bounds = app.bounds(json_limit(app.max_image_bytes));
    // The image stays in memory until the answer is made.
    let (bytes, _memory) = app.bodies.read(&parts.headers, body, bounds).await?;
    let max_image = app.max_image_bytes;
    let job = app.offload.run(bytes.len(), move || parse(&bytes, max_image)).await??;
    let request_id = job.request_id;
    let failed = |error: Error| error.of(Some(&request_id));
    let Predictor { sandbox, metrics, .. } = &app.predictor;
    let image = sandbox.preprocess(job.image, job.resize, Some(bounds.deadline.into_std())).await;
    metrics.image_seen(&image);
    let image = image.map_err(|error| failed(error.into()))?;
    let size = image.jpeg.len();
    let name = request_id.clone();
    let answer = app.offload.run(size, move || Answer::new(image, name)).await.map_err(failed)?;
    Ok(Json(answer))
}

fn parse(body: &[u8], max_image: usize) -> Result<Job, Failure> {
    let body: JsonBody<'_> = json_object(body)?;
    check_id("request_id", body.request_id.as_deref())?;
    let request_id = body.request_id.unwrap_or_else(|| Uuid::new_v4().to_string());
    let rest = || -> Result<(Bytes, Resize), Error> {
        let image = decode_image(body.image.as_ref(), max_image)?;
        let (width, height) = (size("width", body.width)?, size("height", body.height)?);
        let resize = Resize {
            width,
            height,
            fit: Fit::Stretch,
            filter: Filter::Bicubic,
            color: Color::Rgb,
            decode: Decode::Auto,
        };
        Ok((image, resize))
    };
    let (image, resize) = rest().map_err(|error| error.of(Some(&request_id)))?;
    Ok(Job { image, resize, request_id })
}

fn size(field: &str, value: Option<i64>) -> Result<u32, Error> {
    let Some(value) = value else { return Ok(DEFAULT_SIZE) };
    u32::try_from(value).ok().filter(|size| (1..=MAX_SIZE).contains(size)).ok_or_else(|| {
        Error::InvalidRequest(format!(
            "{field} is {value}; it must be a whole number between 1 and {MAX_SIZE}."
        ))
    })
}

impl Answer {
    fn new(image: Preprocessed, request_id: String) -> Self {
        let Preprocessed { jpeg, width, height, features, source } = image;
        let SourceImage { width: source_width, height: source_height, format, mode } = source;
        Self {
            preprocessed_image: STANDARD.encode(&jpeg),
            features: Features {
                width,
                height,
                format: "JPEG",
                mode: "RGB",
                mean_brightness: features.mean_brightness,
                std_brightness: features.std_brightness,
                min_pixel: features.min_pixel,
                max_pixel: features.max_pixel,
            },
            original: SourceFields { width: source_width, height: source_height, format, mode },
            request_id,
            timestamp: now_rfc3339(),
        }
    }
}
