//! Peers that do what a test tells them: real servers on ports of their own.

mod models;
mod results;

pub(crate) use models::FakeModels;
pub(crate) use results::FakeResults;
