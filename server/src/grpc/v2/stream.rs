//! `ModelStreamInfer`: requests on one stream, answered in their order.
//!
//! The next requests are read and queued while earlier ones run, so that one stream can fill batches. A failed request
//! is answered in the stream, which goes on, as Triton does. The stream ends when the caller says that it is done or
//! hangs up, when its deadline passes, or, between two requests, when the server stops.

use super::infer::infer;
use crate::grpc::call::Call;
use crate::grpc::failure;
use crate::grpc::inflate::PREFIX_BYTES;
use crate::grpc::transport::LARGE_WINDOW_BYTES;
use crate::limits::{HeldStream, Permit, Reason};
use crate::state::ServingState;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use futures_util::stream::{FuturesOrdered, Stream, StreamExt as _};
use prost::Message as _;
use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Requests of a stream that wait, run, or are answered and not read. More stay with the caller until one is read.
const IN_FLIGHT: usize = 16;
/// In answers on a stream: no other answer to this request follows. Clients of Triton look for it, since there are
/// models there that answer several times.
const FINAL_RESPONSE: &str = "triton_final_response";

/// The answers of a stream.
pub(crate) struct Answers(mpsc::Receiver<Result<Answer, Status>>);

impl Stream for Answers {
    type Item = Result<ModelStreamInferResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What asks for an answer makes it a frame at once, which the admission layer counts.
        self.0.poll_recv(cx).map(|answer| answer.map(|answer| answer.map(|Answer { message, .. }| message)))
    }
}

/// An answer that nobody has read yet.
struct Answer {
    message: ModelStreamInferResponse,
    /// What it holds. Its turn may come late: those before it must be ready, and read.
    _permit: Permit,
}

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
                // Behind the answer that waits to be read, if one does. The caller may have gone with its deadline.
                let _ = answers.send(Err(status)).await;
            }
        }
    });
    Answers(stream)
}

async fn answer_all(
    state: &ServingState,
    call: &Call,
    requests: Streaming<ModelInferRequest>,
    answers: &mpsc::Sender<Result<Answer, Status>>,
) {
    let mut requests = Some(requests);
    let mut in_flight = FuturesOrdered::new();
    // Answers that wait for their reader, in order. The others go on meanwhile.
    let mut finished = VecDeque::new();
    // Why nothing more is read: the stream's own end, or what it failed with.
    let mut ended: Option<Option<Status>> = None;
    // There while requests stay with the caller because the model has not answered those before them. That its answers
    // are not read is the caller's own doing.
    let mut held: Option<HeldStream> = None;
    // There while nothing is read, for whatever reason: what the caller sends meanwhile lies in h2's buffers.
    let mut window: Option<Permit> = None;
    loop {
        if in_flight.is_empty()
            && finished.is_empty()
            && let Some(end) = ended.take()
        {
            if let Some(status) = end {
                // The caller may have gone.
                let _ = answers.send(Err(status)).await;
            }
            return;
        }
        if ended.is_some() && requests.take().is_some() {
            // What came of a message that will never be whole is not kept until the others are answered.
            call.let_go();
        }
        let is_full = in_flight.len() + finished.len() >= IN_FLIGHT;
        let (may_read, is_unread) = (ended.is_none() && !is_full, ended.is_none() && is_full);
        held = match call.connection.filter(|_| is_unread && !in_flight.is_empty()) {
            Some(connection) => held.or_else(|| Some(state.held_back.hold(connection))),
            None => None,
        };
        if !is_unread {
            window = None;
        } else if window.is_none() {
            let permit = state.in_flight.permit();
            if let Err(error) = permit.grow(LARGE_WINDOW_BYTES as usize) {
                state.early_refusals.count(Reason::Memory);
                ended = Some(Some(failure::answer(&error, call, "ModelStreamInfer", "")));
                continue;
            }
            window = Some(permit);
        }
        tokio::select! {
            biased;
            place = answers.reserve(), if !finished.is_empty() => match (place, finished.pop_front()) {
                (Ok(place), Some(answer)) => place.send(Ok(answer)),
                _ => return,
            },
            Some(answer) = in_flight.next() => finished.push_back(answer),
            message = next(&mut requests), if may_read => match message {
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

async fn next(
    requests: &mut Option<Streaming<ModelInferRequest>>,
) -> Result<Option<ModelInferRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => Ok(None),
    }
}

async fn answer(state: &ServingState, call: &Call, request: ModelInferRequest) -> Answer {
    // Each request is named by itself, and holds what it holds until its answer is read.
    let permit = state.in_flight.permit();
    let of_one = call.another(permit.clone());
    let (model, id) = (request.model_name.clone(), request.id.clone());
    let answer = match call.hand_over(&of_one, PREFIX_BYTES + request.encoded_len()) {
        Ok(()) => infer(state, &of_one, request).await,
        Err(error) => {
            if let Ok(model) = state.model(&request.model_name, &request.model_version) {
                model.count_failure(error.code());
            }
            Err(error)
        }
    };
    let (error_message, mut response) = match answer {
        Ok(response) => (String::new(), response),
        Err(error) => {
            let status = failure::answer(&error, &of_one, "ModelStreamInfer", &model);
            // Says which request failed.
            let response = ModelInferResponse { id, ..Default::default() };
            of_one.answered(response.encoded_len());
            (status.message().to_owned(), response)
        }
    };
    if permit.was_refused() {
        state.early_refusals.count(Reason::Memory);
    }
    let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    response.parameters.insert(FINAL_RESPONSE.to_owned(), last);
    Answer {
        message: ModelStreamInferResponse { error_message, infer_response: Some(response) },
        _permit: permit,
    }
}

async fn passing(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
