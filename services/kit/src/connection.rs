//! One TCP connection of a client, which can be reset from outside the server that serves it.
//!
//! HTTP's libraries serve a connection until its client ends it. What has been handed over to them and is not read stays in
//! memory meanwhile, and nothing above them is asked again. So whoever notices has to end the connection itself.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use futures_util::task::AtomicWaker;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::Listening;

/// A client's connection, as [`Listening`] accepts it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    handle: ConnectionHandle,
}

/// What requests know of the connection they came on. Both faces put it into a request's extensions: gRPC as it is, REST
/// as `ConnectInfo<ConnectionHandle>`.
#[derive(Clone, Debug)]
pub struct ConnectionHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: SocketAddr,
    reset: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl ConnectionHandle {
    /// Of a connection to `peer` that nobody serves yet.
    pub fn of_peer(peer: SocketAddr) -> Self {
        let (reader, writer) = (AtomicWaker::new(), AtomicWaker::new());
        Self { shared: Arc::new(Shared { peer, reset: AtomicBool::new(false), reader, writer }) }
    }

    /// The client's end.
    pub fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    /// Has the server drop the connection, with all that waits to be sent on it, also in the system; the client sees a
    /// reset. Gives whether nobody had said so before.
    pub fn reset(&self) -> bool {
        let first = !self.shared.reset.swap(true, Ordering::AcqRel);
        self.shared.reader.wake();
        self.shared.writer.wake();
        first
    }

    fn is_reset(&self) -> bool {
        self.shared.reset.load(Ordering::Acquire)
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { stream, handle: ConnectionHandle::of_peer(peer) }
    }

    /// What its requests are told of it.
    pub fn handle(&self) -> ConnectionHandle {
        self.handle.clone()
    }

    /// The outcome of a poll of the stream, unless the connection is to be reset.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        waker: fn(&Shared) -> &AtomicWaker,
        poll: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if !self.handle.is_reset() {
            let polled = poll(Pin::new(&mut self.stream), cx);
            if polled.is_ready() {
                return polled;
            }
            waker(&self.handle.shared).register(cx.waker());
            // It may have come just before.
            if !self.handle.is_reset() {
                return Poll::Pending;
            }
        }
        // Else the system would keep what it has, and offer it to the client for minutes.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::Error::new(ErrorKind::ConnectionReset, "the client did not read its answer")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(cx, |shared| &shared.reader, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |shared| &shared.writer, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |shared| &shared.writer, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |shared| &shared.writer, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |shared| &shared.writer, |stream, cx| stream.poll_shutdown(cx))
    }
}

impl Connected<IncomingStream<'_, Listening>> for ConnectionHandle {
    fn connect_info(stream: IncomingStream<'_, Listening>) -> Self {
        stream.io().handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_reset_ends_reads_and_writes_that_wait_and_the_client_sees_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let (stream, peer) = listener.accept().await.expect("one came");
        let connection = Connection::new(stream, peer);
        let handle = connection.handle();
        assert_eq!(handle.peer(), client.local_addr().expect("open"));
        let (mut reader, mut writer) = tokio::io::split(connection);
        let reading = tokio::spawn(async move { reader.read_u8().await });
        // More than the buffers of both systems take: it waits for the client, who reads nothing.
        let writing = tokio::spawn(async move { writer.write_all(&vec![0; 64 << 20]).await });
        client.readable().await.expect("open");
        assert!(handle.reset());
        for error in [reading.await.expect("no panic").map(drop), writing.await.expect("no panic")] {
            assert_eq!(error.expect_err("reset").kind(), ErrorKind::ConnectionReset);
        }
        assert!(!handle.reset(), "it was before");
        let mut sent = Vec::new();
        let error = client.read_to_end(&mut sent).await.expect_err("not an orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
