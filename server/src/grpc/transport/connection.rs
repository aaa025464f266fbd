//! One connection, from its first byte to its last.

use super::coalesce::Coalescing;
use super::incoming::Incoming;
use super::keep_alive::KeepAlive;
use super::window::CONNECTION_WINDOW_BYTES;
use super::{Answers, Transport, reply};
use h2::RecvStream;
use h2::server::Builder;
use http::Request;
use service_kit::{Connection, ConnectionHandle};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tracing::debug;

/// How long a client may take for what an HTTP/2 connection begins with.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// The longest frame that a client may send: each is read, copied and passed on by itself, and HTTP/2's 16 KiB make 17 of
/// a call of 270 KB. One a connection is in memory before it is counted.
const FRAME_BYTES: u32 = 64 << 10;
/// Calls open at once on one connection; more wait at the client.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// Bytes of a request's headers, as HTTP/2 counts them (RFC 9113, 10.5.1).
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// While h2 keeps so many bytes of an answer that the connection has not taken yet, no more are asked for.
const SEND_BUFFER_BYTES: usize = 400 << 10;
/// Streams that we ended, as those of refused requests, of which a connection knows for a second that what still comes of
/// them is to be thrown away: about 350 bytes each. What comes of one that it does not know is an error of its client. With
/// h2's default of 50 a client that asks again as soon as it is refused made a thousand of those in two seconds.
const REMEMBERED_STREAMS: usize = 2048;
/// So many errors of streams end a connection. Each may wait to be told while the client reads nothing (RUSTSEC-2024-0003),
/// and h2 counts them for as long as the connection lasts: its default of 1024 would end one that is long overloaded.
const STREAM_ERRORS: usize = 1 << 16;

/// Serves `connection` until its client ends it, or until it has answered what was open on it when `closing` was
/// cancelled or it was as old as it may be.
pub(super) async fn serve(
    connection: Connection,
    service: impl Answers,
    transport: Transport,
    closing: CancellationToken,
) {
    let handle = connection.handle();
    let io = Coalescing::new(connection);
    let received = io.received();
    let mut window = transport.window.bytes();
    let mut builder = Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_concurrent_reset_streams(REMEMBERED_STREAMS)
        .max_local_error_reset_streams(Some(STREAM_ERRORS))
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let handshake = timeout(HANDSHAKE, builder.handshake(io));
    let mut http2 = tokio::select! {
        biased;
        shaken = handshake => match shaken {
            Ok(Ok(http2)) => http2,
            Ok(Err(error)) => return debug!(peer = %handle.peer(), %error, "A client does not speak HTTP/2"),
            Err(_) => return debug!(peer = %handle.peer(), "A client says nothing"),
        },
        () = closing.cancelled() => return,
    };
    let pings = http2.ping_pong().expect("it is taken once, here");
    let mut keep_alive = KeepAlive::new(pings, received);
    let mut drain = pin!(async {
        match transport.max_connection_age {
            None => closing.cancelled().await,
            Some(age) => tokio::select! {
                () = closing.cancelled() => {}
                () = sleep(age) => {}
            },
        }
    });
    let mut draining = false;
    loop {
        tokio::select! {
            // A client that always has another request must not keep its connection from being ended.
            biased;
            () = &mut drain, if !draining => {
                draining = true;
                http2.graceful_shutdown();
            }
            accepted = http2.accept() => {
                let (request, respond) = match accepted {
                    None => return,
                    Some(Ok(accepted)) => accepted,
                    Some(Err(error)) => return debug!(peer = %handle.peer(), %error, "A connection failed"),
                };
                let now = transport.window.bytes();
                // It fails while the client has not confirmed the last change.
                if now != window && http2.set_initial_window_size(now).is_ok() {
                    window = now;
                }
                tokio::spawn(reply::answer(service.clone(), with_body(request, &handle), respond));
            }
            // Its streams end with it.
            () = keep_alive.gone() => return debug!(peer = %handle.peer(), "A client does not answer any more"),
        }
    }
}

/// The request with what its layers are to know of its connection.
fn with_body(request: Request<RecvStream>, connection: &ConnectionHandle) -> Request<Body> {
    let mut request = request.map(|stream| Body::new(Incoming::new(stream)));
    request.extensions_mut().insert(connection.clone());
    request
}
