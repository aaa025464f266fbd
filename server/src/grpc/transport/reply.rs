//! Runs one request and sends what comes of it.

use super::Answers;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use std::future::poll_fn;
use tonic::body::Body;
use tower::ServiceExt as _;
use tracing::debug;

/// Answers `request`. A client that resets its stream, or hangs up, ends it wherever it is: the handler is dropped.
pub(super) async fn answer(service: impl Answers, request: Request<Body>, mut respond: SendResponse<Bytes>) {
    let response = tokio::select! {
        biased;
        response = service.oneshot(request) => response.unwrap_or_else(|never| match never {}),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    if let Err(error) = send(response, &mut respond).await {
        debug!(%error, "An answer was not sent to its end");
    }
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("its stream ended: {0}")]
    Stream(#[from] h2::Error),
    #[error("{0}")]
    Body(#[from] tonic::Status),
}

async fn send(response: Response<Body>, respond: &mut SendResponse<Bytes>) -> Result<(), SendError> {
    let (head, mut body) = response.into_parts();
    let is_all = body.is_end_stream();
    let stream = respond.send_response(Response::from_parts(head, ()), is_all);
    let mut stream = stream.inspect_err(|_| respond.send_reset(Reason::INTERNAL_ERROR))?;
    if is_all {
        return Ok(());
    }
    loop {
        let frame = tokio::select! {
            biased;
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(h2::Error::from(reset?).into()),
            frame = body.frame() => frame.transpose(),
        };
        let frame = match frame.inspect_err(|_| stream.send_reset(Reason::INTERNAL_ERROR))? {
            None => return Ok(stream.send_data(Bytes::new(), true)?),
            Some(frame) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                if !data.is_empty() {
                    room(&mut stream).await?;
                }
                stream.send_data(data, is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                // What was reserved is for data.
                stream.reserve_capacity(0);
                return Ok(stream.send_trailers(frame.into_trailers().unwrap_or_default())?);
            }
        }
    }
}

/// Waits until the client's windows have room for some of a frame that was taken from its body: h2 keeps the rest of it. What
/// is reserved before there is a frame would be kept from the connection's other streams.
async fn room(stream: &mut SendStream<Bytes>) -> Result<(), SendError> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        // Nothing, when the client has reset the stream.
        let more = poll_fn(|cx| stream.poll_capacity(cx)).await;
        more.ok_or_else(|| h2::Error::from(Reason::CANCEL))??;
    }
    Ok(())
}
