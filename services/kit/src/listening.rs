//! A TCP listener that closes without losing a connection.
//!
//! A client's connection is open as soon as its system has spoken to ours: it may wait in the listener's backlog, or
//! have been accepted and not yet carried the request that the client is about to send. A server that closes its
//! listener resets the first kind, and one that shuts its connections down closes the second. So [`Listening`] stops
//! in three steps: it accepts what waits, it closes, so that new clients are refused and know it, and only when the
//! last connection has had [`LINGER`] for its first request it tells the server to shut its connections down.

use crate::{Connection, Shutdown};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, warn};

/// How long the last connection that was accepted has for its first request before connections are shut down.
pub const LINGER: Duration = Duration::from_millis(500);

/// How long accepting pauses when the system has no room for another connection (no file descriptor, no memory).
const NO_ROOM: Duration = Duration::from_millis(200);

/// See the [module](self). A server accepts from it, and takes [`Listening::closed`] for its signal to shut down.
#[derive(Debug)]
pub struct Listening {
    state: State,
    address: SocketAddr,
    shutdown: Shutdown,
    last_accepted: Option<Instant>,
    closed: CancellationToken,
}

#[derive(Debug)]
enum State {
    Accepting(TcpListener),
    /// Not the asynchronous one: that one learns of connections when its turn comes, and here it matters whether
    /// there is one now.
    Emptying(std::net::TcpListener),
    Closed,
}

impl Listening {
    /// Accepts from `listener` until `shutdown` stops.
    ///
    /// # Errors
    /// When `listener` has no address.
    pub fn new(listener: TcpListener, shutdown: &Shutdown) -> io::Result<Self> {
        Ok(Self {
            address: listener.local_addr()?,
            state: State::Accepting(listener),
            shutdown: shutdown.clone(),
            last_accepted: None,
            closed: CancellationToken::new(),
        })
    }

    /// Returns when the listener is closed and the connections may be shut down. Only accepting leads there.
    pub fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    /// The next connection, with `TCP_NODELAY`; never again once the listener is closed. Nothing is lost when the
    /// future is dropped.
    pub async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let accepted = match &mut self.state {
                State::Accepting(listener) => tokio::select! {
                    biased;
                    accepted = listener.accept() => accepted,
                    () = self.shutdown.stopping() => {
                        self.stop_accepting();
                        continue;
                    }
                },
                State::Emptying(listener) => listener.accept().and_then(|(stream, peer)| {
                    stream.set_nonblocking(true)?;
                    Ok((TcpStream::from_std(stream)?, peer))
                }),
                State::Closed => {
                    if let Some(last) = self.last_accepted {
                        tokio::time::sleep_until(last + LINGER).await;
                    }
                    self.closed.cancel();
                    return std::future::pending().await;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Small answers must not wait for the acknowledgement of what was sent before them (Nagle).
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "TCP_NODELAY was not set");
                    }
                    self.last_accepted = Some(Instant::now());
                    return (Connection::new(stream, peer), peer);
                }
                Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was not accepted"),
                Err(error) => self.failed(&error).await,
            }
        }
    }

    fn stop_accepting(&mut self) {
        let State::Accepting(listener) = std::mem::replace(&mut self.state, State::Closed) else { return };
        match listener.into_std() {
            Ok(listener) => self.state = State::Emptying(listener),
            Err(error) => warn!(%error, "connections that wait to be accepted are lost"),
        }
    }

    async fn failed(&mut self, error: &io::Error) {
        if matches!(self.state, State::Emptying(_)) {
            if error.kind() != ErrorKind::WouldBlock {
                warn!(%error, "connections that wait to be accepted are lost");
            }
            self.state = State::Closed;
        } else {
            warn!(%error, "no connection can be accepted");
            tokio::time::sleep(NO_ROOM).await;
        }
    }
}

/// What to tell the user when `flag`'s address cannot be bound.
pub fn cannot_listen(address: SocketAddr, flag: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => {
            format!(" Is another Convoy running? {flag} sets another address; port 0 is any free one.")
        }
        _ => String::new(),
    };
    format!("Cannot listen on {address} ({flag}): {error}.{hint}")
}

/// Whether `error` is of the connection that was to be accepted, not of the listener (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl axum::serve::Listener for Listening {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Client;

    async fn listening() -> (Listening, Shutdown) {
        let shutdown = Shutdown::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        (Listening::new(listener, &shutdown).expect("it is bound"), shutdown)
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_accepted_before_it_closes() {
        let (mut listening, shutdown) = listening().await;
        let address = listening.address;
        let closed = listening.closed();
        // The runtime has had no turn to learn of them.
        let clients: Vec<_> =
            (0..3).map(|_| Client::connect(address).expect("the backlog has room")).collect();
        shutdown.stop();
        for client in &clients {
            let (_, peer) = listening.accept().await;
            assert_eq!(peer, client.local_addr().expect("open"));
        }
        let last = Instant::now();
        tokio::spawn(async move { listening.accept().await });
        closed.await;
        assert!(last.elapsed() >= LINGER, "the last connection has no time for its request");
        assert_eq!(Client::connect(address).expect_err("closed").kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test(start_paused = true)]
    async fn it_closes_at_once_where_nobody_came() {
        let (mut listening, shutdown) = listening().await;
        let (closed, begun) = (listening.closed(), Instant::now());
        let task = tokio::spawn(async move { listening.accept().await });
        shutdown.stop();
        closed.await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(!task.is_finished(), "there is nothing to accept");
    }
}
