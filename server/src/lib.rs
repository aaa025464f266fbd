//! Model repository, admission, dynamic batching, execution on ONNX Runtime, and its gRPC and REST faces.

pub mod backend;
pub mod detection;
pub mod error;
pub mod repository;
pub mod scheduler;
pub mod tensor;
