//! What format bytes are in, by how they begin, never by a name.

use crate::error::Error;

/// A container format that is decoded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG: baseline, extended or progressive.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossy or lossless; of an animation, the first frame.
    WebP,
    /// GIF; of an animation, the first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF; of several pages, the first.
    Tiff,
}

impl Format {
    /// Tells the format by the first bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, Error> {
        let signatures: [(&[u8], Self); 7] = [
            (b"\xff\xd8\xff", Self::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Self::Png),
            (b"GIF87a", Self::Gif),
            (b"GIF89a", Self::Gif),
            (b"BM", Self::Bmp),
            (b"II*\0", Self::Tiff),
            (b"MM\0*", Self::Tiff),
        ];
        if let Some((_, format)) = signatures.into_iter().find(|(begin, _)| bytes.starts_with(begin)) {
            // Two letters are a weak signature: a bitmap also has a header of a known size.
            return if format == Self::Bmp && !is_bitmap(bytes) {
                Err(Error::NotAnImage)
            } else {
                Ok(format)
            };
        }
        if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            return Ok(Self::WebP);
        }
        if let Some(name) = known_but_unsupported(bytes) {
            return Err(Error::UnsupportedFormat(name.to_owned()));
        }
        // A signature cut short: what is there is right, but it is not all there.
        let cut_webp = bytes.len() < 12
            && b"RIFF".starts_with(&bytes[..bytes.len().min(4)])
            && b"WEBP".starts_with(bytes.get(8..).unwrap_or_default());
        let cut = bytes.len() >= 2
            && (cut_webp || signatures.into_iter().any(|(begin, _)| begin.starts_with(bytes)));
        if cut {
            Err(Error::Truncated("it ends within its signature".to_owned()))
        } else {
            Err(Error::NotAnImage)
        }
    }

    /// The word Pillow has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WEBP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }
}

/// Dimensions of formats whose decoder allocates by them, or reads on beyond them, before it hands them out.
pub(super) fn early_dimensions(format: Format, bytes: &[u8]) -> Option<(u32, u32)> {
    match format {
        Format::Png if bytes.get(12..16) == Some(b"IHDR") => {
            let side = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
            Some((side(16)?, side(20)?))
        }
        Format::Gif => {
            let side =
                |at: usize| Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
            Some((side(6)?, side(8)?))
        }
        _ => None,
    }
}

fn is_bitmap(bytes: &[u8]) -> bool {
    // Sizes of BITMAPCOREHEADER and its successors. A file that ends before the field is still a bitmap cut short.
    match bytes.get(14..18) {
        Some(size) => matches!(size, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]),
        None => true,
    }
}

fn known_but_unsupported(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..12)? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" => Some("HEIF"),
            b"jxl " => Some("JPEG XL"),
            // Any other is a film.
            _ => None,
        };
    }
    let signatures: [(&[u8], &str); 14] = [
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"II+\0", "BigTIFF"),
        (b"MM\0+", "BigTIFF"),
        (b"8BPS", "PSD"),
        (b"\0\0\x01\0", "ICO"),
        (b"v/1\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"farbfeld", "Farbfeld"),
        (b"<svg", "SVG"),
    ];
    signatures.into_iter().find(|(begin, _)| bytes.starts_with(begin)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_begin_like_nothing_are_no_image() {
        for bytes in
            [&b"hello, world"[..], b"", b"\x00", b"BM is how my letter begins", b"%PDF-1.7", b"RIFF1234WAVE"]
        {
            assert_eq!(Format::of(bytes), Err(Error::NotAnImage), "{bytes:?}");
        }
    }

    #[test]
    fn a_known_format_that_is_not_decoded_is_named() {
        assert_eq!(Format::of(b"\0\0\0\x20ftypavif"), Err(Error::UnsupportedFormat("AVIF".to_owned())));
        assert_eq!(Format::of(b"qoif\0\0\0\x01"), Err(Error::UnsupportedFormat("QOI".to_owned())));
    }

    #[test]
    fn a_signature_cut_short_is_truncated() {
        assert!(matches!(Format::of(b"\x89PN"), Err(Error::Truncated(_))));
        assert!(matches!(Format::of(b"\xff\xd8"), Err(Error::Truncated(_))));
        for end in 2..12 {
            assert!(matches!(Format::of(&b"RIFF\x01\0\0\0WEBP"[..end]), Err(Error::Truncated(_))), "{end}");
        }
        assert_eq!(Format::of(b"RIFF\x01\0\0\0WA"), Err(Error::NotAnImage));
    }
}
