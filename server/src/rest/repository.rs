//! The repository over REST: its index, loading, unloading, and statistics.

use super::request::{ParametersJson, object};
use super::{Named, failure, infer};
use crate::error::ServingError;
use crate::inference::Parameter;
use crate::repository::control::{ControlParameters, ParameterValue};
use crate::repository::{BatchStatistics, ModelStatistics, StatisticDuration};
use crate::state::ServingState;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::{JsonError, base64_text};
use std::sync::Arc;

/// Parameters that begin so hold a file of the model, in base64.
const FILE: &str = "file:";

#[derive(Deserialize)]
struct IndexJson {
    /// Only models that are ready.
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct ControlJson {
    parameters: Option<ParametersJson>,
}

pub(super) async fn index(
    State(state): State<Arc<ServingState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, JsonError> {
    let failed = |error: ServingError| failure::answer(&error, "", "");
    let body = infer::read_body(&headers, body).await.map_err(failed)?;
    let wanted = written(&body, IndexJson { ready: None }).map_err(failed)?;
    let models = state.models().map_err(failed)?;
    let lines = models.index(wanted.ready.unwrap_or(false)).into_iter().map(|entry| {
        let mut line = json!({"name": entry.name});
        // As Triton answers: what is empty is left out.
        for (field, value) in
            [("version", entry.version), ("state", entry.state.to_owned()), ("reason", entry.reason)]
        {
            if !value.is_empty() {
                line[field] = value.into();
            }
        }
        line
    });
    Ok(Json(lines.collect()))
}

pub(super) async fn load(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<(), JsonError> {
    let Path(Named { model, .. }) = named?;
    let failed = |error: ServingError| failure::answer(&error, &model, "");
    let parameters = parameters(&state, &headers, body).await.map_err(failed)?;
    state.models().map_err(failed)?.load_model(&model, parameters).await.map_err(failed)
}

pub(super) async fn unload(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<(), JsonError> {
    let Path(Named { model, .. }) = named?;
    let failed = |error: ServingError| failure::answer(&error, &model, "");
    let parameters = parameters(&state, &headers, body).await.map_err(failed)?;
    state.models().map_err(failed)?.unload_model(&model, parameters).await.map_err(failed)
}

pub(super) async fn all_statistics(State(state): State<Arc<ServingState>>) -> Result<Json<Value>, JsonError> {
    answer_statistics(&state, &Named { model: String::new(), version: String::new() })
}

pub(super) async fn statistics(
    State(state): State<Arc<ServingState>>,
    named: Result<Path<Named>, PathRejection>,
) -> Result<Json<Value>, JsonError> {
    let Path(named) = named?;
    answer_statistics(&state, &named)
}

fn answer_statistics(state: &ServingState, named: &Named) -> Result<Json<Value>, JsonError> {
    let statistics = state.models().and_then(|models| models.statistics(&named.model, &named.version));
    let statistics = statistics.map_err(|error| failure::answer(&error, &named.model, ""))?;
    Ok(Json(json!({"model_stats": statistics.iter().map(model_json).collect::<Vec<_>>()})))
}

fn model_json(model: &ModelStatistics) -> Value {
    let requests = &model.inference_stats;
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": duration(requests.success),
            "fail": duration(requests.fail),
            "queue": duration(requests.queue),
            "compute_input": duration(requests.compute_input),
            "compute_infer": duration(requests.compute_infer),
            "compute_output": duration(requests.compute_output),
            // There is no cache of answers; clients expect the fields.
            "cache_hit": duration(StatisticDuration::default()),
            "cache_miss": duration(StatisticDuration::default()),
        },
        "batch_stats": model.batch_stats.iter().map(batch_json).collect::<Vec<_>>(),
        "memory_usage": [],
    })
}

fn batch_json(batch: &BatchStatistics) -> Value {
    json!({
        "batch_size": batch.batch_size,
        "compute_input": duration(batch.compute_input),
        "compute_infer": duration(batch.compute_infer),
        "compute_output": duration(batch.compute_output),
    })
}

fn duration(duration: StatisticDuration) -> Value {
    json!({"count": duration.count, "ns": duration.ns})
}

/// The parameters of a load or unload.
async fn parameters(
    state: &ServingState,
    headers: &HeaderMap,
    body: Body,
) -> Result<ControlParameters, ServingError> {
    let body = infer::read_body(headers, body).await?;
    state.offload.run(body.len(), move || control_parameters(&body)).await?
}

fn control_parameters(body: &Bytes) -> Result<ControlParameters, ServingError> {
    let ControlJson { parameters } = written(body, ControlJson { parameters: None })?;
    let Some(ParametersJson(parameters)) = parameters else { return Ok(ControlParameters::new()) };
    let value = |(name, value): (String, Parameter)| {
        let value = match value {
            Parameter::Bool(value) => ParameterValue::Bool(value),
            Parameter::Int(value) => ParameterValue::Int64(value),
            Parameter::Text(text) if name.starts_with(FILE) => {
                let content = base64_text::decode(&text).map_err(|reason| {
                    ServingError::InvalidInput(format!("The parameter `{name}` {reason}."))
                })?;
                ParameterValue::Bytes(content.into())
            }
            Parameter::Text(text) => ParameterValue::String(text),
            Parameter::Uint(_) | Parameter::Double(_) => {
                return Err(ServingError::InvalidInput(format!(
                    "The parameter `{name}` is no text, whole number, true or false."
                )));
            }
        };
        Ok((name, value))
    };
    parameters.into_iter().map(value).collect()
}

/// What is in a body; an empty one is as good as an empty object.
fn written<'a, T: Deserialize<'a>>(body: &'a [u8], empty: T) -> Result<T, ServingError> {
    if body.trim_ascii().is_empty() { Ok(empty) } else { object(body, "The request body") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn parameters_of_a_load_are_read() {
        let body = json!({"parameters": {
            "config": "{}", "file:1/model.onnx": "AAE=", "unload_dependents": true, "n": 3,
        }});
        let read = control_parameters(&body.to_string().into()).unwrap();
        assert_eq!(read["config"], ParameterValue::String("{}".to_owned()));
        assert_eq!(read["file:1/model.onnx"], ParameterValue::Bytes(vec![0, 1].into()));
        assert_eq!(read["unload_dependents"], ParameterValue::Bool(true));
        assert_eq!(read["n"], ParameterValue::Int64(3));
        for empty in ["", " \n", "{}", r#"{"parameters": null}"#] {
            assert!(control_parameters(&empty.into()).unwrap().is_empty(), "{empty:?}");
        }
        for wrong in ["[]", r#"{"parameters": {"file:x": "%"}}"#, r#"{"parameters": {"a": 0.5}}"#] {
            assert!(
                matches!(control_parameters(&wrong.into()), Err(ServingError::InvalidInput(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn statistics_have_tritons_names() {
        let success = StatisticDuration { count: 2, ns: 30 };
        let mut model =
            ModelStatistics { name: "m".to_owned(), version: "1".to_owned(), ..ModelStatistics::default() };
        model.inference_stats.success = success;
        model.batch_stats =
            vec![BatchStatistics { batch_size: 2, compute_infer: success, ..Default::default() }];
        let json = model_json(&model);
        assert_eq!(json["inference_stats"]["success"], json!({"count": 2, "ns": 30}));
        assert_eq!(json["batch_stats"][0]["batch_size"], 2);
        assert_eq!(json["batch_stats"][0]["compute_infer"]["ns"], 30);
    }
}
