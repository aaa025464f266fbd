//! One inference of the Open Inference Protocol, as both faces serve it: from tensors and parameters, whichever
//! protocol they came in, to the outputs that were asked for.
//!
//! | module | what it holds |
//! |---|---|
//! | [`parameters`] | the parameters that Triton gives a meaning, and the others |
//! | [`outputs`] | which outputs are wanted, and as what |
//! | [`images`] | encoded images become a vision model's pixels |
//! | [`classification`] | an output's largest values |
//! | [`compression`] | gzip and deflate |
//! | [`offload`] | a place for work that takes long |

mod classification;
pub(crate) mod compression;
mod images;
pub(crate) mod offload;
mod outputs;
mod parameters;

use crate::audit::{Prediction, milliseconds};
use crate::error::ServingError;
use crate::limits::Permit;
use crate::repository::{InferenceRequest, ModelVersion, PREPROCESSING_ID};
use crate::scheduler::MemoryAccount;
use crate::state::ServingState;
use crate::tensor::Tensor;
use outputs::Wanted;
pub(crate) use outputs::{AnsweredOutput, WantedOutput};
pub(crate) use parameters::{Parameter, Parameters};
use service_kit::identifier::{self, IdentifierError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a request asks of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ask {
    /// The caller's to have or not: it is echoed as it came.
    pub(crate) id: String,
    pub(crate) parameters: Parameters,
    pub(crate) inputs: Vec<Tensor>,
    /// Empty: all of the model's.
    pub(crate) outputs: Vec<WantedOutput>,
}

/// What is known of the caller besides the request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller<'a> {
    /// When the caller stops waiting; absent when it waits for ever.
    pub(crate) deadline: Option<Instant>,
    /// When the request's headers came, if they are those of it alone.
    pub(crate) arrived: Option<Instant>,
    /// The W3C trace context as it came; only ever logged.
    pub(crate) traceparent: Option<&'a str>,
    /// The memory it holds.
    pub(crate) permit: Option<&'a Permit>,
}

impl Caller<'_> {
    /// Counts `bytes` of memory that the request takes besides its body.
    ///
    /// # Errors
    /// As [`Permit::grow`].
    pub(crate) fn grow(self, bytes: usize) -> Result<(), ServingError> {
        self.permit.map_or(Ok(()), |permit| permit.grow(bytes))
    }
}

/// What a model answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) id: String,
    /// The request's own, and the times that it took.
    pub(crate) parameters: Parameters,
    /// In the order of the request, else of the model.
    pub(crate) outputs: Vec<AnsweredOutput>,
}

/// What the audit line of an answer says.
#[derive(Debug)]
pub(crate) struct Audited {
    request_id: String,
    user_id: String,
    detections: Option<usize>,
    queue: Duration,
    inference: Duration,
}

impl Audited {
    /// Writes the line, once the answer is made: what cannot be answered is no prediction.
    pub(crate) fn write(&self, state: &ServingState, model: &ModelVersion, caller: Caller<'_>) {
        state.audit.write(&Prediction {
            request_id: &self.request_id,
            user_id: &self.user_id,
            model: model.name(),
            version: model.version(),
            detections: self.detections,
            queue: self.queue,
            inference: self.inference,
            traceparent: caller.traceparent,
        });
    }
}

/// Runs `ask` on `model`. `arrival` is when the request came: its parameter `timeout` counts from there. What fails is counted for
/// the model, unless it is its answer that cannot be made.
///
/// # Errors
/// `InvalidInput` for what does not fit the model, [`ServingError::Image`] for an image that cannot be decoded, and as
/// [`ModelVersion::infer`].
pub(crate) async fn infer(
    state: &ServingState,
    model: &Arc<ModelVersion>,
    caller: Caller<'_>,
    arrival: Instant,
    ask: Ask,
) -> Result<(Answer, Audited), ServingError> {
    let Ask { id, parameters, mut inputs, outputs } = ask;
    let ready = async {
        check_id(&id)?;
        parameters.refuse_sequences()?;
        let user_id = parameters.text("user_id")?;
        check_user_id(user_id)?;
        let deadline = earlier(caller.deadline, arrival, parameters.timeout()?);
        let wanted = Wanted::new(model, &parameters, outputs)?;
        let priority = parameters.priority()?;
        let placements = images::decode(state, model, &mut inputs, caller, deadline).await?;
        Ok((user_id.to_owned(), deadline, wanted, priority, placements))
    };
    let (user_id, deadline, wanted, priority, placements) = model.counted(ready.await)?;

    let account = MemoryAccount::of(caller.permit);
    let outputs = wanted.model_outputs();
    let arrived = caller.arrived;
    let request = InferenceRequest { id: id.clone(), inputs, outputs, priority, arrived, account };
    let response = model.infer(request, deadline).await?;
    let detections = wanted.detections(model, &response, &placements)?;
    let audited = Audited {
        request_id: id.clone(),
        user_id,
        detections: detections.as_ref().map(|rows| rows.iter().map(Vec::len).sum()),
        queue: response.queue,
        inference: response.inference,
    };
    // Thousands of values become a text each: only what is classified costs anything here.
    let cost = wanted.classification_cost(model, &response.outputs);
    caller.grow(cost)?;
    let (of, outputs) = (Arc::clone(model), response.outputs);
    let outputs = state.offload.run(cost, move || wanted.pick(&of, outputs, detections)).await??;
    let mut parameters = parameters.echoed();
    parameters.set("inference_time_ms", Parameter::Double(milliseconds(response.inference)));
    parameters.set("queue_time_ms", Parameter::Double(milliseconds(response.queue)));
    if let Some(id) = model.preprocessing_id() {
        parameters.set(PREPROCESSING_ID, Parameter::Text(id.to_owned()));
    }
    Ok((Answer { id, parameters, outputs }, audited))
}

/// Checks the id of a request, which may be empty.
///
/// # Errors
/// `InvalidInput`, as for [`check_user_id`].
pub(crate) fn check_id(id: &str) -> Result<(), ServingError> {
    optional(id, "id")
}

/// Checks the id of a user, which may be empty: nobody is named then.
pub(crate) fn check_user_id(user_id: &str) -> Result<(), ServingError> {
    optional(user_id, "user_id")
}

fn optional(id: &str, name: &str) -> Result<(), ServingError> {
    match identifier::validate(id) {
        Ok(()) | Err(IdentifierError::Empty) => Ok(()),
        Err(reason) => Err(ServingError::InvalidInput(format!("{name} {reason}."))),
    }
}

/// The earlier of `deadline` and one `timeout` from `arrival`.
fn earlier(deadline: Option<Instant>, arrival: Instant, timeout: Option<Duration>) -> Option<Instant> {
    // A timeout too long to be an instant is no limit.
    let own = timeout.and_then(|timeout| arrival.checked_add(timeout));
    match (deadline, own) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(earlier(Some(now + 2 * second), now, Some(second)), Some(now + second));
        assert_eq!(earlier(Some(now + 2 * second), now, Some(3 * second)), Some(now + 2 * second));
        assert_eq!(earlier(Some(now + 2 * second), now, None), Some(now + 2 * second));
        assert_eq!(earlier(None, now, Some(Duration::MAX)), None);
    }

    #[test]
    fn ids_may_be_absent_but_not_anything() {
        assert_eq!(check_id(""), Ok(()));
        assert_eq!(check_id("infer-7"), Ok(()));
        let error = check_user_id("a\nb").map_err(|error| error.to_string());
        assert!(error.is_err_and(|sentence| sentence.starts_with("user_id ")));
    }
}
