//! `convoy health`: asks one service whether it is ready.

use crate::exit::Failure;
use crate::options::duration;
use std::time::Duration;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// `convoy health`.
#[derive(clap::Args, Clone, Debug)]
pub struct HealthArgs {
    /// What to ask: http://HOST:PORT asks GET /ready (or the path that is given), grpc://HOST:PORT asks
    /// grpc.health.v1.
    #[arg(env = "HEALTH_TARGET", value_name = "URL")]
    target: String,

    /// Time the answer may take. With a unit: 500ms, 3s.
    #[arg(long, env = "HEALTH_TIMEOUT", value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

/// Asks; returns when the answer is yes.
///
/// # Errors
/// [`Failure::Failed`] when the service is not ready or cannot be reached; [`Failure::Usage`] for another URL.
pub async fn run(args: HealthArgs) -> Result<(), Failure> {
    let target = args.target.as_str();
    let asked = async {
        match target.split_once("://") {
            Some(("http", _)) => ask_http(target).await,
            Some(("grpc", address)) => ask_grpc(address).await,
            _ => Err(Failure::Usage(format!(
                "{target} cannot be asked: write http://HOST:PORT or grpc://HOST:PORT."
            ))),
        }
    };
    tokio::time::timeout(args.timeout, asked).await.unwrap_or_else(|_| {
        Err(Failure::Failed(format!("{target} did not answer within {:?}.", args.timeout)))
    })
}

async fn ask_http(target: &str) -> Result<(), Failure> {
    let unreachable = |error: reqwest::Error| {
        Failure::Failed(format!("{target} cannot be reached: {}.", innermost(&error)))
    };
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
            Err(Failure::Failed(format!("{url} is not ready: {status} {body}")))
        }
    }
}

async fn ask_grpc(address: &str) -> Result<(), Failure> {
    let unreachable = |error: tonic::transport::Error| {
        Failure::Failed(format!("{address} cannot be reached: {}.", innermost(&error)))
    };
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
        other => Err(Failure::Failed(format!("{address} is not ready: {}.", other.as_str_name()))),
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
