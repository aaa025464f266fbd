//! What the protocol answers about the server and its models.

use super::failure::{self, internal};
use super::{Named, find};
use crate::grpc::v2::{EXTENSIONS, SERVER_NAME, platform, served_versions, tensor_metadata};
use crate::repository::{ModelVersion, TensorSpec};
use crate::state::ServingState;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use convoy_proto::inference::ModelConfig;
use http::StatusCode;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use serde_json::{Value, json};
use service_kit::{ErrorCode, JsonError};
use std::sync::Arc;

#[derive(Serialize)]
struct TensorJson {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

pub(super) async fn server_metadata() -> Json<Value> {
    Json(json!({"name": SERVER_NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}))
}

pub(super) async fn server_ready(State(state): State<Arc<ServingState>>) -> Result<StatusCode, JsonError> {
    match state.not_ready_because() {
        None => Ok(StatusCode::OK),
        Some(reason) => Err(JsonError::new(ErrorCode::Unavailable, reason)),
    }
}

pub(super) async fn model_metadata(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    let model = find(&state, &named)?;
    let versions =
        served_versions(&state, model.name()).map_err(|error| failure::answer(&error, &named.model, ""))?;
    Ok(Json(json!({
        "name": model.name(),
        "versions": versions,
        "platform": platform(&model),
        "inputs": tensors(&model, model.inputs()),
        "outputs": tensors(&model, model.outputs()),
        "execution_provider": model.execution_provider().as_str(),
        "execution_nodes": model.nodes().iter()
            .map(|nodes| (nodes.provider.clone(), json!(nodes.nodes))).collect::<serde_json::Map<_, _>>(),
        "device_fallback": model.fallback_reason(),
    })))
}

pub(super) async fn model_ready(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    let model = find(&state, &named)?;
    match model.not_ready_because() {
        None => Ok(Json(json!({"name": model.name(), "ready": true}))),
        // No failure: it is the answer to the question.
        Some(reason) => Err(JsonError::new(ErrorCode::Unavailable, reason)),
    }
}

pub(super) async fn model_config(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    let model = find(&state, &named)?;
    let json = config_json(model.config())
        .map_err(|error| internal("The configuration cannot be written as JSON", &error))?;
    Ok(Json(json))
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
