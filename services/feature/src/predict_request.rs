//! The three forms of `POST /predict` (JSON, multipart, the raw image) made into one.

use crate::Error;
use crate::body::{Text, is_json, json_object};
use crate::error::Failure;
use crate::multipart::{FormError, Part, Parts};
use axum::extract::Query;
use axum::http::Uri;
use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use service_kit::{base64_text, identifier};

/// What the route takes, for the answer to anything else.
const TAKEN: &str = "application/json, multipart/form-data, or the image itself as image/*";

/// How the request carries the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Base64 in a JSON object.
    Json,
    /// A file of a form.
    Multipart,
    /// The body is the image.
    Raw,
}

/// A request for a prediction, whatever form it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PredictRequest {
    /// The encoded image: not empty, nothing else is known of it.
    pub(crate) image: Bytes,
    /// Who asks and for what.
    pub(crate) ids: Ids,
}

/// The ids and the model of a request, as JSON fields, form fields or query parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Ids {
    /// The client's id of the request.
    pub(crate) request_id: Option<String>,
    /// Whose image it is.
    pub(crate) user_id: Option<String>,
    /// The model's name; none (or the empty name) is the repository's default.
    pub(crate) model: Option<String>,
}

#[derive(Deserialize)]
struct JsonBody<'a> {
    #[serde(borrow)]
    image: Option<Text<'a>>,
    request_id: Option<String>,
    user_id: Option<String>,
    model: Option<String>,
}

impl Form {
    /// The form that a media type announces.
    pub(crate) fn of(media_type: Option<String>) -> Result<Self, Error> {
        match media_type {
            Some(json) if is_json(&json) => Ok(Self::Json),
            Some(form) if form == "multipart/form-data" => Ok(Self::Multipart),
            Some(raw) if raw.starts_with("image/") || raw == "application/octet-stream" => Ok(Self::Raw),
            found => Err(Error::UnsupportedMediaType { found, expected: TAKEN }),
        }
    }

    /// Bytes of a body that carries an image of `image` bytes in this form.
    pub(crate) fn body_limit(self, image: usize) -> usize {
        const REST: usize = 64 << 10;
        match self {
            Self::Json => json_limit(image),
            Self::Multipart => image.saturating_add(REST),
            Self::Raw => image,
        }
    }
}

/// Bytes of a JSON body with an image of `image` bytes: base64 is a third longer, with line breaks written as `\r\n`
/// another twentieth.
pub(crate) fn json_limit(image: usize) -> usize {
    image.saturating_add(image / 2).saturating_add(64 << 10)
}

impl Ids {
    /// The ids in the query.
    pub(crate) fn of_query(uri: &Uri) -> Result<Self, Failure> {
        let Query(ids) = Query::<Self>::try_from_uri(uri)?;
        ids.check().map_err(|error| ids.failure(error))?;
        Ok(ids)
    }

    /// Checks each against the rule for ids.
    fn check(&self) -> Result<(), Error> {
        check_id("request_id", self.request_id.as_deref())?;
        check_id("user_id", self.user_id.as_deref())?;
        check_id("model", self.model.as_deref().filter(|name| !name.is_empty()))
    }

    /// These ids, and those of `query` where these have none. Two different values are refused: it cannot be known
    /// which one is meant.
    fn merge(self, query: &Self) -> Result<Self, Error> {
        Ok(Self {
            request_id: merge("request_id", self.request_id, &query.request_id)?,
            user_id: merge("user_id", self.user_id, &query.user_id)?,
            model: merge("model", self.model, &query.model)?,
        })
    }

    /// `error` with the request's id, unless that is what is wrong.
    fn failure(&self, error: Error) -> Failure {
        error.of(self.request_id.as_deref().filter(|id| identifier::validate(id).is_ok()))
    }
}

/// Checks an id that may be missing.
pub(crate) fn check_id(field: &'static str, id: Option<&str>) -> Result<(), Error> {
    id.map_or(Ok(()), identifier::validate).map_err(|problem| Error::Identifier { field, problem })
}

