//! How long the largest headers take that there can be: `cargo test -p sandbox --test it -- --ignored --nocapture headers`
//! prints it. What the limit is must be chosen by that ([`Limits::PROBE_TIME`]), and must not be asserted: machines differ.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox::{Limits, Sandbox, SandboxConfig, Verdict};

use crate::fixtures::stretch;

/// `begin`, then `unit` as often as fits into the largest file that is taken.
fn filled(begin: &[u8], unit: &[u8]) -> Bytes {
    let count = (Limits::default().max_image_bytes - begin.len()) / unit.len();
    [begin, &unit.repeat(count)].concat().into()
}

/// A chunk of a PNG, with its checksum.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [kind, content].concat();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], &named, &crc32(&named).to_be_bytes()].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// Files of the largest size that have nothing but a header, most of them in as many parts as there can be.
fn headers() -> Vec<(&'static str, Bytes)> {
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &[0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0])].concat();
    let gif = b"GIF89a\x08\0\x08\0\0\0\0";
    let webp = [&b"RIFF\xf0\xff\xff\x01WEBPVP8X\x0a\0\0\0\x08\0\0\0"[..], &[7, 0, 0, 7, 0, 0]].concat();
    let largest = vec![b' '; (30 << 20) + 17];
    vec![
        ("PNG, all data", filled(&[&png[..], b"\x01\xf0\0\0IDAT"].concat(), b"\x78")),
        ("PNG, empty texts", filled(&png, &chunk(b"tEXt", b""))),
        ("PNG, texts of a letter", filled(&png, &chunk(b"tEXt", b"a\0b"))),
        ("PNG, unknown chunks", filled(&png, &chunk(b"abCd", b""))),
        ("PNG, one text", filled(&[&png[..], &chunk(b"tEXt", &largest)].concat(), b"\0")),
        ("PNG, one EXIF block", filled(&[&png[..], &chunk(b"eXIf", &largest)].concat(), b"\0")),
        ("JPEG, comments", filled(b"\xff\xd8", b"\xff\xfe\0\x02")),
        ("JPEG, EXIF blocks", filled(b"\xff\xd8", b"\xff\xe1\0\x08Exif\0\0")),
        ("JPEG, quantization tables", filled(b"\xff\xd8", &[&b"\xff\xdb\0\x43\0"[..], &[1; 64]].concat())),
        ("JPEG, profiles", filled(b"\xff\xd8", b"\xff\xe2\0\x10ICC_PROFILE\0\x01\x01")),
        ("JPEG, fill bytes", filled(b"\xff\xd8", b"\xff")),
        ("GIF, comments", filled(gif, b"\x21\xfe\0")),
        ("GIF, one comment", filled(&[&gif[..], b"\x21\xfe"].concat(), b"\x01 ")),
        ("WebP, chunks", filled(&webp, b"abcd\0\0\0\0")),
        ("TIFF, tags", filled(b"II*\0\x08\0\0\0\xff\xff", b"\0\x01\x03\0\x01\0\0\0\x08\0\0\0")),
        (
            "TIFF, one tag of all",
            filled(b"II*\0\x08\0\0\0\x01\0\x11\x01\x04\0\xf0\xff\x7f\0\x20\0\0\0\0\0\0\0", b"\0"),
        ),
        ("BMP, nothing", filled(b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", b"\x01")),
    ]
}

#[tokio::test]
#[ignore = "it measures"]
#[allow(clippy::print_stderr)]
async fn the_largest_headers_take_this_long() {
    let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
    let sandbox = Sandbox::new(SandboxConfig { limits, workers: 1, ..SandboxConfig::default() }).unwrap();
    for (name, file) in headers() {
        let mut took = Vec::new();
        let mut verdict = Verdict::Accepted;
        for _ in 0..5 {
            let start = Instant::now();
            verdict = Verdict::of(&sandbox.tensor(file.clone(), stretch(30, 30), None).await);
            took.push(start.elapsed());
        }
        took.sort_unstable();
        let (least, median, limit) = (took[0], took[2], Limits::PROBE_TIME);
        eprintln!(
            "{name}: {} bytes, {least:.1?} at least, {median:.1?} at the median of {limit:.1?}: {verdict}",
            file.len()
        );
    }
}
