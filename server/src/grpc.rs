//! The gRPC face: Convoy's own service, the Open Inference Protocol, health and reflection.
//!
//! | module | what it holds |
//! |---|---|
//! | [`admission`] | the layer that refuses calls on their headers and counts what they hold |
//! | [`coalesce`] | sends a short answer in one piece |
//! | [`deadline`] | the layer that keeps the caller's deadline |
//! | [`call`] | what the layers tell a handler about its call |
//! | [`end_at_stop`] | ends reflection calls when the server stops |
//! | [`failure`] | where a failed call ends: one log line, one status |
//! | [`inflate`] | decompresses messages, away from the async threads |
//! | [`health`] | `grpc.health.v1` |
//! | [`predict`] | `model_serving.ModelServing` |
//! | [`v2`] | `inference.GRPCInferenceService` |

mod admission;
mod call;
mod coalesce;
mod deadline;
mod end_at_stop;
mod failure;
mod health;
mod inflate;
mod predict;
pub(crate) mod v2;

use crate::state::ServingState;
use admission::AdmissionLayer;
use coalesce::Coalescing;
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
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_reflection::server::Builder as Reflection;

/// The largest message, in bytes, in either direction.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a client may send on one stream before it must wait for us to read. A call that is refused on its headers has
/// sent as much when it learns of it, and every wait costs a call that is taken. Measured with calls of 270 KB over
/// loopback and frames of 16 KiB, CPU time of both sides: taken 0.25 ms at 1 MiB, 0.28 at 128 KiB, 0.35–0.49 at 64 KiB;
/// refused 0.25, 0.09–0.15 and 0.06–0.12. At two and five times the capacity, in percent of raw ONNX Runtime within
/// 100 ms, medians of two runs: 85 and 84 at 256 KiB, 89 and 89 at 128 KiB, 89 and 89 at 64 KiB. A window that adapts does
/// as well until a connection has had calls of both kinds.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// The longest frame that a client may send: each is read, copied and passed on by itself, and HTTP/2's 16 KiB make 17 of
/// a call of 270 KB. One a connection is in memory before it is counted.
const FRAME_BYTES: u32 = 64 * 1024;
/// The same for all streams of a connection, so that one large upload does not hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// So many streams that are not read use up a connection.
pub(crate) const STREAMS_TO_FILL_A_CONNECTION: usize =
    (CONNECTION_WINDOW_BYTES / STREAM_WINDOW_BYTES) as usize;
/// Calls open at once on one connection; more wait at the client.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// How often a silent connection is asked whether its client is still there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// The services whose health is told, besides that of the server as a whole.
const SERVICES: &[&str] = &[MODEL_SERVING, INFERENCE];

/// Why the gRPC face ended.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// Accepting connections failed.
    #[error("The gRPC server failed: {0}.")]
    Transport(#[from] tonic::transport::Error),
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
    let closed = listening.closed();
    let connections = listening.into_stream().map(|accepted| accepted.map(Coalescing::new));
    let mut server = Server::builder();
    if let Some(age) = max_connection_age {
        server = server.max_connection_age(age);
    }
    server
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(DeadlineLayer)
        .layer(AdmissionLayer::new(state))
        .layer(EndAtStopLayer::new(shutdown.clone(), &["/grpc.reflection."]))
        .add_service(HealthService::server(SERVICES, readiness, shutdown.clone()))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(model_serving)
        .add_service(inference)
        .serve_with_incoming_shutdown(connections, closed)
        .await?;
    Ok(())
}

fn reflection() -> Reflection<'static> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(convoy_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
