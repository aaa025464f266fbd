//! REST over SQLite: keeps each prediction per request and user, and erases a user.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the settings, checked before a port is bound |
//! | [`routes`] | the two REST faces: the service's own and the operator's |
//! | [`store`] | the predictions in one SQLite file; the only module that knows SQLite |
//! | [`metrics`] | `GET /metrics` |
//! | `openapi` | what `/openapi.json` says of them |
//! | [`error`] | what can go wrong, and what the client is told |
//!
//! A `201` is sent after the prediction is on the disk: it survives a crash of the process and a loss of power.

pub mod config;
pub mod error;
pub mod metrics;
mod openapi;
pub mod routes;
pub mod store;

pub use config::{Config, ConfigError};
pub use error::Error;

use routes::{Faces, StoreSlot};
use service_kit::{Hold, Readiness, Shutdown, http_server};
use std::mem;
use std::net::SocketAddr;
use store::PredictionStore;
use tokio::net::TcpListener;

/// The name in `/health`, `/ready` and logs.
pub const SERVICE: &str = "results-service";

/// The ports of the service, bound before anything else is done.
#[derive(Debug)]
pub struct Listeners {
    public: TcpListener,
    public_addr: SocketAddr,
    admin: TcpListener,
    admin_addr: SocketAddr,
}

impl Listeners {
    /// Binds the addresses of `config`.
    ///
    /// # Errors
    /// [`Error::Bind`] names the address that could not be bound.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let (public, public_addr) = bind(config.results_addr, "--results-addr").await?;
        let (admin, admin_addr) = bind(config.admin_addr, "--admin-addr").await?;
        Ok(Self { public, public_addr, admin, admin_addr })
    }

    /// The address of the REST service, with its real port.
    pub fn addr(&self) -> SocketAddr {
        self.public_addr
    }

    /// The operator's address, with its real port.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let error = |source| Error::Bind { address, flag, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

/// Serves until `shutdown` stops it: then open requests are served to their end, and the database is closed.
///
/// The ports answer at once; `readiness` is held until the database is open, and whenever it does not take writes.
///
/// # Errors
/// When the database cannot be opened, or connections can no longer be accepted.
pub async fn run(
    config: Config,
    listeners: Listeners,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), Error> {
    tracing::info!(address = %listeners.public_addr, admin_address = %listeners.admin_addr, "results-service listens");
    if !listeners.admin_addr.ip().is_loopback() {
        tracing::warn!(
            admin_address = %listeners.admin_addr,
            "the operator's address is open to other machines: whoever reaches it needs no password"
        );
    }
    let slot = StoreSlot::default();
    let faces = Faces::new(slot.clone(), readiness.clone(), config.backup_dir.clone())?;
    let served = tokio::try_join!(
        open(&config, &slot, &readiness),
        serve(listeners.public, faces.public(), &shutdown),
        serve(listeners.admin, faces.admin(), &shutdown),
        unready_when_draining(&readiness, &shutdown),
    );
    if let Some(store) = slot.get() {
        store.clone().close().await;
    }
    served.map(|_| ())
}

async fn serve(listener: TcpListener, router: axum::Router, shutdown: &Shutdown) -> Result<(), Error> {
    Ok(http_server::serve(listener, router, shutdown).await?)
}

async fn open(config: &Config, slot: &StoreSlot, readiness: &Readiness) -> Result<(), Error> {
    let opening = readiness.hold("the database is being opened");
    let options = config.store_options();
    let store_readiness = readiness.clone();
    let opened = tokio::task::spawn_blocking(move || PredictionStore::open(&options, &store_readiness)).await;
    match opened {
        Ok(Ok(store)) => {
            slot.set(store);
            drop(opening);
            Ok(())
        }
        // A service without its database is never ready, not even while it ends.
        Ok(Err(error)) => {
            mem::forget(opening);
            Err(error.into())
        }
        Err(panic) => {
            mem::forget(opening);
            std::panic::resume_unwind(panic.into_panic())
        }
    }
}

/// Unready from the first step of the shutdown on, while requests are still served, for as long as the caller keeps
/// what this returns.
async fn unready_when_draining(readiness: &Readiness, shutdown: &Shutdown) -> Result<Hold, Error> {
    shutdown.draining().await;
    Ok(readiness.hold("the service is stopping"))
}
