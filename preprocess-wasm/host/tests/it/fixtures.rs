//! What several tests use.

use std::io::Cursor;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use sandbox::{Color, Decode, Filter, Fit, Limits, Resize, Sandbox, SandboxConfig};

/// One sandbox of the embedded component for all tests: compiling it takes a while without optimisation. It has more
/// time for an image than by default: the machine may be busy with other tests.
pub(crate) fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let limits = Limits { timeout: Duration::from_secs(120), ..Limits::default() };
    SANDBOX.get_or_init(|| Sandbox::new(SandboxConfig { limits, ..SandboxConfig::default() }).unwrap())
}

/// The sample photo: 546x413, a street with a bus.
pub(crate) fn photo() -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/photos/double_decker_bus.jpg");
    std::fs::read(path).unwrap().into()
}

pub(crate) fn stretch(width: u32, height: u32) -> Resize {
    Resize {
        width,
        height,
        fit: Fit::Stretch,
        filter: Filter::Bicubic,
        color: Color::Rgb,
        decode: Decode::Auto,
    }
}

pub(crate) fn encode(image: &DynamicImage, format: ImageFormat) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner().into()
}
