//! Where a failed call ends: one log line, one status.

use super::MAX_MESSAGE_BYTES;
use super::call::Call;
use crate::error::{ServingError, Severity};
use service_kit::{ErrorCode, readable};
use tonic::{Code, Status};

/// Logs `error` once and answers its status. `method` is the rpc's name, `model` what the caller asked for.
///
/// Faults of ours are errors. What callers cause (a wrong request, a deadline too short), and what overload or a model that
/// is not there causes, may be thousands a second, and is for debugging: the metrics count it, and whoever made the model
/// go has said so.
pub(crate) fn answer(error: &ServingError, call: &Call, method: &'static str, model: &str) -> Status {
    let code = error.code();
    let (model, detail) = (readable(model), error.to_string());
    let detail = readable(&detail);
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                request_id = call.request_id(),
                traceparent = call.traceparent,
                method,
                model = &*model,
                code = code.as_str(),
                error = &*detail,
                image_sha256 = error.trapped_image(),
                "A request failed."
            )
        };
    }
    match error.severity() {
        Severity::Error => log!(error),
        Severity::Warning => log!(warn),
        Severity::Debug => log!(debug),
    }
    status(error)
}

/// The status of `error`, without a log line.
pub(super) fn status(error: &ServingError) -> Status {
    let message = error.public_message();
    service_kit::status_of_image(error.code(), readable(&message), error.retry_after(), error.verdict())
}

/// The status, logged, of a message that tonic refused to read because of its length.
pub(super) fn message_too_large(method: &str) -> Status {
    let sentence =
        format!("The message is larger than the limit of {MAX_MESSAGE_BYTES} bytes: send less at once.");
    tracing::debug!(method, code = ErrorCode::TooLarge.as_str(), error = sentence, "A request failed.");
    service_kit::status(ErrorCode::TooLarge, sentence, None)
}

/// The answer, logged, to a message that tonic refuses to read because it is too long, of which it says OUT_OF_RANGE;
/// `None` for what is said as it is. No handler says so itself.
pub(crate) fn unread(status: &Status, method: &str) -> Option<Status> {
    (status.code() == Code::OutOfRange).then(|| message_too_large(method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_logs::levels;
    use sandbox::SandboxError;
    use std::time::Duration;
    use tonic_types::StatusExt as _;

    #[test]
    fn details_of_our_faults_stay_in_the_log() {
        let call = Call::new(std::time::Instant::now(), None, None);
        let error = SandboxError::Component { detail: "no export `secret`".to_owned() };
        let status = answer(&error.into(), &call, "Predict", "m");
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }

    #[test]
    fn what_became_of_an_image_is_in_the_details() {
        let error = SandboxError::TooManyPixels { width: 9, height: 9, limit: 80 };
        let image = ServingError::Image { input: "images".to_owned(), index: 0, error };
        assert_eq!(service_kit::verdict_of_status(&status(&image)).as_deref(), Some("too_many_pixels"));
        let busy = status(&SandboxError::Busy { retry_after: Duration::from_secs(3) }.into());
        assert_eq!(service_kit::verdict_of_status(&busy).as_deref(), Some("busy"));
        let retry = busy.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry, Some(Duration::from_secs(3)));
    }

    #[test]
    fn only_faults_of_ours_are_more_than_debugging() {
        let text = || "x".to_owned();
        let overloaded = ServingError::Overloaded { detail: text(), retry_after: Duration::ZERO };
        let trapped = SandboxError::Trapped { detail: text(), image_sha256: text() };
        for (error, level) in [
            (ServingError::DeadlineExceeded(text()), "DEBUG"),
            (ServingError::Unavailable(text()), "DEBUG"),
            (ServingError::BodyTooSlow(text()), "DEBUG"),
            (ServingError::InvalidInput(text()), "DEBUG"),
            (ServingError::NoDefaultModel, "DEBUG"),
            (overloaded, "DEBUG"),
            (ServingError::ExecutionFailed { model: text() }, "ERROR"),
            (ServingError::Internal(text()), "ERROR"),
            (trapped.into(), "WARN"),
        ] {
            let over_grpc = levels(|| {
                drop(answer(&error, &Call::new(std::time::Instant::now(), None, None), "ModelInfer", "m"))
            });
            let over_rest = levels(|| drop(crate::rest::failure::answer(&error, "m", "")));
            assert_eq!((over_grpc, over_rest), (vec![level.to_owned()], vec![level.to_owned()]), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_the_callers_mistake() {
        let unread = |status: Status| unread(&status, "ModelInfer").map(|status| status.code());
        assert_eq!(unread(Status::out_of_range("too long")), Some(Code::InvalidArgument));
        assert_eq!(unread(Status::resource_exhausted("The queue is full")), None);
        assert_eq!(unread(Status::internal("A fault of ours.")), None);
    }

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let retry_after = Duration::from_millis(40);
        let error = ServingError::Overloaded { detail: "The queue is full".to_owned(), retry_after };
        let status = answer(&error, &Call::new(std::time::Instant::now(), None, None), "ModelInfer", "m");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_retry_info().and_then(|info| info.retry_delay), Some(retry_after));
    }
}
