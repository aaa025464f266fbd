//! One inference of the Open Inference Protocol, from its message to its answer.

use super::codec::{self, Parameters, invalid};
use crate::audit::{Prediction, milliseconds};
use crate::error::ServingError;
use crate::grpc::MAX_MESSAGE_BYTES;
use crate::grpc::call::Call;
use crate::grpc::predict::check_user_id;
use crate::repository::{DETECTIONS_OUTPUT, InferenceRequest, ModelVersion, Task};
use crate::state::ServingState;
use crate::tensor::Tensor;
use convoy_proto::inference::model_infer_request::InferRequestedOutputTensor;
use convoy_proto::inference::{ModelInferRequest, ModelInferResponse};
use prost::Message as _;
use service_kit::identifier;
use std::collections::HashSet;
use std::time::Instant;

/// Runs `request` and answers its outputs, raw; writes its audit line.
pub(super) async fn infer(
    state: &ServingState,
    call: &Call,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, ServingError> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } =
        request;
    // An id is the caller's to have or not: it is echoed as it came.
    if !id.is_empty() {
        identifier::validate(&id).map_err(|reason| invalid(format!("id {reason}.")))?;
        call.name(&id);
    }
    let user_id = codec::text_parameter(&parameters, "user_id")?;
    check_user_id(user_id)?;
    let deadline = call.deadline_within(Instant::now(), codec::timeout_parameter(&parameters)?);
    let model = state.model(&model_name, &model_version)?;
    let wanted = Wanted::new(&model, outputs)?;
    let inputs = codec::inputs(inputs, raw_input_contents)?;

    let request = InferenceRequest { id: id.clone(), inputs, outputs: wanted.model_outputs(), priority: 0 };
    let mut response = model.infer(request, deadline).await?;
    let detections = if wanted.detections { Some(model.detections(&response)?) } else { None };

    let found = detections.as_ref().map(|rows| rows.iter().map(Vec::len).sum());
    let detections = detections.as_deref().map(codec::detections_output).transpose()?;
    let mut answer = ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        id,
        parameters: timings(milliseconds(response.inference), milliseconds(response.queue)),
        ..Default::default()
    };
    for tensor in wanted.pick(std::mem::take(&mut response.outputs), detections) {
        codec::push_output(&mut answer, tensor);
    }
    let bytes = answer.encoded_len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(ServingError::TooLarge(format!(
            "The answer has {bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES} bytes: ask for fewer rows or \
             outputs."
        )));
    }
    state.audit.write(&Prediction {
        request_id: &answer.id,
        user_id,
        model: model.name(),
        version: model.version(),
        detections: found,
        queue: response.queue,
        inference: response.inference,
        traceparent: call.traceparent.as_deref(),
    });
    Ok(answer)
}

fn timings(inference_ms: f64, queue_ms: f64) -> Parameters {
    [("inference_time_ms", inference_ms), ("queue_time_ms", queue_ms)]
        .map(|(name, value)| (name.to_owned(), codec::number(value)))
        .into()
}

/// The outputs that a request wants.
struct Wanted {
    /// In the order of the request; empty: all of the model's.
    names: Vec<String>,
    /// Whether [`DETECTIONS_OUTPUT`] is among them and made here, and not an output of the model itself.
    detections: bool,
}

impl Wanted {
    fn new(model: &ModelVersion, outputs: Vec<InferRequestedOutputTensor>) -> Result<Self, ServingError> {
        let mut seen = HashSet::new();
        for output in &outputs {
            let name = output.name.as_str();
            if !seen.insert(name) {
                return Err(invalid(format!("Output `{name}` is asked for twice: ask once.")));
            }
            for unsupported in ["classification", "shared_memory_region"] {
                if output.parameters.contains_key(unsupported) {
                    return Err(invalid(format!(
                        "Output `{name}` is asked for with the parameter `{unsupported}`, which is not supported: \
                         leave it out."
                    )));
                }
            }
        }
        let detections = model.task() == Task::Detection && seen.contains(DETECTIONS_OUTPUT);
        // Without detections, the model checks the names itself: it is asked for just these.
        let is_known =
            |name: &str| name == DETECTIONS_OUTPUT || model.outputs().iter().any(|o| *o.name == *name);
        if detections && let Some(unknown) = outputs.iter().find(|output| !is_known(&output.name)) {
            return Err(invalid(format!("Model `{}` has no output `{}`.", model.name(), unknown.name)));
        }
        Ok(Self { names: outputs.into_iter().map(|output| output.name).collect(), detections })
    }

    /// What the model is asked for: detections are made from all of its outputs.
    fn model_outputs(&self) -> Vec<String> {
        if self.detections { Vec::new() } else { self.names.clone() }
    }

    /// The outputs of the answer, in the order of the request.
    fn pick(&self, mut outputs: Vec<Tensor>, mut detections: Option<Tensor>) -> Vec<Tensor> {
        if !self.detections {
            return outputs;
        }
        let mut take = |name: &String| {
            if name == DETECTIONS_OUTPUT {
                return detections.take();
            }
            let place = outputs.iter().position(|output| output.name == *name)?;
            Some(outputs.swap_remove(place))
        };
        self.names.iter().filter_map(&mut take).collect()
    }
}
