//! Ends the endless calls of services that are not ours when the server stops.
//!
//! A reflection client may keep its call open for ever, and a stopping server waits for every call. So the body of
//! such a request is made to end when the server stops, as if the client had said that it is done; the service then
//! ends its answer as it always does.

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame};
use service_kit::Shutdown;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Makes [`EndAtStop`] services.
#[derive(Clone, Debug)]
pub(crate) struct EndAtStopLayer {
    shutdown: Shutdown,
    paths: &'static [&'static str],
}

impl EndAtStopLayer {
    /// Ends requests whose path starts with one of `paths` when `shutdown` stops.
    pub(crate) fn new(shutdown: Shutdown, paths: &'static [&'static str]) -> Self {
        Self { shutdown, paths }
    }
}

impl<S> Layer<S> for EndAtStopLayer {
    type Service = EndAtStop<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EndAtStop { inner, layer: self.clone() }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct EndAtStop<S> {
    inner: S,
    layer: EndAtStopLayer,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for EndAtStop<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let endless = self.layer.paths.iter().any(|path| request.uri().path().starts_with(path));
        self.inner.call(if endless {
            let stopping = Box::pin(self.layer.shutdown.stopping_owned());
            request.map(|body| Body::new(EndingBody { body: Some(body), stopping }))
        } else {
            request
        })
    }
}

/// A body that ends at an instant of ours.
struct EndingBody<F> {
    /// Dropped when it ends, which tells HTTP/2 that nothing more is read.
    body: Option<Body>,
    stopping: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> HttpBody for EndingBody<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame),
            // Only where nothing more has come: a message that is here is answered.
            Poll::Pending => self.stopping.as_mut().poll(cx).map(|()| {
                self.body = None;
                None
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use std::convert::Infallible;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tower::{ServiceExt as _, service_fn};

    async fn body_seen_by_handler(path: &str, body: Body, shutdown: &Shutdown) -> Body {
        let inner = service_fn(|request: Request<Body>| async { Ok::<_, Infallible>(request.into_body()) });
        let layer = EndAtStopLayer::new(shutdown.clone(), &["/endless."]);
        layer.layer(inner).oneshot(Request::post(path).body(body).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn an_endless_body_ends_at_the_stop_after_what_has_come() {
        let shutdown = Shutdown::new();
        let (sender, frames) = mpsc::channel::<Result<_, Status>>(2);
        let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
        let mut seen = body_seen_by_handler("/endless.Service/Call", body, &shutdown).await;
        sender.send(Ok(Frame::data(Bytes::from_static(b"one")))).await.unwrap();
        shutdown.stop();
        assert_eq!(seen.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(seen.frame().await.is_none());
        assert!(sender.is_closed(), "nobody reads any more");
    }

    #[tokio::test]
    async fn other_bodies_are_left_alone() {
        let shutdown = Shutdown::new();
        shutdown.stop();
        let body = Body::new(Full::new(Bytes::from_static(b"all")));
        let seen = body_seen_by_handler("/other.Service/Call", body, &shutdown).await;
        assert_eq!(seen.collect().await.unwrap().to_bytes(), "all");
    }
}
