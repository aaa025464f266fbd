//! The REST face: health, readiness, and what the Open Inference Protocol answers about servers and models; and the
//! metrics, on a port of their own.

use crate::error::ServingError;
use crate::grpc::v2::{EXTENSIONS, SERVER_NAME, platform, served_versions, tensor_metadata};
use crate::metrics;
use crate::repository::{ModelVersion, TensorSpec};
use crate::state::ServingState;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use convoy_proto::inference::ModelConfig;
use http::{StatusCode, header};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::http_server::{health_route, ready_route};
use service_kit::{ErrorCode, JsonError, Readiness, readable};
use std::sync::Arc;

/// The name in the answers of `/health` and `/ready`.
const SERVICE: &str = "model-serving";

/// The routes of `--http-addr`.
pub(crate) fn router(state: Arc<ServingState>, readiness: Readiness) -> Router {
    let model = |suffix: &str| {
        [
            format!("/v2/models/{{model}}{suffix}"),
            format!("/v2/models/{{model}}/versions/{{version}}{suffix}"),
        ]
    };
    let mut router = Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(StatusCode::OK))
        .route("/v2/health/ready", get(server_ready));
    for path in model("") {
        router = router.route(&path, get(model_metadata));
    }
    for path in model("/ready") {
        router = router.route(&path, get(model_ready));
    }
    for path in model("/config") {
        router = router.route(&path, get(model_config));
    }
    router.with_state(state).merge(health_route(SERVICE)).merge(ready_route(SERVICE, readiness))
}

/// The routes of `--metrics-addr`.
pub(crate) fn metrics_router(metrics: Arc<metrics::Metrics>) -> Router {
    Router::new().route("/metrics", get(render_metrics)).with_state(metrics)
}

async fn render_metrics(State(metrics): State<Arc<metrics::Metrics>>) -> Result<Response, JsonError> {
    let text = metrics.render().map_err(|error| internal("The metrics cannot be written", &error))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// What a path names.
#[derive(Deserialize)]
struct Named {
    model: String,
    /// Absent: the newest one.
    #[serde(default)]
    version: String,
}

#[derive(Serialize)]
struct TensorJson {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

async fn server_metadata() -> Json<Value> {
    Json(json!({"name": SERVER_NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}))
}

async fn server_ready(State(state): State<Arc<ServingState>>) -> Result<StatusCode, JsonError> {
    match state.not_ready_because() {
        None => Ok(StatusCode::OK),
        Some(reason) => Err(JsonError::new(ErrorCode::Unavailable, reason)),
    }
}

async fn model_metadata(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    let model = find(&state, &named)?;
    let versions = served_versions(&state, model.name()).map_err(|error| failed(&error, &named))?;
    Ok(Json(json!({
        "name": model.name(),
        "versions": versions,
        "platform": platform(&model),
        "inputs": tensors(&model, model.inputs()),
        "outputs": tensors(&model, model.outputs()),
    })))
}

async fn model_ready(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    let model = find(&state, &named)?;
    Ok(Json(json!({"name": model.name(), "ready": true})))
}

async fn model_config(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    let model = find(&state, &named)?;
    let json = config_json(model.config())
        .map_err(|error| internal("The configuration cannot be written as JSON", &error))?;
    Ok(Json(json))
}

fn find(state: &ServingState, named: &Named) -> Result<Arc<ModelVersion>, JsonError> {
    state.model(&named.model, &named.version).map_err(|error| failed(&error, named))
}

/// The answer to `error`, logged.
fn failed(error: &ServingError, named: &Named) -> JsonError {
    let code = error.code();
    let (model, detail) = (readable(&named.model), error.to_string());
    let detail = readable(&detail);
    if code.is_server_fault() {
        tracing::warn!(model = &*model, code = code.as_str(), error = &*detail, "A request failed.");
    } else {
        tracing::info!(model = &*model, code = code.as_str(), error = &*detail, "A request failed.");
    }
    JsonError::new(code, detail).with_retry_after(error.retry_after())
}

/// The answer to a fault of ours: `what`, without a full stop; `error` is for the log.
fn internal(what: &str, error: &dyn std::fmt::Display) -> JsonError {
    tracing::error!(%error, "{what}.");
    JsonError::new(ErrorCode::Internal, format!("{what}; the server's log says why."))
}

fn tensors(model: &ModelVersion, specs: &[TensorSpec]) -> Vec<TensorJson> {
    tensor_metadata(model, specs)
        .into_iter()
        .map(|tensor| TensorJson { name: tensor.name, datatype: tensor.datatype, shape: tensor.shape })
        .collect()
}

/// `config` as Triton answers it: protobuf's JSON, but with the fields' own names, plain numbers and all fields.
fn config_json(config: &ModelConfig) -> Result<Value, Box<dyn std::error::Error>> {
    let pool = DescriptorPool::decode(convoy_proto::FILE_DESCRIPTOR_SET)?;
    let descriptor = pool
        .get_message_by_name("inference.ModelConfig")
        .ok_or("the message inference.ModelConfig is missing")?;
    let message = DynamicMessage::decode(descriptor, config.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use convoy_proto::inference::{ModelInput, model_input};

    #[test]
    fn a_configuration_has_tritons_field_names_and_plain_numbers() {
        let input = ModelInput {
            name: "images".to_owned(),
            dims: vec![300, 300, 3],
            format: model_input::Format::Nhwc.into(),
            ..Default::default()
        };
        let config =
            ModelConfig { name: "m".to_owned(), max_batch_size: 8, input: vec![input], ..Default::default() };
        let json = config_json(&config).unwrap();
        assert_eq!(json["max_batch_size"], 8);
        assert_eq!(json["input"][0]["dims"], json!([300, 300, 3]));
        assert_eq!(json["input"][0]["format"], "FORMAT_NHWC");
        assert_eq!(json["output"], json!([]), "empty fields are there too");
    }
}
