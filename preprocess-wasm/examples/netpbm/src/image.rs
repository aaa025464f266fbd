//! Reading PGM and PPM (netpbm.sourceforge.net/doc/ppm.html).

use crate::bindings::exports::convoy::preprocess::images::{Dimensions, Error};

/// An image whose header was read, and whose pixels are known to be there.
pub struct Image {
    bytes: Vec<u8>,
    /// Where the pixels begin.
    start: usize,
    pub width: u32,
    pub height: u32,
    /// 1 for grey, 3 for colour.
    pub channels: usize,
}

impl Image {
    pub fn read(bytes: Vec<u8>, max_pixels: u64) -> Result<Self, Error> {
        let channels = match bytes.get(..2) {
            Some(b"P5") => 1,
            Some(b"P6") => 3,
            Some(b"P1" | b"P2" | b"P3" | b"P4") => {
                return Err(Error::UnsupportedFormat("Netpbm that is no binary PGM or PPM".to_owned()));
            }
            _ => return Err(Error::NotAnImage),
        };
        let mut header = Header { bytes: &bytes, at: 2 };
        let (width, height, most) = (header.number()?, header.number()?, header.number()?);
        // One blank, and then the pixels.
        let start = header.at + 1;
        if width == 0 || height == 0 {
            return Err(Error::Corrupt(format!("its header declares {width}x{height} pixels")));
        }
        if u64::from(width) * u64::from(height) > max_pixels {
            return Err(Error::TooManyPixels(Dimensions { width, height }));
        }
        if most != 255 {
            return Err(Error::UnsupportedFormat(format!("Netpbm of {most} levels")));
        }
        let wanted = u64::from(width) * u64::from(height) * channels as u64;
        let there = bytes.len().saturating_sub(start) as u64;
        if there < wanted {
            return Err(Error::Truncated(format!("{there} of {wanted} bytes of pixels are there")));
        }
        Ok(Self { bytes, start, width, height, channels })
    }

    pub fn rgb(&self, x: u64, y: u64) -> [u8; 3] {
        let at = self.start + (y * u64::from(self.width) + x) as usize * self.channels;
        match self.channels {
            1 => [self.bytes[at]; 3],
            _ => [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2]],
        }
    }
}

struct Header<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Header<'_> {
    /// The next number, behind blanks and comments.
    fn number(&mut self) -> Result<u32, Error> {
        let truncated = || Error::Truncated("it ends within its header".to_owned());
        let mut number = None;
        loop {
            let byte = *self.bytes.get(self.at).ok_or_else(truncated)?;
            match (byte, number) {
                (b'0'..=b'9', _) => {
                    let digit = u32::from(byte - b'0');
                    let larger = number.unwrap_or(0_u32).checked_mul(10).and_then(|n| n.checked_add(digit));
                    let too_large = || Error::Corrupt("a number of its header is too large".to_owned());
                    number = Some(larger.ok_or_else(too_large)?);
                }
                (_, Some(number)) if byte.is_ascii_whitespace() => return Ok(number),
                (b'#', None) => {
                    let rest = &self.bytes[self.at..];
                    self.at += rest.iter().position(|&byte| byte == b'\n').ok_or_else(truncated)?;
                }
                (_, None) if byte.is_ascii_whitespace() => {}
                _ => return Err(Error::Corrupt("there is no number where its header needs one".to_owned())),
            }
            self.at += 1;
        }
    }
}
