//! gzip and deflate (zlib's format) of requests and answers.

use crate::error::ServingError;
use crate::limits::Permit;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use std::io::{self, Read, Write};

/// Decompressing goes through this many times the bytes of what is compressed, and through more of what is hostile.
pub(crate) const DECOMPRESSION_COST: usize = 16;
/// What is decompressed is made and counted in pieces of this many bytes at most, the first of them of this many at
/// least.
const PIECE_BYTES: usize = 256 << 10;
const SMALLEST_PIECE_BYTES: usize = 4 << 10;

/// How a request or an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// Its word in headers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Decompresses `data`, which may become at most `limit` bytes: its pieces, in their order. Each is counted into
    /// `permit` before it is made. Takes time: run it through [`Offload`](super::offload::Offload).
    ///
    /// # Errors
    /// `InvalidInput` for data that is not so encoded, or is cut off; `TooLarge` for more than `limit`: what is over
    /// it is not made; and as [`Permit::grow`].
    pub(crate) fn decode(
        self,
        data: &[u8],
        limit: usize,
        permit: &Permit,
    ) -> Result<Vec<Bytes>, ServingError> {
        let mut decoder: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(data)),
            Self::Deflate => Box::new(ZlibDecoder::new(data)),
        };
        let mut pieces = Vec::new();
        let mut made = 0;
        let mut size = data.len().saturating_mul(4).clamp(SMALLEST_PIECE_BYTES, PIECE_BYTES);
        loop {
            permit.grow(size)?;
            let mut piece = Vec::with_capacity(size);
            let filled = decoder.by_ref().take(size as u64).read_to_end(&mut piece).map_err(|error| {
                ServingError::InvalidInput(format!(
                    "The request is not valid {} data: {error}.",
                    self.as_str()
                ))
            })?;
            made += filled;
            if made > limit {
                return Err(ServingError::TooLarge(format!(
                    "The request has more than {limit} bytes once it is decompressed: send less at once."
                )));
            }
            let is_last = filled < size;
            piece.shrink_to_fit();
            permit.give_back(size - filled);
            if filled > 0 {
                pieces.push(piece.into());
            }
            if is_last {
                return Ok(pieces);
            }
            size = PIECE_BYTES;
        }
    }

    /// Encodes the `parts` of a body, one after the other. Takes time, as decoding does.
    ///
    /// # Errors
    /// Never in practice: it writes to memory.
    pub(crate) fn encode(self, parts: &[Bytes]) -> io::Result<Bytes> {
        // The fastest level: the network that needs compression is slower than any level, but the server is not idle.
        let level = Compression::fast();
        let write = |out: &mut dyn Write| parts.iter().try_for_each(|part| out.write_all(part));
        let encoded = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                write(&mut encoder)?;
                encoder.finish()?
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                write(&mut encoder)?;
                encoder.finish()?
            }
        };
        Ok(encoded.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::limits::InFlight;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_bomb_is_refused_at_the_limit_and_what_is_cut_off_or_no_data_too() {
        let budget = InFlight::new(200 * MIB);
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let bomb = encoding.encode(&[vec![0; 10 * MIB].into()]).unwrap();
            assert!(bomb.len() < 100 << 10);
            let decode = |data: &[u8], limit| encoding.decode(data, limit, &budget.permit());
            assert!(matches!(decode(&bomb, MIB), Err(ServingError::TooLarge(_))));
            assert_eq!(decode(&bomb, 10 * MIB).unwrap().iter().map(Bytes::len).sum::<usize>(), 10 * MIB);
            for broken in [&bomb[..bomb.len() / 2], b"", b"no such data"] {
                assert!(matches!(decode(broken, 100 * MIB), Err(ServingError::InvalidInput(_))));
            }
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn what_finds_no_room_is_not_made_and_what_is_made_is_counted_to_the_byte() {
        let budget = InFlight::new(8 * MIB);
        let others = budget.permit();
        others.grow(6 * MIB).unwrap();
        let large = Encoding::Gzip.encode(&[vec![7; 3 * MIB].into()]).unwrap();
        let permit = budget.permit();
        let error = Encoding::Gzip.decode(&large, 64 * MIB, &permit).unwrap_err();
        assert!(matches!(error, ServingError::Overloaded { .. }), "{error}");
        assert!(permit.was_refused() && permit.bytes() <= 2 * MIB);
        drop((others, permit));
        let permit = budget.permit();
        let pieces = Encoding::Gzip.decode(&large, 64 * MIB, &permit).unwrap();
        assert_eq!((permit.bytes(), pieces.len()), (3 * MIB, 3 * MIB / PIECE_BYTES + 1));
        assert!(pieces.iter().all(|piece| piece.iter().all(|&byte| byte == 7)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9_000), 0..4)) {
            let permit = InFlight::new(MIB).permit();
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                let whole = parts.concat();
                let parts: Vec<Bytes> = parts.iter().cloned().map(Bytes::from).collect();
                let encoded = encoding.encode(&parts).unwrap();
                let decoded = encoding.decode(&encoded, whole.len(), &permit).unwrap();
                prop_assert_eq!(decoded.concat(), whole);
            }
        }
    }
}
