//! A server in invented time: devices, traffic, the server's own policy and what others do.

pub(crate) mod baselines;
pub(crate) mod convoy;
pub(crate) mod device;
pub(crate) mod engine;
pub(crate) mod recovery;
pub(crate) mod study;
pub(crate) mod traffic;

/// Rows of a batch at most.
pub(crate) const MAX_BATCH: usize = 32;