fn merge(field: &str, own: Option<String>, query: &Option<String>) -> Result<Option<String>, Error> {
    match (own, query) {
        (Some(own), Some(query)) if own != *query => Err(Error::InvalidRequest(format!(
            "{field} is given twice, in the body and in the query, with different values."
        ))),
        (own, query) => Ok(own.or_else(|| query.clone())),
    }
}

/// Reads the JSON form. Takes time: run it through [`Offload`](crate::offload::Offload).
pub(crate) fn from_json(body: &[u8], query: &Ids, max_image: usize) -> Result<PredictRequest, Failure> {
    let JsonBody { image, request_id, user_id, model } =
        json_object(body).map_err(|error| query.failure(error))?;
    let ids = Ids { request_id, user_id, model };
    ids.check().map_err(|error| ids.failure(error))?;
    let ids = ids.merge(query).map_err(|error| query.failure(error))?;
    let image = decode_image(image.as_ref(), max_image).map_err(|error| ids.failure(error))?;
    Ok(PredictRequest { image, ids })
}

/// Takes the body itself as the image.
pub(crate) fn from_raw(body: Bytes, query: Ids, max_image: usize) -> Result<PredictRequest, Failure> {
    let image = bounded(body, max_image).map_err(|error| query.failure(error))?;
    Ok(PredictRequest { image, ids: query })
}

/// Reads the form: the image is a view of the body, not a copy. Takes time, for a boundary may be anywhere in the body: run
/// it through [`Offload`](crate::offload::Offload).
pub(crate) fn from_multipart(
    content_type: Option<&HeaderValue>,
    body: Bytes,
    query: &Ids,
    max_image: usize,
) -> Result<PredictRequest, Failure> {
    let (image, ids) = read_form(content_type, body).map_err(|error| query.failure(error))?;
    ids.check().map_err(|error| ids.failure(error))?;
    let ids = ids.merge(query).map_err(|error| query.failure(error))?;
    let image = image
        .ok_or(Error::ImageRequired)
        .and_then(|image| bounded(image, max_image))
        .map_err(|error| ids.failure(error))?;
    Ok(PredictRequest { image, ids })
}

fn read_form(content_type: Option<&HeaderValue>, body: Bytes) -> Result<(Option<Bytes>, Ids), Error> {
    let malformed =
        |error: FormError| Error::InvalidRequest(format!("The multipart form cannot be read: {error}."));
    let mut parts = Parts::of(content_type, body).map_err(malformed)?;
    let (mut image, mut ids) = (None, Ids::default());
    while let Some(Part { name, data }) = parts.next().map_err(malformed)? {
        let (name, place) = match name.as_deref() {
            Some("image") => {
                if image.replace(data).is_some() {
                    return Err(given_twice("image"));
                }
                continue;
            }
            Some("request_id") => ("request_id", &mut ids.request_id),
            Some("user_id") => ("user_id", &mut ids.user_id),
            Some("model") => ("model", &mut ids.model),
            // Forms carry buttons and tokens of their own.
            _ => continue,
        };
        let text = String::from_utf8(data.to_vec())
            .map_err(|_| Error::InvalidRequest(format!("The form field {name} is not UTF-8 text.")))?;
        if place.replace(text).is_some() {
            return Err(given_twice(name));
        }
    }
    Ok((image, ids))
}

fn given_twice(field: &str) -> Error {
    Error::InvalidRequest(format!("The form has the field {field} twice: send it once."))
}

/// Decodes the base64 of a JSON body's `image`.
pub(crate) fn decode_image(text: Option<&Text<'_>>, max_image: usize) -> Result<Bytes, Error> {
    let text = text.map(Text::as_str).filter(|text| !text.is_empty()).ok_or(Error::ImageRequired)?;
    bounded(base64_text::decode(text)?.into(), max_image)
}

fn bounded(image: Bytes, limit: usize) -> Result<Bytes, Error> {
    if image.is_empty() {
        return Err(Error::ImageRequired);
    }
    if image.len() > limit {
        return Err(Error::TooLarge { what: "The image", limit });
    }
    Ok(image)
}
