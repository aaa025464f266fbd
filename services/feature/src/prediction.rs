//! Image to stored prediction.
//!
//! Results are stored before they are answered, and a request may be sent again after any failure. What makes that
//! safe is `content_sha256`: results-service keeps it beside the prediction and knows the same request by it.
//!
//! **The same answer.** A repeated request is answered from the record: ids, model, version, detections (byte for
//! byte), `inference_time_ms` and `timestamp` are those of the first answer, since the first answer's were the
//! record's too. `timings_ms` alone is of the request at hand, as it says what *this* one cost: a step that was not
//! done took 0.
//!
//! **Looking up first.** If the client chose the `request_id`, the record is looked up before any work is done. It
//! costs one indexed read, a fraction of the inference it may save, and more than time depends on it: a repeated
//! request is answered though its model was replaced, removed or is overloaded by now; a used id is refused, and an
//! unreachable results-service noticed, before a model has worked for nothing. An id that was made here cannot exist,
//! so such requests do not pay for it. Two equal requests at once may both find nothing: then the store decides.

mod job;

pub(crate) use job::Job;

use crate::Error;
use crate::inference::{Call, Detection, Image, Inference, ModelInput, ModelServing};
use crate::metrics::Metrics;
use crate::results::{NewPrediction, Record, Results, Stored};
use sandbox::{ImageTensor, Placement, Sandbox};
use serde::Serialize;
use serde_json::value::RawValue;
use service_kit::ErrorCode;
use service_kit::timestamp::now_rfc3339;
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// The answer of `POST /predict`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Prediction {
    request_id: String,
    user_id: String,
    model_name: String,
    model_version: String,
    /// Best first; coordinates in fractions of the upright image.
    #[schema(value_type = Vec<Detection>)]
    detections: Box<RawValue>,
    /// The model's own time.
    inference_time_ms: f64,
    timings_ms: Timings,
    /// When the prediction was stored.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// What this request spent where, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct Timings {
    /// In the sandbox and its queue; 0 for a model with a component of its own, which preprocesses at model-serving.
    preprocess: f64,
    /// In calls to model-serving.
    inference: f64,
    /// In calls to results-service.
    store: f64,
}

/// Makes stored predictions of images; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Predictor {
    pub(crate) sandbox: Sandbox,
    pub(crate) models: ModelServing,
    pub(crate) results: Results,
    pub(crate) metrics: Arc<Metrics>,
}

impl Predictor {
    /// Answers `job`, and sees to it that its prediction is stored.
    pub(crate) async fn predict(&self, job: &Job, call: &Call) -> Result<Prediction, Error> {
        let mut timings = Timings::default();
        if job.chosen_by_client
            && let Some(record) = timed(&mut timings.store, self.look_up(job, call)).await?
        {
            return Ok(replay(job, record, timings));
        }
        let (inference, placement) = self.infer(job, call, &mut timings).await?;
        let detections: Vec<_> =
            inference.detections.iter().map(|found| found.to_image(&placement)).collect();
        let detections = serde_json::value::to_raw_value(&detections)
            .map_err(|error| Error::Internal { detail: format!("detections cannot be written: {error}") })?;
        let prediction = NewPrediction {
            request_id: &job.request_id,
            user_id: &job.user_id,
            model_name: &inference.model,
            model_version: &inference.version,
            // The model's own time, where model-serving tells it; else that of the call.
            inference_time_ms: inference.inference_time_ms.unwrap_or(timings.inference),
            predictions: &detections,
            content_sha256: &job.content_sha256,
            received_at: &job.received_at,
        };
        let stored = timed(&mut timings.store, self.store(job, &prediction, call)).await?;
        let timestamp = match stored {
            AsStored::New { timestamp } => timestamp,
            AsStored::Before(record) => return Ok(replay(job, record, timings)),
        };
        let inference_time_ms = prediction.inference_time_ms;
        // Without the user: model-serving's audit line has it under the same request id, plain or hashed as the
        // operator wants it, and this line would undo the hashing.
        tracing::info!(
            request_id = job.request_id,
            model = inference.model,
            version = inference.version,
            detections = inference.detections.len(),
            preprocess_ms = timings.preprocess,
            inference_ms = timings.inference,
            store_ms = timings.store,
            traceparent = call.traceparent.as_ref().and_then(|value| value.to_str().ok()),
            "predicted"
        );
        Ok(Prediction {
            request_id: job.request_id.clone(),
            user_id: job.user_id.clone(),
            model_name: inference.model,
            model_version: inference.version,
            detections,
            inference_time_ms,
            timings_ms: timings,
            timestamp,
        })
    }

