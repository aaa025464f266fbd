//! The `.proto` files of Convoy's gRPC interfaces and the code generated from them; nothing else.
//!
//! - [`model_serving`]: Convoy's own interface, an encoded image in, detections out.
//! - [`inference`]: the Open Inference Protocol (KServe v2) with Triton's extensions. Its `.proto` files were
//!   written from the descriptors in NVIDIA's Python package `tritonclient` 2.73.0, so that names and numbers agree.

/// Convoy's own interface, package `model_serving`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod model_serving {
    tonic::include_proto!("model_serving");
}

/// The Open Inference Protocol and Triton's model configuration, package `inference`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The encoded `FileDescriptorSet` of all `.proto` files, for server reflection and for text protobuf.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
