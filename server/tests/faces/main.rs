//! The faces of model-serving on real ports, with the real sandbox and the real detector.

#![allow(clippy::unwrap_used)]

mod control;
mod infer;
mod lifecycle;
mod metadata;
mod predict;
mod rest_infer;
mod support;
