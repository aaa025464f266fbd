//! Reads the `detections` output of model-serving.

use crate::Error;
use bytes::Bytes;
use convoy_proto::inference::ModelInferResponse;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use sandbox::Placement;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Name of the output.
pub(crate) const OUTPUT: &str = "detections";

/// A detected object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Detection {
    /// The model's label.
    pub(crate) class_name: String,
    /// 0..1.
    pub(crate) confidence: f32,
    /// Where it is.
    pub(crate) bbox: BoundingBox,
}

/// A box: 0..1 of the tensor as model-serving sends it, 0..1 of the upright image as clients get it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BoundingBox {
    pub(crate) x_min: f32,
    pub(crate) y_min: f32,
    pub(crate) x_max: f32,
    pub(crate) y_max: f32,
}

impl Detection {
    /// Takes the box from the tensor to the image that lies in it.
    pub(crate) fn to_image(&self, placement: &Placement) -> Self {
        let BoundingBox { x_min, y_min, x_max, y_max } = self.bbox;
        let [x_min, y_min, x_max, y_max] = placement.to_image([x_min, y_min, x_max, y_max]);
        Self { bbox: BoundingBox { x_min, y_min, x_max, y_max }, ..self.clone() }
    }
}

/// The detections of the first (and only) row.
pub(crate) fn of_response(response: &ModelInferResponse) -> Result<Vec<Detection>, Error> {
    let json = output_bytes(response)?;
    serde_json::from_slice(&json).map_err(|error| not_understood(format!("its {OUTPUT} output: {error}")))
}

/// The `inference_time_ms` of an answer, if it has a sensible one.
pub(crate) fn inference_time_ms(response: &ModelInferResponse) -> Option<f64> {
    match response.parameters.get("inference_time_ms")?.parameter_choice.as_ref()? {
        ParameterChoice::DoubleParam(ms) if ms.is_finite() && *ms >= 0.0 => Some(*ms),
        _ => None,
    }
}

/// The `preprocessing_id` of an answer, if it has one.
pub(crate) fn preprocessing_id(response: &ModelInferResponse) -> Option<String> {
    match response.parameters.get("preprocessing_id")?.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(id) => Some(id.clone()),
        _ => None,
    }
}

fn output_bytes(response: &ModelInferResponse) -> Result<Bytes, Error> {
    let place = response.outputs.iter().position(|output| output.name == OUTPUT);
    let place = place.ok_or_else(|| not_understood(format!("it has no output {OUTPUT}")))?;
    // An answer has its outputs either all raw or all in `contents`.
    if let Some(raw) = response.raw_output_contents.get(place) {
        return first_element(raw).ok_or_else(|| not_understood(format!("its {OUTPUT} output is cut off")));
    }
    let contents = response.outputs[place].contents.as_ref();
    let first = contents.and_then(|contents| contents.bytes_contents.first());
    first.cloned().ok_or_else(|| not_understood(format!("its {OUTPUT} output is empty")))
}

/// The first element of a raw BYTES tensor: its length as u32 in little-endian order, then its bytes.
fn first_element(raw: &Bytes) -> Option<Bytes> {
    let length = u32::from_le_bytes(raw.get(..4)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(4)?;
    (end <= raw.len()).then(|| raw.slice(4..end))
}

fn not_understood(detail: String) -> Error {
    Error::PeerAnswer { peer: "model-serving", detail }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use convoy_proto::inference::model_infer_response::InferOutputTensor;

    fn response(raw: &'static [u8]) -> ModelInferResponse {
        let output = |name: &str| InferOutputTensor { name: name.to_owned(), ..Default::default() };
        ModelInferResponse {
            outputs: vec![output("scores"), output(OUTPUT)],
            raw_output_contents: vec![Bytes::from_static(b"ignored"), Bytes::from_static(raw)],
            ..Default::default()
        }
    }

    #[test]
    fn the_row_is_found_beside_other_outputs() {
        assert_eq!(of_response(&response(b"\x02\0\0\0[]")).unwrap(), []);
    }

    #[test]
    fn nonsense_is_our_peers_fault_and_not_a_panic() {
        for raw in [&b""[..], b"\x02\0\0", b"\x03\0\0\0[]", b"\xff\xff\xff\xff[]", b"\x02\0\0\0{}"] {
            let error = of_response(&response(raw)).unwrap_err();
            assert_eq!(error.code(), service_kit::ErrorCode::Internal, "{raw:?}");
        }
        assert!(of_response(&ModelInferResponse::default()).is_err());
    }

    #[test]
    fn boxes_are_taken_to_the_image() {
        let bbox = BoundingBox { x_min: 0.25, y_min: 0.25, x_max: 0.75, y_max: 0.5 };
        let detection = Detection { class_name: "bus".to_owned(), confidence: 0.5, bbox };
        let placement = Placement { x_min: 0.0, y_min: 0.25, x_max: 1.0, y_max: 0.75 };
        let bbox = detection.to_image(&placement).bbox;
        assert_eq!(bbox, BoundingBox { x_min: 0.25, y_min: 0.0, x_max: 0.75, y_max: 0.5 });
    }
}
