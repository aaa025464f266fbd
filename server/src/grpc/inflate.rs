//! Decompresses the messages of a call before the gRPC library sees them.
//!
//! tonic decompresses up to 64 MiB at once, on the thread that all other calls need, and nobody knows how large a
//! message is until it has been made. Here that is done on a thread for such work, and every piece is counted before
//! it is made. What tonic gets is a call that was never compressed.

use super::MAX_MESSAGE_BYTES;
use super::call::Call;
use super::failure;
use crate::error::ServingError;
use crate::inference::compression::{DECOMPRESSION_COST, Encoding};
use crate::inference::offload::Offload;
use crate::limits::{MESSAGE_PREFIX_BYTES, Permit};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::collections::VecDeque;
use tonic::Status;
use tonic::body::Body;

/// The header that says how messages are compressed, if they are.
const GRPC_ENCODING: &str = "grpc-encoding";
/// Before each message: whether it is compressed (1), and its length (4, big-endian).
pub(super) const PREFIX_BYTES: usize = MESSAGE_PREFIX_BYTES;

/// Takes the encoding out of `headers`, if it is one that is known here. Of another, tonic says that it is not.
pub(super) fn take_encoding(headers: &mut HeaderMap) -> Option<Encoding> {
    let value = headers.get(GRPC_ENCODING)?.as_bytes();
    let encoding = [Encoding::Gzip, Encoding::Deflate]
        .into_iter()
        .find(|encoding| encoding.as_str().as_bytes() == value)?;
    headers.remove(GRPC_ENCODING);
    Some(encoding)
}

/// What decompressing needs.
pub(super) struct Inflater {
    pub(super) encoding: Encoding,
    pub(super) permit: Permit,
    pub(super) offload: Offload,
    /// For the log: the call, and the name of its method.
    pub(super) call: Call,
    pub(super) method: &'static str,
}

impl Inflater {
    /// The messages of `body`, decompressed. The bytes of `body` are counted into the same permit already; those of a
    /// compressed message are given back when it is decompressed.
    pub(super) fn inflate(self, body: Body) -> Body {
        let messages =
            Messages { inflater: self, body, received: BytesMut::new(), passing: 0, ready: VecDeque::new() };
        let frames = stream::try_unfold(messages, |mut messages| async move {
            Ok::<_, Status>(messages.next().await?.map(|frame| (frame, messages)))
        });
        Body::new(StreamBody::new(frames))
    }

    async fn decode(&self, message: Bytes) -> Result<VecDeque<Bytes>, ServingError> {
        let (encoding, permit) = (self.encoding, self.permit.clone());
        let cost = message.len().saturating_mul(DECOMPRESSION_COST);
        let work = move || {
            let pieces = encoding.decode(&message, MAX_MESSAGE_BYTES, &permit)?;
            permit.give_back(message.len());
            let bytes: usize = pieces.iter().map(Bytes::len).sum();
            // It is within the limit of messages, and so fits into the field.
            let length = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
            let prefix = Bytes::copy_from_slice(&[&[0], &length[..]].concat());
            Ok([prefix].into_iter().chain(pieces).collect())
        };
        self.offload.run(cost, work).await?
    }

    fn failed(&self, error: &ServingError) -> Status {
        failure::answer(error, &self.call, self.method, "")
    }
}

/// A call's messages on their way.
struct Messages {
    inflater: Inflater,
    body: Body,
    /// What came and is not passed on.
    received: BytesMut,
    /// Bytes of a message, and its prefix, that are passed on as they come.
    passing: usize,
    /// A message that was decompressed, in pieces: each is freed as soon as tonic has copied it.
    ready: VecDeque<Bytes>,
}

impl Messages {
    /// The next piece of a message; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, Status> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(Frame::data(piece)));
            }
            if self.passing > 0 && !self.received.is_empty() {
                let passed = self.passing.min(self.received.len());
                self.passing -= passed;
                return Ok(Some(Frame::data(self.received.split_to(passed).freeze())));
            }
            if self.passing == 0
                && let Some((is_compressed, length)) = prefix(&self.received)
            {
                if !is_compressed {
                    self.passing = PREFIX_BYTES.saturating_add(length);
                    continue;
                }
                if length > MAX_MESSAGE_BYTES {
                    return Err(failure::message_too_large(self.inflater.method));
                }
                if self.received.len() >= PREFIX_BYTES + length {
                    let message =
                        self.received.split_to(PREFIX_BYTES + length).freeze().slice(PREFIX_BYTES..);
                    let decoded = self.inflater.decode(message).await;
                    self.ready = decoded.map_err(|error| self.inflater.failed(&error))?;
                    continue;
                }
                self.received.reserve(PREFIX_BYTES + length - self.received.len());
            }
            match self.body.frame().await {
                None if self.received.is_empty() => return Ok(None),
                None => {
                    // The rest of a message is missing, which tonic says of one that is not compressed.
                    self.received[0] = 0;
                    self.passing = self.received.len();
                }
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.received.extend_from_slice(&data),
                    Err(trailers) => return Ok(Some(trailers)),
                },
            }
        }
    }
}

