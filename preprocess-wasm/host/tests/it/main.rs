//! The sandbox from outside: images, hostile guests, and what the component is made of.
#![allow(clippy::unwrap_used)]

mod component;
mod corpus;
mod examples;
mod fixtures;
#[allow(unreachable_pub, reason = "it is of another crate")]
#[path = "../../../../fuzz/src/host.rs"]
mod fuzzed;
mod headers;
mod hostile;
mod images;
mod mirror;
mod orientations;
#[path = "../../build/toolchain.rs"]
mod toolchain;
mod turns;
