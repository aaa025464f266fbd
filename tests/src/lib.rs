//! End-to-end tests of the three services: see `tests/e2e/main.rs`.
