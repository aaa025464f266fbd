//! A gRPC client that costs little: messages are encoded once and sent as they are, and answers are only looked at.
//!
//! What a client spends on the machine that it shares with the server is taken from the server. So this one speaks
//! HTTP/2 through hyper directly, without a gRPC library's copies, codecs and timers.

use bytes::{BufMut as _, Bytes, BytesMut};
use convoy_proto::inference::ModelInferResponse;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use std::time::Duration;
use tokio::net::TcpStream;

/// Method of the Open Inference Protocol that is measured.
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// What the server may send before it waits for us: several answers with all raw outputs.
const WINDOW_BYTES: u32 = 8 << 20;
/// The prefix of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It was answered. The server's own time for it, where the answer was read: in the queue and in the model.
    Answered(Option<Duration>),
    /// RESOURCE_EXHAUSTED.
    Refused,
    /// DEADLINE_EXCEEDED.
    Expired,
    /// Anything else: the gRPC status, or 2 (UNKNOWN) for a broken connection.
    Failed(u16),
}

/// A message as it goes over the wire.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// Several connections to one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    connections: Vec<SendRequest<Full<Bytes>>>,
    uri: Uri,
}

impl Client {
    /// Connects to `authority` (HOST:PORT).
    ///
    /// # Errors
    /// As a sentence's end: why there is no connection.
    pub(super) async fn connect(authority: &str, connections: usize) -> Result<Self, String> {
        let uri = format!("http://{authority}{MODEL_INFER}").parse().map_err(|error| format!("{error}"))?;
        let mut opened = Vec::with_capacity(connections);
        for _ in 0..connections {
            opened.push(connect(authority).await?);
        }
        Ok(Self { connections: opened, uri })
    }

    /// Sends `message` on the connection number `at`, and waits for its answer to the end. `read`: also decode it.
    pub(super) async fn ask(&self, at: usize, message: Bytes, read: bool) -> Outcome {
        let mut connection = self.connections[at % self.connections.len()].clone();
        let request = Request::post(self.uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(message));
        let Ok(request) = request else { return Outcome::Failed(2) };
        if connection.ready().await.is_err() {
            return Outcome::Failed(2);
        }
        let Ok(response) = connection.send_request(request).await else { return Outcome::Failed(2) };
        // An answer without a message has its status in its headers.
        if let Some(code) = grpc_status(response.headers()) {
            return outcome(code, None);
        }
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Err(_) => return Outcome::Failed(2),
                Ok(frame) => match frame.into_data() {
                    Ok(data) if read => answer.extend_from_slice(&data),
                    Ok(_) => {}
                    Err(frame) => {
                        let code = frame.trailers_ref().and_then(grpc_status);
                        return outcome(code.unwrap_or(2), server_time(answer));
                    }
                },
            }
        }
        Outcome::Failed(2)
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let handshake = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn outcome(code: u16, server: Option<Duration>) -> Outcome {
    match code {
        0 => Outcome::Answered(server),
        8 => Outcome::Refused,
        4 => Outcome::Expired,
        other => Outcome::Failed(other),
    }
}

/// What the server says that the request took it: in the queue and in the model.
fn server_time(mut answer: BytesMut) -> Option<Duration> {
    if answer.len() < PREFIX_BYTES {
        return None;
    }
    let answer = ModelInferResponse::decode(answer.split_off(PREFIX_BYTES).freeze()).ok()?;
    let parts = ["queue_time_ms", "inference_time_ms"].map(|name| {
        match answer.parameters.get(name)?.parameter_choice.as_ref()? {
            ParameterChoice::DoubleParam(milliseconds) => Some(*milliseconds),
            _ => None,
        }
    });
    Duration::try_from_secs_f64((parts[0]? + parts[1]?) / 1e3).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use convoy_proto::inference::InferParameter;

    #[test]
    fn a_message_is_framed_as_grpc_wants_it() {
        let message = ModelInferResponse { id: "ab".to_owned(), ..Default::default() };
        let frame = framed(&message);
        assert_eq!(&frame[..PREFIX_BYTES], [0, 0, 0, 0, 4]);
        assert_eq!(ModelInferResponse::decode(&frame[PREFIX_BYTES..]).unwrap(), message);
    }

    #[test]
    fn the_servers_time_is_read_from_its_answer() {
        let number = |value| InferParameter { parameter_choice: Some(ParameterChoice::DoubleParam(value)) };
        let mut message = ModelInferResponse::default();
        message.parameters.insert("queue_time_ms".to_owned(), number(1.5));
        assert_eq!(server_time(framed(&message).into()), None);
        message.parameters.insert("inference_time_ms".to_owned(), number(10.0));
        assert_eq!(server_time(framed(&message).into()), Some(Duration::from_micros(11_500)));
        assert_eq!(server_time(BytesMut::new()), None);
    }

    #[test]
    fn codes_become_outcomes() {
        assert_eq!(outcome(0, None), Outcome::Answered(None));
        assert_eq!(outcome(8, None), Outcome::Refused);
        assert_eq!(outcome(4, None), Outcome::Expired);
        assert_eq!(outcome(14, None), Outcome::Failed(14));
    }
}
