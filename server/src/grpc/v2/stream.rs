//! `ModelStreamInfer`: requests on one stream, answered in their order.
//!
//! The next requests are read and queued while earlier ones run, so that one stream can fill batches. A failed request
//! is answered in the stream, which goes on, as Triton does. The stream ends when the caller says that it is done or
//! hangs up, when its deadline passes, or, between two requests, when the server stops.

use super::infer::infer;
use crate::grpc::call::Call;
use crate::grpc::failure;
use crate::state::ServingState;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use prost::Message as _;
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Requests of a stream that wait or run at once. More stay with the caller until one is answered.
const IN_FLIGHT: usize = 16;
/// In answers on a stream: no other answer to this request follows. Clients of Triton look for it, since there are
/// models there that answer several times.
const FINAL_RESPONSE: &str = "triton_final_response";

/// The answers of a stream.
pub(super) type Answers = ReceiverStream<Result<ModelStreamInferResponse, Status>>;

/// Starts answering `requests`.
pub(super) fn start(state: Arc<ServingState>, call: Call, requests: Streaming<ModelInferRequest>) -> Answers {
    // One answer waits for the caller to read it; then no more requests are taken.
    let (answers, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let (deadline, gone) = (call.deadline, answers.clone());
        tokio::select! {
            () = answer_all(&state, &call, requests, &answers) => {}
            // Dropping the work takes its requests out of the queue.
            () = gone.closed() => {}
            () = passing(deadline) => {
                let status = Status::deadline_exceeded("The deadline of the stream passed: allow it more time.");
                // The caller may have gone with its deadline.
                let _ = answers.try_send(Err(status));
            }
        }
    });
    ReceiverStream::new(stream)
}

async fn answer_all(
    state: &ServingState,
    call: &Call,
    mut requests: Streaming<ModelInferRequest>,
    answers: &mpsc::Sender<Result<ModelStreamInferResponse, Status>>,
) {
    let mut in_flight = FuturesOrdered::new();
    // Why nothing more is read: the stream's own end, or what it failed with.
    let mut ended: Option<Option<Status>> = None;
    loop {
        if in_flight.is_empty()
            && let Some(end) = ended.take()
        {
            if let Some(status) = end {
                // The caller may have gone.
                let _ = answers.send(Err(status)).await;
            }
            return;
        }
        tokio::select! {
            biased;
            Some(answer) = in_flight.next() => {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            message = requests.message(), if ended.is_none() && in_flight.len() < IN_FLIGHT => match message {
                Ok(Some(request)) => in_flight.push_back(answer(state, call, request)),
                Ok(None) => ended = Some(None),
                // Nothing can be read from the stream after this.
                Err(status) => {
                    ended = Some(Some(failure::unread(&status, "ModelStreamInfer").unwrap_or(status)));
                }
            },
            () = state.shutdown().stopping(), if ended.is_none() => ended = Some(None),
        }
    }
}

async fn answer(state: &ServingState, call: &Call, request: ModelInferRequest) -> ModelStreamInferResponse {
    // Each request is named by itself, and gives back what it holds when it is answered.
    let call = call.another(state.in_flight.permit(), request.encoded_len());
    let (model, id) = (request.model_name.clone(), request.id.clone());
    let (error_message, mut response) = match infer(state, &call, request).await {
        Ok(response) => (String::new(), response),
        Err(error) => (
            failure::answer(&error, &call, "ModelStreamInfer", &model).message().to_owned(),
            // Says which request failed.
            ModelInferResponse { id, ..Default::default() },
        ),
    };
    call.answered(response.encoded_len());
    let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    response.parameters.insert(FINAL_RESPONSE.to_owned(), last);
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}

async fn passing(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
