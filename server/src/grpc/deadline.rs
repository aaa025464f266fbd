//! Keeps the caller's deadline, and says in gRPC's words when it passed or a message was too long.
//!
//! tonic's transport, which is not used here, answers an expired `grpc-timeout` with CANCELLED, and its services a message
//! over their limit with OUT_OF_RANGE. Callers act on these codes, so this layer
//! - notes when the call arrived, and hands `arrival + grpc-timeout` to the handler ([`Call::deadline`]);
//! - races the handler against that instant. When the deadline wins, the handler is dropped (what it had queued is
//!   then not run) and the answer is DEADLINE_EXCEEDED;
//! - rewrites tonic's OUT_OF_RANGE to INVALID_ARGUMENT.

use super::call::Call;
use super::failure;
use http::{HeaderMap, Request, Response};
use service_kit::ErrorCode;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::Status;
use tower::{Layer, Service};

/// The header (or trailer) with the status code of a call.
const GRPC_STATUS: &str = "grpc-status";

/// Makes [`DeadlineService`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeadlineLayer;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct DeadlineService<S> {
    inner: S,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for DeadlineService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    ResBody: Default + Send + 'static,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let arrival = Instant::now();
        let path = request.uri().path().to_owned();
        let timeout = match grpc_timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(malformed) => {
                let response = malformed.into_http();
                return Box::pin(async move { Ok(response) });
            }
        };
        let deadline = timeout.and_then(|timeout| arrival.checked_add(timeout));
        let call = Call::new(arrival, deadline, traceparent(request.headers()));
        request.extensions_mut().insert(call.clone());
        let handler = self.inner.call(request);
        Box::pin(async move {
            let response = match deadline {
                None => handler.await?,
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), handler).await {
                    Ok(response) => response?,
                    Err(_elapsed) => {
                        // Under overload there may be thousands a second; the metrics count them.
                        tracing::debug!(
                            request_id = call.request_id(),
                            traceparent = call.traceparent,
                            method = path,
                            timeout_ms = crate::audit::milliseconds(deadline - arrival),
                            "The deadline of a request passed before it was answered."
                        );
                        deadline_exceeded().into_http()
                    }
                },
            };
            Ok(with_code_of_limits(response, &path))
        })
    }
}

fn deadline_exceeded() -> Status {
    service_kit::status(
        ErrorCode::DeadlineExceeded,
        "The deadline of the request passed before it was answered: allow it more time.",
        None,
    )
}

/// The duration in `grpc-timeout`: at most eight digits and a unit. A malformed one is refused, since a deadline
/// that cannot be read cannot be kept.
///
/// Source: gRPC over HTTP/2, "Requests" (`Timeout → "grpc-timeout" TimeoutValue TimeoutUnit`).
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    value.to_str().ok().and_then(parse_timeout).map(Some).ok_or_else(|| {
        service_kit::status(
            ErrorCode::InvalidInput,
            "The metadata `grpc-timeout` is not valid: send 1 to 8 digits and a unit of H, M, S, m, u or n.",
            None,
        )
    })
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The trace context, unless it is longer than any version of it: it goes into the log.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    (text.len() <= 128).then(|| text.to_owned())
}

/// tonic refuses a message that it cannot read before any handler sees it: see [`failure::unread`].
fn with_code_of_limits<B: Default>(response: Response<B>, method: &str) -> Response<B> {
    // Most answers have no status in their headers.
    let status =
        response.headers().get(GRPC_STATUS).and_then(|_| Status::from_header_map(response.headers()));
    match status.and_then(|status| failure::unread(&status, method)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::test_logs::Log;
    use std::convert::Infallible;
    use std::future::{pending, ready};
    use std::sync::Arc;
    use tonic::Code;
    use tower::{ServiceExt as _, service_fn};

    fn request(timeout: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        request
    }

    fn code<B>(response: &Response<B>) -> Code {
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[test]
    fn units_are_those_of_the_specification() {
        let cases = [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("0m", 0),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_timeout(text), Some(Duration::from_nanos(nanoseconds)), "{text}");
        }
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "1", "1s", "+1S", "-1S", "1.5S", "123456789S", " 1S", "1Sé", "é"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_drops_the_handler_and_says_so() {
        let work = Arc::new(());
        let inner = service_fn({
            let work = Arc::clone(&work);
            move |_: Request<()>| {
                let work = Arc::clone(&work);
                async move {
                    let _held = work;
                    pending::<Result<Response<()>, Infallible>>().await
                }
            }
        });
        let mut service = DeadlineLayer.layer(inner);
        let log = Log::new();
        let collecting = log.collect();
        let response = service.ready().await.unwrap().call(request(Some("50m"))).await.unwrap();
        drop(collecting);
        assert_eq!((code(&response), log.levels()), (Code::DeadlineExceeded, vec!["DEBUG".to_owned()]));
        drop(service);
        assert_eq!(Arc::strong_count(&work), 1, "the handler was dropped with what it held");
    }

    #[tokio::test(start_paused = true)]
    async fn handlers_see_the_deadline_and_answer_before_it() {
        let start = tokio::time::Instant::now().into_std();
        let inner = service_fn(move |request: Request<()>| {
            let deadline = request.extensions().get::<Call>().unwrap().deadline;
            ready(Ok::<_, Infallible>(Response::new(deadline.map(|d| d.duration_since(start)))))
        });
        let service = DeadlineLayer.layer(inner);
        let with = service.clone().oneshot(request(Some("10S"))).await.unwrap();
        assert!(with.into_body().unwrap() >= Duration::from_secs(10));
        let without = service.oneshot(request(None)).await.unwrap();
        assert_eq!(without.into_body(), None);
    }

    #[tokio::test]
    async fn a_malformed_timeout_is_refused_before_the_handler() {
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let response = DeadlineLayer.layer(inner).oneshot(request(Some("soon"))).await.unwrap();
        assert_eq!(code(&response), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_an_invalid_argument() {
        let inner = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Status::out_of_range("too large").into_http::<()>())
        });
        let response = DeadlineLayer.layer(inner).oneshot(request(None)).await.unwrap();
        assert_eq!(code(&response), Code::InvalidArgument);
        let status = Status::from_header_map(response.headers()).unwrap();
        assert!(status.message().contains("67108864 bytes"), "{status}");
    }
}
