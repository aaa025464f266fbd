//! What must hold whatever the bytes are. The fuzz targets look for bytes for which it does not; `tests/replay.rs` tries
//! those that are known.

mod guest;
#[cfg(feature = "host")]
mod host;

pub use guest::guest;
#[cfg(feature = "host")]
pub use host::host;
