//! Model repository, admission, dynamic batching, execution on ONNX Runtime, and its gRPC and REST faces.
