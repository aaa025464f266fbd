//! The faces of model-serving on real ports, with the real sandbox and the real detector.

#![allow(clippy::unwrap_used)]

mod broken_models;
mod calls;
mod control;
mod failures;
mod hang_ups;
mod infer;
mod lifecycle;
mod limits;
mod metadata;
mod own_preprocessing;
mod predict;
mod rest_infer;
mod rest_types;
mod slow_bodies;
mod streams;
mod support;
mod unread_answers;
