//! Whether what a component calls a JPEG is one, as far as its markers tell (ITU T.81, B.1): who asked for an image must not
//! be handed a script. Its pixels are not decoded here: that is work for a sandbox. How long it may be, the engine says.

use crate::Resize;

/// Checks that it begins and ends as a JPEG does, and that its frame has the size that was asked for. Says what is wrong
/// otherwise.
pub(super) fn check(jpeg: &[u8], resize: &Resize) -> Result<(), String> {
    let (Some(segments), true) = (jpeg.strip_prefix(b"\xff\xd8"), jpeg.ends_with(b"\xff\xd9")) else {
        return Err("it returned as JPEG what does not begin and end as one".to_owned());
    };
    let (width, height) = frame(segments).ok_or("it returned a JPEG without a frame before its scan")?;
    if (u32::from(width), u32::from(height)) != (resize.width, resize.height) {
        let Resize { width: w, height: h, .. } = resize;
        return Err(format!("it returned a JPEG of {width}x{height} pixels where {w}x{h} were asked for"));
    }
    Ok(())
}

/// Width and height of the frame, if segments lead to it and to a scan behind it.
fn frame(mut segments: &[u8]) -> Option<(u16, u16)> {
    let mut size = None;
    loop {
        // Any number of fill bytes may precede a marker.
        while segments.starts_with(b"\xff\xff") {
            segments = &segments[1..];
        }
        let (&[0xff, marker, high, low], _) = segments.split_first_chunk()? else { return None };
        let (segment, rest) = segments[2..].split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        match marker {
            // Start of a scan: behind it there are data.
            0xda => return size,
            // Start of a frame, but for DHT, JPG and DAC, which lie between: precision, height, width.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let &[_, h1, h0, w1, w0] = segment.get(2..7)?.first_chunk()?;
                size = Some((u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])));
            }
            // Tables, comments and what programs add.
            0xc4 | 0xcc | 0xdb..=0xdf | 0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
        segments = rest;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Color, Decode, Filter, Fit};

    fn resize(width: u32, height: u32) -> Resize {
        let (fit, filter) = (Fit::Stretch, Filter::Nearest);
        Resize { width, height, fit, filter, color: Color::Rgb, decode: Decode::Auto }
    }

    fn jpeg(size: [u8; 4]) -> Vec<u8> {
        let [h1, h0, w1, w0] = size;
        let frame = [0xff, 0xc0, 0, 11, 8, h1, h0, w1, w0, 1, 1, 0x11, 0];
        let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0x12, 0x34];
        [&b"\xff\xd8\xff\xff\xfe\0\x05abc"[..], &frame, &scan, b"\xff\xd9"].concat()
    }

    #[test]
    fn a_jpeg_has_a_frame_of_the_size_that_was_asked_for() {
        let good = jpeg([0, 3, 1, 2]);
        assert_eq!(check(&good, &resize(258, 3)), Ok(()));
        assert!(check(&good, &resize(3, 258)).unwrap_err().contains("258x3"));
        for end in 0..good.len() {
            assert!(check(&good[..end], &resize(258, 3)).is_err(), "{end}");
        }
        for bad in [&b"<script>alert(1)</script>"[..], b"\xff\xd8\xff\xd9", b"\xff\xd8<script>\xff\xd9", b""]
        {
            assert!(check(bad, &resize(258, 3)).is_err(), "{bad:?}");
        }
        let mut without_frame = good;
        without_frame[11] = 0xc4;
        assert!(check(&without_frame, &resize(258, 3)).is_err());
    }
}
