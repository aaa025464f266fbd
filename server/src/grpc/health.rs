//! `grpc.health.v1.Health`, over the types that tonic-health generates.
//!
//! tonic-health's own service calls the server as a whole SERVING before anything is loaded, and its Watch streams
//! never end, while a stopping server waits for every stream. Here the status is the [`Readiness`] itself, and when
//! the server stops each Watch stream ends after it has said NOT_SERVING.

use service_kit::{Readiness, Shutdown, readable};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Answers for the server as a whole (the empty name) and for each service it has.
#[derive(Clone, Debug)]
pub(crate) struct HealthService {
    services: &'static [&'static str],
    readiness: Readiness,
    shutdown: Shutdown,
}

impl HealthService {
    /// Every one of `services` is serving when `readiness` is and until `shutdown` drains.
    pub(crate) fn server(
        services: &'static [&'static str],
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> HealthServer<Self> {
        HealthServer::new(Self { services, readiness, shutdown })
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }

    fn status(&self, service: &str) -> ServingStatus {
        if !self.knows(service) {
            ServingStatus::ServiceUnknown
        } else if self.readiness.is_ready() && !self.shutdown.is_draining() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Sends the status of `service` and each change of it, until the watcher is gone or the server stops.
    async fn follow(self, service: String, watcher: mpsc::Sender<Result<HealthCheckResponse, Status>>) {
        let mut changes = self.readiness.watch();
        let mut last = None;
        loop {
            // Before looking, so that a change in between is not missed.
            changes.mark_unchanged();
            let (draining, stopping) = (self.shutdown.is_draining(), self.shutdown.is_stopping());
            let status = self.status(&service);
            if last != Some(status) {
                let response = HealthCheckResponse { status: status.into() };
                if watcher.send(Ok(response)).await.is_err() {
                    return;
                }
                last = Some(status);
            }
            if stopping {
                return;
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = self.shutdown.draining(), if !draining => {}
                () = self.shutdown.stopping() => {}
                () = watcher.closed() => return,
            }
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("There is no service `{}` here.", readable(&service))))
            }
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    /// As the protocol wants it, an unknown service is a status here (SERVICE_UNKNOWN), not an error.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (watcher, stream) = mpsc::channel(1);
        tokio::spawn(self.clone().follow(request.into_inner().service, watcher));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use tokio_stream::StreamExt as _;

    fn service() -> (HealthService, Readiness, Shutdown) {
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        let service = HealthService {
            services: &["a.Service"],
            readiness: readiness.clone(),
            shutdown: shutdown.clone(),
        };
        (service, readiness, shutdown)
    }

    fn of(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn check_follows_readiness_and_draining() {
        let (service, readiness, shutdown) = service();
        let hold = readiness.hold("models");
        for (name, now) in [("", ServingStatus::NotServing), ("a.Service", ServingStatus::NotServing)] {
            assert_eq!(service.check(of(name)).await.unwrap().into_inner().status(), now, "{name}");
        }
        drop(hold);
        assert_eq!(service.check(of("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
        shutdown.drain();
        assert_eq!(service.check(of("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
        assert_eq!(service.check(of("none")).await.unwrap_err().code(), tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn watch_tells_each_change_once_and_ends_at_the_stop() {
        let (service, readiness, shutdown) = service();
        let hold = readiness.hold("models");
        let mut stream = service.watch(of("a.Service")).await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        drop(hold);
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
        shutdown.drain();
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        shutdown.stop();
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stop_without_draining_is_told_too() {
        let (service, _readiness, shutdown) = service();
        let mut stream = service.watch(of("")).await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
        shutdown.stop();
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert!(stream.next().await.is_none());
    }
}
