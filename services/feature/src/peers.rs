//! Whether the two services behind this one are ready, for `GET /ready`.
//!
//! It is told, and changes nothing: `/health`, `/preprocess` and the answers to repeated requests need no peer or
//! only one, and a load balancer that took this service out because another one is down would turn clear answers
//! (503 with the peer's name) into refused connections, and hide the one failure behind another.

use crate::inference::{ModelServing, PEER as MODEL_SERVING};
use crate::results::{PEER as RESULTS, Results};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use utoipa::ToSchema;

/// Both peers are asked at once. A probe of `/ready` itself is usually given a second.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Probes come from several sides; the peers are asked once for all of them.
const FRESH: Duration = Duration::from_secs(1);

/// The states by the peers' names.
pub(crate) type States = BTreeMap<&'static str, PeerState>;

/// What a peer said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PeerState {
    /// Whether it can do its work.
    ready: bool,
    /// Why it is not ready, or not known to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// Asks the peers; cheap to clone, all clones share the latest answer.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    models: ModelServing,
    results: Results,
    latest: Arc<Mutex<Option<(Instant, States)>>>,
}

impl Peers {
    pub(crate) fn new(models: ModelServing, results: Results) -> Self {
        Self { models, results, latest: Arc::default() }
    }

    /// The states, at most a second old.
    pub(crate) async fn states(&self) -> States {
        // Held while asking: who comes meanwhile waits for the same answer.
        let mut latest = self.latest.lock().await;
        if let Some((asked, states)) = &*latest
            && asked.elapsed() < FRESH
        {
            return states.clone();
        }
        let (models, results) = tokio::join!(bounded(self.model_serving()), bounded(self.results.ready()));
        let states = States::from([(MODEL_SERVING, models), (RESULTS, results)]);
        *latest = Some((Instant::now(), states.clone()));
        states
    }

    async fn model_serving(&self) -> Result<(), String> {
        let mut checks: JoinSet<_> = self.models.channels().await?.into_iter().map(serving).collect();
        let mut problem = "it has no address".to_owned();
        while let Some(answer) = checks.join_next().await {
            match answer {
                // One that serves is enough.
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => problem = error,
                Err(panic) => problem = panic.to_string(),
            }
        }
        Err(problem)
    }
}

async fn serving(channel: Channel) -> Result<(), String> {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    match answer.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(other) => Err(format!("it says {}", other.as_str_name())),
        Err(status) => Err(status.message().to_owned()),
    }
}

async fn bounded(check: impl Future<Output = Result<(), String>>) -> PeerState {
    let answer = timeout(TIMEOUT, check).await;
    match answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", TIMEOUT.as_millis()))) {
        Ok(()) => PeerState { ready: true, error: None },
        Err(error) => PeerState { ready: false, error: Some(error) },
    }
}
