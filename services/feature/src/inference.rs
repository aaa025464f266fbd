//! The gRPC client of model-serving, and what it knows of the models there.

mod detections;
mod model_input;
mod replicas;

pub(crate) use detections::Detection;
pub(crate) use model_input::ModelInput;
pub(crate) use replicas::Replicas;

use crate::{ConfigError, Error};
use bytes::{Bytes, BytesMut};
use convoy_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy_proto::inference::{InferParameter, ModelConfigRequest, ModelInferRequest, ModelInferResponse};
use http::HeaderValue;
use sandbox::Resize;
use service_kit::{ErrorCode, code_of_status, verdict_of_status};
use std::collections::HashMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

/// The peer's name in answers and logs.
pub(crate) const PEER: &str = "model-serving";
/// The longest message either way: a tensor of 4096×4096 RGB has 48 MiB.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// What is in a message at most besides the image, ids and names of models among it.
const BESIDES_BYTES: usize = 64 << 10;
/// The answer's metadata key with the version that a configuration is of.
const VERSION_KEY: &str = "x-convoy-model-version";

type Client = GrpcInferenceServiceClient<Channel>;

/// What a call to a peer inherits from the request that it is made for.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When the request must be done.
    pub(crate) deadline: Instant,
    /// The W3C trace context of the request, passed on as it is.
    pub(crate) traceparent: Option<HeaderValue>,
    /// The replica of model-serving to ask, if there is one and it can be; else the one with the fewest calls.
    pub(crate) replica: Option<SocketAddr>,
}

impl Call {
    /// What is left of the time.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// An image on its way to a model.
#[derive(Debug)]
pub(crate) enum Image {
    /// Preprocessed here: interleaved rows of the size and kind that the model takes.
    Pixels(Bytes),
    /// As the client sent it.
    Encoded(Bytes),
}

/// An answer of a model.
#[derive(Debug)]
pub(crate) struct Inference {
    /// The model that answered.
    pub(crate) model: String,
    /// Its version.
    pub(crate) version: String,
    /// Which preprocessing was loaded with the version, if model-serving says so.
    pub(crate) preprocessing_id: Option<String>,
    /// Boxes are 0..1 of the tensor, or of the upright image if that was sent encoded.
    pub(crate) detections: Vec<Detection>,
    /// How long the model ran, in milliseconds, as model-serving measured it.
    pub(crate) inference_time_ms: Option<f64>,
}

/// The client. Cheap to clone; all clones share the connections, made when they are first needed and again when they
/// broke.
#[derive(Clone, Debug)]
pub(crate) struct ModelServing {
    replicas: Replicas,
    /// Inputs by the name that requests ask with. Only models that exist get in, so clients cannot make it grow.
    inputs: Arc<Mutex<HashMap<String, Arc<ModelInput>>>>,
}

impl ModelServing {
    /// A client of the services at `urls`, separated by commas; connects with the first call.
    pub(crate) fn new(urls: &str) -> Result<Self, ConfigError> {
        Ok(Self { replicas: Replicas::new(urls)?, inputs: Arc::default() })
    }

    /// The connections to every replica, for other services at the same addresses.
    ///
    /// # Errors
    /// Why no address is known.
    pub(crate) async fn channels(&self) -> Result<Vec<Channel>, String> {
        self.replicas.channels().await
    }

    /// What is known of the input of `model`.
    pub(crate) fn known_input(&self, model: &str) -> Option<Arc<ModelInput>> {
        self.lock().get(model).cloned()
    }

    /// Asks for the input of `model` (empty: the default model) and remembers it.
    pub(crate) async fn ask_input(&self, model: &str, call: &Call) -> Result<Arc<ModelInput>, Error> {
        let request = ModelConfigRequest { name: model.to_owned(), version: String::new() };
        let ask = |mut client: Client, request| async move { client.model_config(request).await };
        let answer = self.call(request, call, ask).await;
        // Whatever went wrong, what was known is in doubt.
        let forget = |error| {
            self.lock().remove(model);
            error
        };
        let (answer, told_by) = answer.map_err(forget)?;
        let version = answer.metadata().get(VERSION_KEY).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let config = answer.into_inner().config.ok_or_else(|| Error::PeerAnswer {
            peer: PEER,
            detail: format!("its configuration of the model `{model}` is missing"),
        })?;
        let input = ModelInput::of(&config, version).map_err(forget)?;
        let input = Arc::new(ModelInput { told_by: Some(told_by), ..input });
        self.remember(model, Arc::clone(&input));
        Ok(input)
    }

    /// Remembers what is known of the input of `model`.
    pub(crate) fn remember(&self, model: &str, input: Arc<ModelInput>) {
        self.lock().insert(model.to_owned(), input);
    }

