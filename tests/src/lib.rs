//! End-to-end tests of the three services.
