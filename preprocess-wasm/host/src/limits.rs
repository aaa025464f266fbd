//! How a sandbox is built and what one image may use.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

/// How a [`Sandbox`](crate::Sandbox) is built. [`Default`] gives the documented defaults.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// A component of the world `convoy:preprocess/preprocessor` to use instead of the embedded one.
    pub component: Option<PathBuf>,
    /// What one image may use.
    pub limits: Limits,
    /// Threads that run the guest: how many images are preprocessed at once. Default: the processor's cores.
    pub workers: usize,
    /// Images that may wait for a thread; one more is answered [`Busy`](crate::SandboxError::Busy). Default: 64.
    pub queue: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            component: None,
            limits: Limits::default(),
            workers: available_parallelism().map_or(1, usize::from),
            queue: 64,
        }
    }
}

/// What one image may use, whatever it declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one guest instance in bytes. Default: 512 MiB.
    pub memory_bytes: usize,
    /// Width times height that the image's header may declare. Default: 50 megapixels.
    pub max_pixels: u64,
    /// Time one image may take once a thread works on it. Default: 5 s.
    pub timeout: Duration,
    /// Size of the encoded image in bytes. Default: 32 MiB.
    pub max_image_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            max_pixels: 50_000_000,
            timeout: Duration::from_secs(5),
            max_image_bytes: 32 << 20,
        }
    }
}
