//! The sandbox from outside: images, hostile guests, and what the component is made of.
#![allow(clippy::unwrap_used)]

mod component;
mod fixtures;
mod hostile;
mod images;