/// Whether the message that `received` begins with is compressed, and its length.
fn prefix(received: &[u8]) -> Option<(bool, usize)> {
    let [flag, a, b, c, d] = *received.first_chunk::<PREFIX_BYTES>()?;
    Some((flag == 1, usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::limits::InFlight;
    use tonic::Code;

    fn message(flag: u8, data: &[u8]) -> Vec<u8> {
        [&[flag], &u32::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
    }

    /// What tonic would read of `sent`, which comes in frames of `frame` bytes.
    async fn read(sent: &[u8], frame: usize, budget: &InFlight) -> Result<Vec<u8>, Status> {
        let permit = budget.permit();
        permit.grow(sent.len()).unwrap();
        let frames: Vec<_> = sent
            .chunks(frame)
            .map(|data| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(data))))
            .collect();
        let inflater = Inflater {
            encoding: Encoding::Gzip,
            permit: permit.clone(),
            offload: Offload::new(),
            call: Call::default(),
            method: "ModelInfer",
        };
        let mut body = inflater.inflate(Body::new(StreamBody::new(stream::iter(frames))));
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            read.extend_from_slice(&frame?.into_data().unwrap());
        }
        assert_eq!(permit.bytes(), read.len(), "what tonic holds now is counted, and nothing else");
        Ok(read)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        Encoding::Gzip.encode(&[Bytes::copy_from_slice(data)]).unwrap().to_vec()
    }

    #[tokio::test]
    async fn messages_come_out_as_if_they_had_never_been_compressed() {
        let budget = InFlight::new(16 << 20);
        let large = vec![3; 1 << 20];
        let plain = [message(0, b"plain"), message(0, &large), message(0, b""), message(0, b"end")].concat();
        let sent =
            [message(0, b"plain"), message(1, &gzip(&large)), message(1, &gzip(b"")), message(0, b"end")]
                .concat();
        for frame in [1, 7, sent.len()] {
            assert!(read(&sent, frame, &budget).await.unwrap() == plain, "in frames of {frame}");
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_decompressed_is_said_and_what_is_cut_off_is_left_to_tonic() {
        let budget = InFlight::new(1 << 20);
        let no_gzip = read(&message(1, b"no gzip"), 100, &budget).await.unwrap_err();
        assert_eq!(no_gzip.code(), Code::InvalidArgument, "{no_gzip}");
        let too_long = read(&[1, 255, 255, 255, 255], 100, &budget).await.unwrap_err();
        assert_eq!(too_long.code(), Code::InvalidArgument, "{too_long}");
        let never = read(&message(1, &gzip(&vec![0; 2 << 20])), 100, &budget).await.unwrap_err();
        assert_eq!(never.code(), Code::InvalidArgument, "it never fits: {never}");
        let others = budget.permit();
        others.grow(900 << 10).unwrap();
        let now = read(&message(1, &gzip(&vec![0; 512 << 10])), 100, &budget).await.unwrap_err();
        assert_eq!(now.code(), Code::ResourceExhausted, "{now}");
        let whole = message(1, &gzip(b"whole"));
        let part = read(&whole[..whole.len() - 1], 100, &budget).await.unwrap();
        assert_eq!((part[0], part.len()), (0, whole.len() - 1), "less than its prefix says");
    }

    #[test]
    fn only_known_encodings_are_taken_out() {
        for (value, expected) in [
            ("gzip", Some(Encoding::Gzip)),
            ("deflate", Some(Encoding::Deflate)),
            ("identity", None),
            ("zstd", None),
        ] {
            let mut headers =
                HeaderMap::from_iter([(GRPC_ENCODING.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(take_encoding(&mut headers), expected);
            assert_eq!(headers.is_empty(), expected.is_some(), "{value}");
        }
        assert_eq!(take_encoding(&mut HeaderMap::new()), None);
    }
}
