//! The OpenAPI document, and the bodies that the code reads without a type of their own.

use utoipa::{IntoParams, OpenApi, ToSchema};

/// The one face of feature-service.
#[derive(OpenApi)]
#[openapi(
    info(title = "Convoy feature-service", description = "Images to features, images to stored predictions.\n\nIds are any Unicode up to 256 bytes of UTF-8 without control characters, and neither `.` nor `..`. Base64 may hold white space, and its padding is optional. Coordinates are of the upright image (its EXIF orientation applied), x to the right, y down."),
    tags(
        (name = "images", description = "Each image is decoded in a sandbox of its own."),
        (name = "service", description = "For whoever runs it."),
    )
)]
pub(crate) struct Api;

/// A PNG of one pixel, so that the example is a request that works.
const ONE_PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

/// `POST /predict` as JSON.
#[derive(ToSchema)]
#[schema(as = PredictJson)]
#[expect(dead_code, reason = "it is the documentation of what `predict_request` reads")]
pub(crate) struct PredictJson {
    /// An encoded image in base64.
    #[schema(min_length = 1, content_encoding = "base64", example = json!(ONE_PIXEL))]
    image: String,
    /// The client's id of the request: with the same id, image, user and model it gets the same answer again. A new UUID
    /// when missing.
    #[schema(min_length = 1, max_length = 256, example = "bus-1")]
    request_id: Option<String>,
    /// Whose image it is. A UUID made of the `request_id` when missing.
    #[schema(min_length = 1, max_length = 256, example = "user-7")]
    user_id: Option<String>,
    /// The model's name; the default model when missing or empty.
    #[schema(max_length = 256, example = "vehicle-detector")]
    model: Option<String>,
}

/// The query of `POST /predict`: what the body does not say.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is the documentation of what `predict_request` reads")]
pub(crate) struct PredictQuery {
    /// As in JSON.
    #[param(min_length = 1, max_length = 256)]
    request_id: Option<String>,
    /// As in JSON.
    #[param(min_length = 1, max_length = 256)]
    user_id: Option<String>,
    /// As in JSON.
    #[param(max_length = 256)]
    model: Option<String>,
}

/// `POST /predict` as a form.
#[derive(ToSchema)]
#[schema(as = PredictForm)]
#[expect(dead_code, reason = "it is the documentation of what `predict_request` reads")]
pub(crate) struct PredictForm {
    /// An encoded image.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    image: Vec<u8>,
    /// As in JSON.
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    request_id: Option<String>,
    /// As in JSON.
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    user_id: Option<String>,
    /// As in JSON.
    #[schema(nullable = false, max_length = 256)]
    model: Option<String>,
}

/// An encoded image, with ids and model in the query.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it is the documentation of a body that is not looked into here")]
pub(crate) struct RawImage(Vec<u8>);

/// `POST /preprocess`.
#[derive(ToSchema)]
#[schema(as = PreprocessJson)]
#[expect(dead_code, reason = "it is the documentation of what `routes::preprocess` reads")]
pub(crate) struct PreprocessJson {
    /// An encoded image (JPEG, PNG, WebP, GIF, BMP, TIFF) in base64.
    #[schema(min_length = 1, content_encoding = "base64", example = json!(ONE_PIXEL))]
    image: String,
    /// Echoed; a new UUID when missing.
    #[schema(min_length = 1, max_length = 256)]
    request_id: Option<String>,
    /// Of the result, in pixels; 224 when missing.
    #[schema(minimum = 1, maximum = 4096)]
    width: Option<u32>,
    /// Of the result, in pixels; 224 when missing.
    #[schema(minimum = 1, maximum = 4096)]
    height: Option<u32>,
}