    /// The record of the same request, if it was answered before.
    async fn look_up(&self, job: &Job, call: &Call) -> Result<Option<Record>, Error> {
        let Some(record) = self.results.find(&job.request_id, call).await.map_err(|e| e.before_work())?
        else {
            return Ok(None);
        };
        if is_same(job, &record) { Ok(Some(record)) } else { Err(Error::Conflict) }
    }

    async fn store(&self, job: &Job, prediction: &NewPrediction<'_>, call: &Call) -> Result<AsStored, Error> {
        match self.results.store(prediction, call).await.map_err(|e| e.after_work())? {
            Stored::New { timestamp: Some(timestamp) } => Ok(AsStored::New { timestamp }),
            // The answer need not tell the time; the record does.
            Stored::New { timestamp: None } => {
                let record = self.results.find(&job.request_id, call).await.map_err(|e| e.after_work())?;
                // The user may have been erased just now. Then there is no record that this answer could
                // contradict, and a repetition is a new request.
                let timestamp = match record {
                    Some(record) if is_same(job, &record) => record.timestamp,
                    _ => now_rfc3339(),
                };
                Ok(AsStored::New { timestamp })
            }
            Stored::Before(record) => Ok(AsStored::Before(record)),
            Stored::Conflict => Err(Error::Conflict),
            Stored::Erased => Err(Error::Erased),
        }
    }

    /// Preprocesses the image for the model and asks the model.
    ///
    /// What the model takes is remembered from request to request, so it may be out of date. A refusal or an answer of
    /// another preprocessing tells; then it is asked for again, and if it is another one, so is the answer, once. Another
    /// replica may have loaded something else, so the one that told is then asked.
    async fn infer(
        &self,
        job: &Job,
        call: &Call,
        timings: &mut Timings,
    ) -> Result<(Inference, Placement), Error> {
        let known = self.models.known_input(&job.model);
        let input = match known.clone() {
            Some(input) => input,
            None => timed(&mut timings.inference, self.models.ask_input(&job.model, call)).await?,
        };
        let first = self.attempt(job, &input, call, timings).await;
        match &first {
            Ok((answer, _)) if is_of(answer, &input) => return first,
            // An input that said no version cannot be compared; it is of the version that answered.
            Ok((answer, _))
                if answer.preprocessing_id.is_none()
                    && input.version.is_none()
                    && answer.model == input.model =>
            {
                let input = ModelInput { version: Some(answer.version.clone()), ..(*input).clone() };
                self.models.remember(&job.model, Arc::new(input));
                return first;
            }
            Ok(_) => {}
            // Refused with what was asked for just now: it is refused for another reason.
            Err(error) if known.is_some() && may_be_out_of_date(error) => {}
            Err(_) => return first,
        }
        let fresh = timed(&mut timings.inference, self.models.ask_input(&job.model, call)).await?;
        let stands = match &first {
            // Whoever got the encoded image made of it what was loaded there.
            Ok(_) if input.takes_encoded => true,
            Ok((answer, _)) => fresh.takes_the_same(&input) && agree(answer, &fresh) != Some(false),
            Err(_) => fresh.takes_the_same(&input),
        };
        if stands {
            return first;
        }
        tracing::info!(
            request_id = job.request_id,
            model = fresh.model,
            version = fresh.version,
            "the model takes another input now"
        );
        let call = Call { replica: fresh.told_by, ..call.clone() };
        let second = self.attempt(job, &fresh, &call, timings).await;
        match &second {
            Ok((answer, _)) if !fresh.takes_encoded && agree(answer, &fresh) == Some(false) => {
                Err(Error::ModelServing {
                    code: ErrorCode::Unavailable,
                    message: format!("the model `{}` is being replaced", answer.model),
                    retry_after: None,
                    verdict: None,
                })
            }
            _ => second,
        }
    }

