//! `inference.GRPCInferenceService`: the Open Inference Protocol (KServe v2) with Triton's extensions.
//!
//! What is not served says so: see [`not_supported`].

mod answer;
mod codec;
mod infer;
mod repository;
mod size;
mod stream;

use super::call::Call;
use super::failure;
use crate::error::ServingError;
use crate::repository::{ModelVersion, TensorSpec};
use crate::state::ServingState;
use convoy_proto::inference as proto;
use proto::model_metadata_response::TensorMetadata;
use std::sync::Arc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

/// The name that metadata gives for this server.
pub(crate) const SERVER_NAME: &str = "convoy";
/// Extensions of the protocol that work here, in Triton's words.
pub(crate) const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
];
/// Response metadata: the version that answered.
const MODEL_VERSION_KEY: &str = "x-convoy-model-version";

/// The service.
pub(crate) struct InferenceService {
    state: Arc<ServingState>,
}

impl InferenceService {
    pub(crate) fn new(state: Arc<ServingState>) -> Self {
        Self { state }
    }

    fn model(
        &self,
        call: &Call,
        method: &'static str,
        name: &str,
        version: &str,
    ) -> Result<Arc<ModelVersion>, Status> {
        self.state.model(name, version).map_err(|error| failure::answer(&error, call, method, name))
    }
}

/// The inputs or outputs of a model as its metadata has them: with the batch dimension, open.
pub(crate) fn tensor_metadata(model: &ModelVersion, specs: &[TensorSpec]) -> Vec<TensorMetadata> {
    let batch = (model.max_batch_size() > 0).then_some(-1);
    let metadata = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.datatype.as_str().to_owned(),
        shape: batch.into_iter().chain(spec.dims.iter().copied()).collect(),
    };
    specs.iter().map(metadata).collect()
}

/// The versions of `model` that are served, newest first.
pub(crate) fn served_versions(state: &ServingState, model: &str) -> Result<Vec<String>, ServingError> {
    Ok(state.models()?.versions_of(model).iter().map(|version| version.version().to_owned()).collect())
}

/// The platform as Triton names it.
pub(crate) fn platform(model: &ModelVersion) -> &str {
    match model.config().platform.as_str() {
        "" => "onnxruntime_onnx",
        platform => platform,
    }
}

fn with_version<T>(message: T, version: &str) -> Response<T> {
    let mut response = Response::new(message);
    // A version is a decimal number, so it always is a metadata value.
    if let Ok(value) = MetadataValue::try_from(version) {
        response.metadata_mut().insert(MODEL_VERSION_KEY, value);
    }
    response
}

/// What this server does not do: UNIMPLEMENTED, with the reason.
fn not_supported<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{what} is not supported by this server.")))
}

#[tonic::async_trait]
impl proto::grpc_inference_service_server::GrpcInferenceService for InferenceService {
    async fn server_live(
        &self,
        _request: Request<proto::ServerLiveRequest>,
    ) -> Result<Response<proto::ServerLiveResponse>, Status> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<proto::ServerReadyRequest>,
    ) -> Result<Response<proto::ServerReadyResponse>, Status> {
        Ok(Response::new(proto::ServerReadyResponse { ready: self.state.is_ready() }))
    }

    /// As in Triton, a model that does not exist is not ready, which is an answer and no error.
    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Result<Response<proto::ModelReadyResponse>, Status> {
        let proto::ModelReadyRequest { name, version } = request.into_inner();
        let model = self.state.model(&name, &version);
        let ready = model.is_ok_and(|model| model.not_ready_because().is_none());
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<proto::ServerMetadataRequest>,
    ) -> Result<Response<proto::ServerMetadataResponse>, Status> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Result<Response<proto::ModelMetadataResponse>, Status> {
        let call = Call::of(&request);
        let proto::ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.model(&call, "ModelMetadata", &name, &version)?;
        let versions = served_versions(&self.state, model.name())
            .map_err(|error| failure::answer(&error, &call, "ModelMetadata", &name))?;
        Ok(Response::new(proto::ModelMetadataResponse {
            name: model.name().to_owned(),
            versions,
            platform: platform(&model).to_owned(),
            inputs: tensor_metadata(&model, model.inputs()),
            outputs: tensor_metadata(&model, model.outputs()),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Result<Response<proto::ModelInferResponse>, Status> {
        let call = Call::of(&request);
        let request = request.into_inner();
        let name = request.model_name.clone();
        match infer::infer(&self.state, &call, request).await {
            Ok(answer) => {
                let version = answer.model_version.clone();
                Ok(with_version(answer, &version))
            }
            Err(error) => Err(failure::answer(&error, &call, "ModelInfer", &name)),
        }
    }

    type ModelStreamInferStream = stream::Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<proto::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let call = Call::of(&request);
        Ok(Response::new(stream::start(Arc::clone(&self.state), call, request.into_inner())))
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Result<Response<proto::ModelConfigResponse>, Status> {
        let call = Call::of(&request);
        let proto::ModelConfigRequest { name, version } = request.into_inner();
        let model = self.model(&call, "ModelConfig", &name, &version)?;
        let answer = proto::ModelConfigResponse { config: Some(model.config().clone()) };
        Ok(with_version(answer, model.version()))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
        repository::index(&self.state, &request)
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Result<Response<proto::ModelStatisticsResponse>, Status> {
        repository::statistics(&self.state, &request)
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Result<Response<proto::RepositoryModelLoadResponse>, Status> {
        repository::load(&self.state, request).await
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Result<Response<proto::RepositoryModelUnloadResponse>, Status> {
        repository::unload(&self.state, request).await
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<proto::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryStatusResponse>, Status> {
        not_supported("Shared memory")
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<proto::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryRegisterResponse>, Status> {
        not_supported("Shared memory")
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<proto::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryUnregisterResponse>, Status> {
        not_supported("Shared memory")
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<proto::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryStatusResponse>, Status> {
        not_supported("CUDA shared memory")
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<proto::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryRegisterResponse>, Status> {
        not_supported("CUDA shared memory")
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<proto::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryUnregisterResponse>, Status> {
        not_supported("CUDA shared memory")
    }

    async fn trace_setting(
        &self,
        _request: Request<proto::TraceSettingRequest>,
    ) -> Result<Response<proto::TraceSettingResponse>, Status> {
        not_supported("Changing trace settings")
    }

    async fn log_settings(
        &self,
        _request: Request<proto::LogSettingsRequest>,
    ) -> Result<Response<proto::LogSettingsResponse>, Status> {
        not_supported("Changing log settings while the server runs")
    }
}
