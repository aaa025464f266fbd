//! feature-service from the outside: its router (or its whole server) in front of fake peers that are real servers,
//! so that they can be made to fail in ways that the real ones hardly ever do. The sandbox is the real one.

#![allow(clippy::unwrap_used)]

mod encoded;
mod fakes;
mod forms;
mod metrics;
mod peers;
mod predict;
mod preprocess;
mod replay;
mod rig;
mod server;
mod traps;
