//! Bodies that are counted while they arrive, and answers that are counted until they are sent.

use super::unread::{PIECE_BYTES, Piece, Sending};
use super::{Permit, Progress, Unread};
use crate::error::ServingError;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use service_kit::ConnectionHandle;
use std::error::Error;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body; each of its frames is counted before anyone keeps it.
///
/// A gRPC call does not say in its headers how large it is, and what a `content-length` announces need not come soon.
/// So what counts is what has arrived. When the budget has no room, the body ends with an error.
pub(crate) struct CountedBody<B> {
    /// `None` after it failed.
    inner: Option<B>,
    permit: Permit,
    /// Bytes that are not counted.
    free: usize,
    progress: Progress,
    refuse: fn(ServingError, B) -> BoxError,
}

impl<B> CountedBody<B> {
    /// Counts the frames of `inner` into `permit`, but for the first `free` bytes, and waits for them as long as
    /// `progress` allows. `refuse` makes the error of a body that found no room or is too slow, and decides what becomes
    /// of the rest of it.
    pub(crate) fn new(
        inner: B,
        permit: Permit,
        free: usize,
        progress: Progress,
        refuse: fn(ServingError, B) -> BoxError,
    ) -> Self {
        Self { inner: Some(inner), permit, free, progress, refuse }
    }

    fn fail<T>(&mut self, error: ServingError) -> Poll<Option<Result<T, BoxError>>> {
        let rest = self.inner.take();
        Poll::Ready(rest.map(|rest| Err((self.refuse)(error, rest))))
    }

    fn count(&mut self, bytes: usize) -> Result<(), ServingError> {
        let free = self.free.min(bytes);
        self.free -= free;
        self.permit.grow(bytes - free)
    }
}

impl<B> HttpBody for CountedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = match Pin::new(inner).poll_frame(cx) {
            Poll::Pending => {
                let too_slow = ready!(self.progress.poll_too_slow(cx));
                return self.fail(too_slow);
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let data = frame.data_ref().map_or(&[][..], |data| data);
        self.progress.came(data);
        match self.count(data.len()) {
            Ok(()) => Poll::Ready(Some(Ok(frame))),
            Err(error) => self.fail(error),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// An answer's body; its call's permit lives until the last of its frames has been sent, not only handed over: what a
/// client does not read stays in memory, for as long as [`Unread`] allows.
pub(crate) struct HeldBody<B> {
    inner: B,
    /// What is left of a frame that was handed over in part.
    rest: Bytes,
    permit: Permit,
    by_frame: bool,
    /// `None`: it is waited for without end.
    sending: Option<Sending>,
}

impl<B> HeldBody<B> {
    /// Keeps `permit` for `inner`, which is sent on `connection` and noted in `unread` meanwhile. With `by_frame` the
    /// frames are counted one by one, as for an answer whose length nobody knew before.
    pub(crate) fn new(
        inner: B,
        permit: Permit,
        by_frame: bool,
        unread: &Unread,
        connection: Option<ConnectionHandle>,
    ) -> Self {
        Self { inner, rest: Bytes::new(), permit, by_frame, sending: unread.sending(connection, by_frame) }
    }

    fn hold(&mut self, mut data: Bytes) -> Bytes {
        if self.sending.is_some() && data.len() > PIECE_BYTES {
            self.rest = data.split_off(PIECE_BYTES);
        }
        let counted = if self.by_frame { data.len() } else { 0 };
        self.permit.count(counted);
        let piece = self.sending.as_ref().map(|sending| sending.piece(&data));
        Bytes::from_owner(HeldData { data, counted, permit: self.permit.clone(), _piece: piece })
    }
}

impl<B> HttpBody for HeldBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(sending) = &mut self.sending
            && let Err(not_read) = ready!(sending.poll_taken(cx))
        {
            return Poll::Ready(Some(Err(not_read.into())));
        }
        if !self.rest.is_empty() {
            let rest = mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(Frame::data(self.hold(rest)))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.hold(data))));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        let waits = self.sending.as_ref().is_some_and(Sending::must_wait);
        !waits && self.rest.is_empty() && self.inner.is_end_stream()
    }

    /// Asked for before it begins.
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A frame that is still to be sent.
struct HeldData {
    data: Bytes,
    counted: usize,
    permit: Permit,
    _piece: Option<Piece>,
}

impl Drop for HeldData {
    fn drop(&mut self) {
        self.permit.give_back(self.counted);
    }
}

impl AsRef<[u8]> for HeldData {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
