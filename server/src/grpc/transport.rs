//! HTTP/2 for the gRPC face, spoken by h2; tonic's services stand behind it.
//!
//! tonic's own transport is hyper over h2, and fixes at the start how much a client may send on a stream before it must
//! wait for us. That one number has two bad values: where a request does not fit into it, every request waits for its
//! client to be woken and to send the rest; where it does, a request that is refused on its headers has been sent whole,
//! and has to be received. h2 lets a connection change it, so here it follows what becomes of requests
//! ([`StreamWindow`]). For the rest it is as with hyper: a task for each request, which ends with its stream; `GOAWAY` and an
//! orderly end when the server stops or a connection is old; pings on a silent connection. Answers have no `date`, which
//! gRPC's clients do not read, and who says nothing at all is not waited for.
//!
//! | module | what it holds |
//! |---|---|
//! | [`connection`] | one connection, from its first byte to its last |
//! | [`coalesce`] | sends a short answer in one piece |
//! | [`keep_alive`] | asks a silent client whether it is still there |
//! | [`incoming`] | the body of a request |
//! | [`reply`] | runs one request and sends what comes of it |
//! | [`window`] | what a client may send on a stream before it must wait |

mod coalesce;
mod connection;
mod incoming;
mod keep_alive;
mod reply;
mod window;

pub(crate) use window::STREAMS_TO_FILL_A_CONNECTION;
pub(super) use window::{LARGE_WINDOW_BYTES, StreamWindow};

use http::{Request, Response};
use service_kit::Listening;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::Service;

/// What answers requests.
pub(super) trait Answers:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// How connections are served.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// After so long a client is told to open another connection; `None`: never.
    pub(super) max_connection_age: Option<Duration>,
    /// What clients may send on a stream.
    pub(super) window: Arc<StreamWindow>,
}

impl Transport {
    /// Serves what `listening` accepts until it is closed; then lets each connection answer what is open on it, and
    /// returns when the last one has ended.
    pub(super) async fn serve(self, mut listening: Listening, service: impl Answers) {
        let closed = listening.closed();
        let (closing, connections) = (CancellationToken::new(), TaskTracker::new());
        let accept = async {
            loop {
                let (connection, _) = listening.accept().await;
                let serve = connection::serve(connection, service.clone(), self.clone(), closing.clone());
                connections.spawn(serve);
            }
        };
        tokio::select! {
            () = accept => {}
            () = closed => {}
        }
        closing.cancel();
        connections.close();
        connections.wait().await;
    }
}

#[cfg(test)]
mod tests;
