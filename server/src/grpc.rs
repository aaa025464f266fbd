//! The gRPC face: Convoy's own service, the Open Inference Protocol, health and reflection.
//!
//! | module | what it holds |
//! |---|---|
//! | [`admission`] | the layer that refuses calls on their headers and counts what they hold |
//! | [`deadline`] | the layer that keeps the caller's deadline |
//! | [`call`] | what the layers tell a handler about its call |
//! | [`end_at_stop`] | ends reflection calls when the server stops |
//! | [`failure`] | where a failed call ends: one log line, one status |
//! | [`inflate`] | decompresses messages, away from the async threads |
//! | [`health`] | `grpc.health.v1` |
//! | [`predict`] | `model_serving.ModelServing` |
//! | [`transport`] | HTTP/2: connections, and a task for each call |
//! | [`v2`] | `inference.GRPCInferenceService` |

mod admission;
mod call;
mod deadline;
mod end_at_stop;
mod failure;
mod health;
mod inflate;
mod predict;
mod transport;
pub(crate) mod v2;

pub(crate) use transport::STREAMS_TO_FILL_A_CONNECTION;

use crate::state::ServingState;
use admission::AdmissionLayer;
use convoy_proto::inference::grpc_inference_service_server::{
    GrpcInferenceServiceServer, SERVICE_NAME as INFERENCE,
};
use convoy_proto::model_serving::model_serving_server::{ModelServingServer, SERVICE_NAME as MODEL_SERVING};
use deadline::DeadlineLayer;
use end_at_stop::EndAtStopLayer;
use health::HealthService;
use service_kit::{Listening, Readiness, Shutdown};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_reflection::server::Builder as Reflection;
use tower::ServiceBuilder;
use transport::{StreamWindow, Transport};

/// The largest message, in bytes, in either direction.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The services whose health is told, besides that of the server as a whole.
const SERVICES: &[&str] = &[MODEL_SERVING, INFERENCE];

/// Why the gRPC face ended.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The listener is not one.
    #[error("The gRPC listener cannot be used: {0}.")]
    Listener(#[source] std::io::Error),
    /// The descriptors compiled into this binary are not what reflection expects.
    #[error("The descriptors of the gRPC services cannot be served: {0}.")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

/// Serves on `listener` until `shutdown` stops; then answers what is open and returns.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<ServingState>,
    max_connection_age: Option<Duration>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), GrpcError> {
    let model_serving = ModelServingServer::new(predict::ModelServing::new(Arc::clone(&state)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let inference = GrpcInferenceServiceServer::new(v2::InferenceService::new(Arc::clone(&state)))
        // The admission layer decompresses; this only says so to clients. Answers are never compressed: clients offer
        // it without being asked, and it would cost more than it saves.
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let listening = Listening::new(listener, &shutdown).map_err(GrpcError::Listener)?;
    let window = Arc::new(StreamWindow::new());
    let routes = Routes::new(HealthService::server(SERVICES, readiness, shutdown.clone()))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(model_serving)
        .add_service(inference)
        .prepare();
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer)
        .layer(AdmissionLayer::new(state, Arc::clone(&window)))
        .layer(EndAtStopLayer::new(shutdown, &["/grpc.reflection."]))
        .service(routes);
    Transport { max_connection_age, window }.serve(listening, service).await;
    Ok(())
}

fn reflection() -> Reflection<'static> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(convoy_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
