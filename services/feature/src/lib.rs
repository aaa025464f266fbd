//! REST edge: image to features, image to stored prediction.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | [`Config`]: the settings |
//! | `routes` | the router; `routes/preprocess.rs` and `routes/predict.rs` are its two POST routes |
//! | `body` | request bodies: bounded in bytes and time |
//! | `predict_request` | the three forms of `POST /predict` made into one |
//! | `prediction` | image to stored prediction: look up, preprocess, infer, store |
//! | `inference` | the gRPC client of model-serving, and what it knows of the models |
//! | `results` | the HTTP client of results-service |
//! | `metrics` | what `GET /metrics` shows |
//! | `peers` | whether these two are ready, for `GET /ready` |
//! | `openapi` | what `/openapi.json` says of the routes |
//! | `offload` | work that would keep an async thread busy for long |
//! | [`error`] | [`Error`]: what can go wrong and whose fault it is |
//!
//! Architecture invariant: this crate parses no image. Bytes from clients go into the [`sandbox`], and only pixels,
//! sizes and statistics come out.

mod body;
mod inference;
mod metrics;
mod multipart;
mod offload;
mod openapi;
mod peers;
mod predict_request;
mod prediction;
mod results;
mod routes;

pub mod config;
pub mod error;

pub use config::{Config, ConfigError};
pub use error::Error;
pub use routes::router;

use sandbox::Sandbox;
use service_kit::{Readiness, Shutdown, http_server};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// The service's name in its answers.
pub const SERVICE: &str = "feature-service";

/// The port of feature-service, bound.
#[derive(Debug)]
pub struct Listeners {
    http: TcpListener,
    addr: SocketAddr,
}

impl Listeners {
    /// Binds the address of `config`; port 0 takes any free port.
    ///
    /// # Errors
    /// When the address cannot be bound; the text names it.
    pub async fn bind(config: &Config) -> Result<Self, std::io::Error> {
        let addr = config.feature_addr;
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), service_kit::cannot_listen(addr, "--feature-addr", &error))
        };
        let http = TcpListener::bind(addr).await.map_err(named)?;
        let addr = http.local_addr().map_err(named)?;
        Ok(Self { http, addr })
    }

    /// The address that was bound.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Why the service ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The HTTP client could not be built.
    #[error("The HTTP client cannot be made: {0}.")]
    Client(#[from] reqwest::Error),
    /// The metrics could not be registered.
    #[error("The metrics cannot be set up: {0}.")]
    Metrics(#[from] prometheus::Error),
    /// Connections could not be accepted any more.
    #[error("feature-service cannot accept connections any more: {0}.")]
    Serve(#[from] std::io::Error),
}

/// Serves on `listeners` until `shutdown` says stop and open requests are answered.
///
/// Images are preprocessed in `sandbox`. `readiness` is held until requests can be served, and again from the moment
/// `shutdown` drains. Peers that are down do not hold it: see `GET /ready`.
///
/// # Errors
/// When the configuration cannot work, or connections cannot be accepted any more.
pub async fn run(
    config: Config,
    listeners: Listeners,
    sandbox: Sandbox,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let starting = readiness.hold("feature-service to start");
    let router = routes::router(&config, sandbox, readiness.clone())?;
    tracing::info!(
        addr = %listeners.addr,
        model_serving_url = config.model_serving_url,
        results_url = config.results_url,
        "feature-service listens"
    );
    drop(starting);
    let mut served = std::pin::pin!(http_server::serve(listeners.http, router, &shutdown));
    tokio::select! {
        ended = &mut served => return Ok(ended?),
        () = shutdown.draining() => {}
    }
    let _draining = readiness.hold("draining");
    served.await?;
    tracing::info!("feature-service has stopped");
    Ok(())
}
