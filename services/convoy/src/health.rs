//! `convoy health`: asks services whether they are ready.

use crate::exit::Failure;
use crate::options::duration;
use std::error::Error;
use std::io;
use std::time::Duration;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// `convoy health`.
#[derive(clap::Args, Clone, Debug)]
pub struct HealthArgs {
    /// What to ask: http://HOST:PORT asks GET /ready (or the path that is given), grpc://HOST:PORT asks
    /// grpc.health.v1. Of several, separated by commas, those at whose port nobody listens are passed over, for a
    /// container in which any of the services may run: one must be ready, and none that answers may be unready.
    #[arg(env = "HEALTH_TARGET", value_name = "URLS", value_delimiter = ',', required = true)]
    targets: Vec<String>,

    /// Time the answers may take. With a unit: 500ms, 3s.
    #[arg(long, env = "HEALTH_TIMEOUT", value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

/// Asks; returns when the answer is yes.
///
/// # Errors
/// [`Failure::Failed`] when the service is not ready or cannot be reached; [`Failure::Usage`] for another URL.
pub async fn run(args: HealthArgs) -> Result<(), Failure> {
    let asked = async {
        let mut found = Vec::with_capacity(args.targets.len());
        for target in &args.targets {
            found.push(ask(target).await?);
        }
        let ready = found.contains(&Found::Ready);
        match found.into_iter().next() {
            Some(Found::Nobody(why)) if !ready => Err(Failure::Failed(why)),
            _ => Ok(()),
        }
    };
    tokio::time::timeout(args.timeout, asked).await.unwrap_or_else(|_| {
        let targets = args.targets.join(", ");
        Err(Failure::Failed(format!("{targets} did not answer within {:?}.", args.timeout)))
    })
}

/// What is at an address; whoever answers anything but yes is an error.
#[derive(PartialEq)]
enum Found {
    Ready,
    /// Nobody listens there; with the sentence that says so.
    Nobody(String),
}

async fn ask(target: &str) -> Result<Found, Failure> {
    let asked = match target.split_once("://") {
        Some(("http", _)) => ask_http(target).await,
        Some(("grpc", address)) => ask_grpc(address).await,
        _ => Err(NotReady::Failure(Failure::Usage(format!(
            "{target} cannot be asked: write http://HOST:PORT or grpc://HOST:PORT."
        )))),
    };
    match asked {
        Ok(()) => Ok(Found::Ready),
        Err(NotReady::Nobody(why)) => Ok(Found::Nobody(why)),
        Err(NotReady::Failure(failure)) => Err(failure),
    }
}

enum NotReady {
    Nobody(String),
    Failure(Failure),
}

impl From<Failure> for NotReady {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn unreachable(target: &str, error: &(dyn Error + 'static)) -> NotReady {
    let text = format!("{target} cannot be reached: {}.", innermost(error));
    if refused(error) { NotReady::Nobody(text) } else { NotReady::Failure(Failure::Failed(text)) }
}

fn refused(error: &(dyn Error + 'static)) -> bool {
    let system = error.downcast_ref::<io::Error>();
    system.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        || error.source().is_some_and(refused)
}

async fn ask_http(target: &str) -> Result<(), NotReady> {
    let unreachable = |error: reqwest::Error| unreachable(target, &error);
    let mut url = reqwest::Url::parse(target)
        .map_err(|error| Failure::Usage(format!("{target} is no URL: {error}.")))?;
    if url.path() == "/" {
        url.set_path("/ready");
    }
    // A health check is of this very address: through a proxy it would ask something else.
    let client = reqwest::Client::builder().no_proxy().build().map_err(unreachable)?;
    let answer = client.get(url.clone()).send().await.map_err(unreachable)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => {
            let body = answer.text().await.unwrap_or_default();
            Err(Failure::Failed(format!("{url} is not ready: {status} {body}")).into())
        }
    }
}

async fn ask_grpc(address: &str) -> Result<(), NotReady> {
    let unreachable = |error: tonic::transport::Error| unreachable(address, &error);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Failure::Usage(format!("{address} is no address: {error}.")))?;
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| Failure::Failed(format!("{address} is not ready: {}.", status.message())))?
        .into_inner();
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        other => Err(Failure::Failed(format!("{address} is not ready: {}.", other.as_str_name())).into()),
    }
}

/// The cause at the bottom: "Connection refused" says more than "error sending request".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
