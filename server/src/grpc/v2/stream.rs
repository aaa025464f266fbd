//! `ModelStreamInfer`: requests on one stream, answered one after the other in their order.
//!
//! A failed request is answered in the stream, which goes on, as Triton does. The stream ends when the caller says
//! that it is done or hangs up, when its deadline passes, or, between two requests, when the server stops.

use super::infer::infer;
use crate::grpc::call::Call;
use crate::grpc::failure;
use crate::state::ServingState;
use convoy_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// The answers of a stream.
pub(super) type Answers = ReceiverStream<Result<ModelStreamInferResponse, Status>>;

/// Starts answering `requests`.
pub(super) fn start(state: Arc<ServingState>, call: Call, requests: Streaming<ModelInferRequest>) -> Answers {
    // One answer waits for the caller to read it; then the next request is not taken.
    let (answers, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let (deadline, gone) = (call.deadline, answers.clone());
        tokio::select! {
            () = answer_all(&state, &call, requests, &answers) => {}
            // Dropping the work takes its request out of the queue.
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
    loop {
        let message = tokio::select! {
            biased;
            message = requests.message() => message,
            () = state.shutdown().stopping() => return,
        };
        let answer = match message {
            Ok(Some(request)) => Ok(answer(state, call, request).await),
            Ok(None) => return,
            // Nothing can be read from the stream after this.
            Err(status) if status.code() == Code::OutOfRange => {
                Err(failure::message_too_large("ModelStreamInfer"))
            }
            Err(status) => Err(status),
        };
        let last = answer.is_err();
        if answers.send(answer).await.is_err() || last {
            return;
        }
    }
}

async fn answer(state: &ServingState, call: &Call, request: ModelInferRequest) -> ModelStreamInferResponse {
    // Each request is named by itself.
    let call = call.another();
    let (model, id) = (request.model_name.clone(), request.id.clone());
    match infer(state, &call, request).await {
        Ok(response) => {
            ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
        }
        Err(error) => ModelStreamInferResponse {
            error_message: failure::answer(&error, &call, "ModelStreamInfer", &model).message().to_owned(),
            // Says which request failed.
            infer_response: Some(ModelInferResponse { id, ..Default::default() }),
        },
    }
}

async fn passing(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
