//! The preprocessing component: an encoded image in, what a model takes out.
//!
//! It is compiled for `wasm32-unknown-unknown` and imports nothing: no files, no clock, no network. Its pure code
//! ([`decode`], [`resize`], [`color`], [`features`], [`encode`]) is compiled and tested natively as well; only `component`,
//! which translates between it and the WIT interface, is for wasm alone.

pub mod color;
pub mod decode;
pub mod encode;
pub mod error;
pub mod features;
mod jpeg;
mod planar;
mod plane;
mod png;
pub mod preprocess;
pub mod resize;

#[cfg(not(target_arch = "wasm32"))]
pub use png::own_png;

#[cfg(target_arch = "wasm32")]
mod component;
