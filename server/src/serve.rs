//! The ports, and the life of the server from binding them to its end.

use crate::audit::{AuditLog, milliseconds};
use crate::config::Config;
use crate::error::LoadError;
use crate::gpu::GpuHealth;
use crate::grpc::{self, GrpcError};
use crate::metrics::Metrics;
use crate::repository::{ModelControlMode, ModelRepository, RepositoryConfig, log_not_loaded};
use crate::rest;
use crate::state::ServingState;
use sandbox::Sandbox;
use service_kit::http_server;
use service_kit::{Readiness, Shutdown};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;

/// Connections that wait to be accepted on the gRPC port; the system may allow fewer.
const BACKLOG: u32 = 1024;

/// The bound ports. HTTP clients can connect from the moment that these exist, and are answered once [`run`] runs; gRPC
/// clients are refused until the models are loaded.
#[derive(Debug)]
pub struct Listeners {
    grpc: (TcpSocket, SocketAddr),
    http: (TcpListener, SocketAddr),
    metrics: (TcpListener, SocketAddr),
}

impl Listeners {
    /// Binds the addresses of `config`.
    ///
    /// # Errors
    /// Names the address that cannot be bound, and its flag.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        Ok(Self {
            grpc: named(config.grpc_addr, "--grpc-addr", reserve(config.grpc_addr))?,
            http: named(config.http_addr, "--http-addr", bind(config.http_addr).await)?,
            metrics: named(config.metrics_addr, "--metrics-addr", bind(config.metrics_addr).await)?,
        })
    }

    /// Where gRPC is served.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.1
    }

    /// Where REST is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http.1
    }

    /// Where the metrics are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics.1
    }
}

async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Takes the port without listening yet: who connects is refused.
fn reserve(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As tokio does for every listener on Unix: connections of a process before this one may still linger.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn named<T>(address: SocketAddr, flag: &str, bound: io::Result<T>) -> io::Result<T> {
    bound.map_err(|error| io::Error::new(error.kind(), service_kit::cannot_listen(address, flag, &error)))
}

/// Why the server ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The models cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The gRPC face failed.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The REST face or the metrics' port failed.
    #[error("The HTTP server failed: {0}.")]
    Http(#[from] io::Error),
    /// The metrics cannot be registered.
    #[error("The metrics cannot be set up: {0}.")]
    Metrics(#[from] prometheus::Error),
    /// A thread that loads or stops the models panicked.
    #[error("The models' thread failed: {0}.")]
    Thread(#[from] tokio::task::JoinError),
}

/// Serves on `listeners` until `shutdown` stops.
///
/// REST and metrics answer at once, and each model as soon as it is loaded. With `strict_readiness` the gRPC port is
/// opened when all that were chosen were tried: a client that balances over several servers sends its calls to whoever
/// takes its connection, whatever that one answers (Triton and TensorFlow Serving open theirs then, too). `readiness` is
/// held until the port is open, with `strict_readiness` until all models are loaded, and for good from when `shutdown`
/// drains or nothing could be loaded. When it stops, nothing new is accepted, what is open is answered, the models run
/// what is queued, and their threads are joined.
///
/// # Errors
/// When the models cannot be loaded or a port fails.
pub async fn run(
    config: Config,
    listeners: Listeners,
    sandbox: Sandbox,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let loading = readiness.hold("models");
    let metrics = Arc::new(Metrics::new()?);
    let gpu_health = GpuHealth::default();
    let _gpus = metrics.watch_gpus(&gpu_health)?;
    let audit = AuditLog::new(&config);
    let own_like = sandbox.clone();
    let state = Arc::new(ServingState::new(
        sandbox,
        Arc::clone(&metrics),
        audit,
        &config,
        readiness.clone(),
        shutdown.clone(),
    )?);
    let repository = RepositoryConfig {
        sandbox: Some(own_like),
        outputs: Some(Arc::new(state.in_flight.clone())),
        gpu_health,
        ..config.repository()
    };
    let open_port = Notify::new();
    let port_closed = readiness.hold("the gRPC port");
    let Listeners { grpc: (grpc, _), http: (http, _), metrics: (metrics_port, _) } = listeners;

    let faces = async {
        tokio::try_join!(
            async {
                tokio::select! {
                    () = open_port.notified() => {}
                    () = shutdown.stopping() => return Ok(()),
                }
                let listener = grpc.listen(BACKLOG)?;
                readiness.opened();
                drop(port_closed);
                Ok(grpc::serve(
                    listener,
                    Arc::clone(&state),
                    config.max_connection_age,
                    readiness.clone(),
                    shutdown.clone(),
                )
                .await?)
            },
            async {
                let router = rest::router(Arc::clone(&state), readiness.clone());
                Ok::<_, RunError>(http_server::serve(http, router, &shutdown).await?)
            },
            async {
                let router = rest::metrics_router(Arc::clone(&metrics));
                Ok(http_server::serve(metrics_port, router, &shutdown).await?)
            },
        )
    };
    let load = async {
        let models = match open(repository, Arc::clone(&metrics)).await {
            Ok(models) => models,
            Err(error) => {
                // A server without models is never ready, not even while it ends.
                mem::forget(loading);
                return Err(error);
            }
        };
        if config.control.strict_readiness {
            models.hold_until_served(&readiness);
        } else {
            open_port.notify_one();
        }
        state.set_models(Arc::clone(&models));
        drop(loading);
        if shutdown.is_stopping() {
            models.end_control();
        }
        match load(&config, &models).await {
            Ok(()) => {
                open_port.notify_one();
                Ok(models)
            }
            Err(error) => {
                mem::forget(readiness.hold("models"));
                Err(error)
            }
        }
    };
    let draining = async {
        shutdown.draining().await;
        // Nor is one that is ending, or has ended.
        mem::forget(readiness.hold("draining"));
        shutdown.stopping().await;
        if let Ok(models) = state.models() {
            models.end_control();
        }
        Ok(())
    };
    let (_, models, ()) = tokio::select! {
        ended = async { tokio::try_join!(faces, load, draining) } => ended?,
        never = state.unread.watch() => match never {},
    };
    tokio::task::spawn_blocking(move || models.shutdown()).await?;
    tracing::info!("model-serving has stopped.");
    Ok(())
}

/// Opens the repository, on a thread of its own.
async fn open(repository: RepositoryConfig, metrics: Arc<Metrics>) -> Result<Arc<ModelRepository>, RunError> {
    let open = move || ModelRepository::open(&repository, metrics);
    Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
}

/// Loads the models that were chosen, on a thread of its own: it takes seconds.
///
/// What cannot be loaded leaves the others alone. A server that would never have anything to serve, and not count as
/// ready either, does better to end and say why.
async fn load(config: &Config, models: &Arc<ModelRepository>) -> Result<(), RunError> {
    let start = Instant::now();
    let loader = Arc::clone(models);
    let errors = tokio::task::spawn_blocking(move || loader.load_chosen()).await?;
    let served = models.versions().len();
    let failed = errors.len();
    let mut errors = errors.into_iter();
    let can_change = config.control.model_control_mode == ModelControlMode::Explicit;
    let ends = served == 0 && !can_change && config.control.strict_readiness;
    // The first is told as the reason why the server ends.
    let reason = if ends { errors.next() } else { None };
    for (model, error) in errors {
        log_not_loaded(&model, &error);
    }
    if let Some((_, error)) = reason {
        return Err(error.into());
    }
    tracing::info!(
        models = served,
        failed,
        duration_ms = milliseconds(start.elapsed()),
        "The models are loaded."
    );
    Ok(())
}
