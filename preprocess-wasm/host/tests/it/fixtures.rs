//! What several tests use.

use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use sandbox::{Color, Decode, Filter, Fit, Limits, MemoryMeter, Resize, Sandbox, SandboxConfig};

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

/// Has room for `limit` bytes, and remembers the most that were asked for at once.
pub(crate) struct Meter {
    limit: usize,
    used: AtomicUsize,
    highest: AtomicUsize,
}

impl Meter {
    pub(crate) fn of(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), highest: AtomicUsize::new(0) })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    pub(crate) fn highest(&self) -> usize {
        self.highest.load(Ordering::SeqCst)
    }
}

impl MemoryMeter for Meter {
    fn grow(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.highest.fetch_max(used, Ordering::SeqCst);
        if used > self.limit {
            self.used.fetch_sub(bytes, Ordering::SeqCst);
        }
        used <= self.limit
    }

    fn shrink(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }
}