    async fn attempt(
        &self,
        job: &Job,
        input: &ModelInput,
        call: &Call,
        timings: &mut Timings,
    ) -> Result<(Inference, Placement), Error> {
        let (image, placement) = self.preprocess(job, input, call, timings).await?;
        let answer = self.models.infer(&job.model, input, image, &job.request_id, &job.user_id, call);
        Ok((timed(&mut timings.inference, answer).await?, placement))
    }

    /// What is sent to the model, and where the image lies in it.
    async fn preprocess(
        &self,
        job: &Job,
        input: &ModelInput,
        call: &Call,
        timings: &mut Timings,
    ) -> Result<(Image, Placement), Error> {
        if input.takes_encoded {
            return Ok((Image::Encoded(job.image.clone()), Placement::FULL));
        }
        let deadline = Some(call.deadline.into_std());
        let preprocessed = self.sandbox.tensor(job.image.clone(), input.resize, deadline);
        let preprocessed = timed(&mut timings.preprocess, preprocessed).await;
        self.metrics.image_seen(&preprocessed);
        let ImageTensor { pixels, placement, .. } = preprocessed?;
        Ok((Image::Pixels(pixels.into()), placement))
    }
}

/// A prediction that is stored.
enum AsStored {
    New { timestamp: String },
    Before(Record),
}

/// Whether `record` is of the request that `job` is, sent before.
fn is_same(job: &Job, record: &Record) -> bool {
    record.user_id == job.user_id && record.content_sha256.as_deref() == Some(job.content_sha256.as_str())
}

/// Whether `answer` is of a model that takes what `input` says: it tells, or is of the same model and version.
fn is_of(answer: &Inference, input: &ModelInput) -> bool {
    agree(answer, input)
        .unwrap_or_else(|| answer.model == input.model && input.version.as_ref() == Some(&answer.version))
}

/// Whether the preprocessing that was loaded where `answer` was made is that of `input`, if the answer tells.
fn agree(answer: &Inference, input: &ModelInput) -> Option<bool> {
    answer.preprocessing_id.as_ref().map(|id| input.preprocessing_id.as_ref() == Some(id))
}

/// Whether model-serving may have refused a tensor for what was remembered of its model.
fn may_be_out_of_date(error: &Error) -> bool {
    matches!(error, Error::ModelServing { code: ErrorCode::InvalidInput | ErrorCode::NotFound, .. })
}

/// The answer that the first request with this content got.
fn replay(job: &Job, record: Record, timings: Timings) -> Prediction {
    tracing::info!(
        request_id = job.request_id,
        model = record.model_name,
        version = record.model_version,
        store_ms = timings.store,
        "answered again"
    );
    Prediction {
        request_id: job.request_id.clone(),
        user_id: record.user_id,
        model_name: record.model_name.unwrap_or_else(|| job.model.clone()),
        model_version: record.model_version,
        detections: record.predictions,
        inference_time_ms: record.inference_time_ms,
        timings_ms: timings,
        timestamp: record.timestamp,
    }
}

/// Adds the time that `work` takes to `total_ms`.
async fn timed<T>(total_ms: &mut f64, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = work.await;
    *total_ms = round_ms(*total_ms + millis(start.elapsed()));
    result
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Microseconds are enough, and six digits more are noise.
fn round_ms(ms: f64) -> f64 {
    (ms * 1_000.0).round() / 1_000.0
}
