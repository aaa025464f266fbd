//! The body of `POST /predictions`, checked field by field so that each mistake gets a sentence of its own.

use crate::error::{RequestError, check_identifier};
use crate::store::NewPrediction;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use service_kit::identifier;

/// The fields as they were sent. A field that is not known is passed over.
#[derive(Debug, Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    predictions: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    model_version: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    inference_time_ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    model_name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    content_sha256: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    received_at: Option<&'a RawValue>,
}

/// The elements of `body` if it is an array. They are not looked into.
pub(super) fn elements(body: &[u8]) -> Result<Option<Vec<&RawValue>>, RequestError> {
    if !body.trim_ascii_start().starts_with(b"[") {
        return Ok(None);
    }
    serde_json::from_str(utf8(body)?).map(Some).map_err(|error| RequestError::NotJson(error.to_string()))
}

fn utf8(body: &[u8]) -> Result<&str, RequestError> {
    std::str::from_utf8(body)
        .map_err(|e| RequestError::NotJson(format!("it is not UTF-8 after byte {}", e.valid_up_to())))
}

/// The text of any value, `null` too: left to itself, serde takes `null` for an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

const TEXT: &str = "a string of at most 256 bytes without control characters";
const DURATION: &str = "a number of milliseconds, finite and not negative";
const INSTANT: &str = "a time as RFC 3339 has it, such as 2026-11-23T09:14:55.000123Z";
const SHA256: &str = "a SHA-256 as 64 hexadecimal digits";

impl<'a> Fields<'a> {
    /// Finds the fields in `body`. Values are not looked into, however deep they nest.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, RequestError> {
        let text = utf8(body)?;
        // serde would take an array for the fields in their order.
        if text.trim_ascii_start().starts_with('[') {
            return Err(RequestError::NotAnObject);
        }
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data if !text.trim_ascii_start().starts_with('{') => {
                RequestError::NotAnObject
            }
            _ => RequestError::NotJson(error.to_string()),
        })
    }

    /// The request's id, if it is one, for answers that say what is wrong with the rest.
    pub(super) fn request_id(&self) -> Option<String> {
        text(self.request_id?).filter(|id| identifier::validate(id).is_ok())
    }

    /// The prediction, if every field is as it should be.
    ///
    /// A required field that is `null` is missing, save `predictions`: `null` is JSON too. An optional field that is
    /// `null` is absent.
    pub(super) fn to_prediction(&self) -> Result<NewPrediction, RequestError> {
        let request_id = required("request_id", self.request_id)?;
        let user_id = required("user_id", self.user_id)?;
        let predictions = self.predictions.ok_or(RequestError::MissingField("predictions"))?;
        let model_version = required("model_version", self.model_version)?;
        let inference_time_ms = required("inference_time_ms", self.inference_time_ms)?;
        Ok(NewPrediction {
            request_id: id("request_id", request_id)?,
            user_id: id("user_id", user_id)?,
            model_name: optional("model_name", self.model_name, TEXT, short_text)?,
            model_version: wanted("model_version", model_version, TEXT, short_text)?,
            inference_time_ms: wanted("inference_time_ms", inference_time_ms, DURATION, duration)?,
            predictions: predictions.to_owned(),
            content_sha256: optional("content_sha256", self.content_sha256, SHA256, sha256)?,
            received_at: optional("received_at", self.received_at, INSTANT, instant)?,
        })
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

fn required<'a>(field: &'static str, value: Option<&'a RawValue>) -> Result<&'a RawValue, RequestError> {
    value.filter(|v| !is_null(v)).ok_or(RequestError::MissingField(field))
}

fn wanted<T>(
    field: &'static str,
    value: &RawValue,
    expected: &'static str,
    read: fn(&RawValue) -> Option<T>,
) -> Result<T, RequestError> {
    read(value).ok_or(RequestError::WrongField { field, expected })
}

fn optional<T>(
    field: &'static str,
    value: Option<&RawValue>,
    expected: &'static str,
    read: fn(&RawValue) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    value.filter(|v| !is_null(v)).map(|v| wanted(field, v, expected, read)).transpose()
}

fn id(field: &'static str, value: &RawValue) -> Result<String, RequestError> {
    let id = wanted(field, value, "a string", text)?;
    check_identifier(field, &id)?;
    Ok(id)
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn short_text(value: &RawValue) -> Option<String> {
    text(value).filter(|t| t.len() <= identifier::MAX_BYTES && !t.contains(char::is_control))
}

fn duration(value: &RawValue) -> Option<f64> {
    // A number beyond f64's range is an error of the parser.
    serde_json::from_str::<f64>(value.get()).ok().filter(|ms| ms.is_finite() && *ms >= 0.0)
}

fn sha256(value: &RawValue) -> Option<String> {
    let digits = text(value)?.to_ascii_lowercase();
    (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

fn instant(value: &RawValue) -> Option<jiff::Timestamp> {
    text(value)?.parse().ok()
}
