//! One inference of the Open Inference Protocol, from its message to its answer.

use super::{answer, codec, size};
use crate::error::ServingError;
use crate::grpc::call::Call;
use crate::inference::{self, Ask, WantedOutput};
use crate::state::ServingState;
use convoy_proto::inference::model_infer_request::InferRequestedOutputTensor;
use convoy_proto::inference::{ModelInferRequest, ModelInferResponse};
use prost::Message as _;
use std::sync::Arc;
use std::time::Instant;

/// Runs `request` and answers what it wants. Its bytes on the wire are counted already.
pub(super) async fn infer(
    state: &ServingState,
    call: &Call,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, ServingError> {
    let arrival = Instant::now();
    let decoded = size::of_request(&request);
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } =
        request;
    // One that may not be said is refused below, for its model.
    if !id.is_empty() && inference::check_id(&id).is_ok() {
        call.name(&id);
    }
    let model = state.model(&model_name, &model_version)?;
    let read = async {
        let made = size::of_tensors(&inputs);
        call.caller().grow(decoded + made)?;
        // Raw tensors are not looked at, and add next to nothing to either.
        state.offload.run(decoded + made, move || codec::inputs(inputs, raw_input_contents)).await?
    };
    let inputs = model.counted(read.await)?;
    let ask = Ask {
        id,
        parameters: codec::parameters(parameters),
        inputs,
        outputs: outputs.into_iter().map(wanted).collect(),
    };
    let (answer, audited) = inference::infer(state, &model, call.caller(), arrival, ask).await?;
    let (of, cost) = (Arc::clone(&model), answer::cost(&answer));
    let message = state.offload.run(cost, move || answer::message(&of, answer)).await??;
    call.answered(message.encoded_len().max(size::of_typed_outputs(&message)));
    audited.write(state, &model, call.caller());
    Ok(message)
}

fn wanted(output: InferRequestedOutputTensor) -> WantedOutput {
    WantedOutput { name: output.name, parameters: codec::parameters(output.parameters) }
}
