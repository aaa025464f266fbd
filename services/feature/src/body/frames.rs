//! The frames of a body, and how they become one piece of memory: by one copy.

use bytes::{Bytes, BytesMut};
use std::collections::TryReserveError;

/// Shorter frames of a body that declares no length are gathered as they come: each that is kept holds its reader's buffer.
const SHORT_FRAME: usize = 4 << 10;
/// What short frames are gathered in.
const GATHERED: usize = 64 << 10;

/// What has arrived of a body.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes so far.
    pub(super) length: usize,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    /// Of a body that declares its length: in the place that it needs. The system gives memory for it as it is written.
    Declared(Vec<u8>),
    /// Of another: one behind the other.
    Listed { frames: Vec<Bytes>, short: BytesMut },
}

impl Frames {
    /// For a body of the length that is declared, if any.
    pub(super) fn new(declared: Option<usize>) -> Result<Self, TryReserveError> {
        let parts = match declared {
            Some(length) => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(length)?;
                Parts::Declared(bytes)
            }
            None => Parts::Listed { frames: Vec::new(), short: BytesMut::new() },
        };
        Ok(Self { length: 0, parts })
    }

    /// Takes the next frame.
    pub(super) fn push(&mut self, data: Bytes) {
        self.length += data.len();
        match &mut self.parts {
            Parts::Declared(bytes) => bytes.extend_from_slice(&data),
            Parts::Listed { frames, short } if data.len() < SHORT_FRAME => {
                if short.capacity() - short.len() < data.len() {
                    frames.extend(Some(short.split().freeze()).filter(|short| !short.is_empty()));
                    *short = BytesMut::with_capacity(GATHERED);
                }
                short.extend_from_slice(&data);
            }
            Parts::Listed { frames, short } => {
                frames.extend(Some(short.split().freeze()).filter(|short| !short.is_empty()));
                frames.push(data);
            }
        }
    }

    /// The whole body.
    pub(super) fn join(self) -> Result<Bytes, TryReserveError> {
        let (mut frames, short) = match self.parts {
            Parts::Declared(bytes) => return Ok(bytes.into()),
            Parts::Listed { frames, short } => (frames, short.freeze()),
        };
        frames.extend(Some(short).filter(|short| !short.is_empty()));
        if let [_] = frames[..] {
            return Ok(frames.swap_remove(0));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.length)?;
        // Each is freed once it is copied.
        for frame in frames {
            bytes.extend_from_slice(&frame);
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn frames_of_any_length_stay_in_their_order() {
        for declared in [None, Some(0), Some(1 << 20)] {
            let mut frames = Frames::new(declared).unwrap();
            let mut expected = Vec::new();
            for at in 0..2000_usize {
                let length = [1, 0, 100, SHORT_FRAME - 1, SHORT_FRAME, 9000][at * 7 % 6] >> (at % 3);
                let data = vec![at as u8; length];
                expected.extend_from_slice(&data);
                frames.push(data.into());
                assert_eq!(frames.length, expected.len());
            }
            assert!(frames.join().unwrap() == expected, "{declared:?}");
        }
        assert!(Frames::new(None).unwrap().join().unwrap().is_empty());
    }

    #[test]
    fn short_frames_do_not_hold_their_readers_buffers() {
        let mut frames = Frames::new(None).unwrap();
        for _ in 0..100_000 {
            frames.push(Bytes::from_static(b"x"));
        }
        let Parts::Listed { frames, short } = &frames.parts else { panic!("no length was declared") };
        assert!(frames.len() < 3 && short.capacity() <= GATHERED, "{} frames", frames.len());
    }
}
