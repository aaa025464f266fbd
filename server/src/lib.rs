//! Model repository, admission, dynamic batching, execution on ONNX Runtime, and its gRPC and REST faces.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | what an operator can set |
//! | `serve` | [`Listeners`] and [`run`]: the life of the server |
//! | `grpc` | `model_serving.ModelServing`, the Open Inference Protocol, health, reflection, deadlines |
//! | `rest` | the same protocol over HTTP, health, readiness; the metrics' port |
//! | `inference` | one inference of that protocol, for both faces |
//! | `metrics` | Triton's metrics and ours, in a registry of ours |
//! | `audit` | one line per prediction |
//! | `limits` | the memory that requests hold together |
//! | `state` | what the faces share |
//! | [`repository`] | which models and versions are served |
//! | [`scheduler`] | the queue, the batches and the threads that run them |
//! | [`backend`] | ONNX Runtime |
//! | [`gpu`] | NVIDIA's GPUs as their driver tells of them |
//! | [`detection`] | boxes and scores become detections |
//! | [`tensor`] | tensors between a request and a backend |
//! | [`error`] | what goes wrong |

mod audit;
pub mod backend;
pub mod config;
pub mod detection;
pub mod error;
pub mod gpu;
mod grpc;
mod inference;
mod limits;
mod metrics;
pub mod repository;
mod rest;
pub mod scheduler;
mod serve;
mod state;
pub mod tensor;
#[cfg(test)]
mod test_logs;
#[cfg(test)]
mod test_models;

pub use config::{Config, ConfigError};
pub use grpc::GrpcError;
pub use serve::{Listeners, RunError, run};