    /// Sends `image`, as `input` takes it, to `model` (as requests name it) for detections.
    pub(crate) async fn infer(
        &self,
        model: &str,
        input: &ModelInput,
        image: Image,
        request_id: &str,
        user_id: &str,
        call: &Call,
    ) -> Result<Inference, Error> {
        let user =
            InferParameter { parameter_choice: Some(ParameterChoice::StringParam(user_id.to_owned())) };
        let (datatype, shape, content) = match image {
            Image::Pixels(pixels) => {
                let Resize { width, height, .. } = input.resize;
                ("UINT8", vec![1, i64::from(height), i64::from(width), 3], pixels)
            }
            Image::Encoded(image) => ("BYTES", vec![1], element(&image)?),
        };
        let request = ModelInferRequest {
            model_name: model.to_owned(),
            // Not the version that the input is of: one that was replaced in between would not be found.
            model_version: String::new(),
            id: request_id.to_owned(),
            parameters: HashMap::from([("user_id".to_owned(), user)]),
            inputs: vec![InferInputTensor {
                name: input.tensor.clone(),
                datatype: datatype.to_owned(),
                shape,
                ..Default::default()
            }],
            outputs: vec![InferRequestedOutputTensor {
                name: detections::OUTPUT.to_owned(),
                ..Default::default()
            }],
            raw_input_contents: vec![content],
        };
        let ask = |mut client: Client, request| async move { client.model_infer(request).await };
        let (answer, _) = self.call(request, call, ask).await?;
        inference(answer.into_inner())
    }

    /// Sends `message` to a replica, and once more, to another one if there is, when that one is unavailable. Both calls
    /// of the protocol that are made here change nothing, so that none is done twice. Says who answered.
    async fn call<T: Clone, R, A>(
        &self,
        message: T,
        call: &Call,
        ask: impl Fn(Client, Request<T>) -> A,
    ) -> Result<(Response<R>, SocketAddr), Error>
    where
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let mut failed = None;
        loop {
            let choice = self.replicas.choose(failed.as_ref().map(|(address, _)| *address), call.replica);
            let replica = match timeout_at(call.deadline, choice).await {
                Ok(replica) => replica.map_err(unresolved)?,
                Err(_) => return Err(Error::DeadlineExceeded { waiting_for: PEER }),
            };
            let client = GrpcInferenceServiceClient::new(replica.channel())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            let answer = ask(client, self.request(message.clone(), call));
            let status = match timeout_at(call.deadline, answer).await {
                Ok(Ok(answer)) => return Ok((answer, replica.address())),
                Ok(Err(status)) => status,
                // A peer may not keep to the deadline that it was sent.
                Err(_) => return Err(Error::DeadlineExceeded { waiting_for: PEER }),
            };
            let unreachable = is_of_transport(&status);
            let unavailable = unreachable || status.code() == Code::Unavailable;
            // One that answers at once that it cannot has the fewest calls in flight, and would be asked first each time.
            if unavailable {
                replica.rest();
            }
            match failed {
                None if unavailable => {
                    tracing::debug!(address = %replica.address(), %status, "model-serving is asked once more");
                    failed = Some((replica.address(), status));
                }
                // The first answer of two that are the same says more: the second is often a connection refused.
                Some((_, first)) if unreachable => return Err(of_status(first)),
                _ => return Err(of_status(status)),
            }
        }
    }

    /// `message` with the deadline (as `grpc-timeout`) and the trace of `call`.
    fn request<T>(&self, message: T, call: &Call) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(call.remaining());
        let trace = call.traceparent.as_ref().and_then(|v| MetadataValue::try_from(v.as_bytes()).ok());
        if let Some(trace) = trace {
            request.metadata_mut().insert("traceparent", trace);
        }
        request
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<ModelInput>>> {
        // The map is whole after a panic elsewhere: each change is a single insertion or removal.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a status was made here because the connection failed, and not by the peer.
fn is_of_transport(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) && status.source().is_some()
}

fn unresolved(detail: String) -> Error {
    Error::ModelServing { code: ErrorCode::Unavailable, retry_after: None, verdict: None, message: detail }
}

fn of_status(status: Status) -> Error {
    let message = status.message().to_owned();
    match code_of_status(&status) {
        ErrorCode::DeadlineExceeded => Error::DeadlineExceeded { waiting_for: PEER },
        // Nothing is created there, and its own faults are for the log.
        ErrorCode::AlreadyExists | ErrorCode::Internal => {
            Error::PeerAnswer { peer: PEER, detail: format!("{:?}: {message}", status.code()) }
        }
        code => Error::ModelServing {
            code,
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            verdict: verdict_of_status(&status),
            message: if message.is_empty() { status.code().description().to_owned() } else { message },
        },
    }
}

/// The only element of a raw BYTES tensor: its length as u32 in little-endian order, then its bytes.
fn element(bytes: &Bytes) -> Result<Bytes, Error> {
    let limit = MAX_MESSAGE_BYTES - BESIDES_BYTES;
    let too_large = Error::TooLarge { what: "The image, which this model decodes itself,", limit };
    let length = match u32::try_from(bytes.len()) {
        Ok(length) if bytes.len() <= limit => length,
        _ => return Err(too_large),
    };
    let mut element = BytesMut::with_capacity(4 + bytes.len());
    element.extend_from_slice(&length.to_le_bytes());
    element.extend_from_slice(bytes);
    Ok(element.freeze())
}

fn inference(response: ModelInferResponse) -> Result<Inference, Error> {
    Ok(Inference {
        detections: detections::of_response(&response)?,
        inference_time_ms: detections::inference_time_ms(&response),
        preprocessing_id: detections::preprocessing_id(&response),
        model: response.model_name,
        version: response.model_version,
    })
}
