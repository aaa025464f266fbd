//! A model-serving with one detector that finds the same box in every image.

use bytes::Bytes;
use convoy_proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_response::InferOutputTensor;
use convoy_proto::inference::{self as pb, InferParameter, ModelInferRequest, ModelInferResponse};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// What the detector finds, 0..1 of the tensor.
pub(crate) const DETECTIONS: &str =
    r#"[{"class_name":"bus","confidence":0.97,"bbox":{"x_min":0.25,"y_min":0.25,"x_max":0.75,"y_max":0.5}}]"#;

/// What the only model is like now, and what was asked of it.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Whether the configuration's answer tells the version.
    pub(crate) tells_version: bool,
    /// Whether configuration and answers tell which preprocessing was loaded: those of an older server do not.
    pub(crate) tells_preprocessing: bool,
    /// Whether it is loaded with another `fit` whenever its configuration was asked for.
    pub(crate) changes_always: bool,
    /// Width and height.
    pub(crate) size: (u32, u32),
    pub(crate) task: String,
    pub(crate) fit: String,
    /// Whether it has a preprocessing component of its own, and takes encoded images.
    pub(crate) takes_encoded: bool,
    /// What `ModelInfer` answers instead.
    pub(crate) fails_with: Option<Status>,
    /// `ModelInfer` never answers.
    pub(crate) hangs: bool,
    /// How often `ModelConfig` was asked.
    pub(crate) configs: usize,
    /// What `ModelInfer` was asked, with its metadata.
    pub(crate) inferences: Vec<(ModelInferRequest, MetadataMap)>,
}

pub(crate) struct FakeModels {
    pub(crate) addr: SocketAddr,
    model: Arc<Mutex<Model>>,
    /// How many calls hang now.
    hanging: watch::Sender<usize>,
}

impl FakeModels {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = Model {
            name: "detector".to_owned(),
            version: "1".to_owned(),
            tells_version: true,
            tells_preprocessing: true,
            changes_always: false,
            size: (300, 300),
            task: "detection".to_owned(),
            fit: "stretch".to_owned(),
            takes_encoded: false,
            fails_with: None,
            hangs: false,
            configs: 0,
            inferences: Vec::new(),
        };
        let fake = Arc::new(Self {
            addr: listener.local_addr().unwrap(),
            model: Arc::new(Mutex::new(model)),
            hanging: watch::Sender::new(0),
        });
        let service =
            GrpcInferenceServiceServer::from_arc(Arc::clone(&fake)).max_decoding_message_size(64 << 20);
        let (_, health) = tonic_health::server::health_reporter();
        let server = tonic::transport::Server::builder().add_service(service).add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The model, to look at or to change.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// Returns when `count` calls hang.
    pub(crate) async fn until_hanging(&self, count: usize) {
        self.hanging.subscribe().wait_for(|hanging| *hanging == count).await.unwrap();
    }
}

/// Counts a call as hanging until it is dropped.
struct Hanging<'a>(&'a watch::Sender<usize>);

