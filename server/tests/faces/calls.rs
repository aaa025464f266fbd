//! Calls over HTTP/2 itself: bodies sent piece by piece, and callers that go when they like.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::convert::Infallible;
use std::net::{Shutdown, SocketAddr};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

type Pieces = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Pieces>,
    address: SocketAddr,
    socket: std::net::TcpStream,
}

/// A call that has been begun.
pub(crate) struct Call {
    /// What is sent of its message; dropping it ends the message.
    pub(crate) body: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    /// How it ended, and whether the answer was all in its headers. Aborting it hangs up.
    pub(crate) answer: JoinHandle<Result<(Status, bool), hyper::Error>>,
}

/// `message` with gRPC's prefix.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len().try_into().unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_max_send_streams(10_000)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        // It fails when a test closes it.
        tokio::spawn(async { drop(connection.await) });
        Self { sender, address, socket }
    }

    /// Sends the headers of a call.
    pub(crate) async fn call(&mut self, path: &str, timeout: Option<&str>) -> Call {
        let (body, pieces) = mpsc::channel(1);
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(StreamBody::new(ReceiverStream::new(pieces))).unwrap();
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(request);
        let answer = tokio::spawn(async move {
            let response = answer.await?;
            if let Some(status) = Status::from_header_map(response.headers()) {
                return Ok((status, true));
            }
            let trailers = response.into_body().collect().await?.trailers().cloned();
            let status = trailers.as_ref().and_then(Status::from_header_map);
            Ok((status.unwrap_or_else(|| Status::unknown("no trailers")), false))
        });
        Call { body, answer }
    }

    /// Closes the connection, with all of its calls.
    pub(crate) fn close(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }
}

impl Call {
    /// Sends a piece of the body; gives whether it is wanted still.
    pub(crate) async fn send(&self, piece: Bytes) -> bool {
        self.body.send(Ok(Frame::data(piece))).await.is_ok()
    }

    /// The end of the message, and then the answer's status.
    pub(crate) async fn end(self) -> Status {
        drop(self.body);
        self.answer.await.unwrap().unwrap().0
    }
}
