//! Decides on a call's headers whether it is taken, and counts the memory it holds.
//!
//! A call that carries tensors or images is refused before its body is read when its body cannot matter: receiving
//! it would take from the machine what those need that were taken. The answer is in the headers ("trailers only"),
//! and the client stops sending when it sees it; the stream window bounds what it has sent until then. Health,
//! metadata and the repository are answered always.

use super::call::Call;
use super::failure;
use super::inflate::{self, Inflater};
use super::transport::StreamWindow;
use crate::error::ServingError;
use crate::limits::{CountedBody, Due, HeldBody, Reason};
use crate::state::ServingState;
use http::{Request, Response};
use service_kit::{ConnectionHandle, ErrorCode};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::{Layer, Service};

/// The calls that carry tensors or images: path, and name for the log.
const CARRYING: [(&str, &str); 3] = [
    ("/model_serving.ModelServing/Predict", "Predict"),
    ("/inference.GRPCInferenceService/ModelInfer", "ModelInfer"),
    (MODEL_STREAM_INFER, "ModelStreamInfer"),
];
/// The one of them whose answer begins before its request has ended.
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// The calls whose messages may be compressed.
const COMPRESSIBLE: &str = "/inference.GRPCInferenceService/";
/// Bytes of any other call that are not counted, so that health is answered whatever else goes on.
const FREE_BYTES: usize = 64 * 1024;

/// Makes [`Admission`] services.
#[derive(Clone)]
pub(crate) struct AdmissionLayer {
    state: Arc<ServingState>,
    window: Arc<StreamWindow>,
}

impl AdmissionLayer {
    /// Refusals are told to `window`.
    pub(super) fn new(state: Arc<ServingState>, window: Arc<StreamWindow>) -> Self {
        Self { state, window }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admission { inner, layer: self.clone() }
    }
}

/// See the [module](self). It stands behind the [deadline layer](super::deadline).
#[derive(Clone)]
pub(crate) struct Admission<S> {
    inner: S,
    layer: AdmissionLayer,
}

impl<S> Service<Request<Body>> for Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let AdmissionLayer { state, window } = &self.layer;
        let path = request.uri().path();
        // How much a stream answers is known frame by frame only.
        let answers = (path == MODEL_STREAM_INFER).then(|| state.in_flight.permit());
        let carrying = CARRYING.iter().find(|(carrying, _)| *carrying == path);
        if let Some((_, method)) = carrying {
            let call = request.extensions().get::<Call>();
            if let Some(error) = state.refuses_early(None, call.and_then(|call| call.deadline)) {
                if error.code() == ErrorCode::Overloaded {
                    window.refused();
                }
                let call = call.cloned().unwrap_or_default();
                let response = failure::answer(&error, &call, method, "").into_http();
                return Box::pin(async { Ok(response) });
            }
        }
        // Of a stream, and of what is not ours (health, reflection), only messages that have begun are due.
        let unary = path != MODEL_STREAM_INFER && (carrying.is_some() || path.starts_with(COMPRESSIBLE));
        let progress = state.progress(if unary { Due::Body } else { Due::Messages });
        let connection = request.extensions().get::<ConnectionHandle>().cloned();
        let client = connection.as_ref().map(ConnectionHandle::peer);
        let progress = progress.beside(client, &state.held_back);
        let permit = state.in_flight.permit();
        if let Some(call) = request.extensions_mut().get_mut::<Call>() {
            call.hold(permit.clone());
            call.connection = client;
        }
        let method = carrying.map_or("GRPCInferenceService", |(_, method)| *method);
        let free = if carrying.is_some() { 0 } else { FREE_BYTES };
        let counted = permit.clone();
        let counted = |body| Body::new(CountedBody::new(body, counted, free, progress, refuse));
        let mut request = request.map(counted);
        if request.uri().path().starts_with(COMPRESSIBLE)
            && let Some(encoding) = inflate::take_encoding(request.headers_mut())
        {
            let call = request.extensions().get::<Call>().cloned().unwrap_or_default();
            let (permit, offload) = (permit.clone(), state.offload.clone());
            let inflater = Inflater { encoding, permit, offload, call, method };
            request = request.map(|body| inflater.inflate(body));
        }
        let handler = self.inner.call(request);
        let state = Arc::clone(state);
        Box::pin(async move {
            let response = handler.await?;
            if permit.was_refused() {
                state.early_refusals.count(Reason::Memory);
            }
            let by_frame = answers.is_some();
            let held = answers.unwrap_or(permit);
            Ok(response.map(|body| Body::new(HeldBody::new(body, held, by_frame, &state.unread, connection))))
        })
    }
}

/// What tonic answers when the body ends with this error. The rest of the body is not wanted.
fn refuse(error: ServingError, _rest: Body) -> Box<dyn Error + Send + Sync> {
    tracing::debug!(code = error.code().as_str(), %error, "The body of a call was not read to its end");
    Box::new(failure::status(&error))
}
