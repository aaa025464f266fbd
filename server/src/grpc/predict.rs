//! `model_serving.ModelServing`: an encoded image in, detections out.

use super::call::Call;
use super::failure;
use crate::audit::{Prediction, milliseconds};
use crate::detection::Detection;
use crate::error::ServingError;
use crate::inference::check_user_id;
use crate::repository::{InferenceRequest, InferenceResponse, ModelVersion, Task};
use crate::scheduler::MemoryAccount;
use crate::state::ServingState;
use crate::tensor::{DataType, Shape, Tensor};
use bytes::Bytes;
use convoy_proto::model_serving as proto;
use prost::Message as _;
use sandbox::{ImageTensor, Placement, Resize};
use service_kit::{base64_text, identifier};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// From this many characters on base64 is decoded on a thread of its own: below it, handing over costs more.
const BASE64_INLINE_BYTES: usize = 256 * 1024;

/// The service.
pub(crate) struct ModelServing {
    state: Arc<ServingState>,
}

impl ModelServing {
    pub(crate) fn new(state: Arc<ServingState>) -> Self {
        Self { state }
    }

    async fn predict(
        &self,
        call: &Call,
        request: proto::PredictionRequest,
    ) -> Result<proto::PredictionResponse, ServingError> {
        let request_id = request_id(request.request_id).inspect(|id| call.name(id));
        let model = self.state.model(&request.model_name, "")?;
        let ready = async {
            let request_id = request_id?;
            check_user_id(&request.user_id)?;
            let image = image(call, request.image_data, request.image).await?;
            let (input, placement) = self.decode(&model, image, call).await?;
            Ok((request_id, input, placement))
        };
        let (request_id, input, placement) = model.counted(ready.await)?;
        let request_for_model = InferenceRequest {
            id: request_id.clone(),
            inputs: vec![input],
            arrived: call.caller().arrived,
            account: MemoryAccount::of(call.caller().permit),
            ..InferenceRequest::default()
        };
        let response = model.infer(request_for_model, call.deadline).await?;
        let detections = detections_of_only_row(&model, &response)?;

        self.state.audit.write(&Prediction {
            request_id: &request_id,
            user_id: &request.user_id,
            model: model.name(),
            version: model.version(),
            detections: Some(detections.len()),
            queue: response.queue,
            inference: response.inference,
            traceparent: call.traceparent.as_deref(),
        });
        Ok(proto::PredictionResponse {
            request_id,
            detections: detections.iter().map(|found| to_proto(found, &placement)).collect(),
            model_version: model.version().to_owned(),
            inference_time_ms: milliseconds(response.inference),
            model_name: model.name().to_owned(),
        })
    }

    /// Decodes `image` in the sandbox to what `model` takes.
    async fn decode(
        &self,
        model: &ModelVersion,
        image: Bytes,
        call: &Call,
    ) -> Result<(Tensor, Placement), ServingError> {
        let Some(vision) = model.vision().filter(|_| model.task() == Task::Detection) else {
            return Err(ServingError::InvalidInput(format!(
                "Model `{}` does not detect objects in images: name one that does, or use \
                 inference.GRPCInferenceService.",
                model.name()
            )));
        };
        let Resize { width, height, .. } = vision.resize;
        call.caller().grow(width as usize * height as usize * 3)?;
        let decoded = self.state.metered_sandbox(model).tensor(image, vision.resize, call.deadline).await;
        self.state.metrics.image_seen(&decoded);
        let ImageTensor { pixels, width, height, placement, .. } = decoded?;
        let input = Tensor {
            name: vision.input_name.to_string(),
            datatype: DataType::Uint8,
            shape: Shape::from([1, i64::from(height), i64::from(width), 3]),
            data: pixels.into(),
        };
        Ok((input, placement))
    }
}

#[tonic::async_trait]
impl proto::model_serving_server::ModelServing for ModelServing {
    async fn predict(
        &self,
        request: Request<proto::PredictionRequest>,
    ) -> Result<Response<proto::PredictionResponse>, Status> {
        let call = Call::of(&request);
        let request = request.into_inner();
        let model = request.model_name.clone();
        match self.predict(&call, request).await {
            Ok(response) => {
                call.answered(response.encoded_len());
                Ok(Response::new(response))
            }
            Err(error) => Err(failure::answer(&error, &call, "Predict", &model)),
        }
    }

    async fn health_check(
        &self,
        _request: Request<proto::HealthCheckRequest>,
    ) -> Result<Response<proto::HealthCheckResponse>, Status> {
        match self.state.not_ready_because() {
            None => Ok(Response::new(proto::HealthCheckResponse { status: "healthy".to_owned() })),
            // No failure: it is the answer to the question.
            Some(reason) => Err(Status::unavailable(reason)),
        }
    }
}

fn request_id(request_id: String) -> Result<String, ServingError> {
    if request_id.is_empty() {
        return Ok(uuid::Uuid::new_v4().to_string());
    }
    match identifier::validate(&request_id) {
        Ok(()) => Ok(request_id),
        Err(reason) => Err(ServingError::InvalidInput(format!("request_id {reason}."))),
    }
}

/// The bytes of the encoded image, which exactly one of the fields holds.
async fn image(call: &Call, image_data: String, image: Bytes) -> Result<Bytes, ServingError> {
    match (image_data.is_empty(), image.is_empty()) {
        (true, false) => Ok(image),
        (true, true) => Err(ServingError::InvalidInput(
            "The request has no image: set `image` to its bytes, or `image_data` to them as base64."
                .to_owned(),
        )),
        (false, false) => Err(ServingError::InvalidInput(
            "Both `image` and `image_data` are set: send the image in one of them.".to_owned(),
        )),
        (false, true) => {
            call.caller().grow(image_data.len() / 4 * 3)?;
            let decoded = if image_data.len() < BASE64_INLINE_BYTES {
                base64_text::decode(&image_data)
            } else {
                tokio::task::spawn_blocking(move || base64_text::decode(&image_data))
                    .await
                    .map_err(|_| ServingError::Unavailable("The server is stopping.".to_owned()))?
            };
            decoded
                .map(Bytes::from)
                .map_err(|reason| ServingError::InvalidInput(format!("image_data {reason}.")))
        }
    }
}

fn detections_of_only_row(
    model: &ModelVersion,
    response: &InferenceResponse,
) -> Result<Vec<Detection>, ServingError> {
    let mut rows = model.detections(response)?;
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        _ => Err(ServingError::Internal(format!(
            "Model `{}` did not answer one image with the detections of one image.",
            model.name()
        ))),
    }
}

fn to_proto(found: &Detection, placement: &Placement) -> proto::Detection {
    let [x_min, y_min, x_max, y_max] = placement.to_image(found.bbox);
    proto::Detection {
        class_name: found.class_name.to_string(),
        confidence: found.confidence,
        bbox: Some(proto::BoundingBox { x_min, y_min, x_max, y_max }),
    }
}
