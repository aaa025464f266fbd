//! End-to-end tests: a photo in, detections out, over real sockets on the real detector.
//!
//! | module | what it holds |
//! |---|---|
//! | `fixture` | Convoy in this process, on free ports; most tests share one |
//! | `process` | the real binary, for what only a process can do: signals, exit codes, kill -9 |
//! | `photo` | the sample photo and what is in it |
//! | `rest`, `python` | clients |
//!
//! Tests share a database: each uses ids of its own. Nothing waits for a fixed time: what takes time is polled until a
//! deadline that is far away.

#![allow(clippy::unwrap_used)]

mod fixture;
mod photo;
mod process;
mod python;
mod rest;

mod bad_input;
mod bad_input_grpc;
mod bench_command;
mod configuration;
mod detect_command;
mod detections;
mod device_check;
mod durability;
mod feature_service;
mod grpc;
mod hostile_images;
mod invariants;
mod load_report;
mod openapi;
mod own_preprocessing;
mod prediction;
mod privacy;
mod results_service;
mod rolling_restart;
mod run_script;
mod scaled_decode;
mod single_services;
mod stopping;
#[path = "../../preprocess-wasm/host/build/toolchain.rs"]
mod toolchain;
mod triton_clients;
