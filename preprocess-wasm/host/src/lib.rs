//! Runs image preprocessing in a WASM component that can reach nothing: the only crate that knows wasmtime.
//!
//! Images come from strangers, and decoders are where servers get broken. So they are decoded in a component
//! that imports nothing (no files, no clock, no network): one fresh instance per image, thrown away after it,
//! under limits of memory, time and pixels ([`Limits`]). Images that take long wait for each other, and not for them
//! those that do not.
//!
//! * [`Sandbox`] is the handle the services share; [`SandboxConfig`] says how it is built.
//! * [`Resize`] says what an image becomes, [`ImageTensor`] and [`Preprocessed`] are what comes back, and
//!   [`Placement`] takes coordinates of the tensor back to the image.
//! * [`SandboxError`] says what went wrong and whose fault it is, [`Verdict`] is the word for it in metrics.

mod budget;
mod component;
mod convert;
mod engine;
mod error;
mod image;
mod lane;
mod limits;
mod placement;
mod pool;
mod resize;
mod sandbox;
mod ticker;
mod turns;
mod verdict;
mod watch;

pub use budget::MemoryMeter;
pub use component::component_bytes;
pub use error::SandboxError;
pub use image::{Features, ImageTensor, Preprocessed, SourceImage};
pub use limits::{Limits, SandboxConfig};
pub use placement::Placement;
pub use resize::{Color, Decode, Filter, Fit, ParseOptionError, Resize};
pub use sandbox::Sandbox;
pub use verdict::Verdict;
