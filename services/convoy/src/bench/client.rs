//! A gRPC client that costs little: messages are encoded once and sent as they are, and answers are only looked at.
//!
//! What a client spends on the machine that it shares with the server is taken from the server. So this one speaks
//! HTTP/2 through h2 directly, without the copies, codecs, timers and tasks of a gRPC or HTTP library.

use bytes::{BufMut as _, Bytes, BytesMut};
use convoy_proto::inference::ModelInferResponse;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request, Uri};
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
    connections: Vec<SendRequest<Bytes>>,
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
        let connection = self.connections[at % self.connections.len()].clone();
        // What goes wrong below this is the connection's fault.
        self.exchange(connection, message, read).await.unwrap_or(Outcome::Failed(2))
    }

    async fn exchange(
        &self,
        connection: SendRequest<Bytes>,
        message: Bytes,
        read: bool,
    ) -> Result<Outcome, h2::Error> {
        let request = Request::post(self.uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(());
        let Ok(request) = request else { return Ok(Outcome::Failed(2)) };
        let (response, mut body) = connection.ready().await?.send_request(request, false)?;
        // It goes out as the server's windows let it.
        body.send_data(message, true)?;
        let response = response.await?;
        // An answer without a message has its status in its headers.
        if let Some(code) = grpc_status(response.headers()) {
            return Ok(outcome(code, None));
        }
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            if read {
                answer.extend_from_slice(&data);
            }
        }
        let code = body.trailers().await?.as_ref().and_then(grpc_status);
        Ok(outcome(code.unwrap_or(2), server_time(answer)))
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Bytes>, String> {
    let stream = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let handshake = Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .handshake(stream);
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
