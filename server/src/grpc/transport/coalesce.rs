//! Sends an answer that is short in one piece.
//!
//! h2 writes a message of 256 bytes and more without copying it, by a vectored write, and what follows it (the trailers,
//! with which an answer ends) by a write of its own. Between the two the client is woken by half an answer; on a busy core
//! it runs before the rest is written. Told that there are no vectored writes, h2 copies messages of less than 1 KiB to the
//! frames around them, so a short answer is one write. Of a longer message it then writes a beginning and the rest apart;
//! those are put together here again, for one write to the system.

use service_kit::Connection;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A write up to this is kept until the next one or a flush: a little more than what h2 writes of a longer message at
/// first, the frames before it included.
const SHORT_BYTES: usize = 4 * 1024;

/// A connection that puts short writes before the next one. See the [module](self).
#[derive(Debug)]
pub(super) struct Coalescing<C = Connection> {
    inner: C,
    /// What was written and waits for the next write, from `sent` on.
    kept: Vec<u8>,
    sent: usize,
    /// Bytes that were read.
    received: Arc<AtomicU64>,
}

impl<C> Coalescing<C> {
    pub(super) fn new(inner: C) -> Self {
        Self { inner, kept: Vec::new(), sent: 0, received: Arc::default() }
    }

    /// Counts the bytes that are read.
    pub(super) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }
}

impl<C: AsyncWrite + Unpin> Coalescing<C> {
    /// Writes what is kept, with `more` behind it; gives how much of that was written. All that is kept has been then.
    fn poll_write_kept(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        while self.sent < self.kept.len() {
            let kept = &self.kept[self.sent..];
            let waits = kept.len();
            let bufs = [IoSlice::new(kept), IoSlice::new(more)];
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &bufs))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written.min(waits);
            if written > waits {
                self.forget();
                return Poll::Ready(Ok(written - waits));
            }
        }
        self.forget();
        Poll::Ready(Ok(0))
    }

    fn forget(&mut self) {
        self.kept.clear();
        self.sent = 0;
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Coalescing<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Coalescing<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.sent == 0 && self.kept.len() + buf.len() <= SHORT_BYTES {
            self.kept.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        match ready!(self.poll_write_kept(cx, buf))? {
            0 => Pin::new(&mut self.inner).poll_write(cx, buf),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_kept(cx, &[]))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_kept(cx, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt as _;

    /// Takes at most so many bytes a write, every other time none yet, and keeps each write apart.
    #[derive(Default)]
    struct Recorder {
        most: usize,
        waits: bool,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.waits = !self.waits && self.most < usize::MAX;
            if self.waits {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let taken = buf.len().min(self.most);
            self.writes.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_short_write_goes_out_with_the_next_one_or_by_a_flush() {
        let mut connection = Coalescing::new(Recorder { most: usize::MAX, ..Recorder::default() });
        connection.write_all(&[1; 9]).await.expect("taken");
        assert!(connection.inner.writes.is_empty());
        connection.write_all(&[2; SHORT_BYTES]).await.expect("taken");
        let together: Vec<u8> = [1; 9].into_iter().chain([2; SHORT_BYTES]).collect();
        assert_eq!(connection.inner.writes, [together]);
        connection.write_all(&[3; 5]).await.expect("taken");
        connection.flush().await.expect("written");
        connection.write_all(&[4; 5]).await.expect("taken");
        connection.shutdown().await.expect("written");
        assert_eq!(connection.inner.writes[1..], [vec![3; 5], vec![4; 5]]);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_at_once_the_bytes_are_those_that_were_written(
            most in 1usize..6000,
            sizes in prop::collection::vec(0usize..9000, 0..20),
            flushes in prop::collection::vec(any::<bool>(), 20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let mut connection = Coalescing::new(Recorder { most, ..Recorder::default() });
            let mut sent = Vec::new();
            runtime.block_on(async {
                for (number, (size, flush)) in sizes.iter().zip(flushes).enumerate() {
                    let data: Vec<u8> = (0..*size).map(|at| (at + number * 31) as u8).collect();
                    connection.write_all(&data).await.expect("taken");
                    sent.extend(data);
                    if flush {
                        poll_fn(|cx| Pin::new(&mut connection).poll_flush(cx)).await.expect("written");
                        assert_eq!(connection.inner.writes.concat(), sent);
                    }
                }
                connection.shutdown().await.expect("written");
            });
            prop_assert_eq!(connection.inner.writes.concat(), sent);
        }
    }
}
