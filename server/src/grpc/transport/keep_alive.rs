//! Asks a client that is silent whether it is still there.

use h2::{Ping, PingPong};
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// How long a connection is silent before it is asked.
const SILENT: Duration = Duration::from_secs(30);
/// How long it has to say anything.
const ANSWER: Duration = Duration::from_secs(20);

/// The pings of one connection.
#[derive(Debug)]
pub(super) struct KeepAlive {
    pings: PingPong,
    /// Bytes that came, ever.
    received: Arc<AtomicU64>,
    /// So many had come when the timer was set.
    seen: u64,
    asked: bool,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// Of a connection whose bytes are counted by `received`.
    pub(super) fn new(pings: PingPong, received: Arc<AtomicU64>) -> Self {
        let seen = received.load(Ordering::Relaxed);
        Self { pings, received, seen, asked: false, timer: Box::pin(sleep(SILENT)) }
    }

    /// Returns when nothing came of the client for so long that it is taken for gone. May be dropped and called again.
    pub(super) async fn gone(&mut self) {
        poll_fn(|cx| self.poll_gone(cx)).await;
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Whose answer it is says nothing more than that something came.
            while self.asked && self.pings.poll_pong(cx).is_ready() {
                self.wait(SILENT, false);
            }
            ready!(self.timer.as_mut().poll(cx));
            // A client that sends slowly may have its answer behind much else: what it sends is as good.
            if self.received.load(Ordering::Relaxed) != self.seen {
                self.wait(SILENT, false);
            } else if self.asked {
                return Poll::Ready(());
            } else {
                // It fails while an answer is missing, which then counts as that to this one, and where the connection
                // ends, which ends all this.
                let _ = self.pings.send_ping(Ping::opaque());
                self.wait(ANSWER, true);
            }
        }
    }

    fn wait(&mut self, time: Duration, asked: bool) {
        self.seen = self.received.load(Ordering::Relaxed);
        self.asked = asked;
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use bytes::Bytes;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::timeout;

    /// How long it takes until the client of `connection` is taken for gone; an error: it is not within ten minutes.
    async fn gone_after(connection: DuplexStream, received: Arc<AtomicU64>) -> Result<Duration, ()> {
        let mut http2 = h2::server::Builder::new().handshake::<_, Bytes>(connection).await.unwrap();
        let mut keep_alive = KeepAlive::new(http2.ping_pong().unwrap(), received);
        let begun = Instant::now();
        let serve = async {
            tokio::select! {
                _ = http2.accept() => panic!("the client asked for something"),
                () = keep_alive.gone() => begun.elapsed(),
            }
        };
        timeout(Duration::from_secs(600), serve).await.map_err(drop)
    }

    /// A client that only begins.
    async fn begin(client: &mut DuplexStream) {
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    }

    /// Something comes so many times, each within the time for an answer.
    async fn send(received: Arc<AtomicU64>, times: u32) {
        for _ in 0..times {
            sleep(ANSWER / 2).await;
            received.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_answer_is_gone() {
        let (mut client, server) = duplex(1 << 16);
        begin(&mut client).await;
        assert_eq!(gone_after(server, Arc::default()).await, Ok(SILENT + ANSWER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_stays() {
        let (client, server) = duplex(1 << 16);
        let client = tokio::spawn(async {
            let (_sender, connection) = h2::client::handshake(client).await.unwrap();
            connection.await
        });
        assert_eq!(gone_after(server, Arc::default()).await, Err(()));
        client.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_stays_whenever_it_answers() {
        let (mut client, server) = duplex(1 << 16);
        begin(&mut client).await;
        let received = Arc::new(AtomicU64::new(0));
        let sending = tokio::spawn(send(Arc::clone(&received), u32::MAX));
        assert_eq!(gone_after(server, received).await, Err(()));
        sending.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_answered_and_sends_no_more_is_gone() {
        let (mut client, server) = duplex(1 << 16);
        begin(&mut client).await;
        let received = Arc::new(AtomicU64::new(0));
        let sending = send(Arc::clone(&received), 10);
        let (gone, ()) = tokio::join!(gone_after(server, received), sending);
        let silent = gone.unwrap().saturating_sub(5 * ANSWER);
        assert!(silent > Duration::ZERO && silent <= 2 * SILENT + ANSWER, "{silent:?}");
    }
}