impl<'a> Hanging<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Model {
    /// As the server makes it: of what was loaded and of nothing else.
    fn preprocessing_id(&self) -> String {
        let (width, height) = self.size;
        format!("{width} {height} {} {}", self.fit, self.takes_encoded)
    }

    fn config(&self) -> pb::ModelConfig {
        let parameter = |value: &str| pb::ModelParameter { string_value: value.to_owned() };
        let mut parameters = HashMap::from([
            ("task".to_owned(), parameter(&self.task)),
            ("fit".to_owned(), parameter(&self.fit)),
            ("preprocessing".to_owned(), parameter(if self.takes_encoded { "model" } else { "server" })),
        ]);
        if self.tells_preprocessing {
            parameters.insert("preprocessing_id".to_owned(), parameter(&self.preprocessing_id()));
        }
        pb::ModelConfig {
            name: self.name.clone(),
            max_batch_size: 8,
            input: vec![pb::ModelInput {
                name: "images".to_owned(),
                format: pb::model_input::Format::Nhwc.into(),
                dims: vec![i64::from(self.size.1), i64::from(self.size.0), 3],
                ..Default::default()
            }],
            parameters,
            ..Default::default()
        }
    }

    fn answer(&self, request: &ModelInferRequest) -> Result<ModelInferResponse, Status> {
        if let Some(status) = &self.fails_with {
            return Err(status.clone());
        }
        let (width, height) = self.size;
        let [input] = request.inputs.as_slice() else { return Err(Status::invalid_argument("one input")) };
        let expected = [1, i64::from(height), i64::from(width), 3];
        let bytes = request.raw_input_contents.first().map_or(0, Bytes::len);
        // Pixels are never refused, whoever made them, nor are encoded images.
        let fits = match input.datatype.as_str() {
            "BYTES" => input.shape == [1],
            "UINT8" => input.shape == expected && bytes == (width * height * 3) as usize,
            _ => false,
        };
        if input.name != "images" || !fits {
            return Err(Status::invalid_argument(format!("The shape is not {expected:?}.")));
        }
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        let mut parameters =
            HashMap::from([("inference_time_ms".to_owned(), parameter(ParameterChoice::DoubleParam(8.5)))]);
        if self.tells_preprocessing {
            let id = ParameterChoice::StringParam(self.preprocessing_id());
            parameters.insert("preprocessing_id".to_owned(), parameter(id));
        }
        let mut raw = u32::try_from(DETECTIONS.len()).unwrap().to_le_bytes().to_vec();
        raw.extend_from_slice(DETECTIONS.as_bytes());
        Ok(ModelInferResponse {
            model_name: self.name.clone(),
            model_version: self.version.clone(),
            parameters,
            outputs: request
                .outputs
                .iter()
                .map(|output| InferOutputTensor {
                    name: output.name.clone(),
                    datatype: "BYTES".to_owned(),
                    shape: vec![1],
                    ..Default::default()
                })
                .collect(),
            raw_output_contents: vec![raw.into()],
            ..Default::default()
        })
    }
}

/// The methods that feature-service has no use for, in the form that `async_trait` gives them.
macro_rules! unused_methods {
    ($($method:ident($request:ident) -> $response:ident;)*) => {$(
        fn $method<'s, 'f>(
            &'s self,
            _: Request<pb::$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<pb::$response>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        }
    )*};
}

#[tonic::async_trait]
impl GrpcInferenceService for FakeModels {
    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let mut model = self.model();
        model.configs += 1;
        let name = request.into_inner().name;
        if !name.is_empty() && name != model.name {
            return Err(Status::not_found(format!("There is no model `{name}`.")));
        }
        let mut response = Response::new(pb::ModelConfigResponse { config: Some(model.config()) });
        if model.tells_version {
            response.metadata_mut().insert("x-convoy-model-version", model.version.parse().unwrap());
        }
        if model.changes_always {
            model.fit = if model.fit == "stretch" { "letterbox" } else { "stretch" }.to_owned();
        }
        Ok(response)
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let hangs = {
            let mut model = self.model();
            model.inferences.push((request.clone(), metadata));
            model.hangs
        };
        if hangs {
            let _hanging = Hanging::new(&self.hanging);
            std::future::pending::<()>().await;
        }
        self.model().answer(&request).map(Response::new)
    }

    type ModelStreamInferStream = tokio_stream::Pending<Result<pb::ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        _: Request<tonic::Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(Status::unimplemented("model_stream_infer"))
    }

    unused_methods! {
        server_live(ServerLiveRequest) -> ServerLiveResponse;
        server_ready(ServerReadyRequest) -> ServerReadyResponse;
        model_ready(ModelReadyRequest) -> ModelReadyResponse;
        server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
        model_metadata(ModelMetadataRequest) -> ModelMetadataResponse;
        model_statistics(ModelStatisticsRequest) -> ModelStatisticsResponse;
        repository_index(RepositoryIndexRequest) -> RepositoryIndexResponse;
        repository_model_load(RepositoryModelLoadRequest) -> RepositoryModelLoadResponse;
        repository_model_unload(RepositoryModelUnloadRequest) -> RepositoryModelUnloadResponse;
        system_shared_memory_status(SystemSharedMemoryStatusRequest) -> SystemSharedMemoryStatusResponse;
        system_shared_memory_register(SystemSharedMemoryRegisterRequest) -> SystemSharedMemoryRegisterResponse;
        system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest) -> SystemSharedMemoryUnregisterResponse;
        cuda_shared_memory_status(CudaSharedMemoryStatusRequest) -> CudaSharedMemoryStatusResponse;
        cuda_shared_memory_register(CudaSharedMemoryRegisterRequest) -> CudaSharedMemoryRegisterResponse;
        cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest) -> CudaSharedMemoryUnregisterResponse;
        trace_setting(TraceSettingRequest) -> TraceSettingResponse;
        log_settings(LogSettingsRequest) -> LogSettingsResponse;
    }
}
