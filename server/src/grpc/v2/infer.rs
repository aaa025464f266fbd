//! One inference of the Open Inference Protocol, from its message to its answer.

use super::{answer, codec};
use crate::error::ServingError;
use crate::grpc::call::Call;
use crate::inference::{self, Ask, WantedOutput};
use crate::state::ServingState;
use convoy_proto::inference::model_infer_request::InferRequestedOutputTensor;
use convoy_proto::inference::{ModelInferRequest, ModelInferResponse};
use prost::Message as _;
use std::time::Instant;

/// Runs `request` and answers what it wants.
pub(super) async fn infer(
    state: &ServingState,
    call: &Call,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, ServingError> {
    let arrival = Instant::now();
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } =
        request;
    if !id.is_empty() {
        inference::check_id(&id)?;
        call.name(&id);
    }
    let model = state.model(&model_name, &model_version)?;
    let raw = !raw_input_contents.is_empty();
    let ask = Ask {
        id,
        parameters: codec::parameters(parameters),
        inputs: codec::inputs(inputs, raw_input_contents)?,
        outputs: outputs.into_iter().map(wanted).collect(),
    };
    if !raw {
        // They were made from the message; raw ones are parts of it.
        call.caller().grow(ask.inputs.iter().map(|input| input.data.len()).sum())?;
    }
    let (answer, audited) = inference::infer(state, &model, call.caller(), arrival, ask).await?;
    let message = answer::message(&model, answer)?;
    call.answered(message.encoded_len());
    audited.write(state, &model, call.caller());
    Ok(message)
}

fn wanted(output: InferRequestedOutputTensor) -> WantedOutput {
    WantedOutput { name: output.name, parameters: codec::parameters(output.parameters) }
}
