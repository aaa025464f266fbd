//! The repository's index, loads and unloads, and the models' statistics, as messages.

use super::not_supported;
use crate::error::ServingError;
use crate::grpc::call::Call;
use crate::grpc::failure;
use crate::repository::{
    BatchStatistics, ControlParameters, IndexEntry, ModelStatistics, ParameterValue, StatisticDuration,
};
use crate::state::ServingState;
use convoy_proto::inference as proto;
use proto::model_repository_parameter::ParameterChoice;
use proto::repository_index_response::ModelIndex;
use proto::{InferBatchStatistics, InferStatistics, ModelRepositoryParameter};
use std::collections::HashMap;
use tonic::{Request, Response, Status};

/// What a request may name, as Triton has it: there is one repository, which has no name.
const REPOSITORY_NAME: &str = "Naming a repository";

pub(super) fn index(
    state: &ServingState,
    request: &Request<proto::RepositoryIndexRequest>,
) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
    let proto::RepositoryIndexRequest { repository_name, ready } = request.get_ref();
    if !repository_name.is_empty() {
        return not_supported(REPOSITORY_NAME);
    }
    let models = state.models().map_err(|error| answer(&error, request, "RepositoryIndex", ""))?;
    let line = |IndexEntry { name, version, state, reason }| ModelIndex {
        name,
        version,
        state: state.to_owned(),
        reason,
    };
    let models = models.index(*ready).into_iter().map(line).collect();
    Ok(Response::new(proto::RepositoryIndexResponse { models }))
}

pub(super) async fn load(
    state: &ServingState,
    request: Request<proto::RepositoryModelLoadRequest>,
) -> Result<Response<proto::RepositoryModelLoadResponse>, Status> {
    let call = Call::of(&request);
    let proto::RepositoryModelLoadRequest { repository_name, model_name, parameters } = request.into_inner();
    if !repository_name.is_empty() {
        return not_supported(REPOSITORY_NAME);
    }
    let load = async {
        let parameters = control_parameters(parameters)?;
        state.models()?.load_model(&model_name, parameters).await
    };
    match load.await {
        Ok(()) => Ok(Response::new(proto::RepositoryModelLoadResponse {})),
        Err(error) => Err(failure::answer(&error, &call, "RepositoryModelLoad", &model_name)),
    }
}

pub(super) async fn unload(
    state: &ServingState,
    request: Request<proto::RepositoryModelUnloadRequest>,
) -> Result<Response<proto::RepositoryModelUnloadResponse>, Status> {
    let call = Call::of(&request);
    let proto::RepositoryModelUnloadRequest { repository_name, model_name, parameters } =
        request.into_inner();
    if !repository_name.is_empty() {
        return not_supported(REPOSITORY_NAME);
    }
    let unload = async {
        let parameters = control_parameters(parameters)?;
        state.models()?.unload_model(&model_name, parameters).await
    };
    match unload.await {
        Ok(()) => Ok(Response::new(proto::RepositoryModelUnloadResponse {})),
        Err(error) => Err(failure::answer(&error, &call, "RepositoryModelUnload", &model_name)),
    }
}

pub(super) fn statistics(
    state: &ServingState,
    request: &Request<proto::ModelStatisticsRequest>,
) -> Result<Response<proto::ModelStatisticsResponse>, Status> {
    let proto::ModelStatisticsRequest { name, version } = request.get_ref();
    let statistics = state.models().and_then(|models| models.statistics(name, version));
    let statistics = statistics.map_err(|error| answer(&error, request, "ModelStatistics", name))?;
    let model_stats = statistics.into_iter().map(model_statistics).collect();
    Ok(Response::new(proto::ModelStatisticsResponse { model_stats }))
}

fn answer<T>(error: &ServingError, request: &Request<T>, method: &'static str, model: &str) -> Status {
    failure::answer(error, &Call::of(request), method, model)
}

fn control_parameters(
    parameters: HashMap<String, ModelRepositoryParameter>,
) -> Result<ControlParameters, ServingError> {
    let read = |(name, ModelRepositoryParameter { parameter_choice }): (String, _)| {
        let value = match parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => ParameterValue::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => ParameterValue::Int64(value),
            Some(ParameterChoice::StringParam(value)) => ParameterValue::String(value),
            Some(ParameterChoice::BytesParam(value)) => ParameterValue::Bytes(value),
            None => {
                return Err(ServingError::InvalidInput(format!(
                    "The parameter `{name}` has no value: set one."
                )));
            }
        };
        Ok((name, value))
    };
    parameters.into_iter().map(read).collect()
}

fn model_statistics(statistics: ModelStatistics) -> proto::ModelStatistics {
    let of = statistics.inference_stats;
    proto::ModelStatistics {
        name: statistics.name,
        version: statistics.version,
        last_inference: statistics.last_inference,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(of.success),
            fail: duration(of.fail),
            queue: duration(of.queue),
            compute_input: duration(of.compute_input),
            compute_infer: duration(of.compute_infer),
            compute_output: duration(of.compute_output),
            // There is no cache, of which Triton says this.
            cache_hit: duration(StatisticDuration::default()),
            cache_miss: duration(StatisticDuration::default()),
        }),
        batch_stats: statistics.batch_stats.into_iter().map(batch_statistics).collect(),
        ..Default::default()
    }
}

fn batch_statistics(batch: BatchStatistics) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: batch.batch_size,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    }
}

fn duration(StatisticDuration { count, ns }: StatisticDuration) -> Option<proto::StatisticDuration> {
    Some(proto::StatisticDuration { count, ns })
}
