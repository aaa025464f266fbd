//! `convoy up`: all three services in one process, for one person on one machine.

use crate::exit::Failure;
use crate::fleet::{Fleet, Service};
use crate::options::{ProcessArgs, SandboxArgs};
use crate::ready_file::Addresses;
use crate::single::{FEATURE_SERVICE, MODEL_SERVING, RESULTS_SERVICE, cannot_start, usage};
use crate::supervise::Program;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `convoy up`: the flags of all three services.
#[derive(clap::Args, Clone, Debug)]
pub struct UpArgs {
    #[command(flatten, next_help_heading = "feature-service")]
    feature: feature_service::Config,
    #[command(flatten, next_help_heading = "model-serving")]
    models: model_serving::Config,
    #[command(flatten, next_help_heading = "results-service")]
    results: results_service::Config,
    #[command(flatten, next_help_heading = "Preprocessing")]
    sandbox: SandboxArgs,
    #[command(flatten, next_help_heading = "Process")]
    process: ProcessArgs,
}

/// Flags of feature-service that `up` answers itself, with what runs at the other end.
pub(crate) const DERIVED: [(&str, &str); 2] =
    [("model_serving_url", MODEL_SERVING), ("results_url", RESULTS_SERVICE)];

impl Program for UpArgs {
    fn process(&self) -> &ProcessArgs {
        &self.process
    }

    fn validate(&self) -> Result<(), Failure> {
        self.feature.validate().map_err(usage)?;
        self.models.validate().map_err(usage)?;
        self.results.validate().map_err(usage)?;
        self.sandbox.validate()?;
        no_two_alike(&self.bound())
    }

    async fn start(mut self) -> Result<Fleet, Failure> {
        // One pool for both services: two would run twice as many threads as there are cores.
        let sandbox = self.sandbox.start(Some(self.feature.max_image_bytes.get())).await?;
        let results = results_service::Listeners::bind(&self.results).await.map_err(cannot_start)?;
        let models = model_serving::Listeners::bind(&self.models).await.map_err(cannot_start)?;
        let feature = feature_service::Listeners::bind(&self.feature).await.map_err(cannot_start)?;
        let addresses = Addresses {
            grpc: Some(models.grpc_addr()),
            http: Some(models.http_addr()),
            metrics: Some(models.metrics_addr()),
            feature: Some(feature.addr()),
            results: Some(results.addr()),
            admin: Some(results.admin_addr()),
        };
        self.feature.model_serving_url = url_of(models.grpc_addr());
        self.feature.results_url = url_of(results.addr());

        let results = Service::start(RESULTS_SERVICE, |readiness, shutdown| {
            results_service::run(self.results, results, readiness, shutdown)
        });
        let models = Service::start(MODEL_SERVING, |readiness, shutdown| {
            model_serving::run(self.models, models, sandbox.clone(), readiness, shutdown)
        });
        let feature = Service::start(FEATURE_SERVICE, |readiness, shutdown| {
            feature_service::run(self.feature, feature, sandbox, readiness, shutdown)
        });
        // Along the arrows: feature-service calls the other two.
        Ok(Fleet::new(addresses, vec![feature, models, results]))
    }
}

impl UpArgs {
    /// The flags of the addresses that are bound, and what they are set to.
    fn bound(&self) -> [(&'static str, SocketAddr); 6] {
        [
            ("--feature-addr", self.feature.feature_addr),
            ("--grpc-addr", self.models.grpc_addr),
            ("--http-addr", self.models.http_addr),
            ("--metrics-addr", self.models.metrics_addr),
            ("--results-addr", self.results.results_addr),
            ("--admin-addr", self.results.admin_addr),
        ]
    }
}

/// Refuses two addresses of which the second could not be bound once the first is: else it would look as if another
/// program had it.
fn no_two_alike(bound: &[(&str, SocketAddr)]) -> Result<(), Failure> {
    for (index, (flag, address)) in bound.iter().enumerate() {
        for (other, taken) in &bound[..index] {
            if is_within(*address, *taken) || is_within(*taken, *address) {
                return Err(Failure::Usage(format!(
                    "{other} {taken} and {flag} {address} are the same port of this machine: give each one of its own."
                )));
            }
        }
    }
    Ok(())
}

/// Whether who listens on all of `taken` listens on `address` too. Port 0 is another one each time.
fn is_within(address: SocketAddr, taken: SocketAddr) -> bool {
    let covers =
        taken.ip() == address.ip() || (taken.ip().is_unspecified() && (taken.is_ipv6() || address.is_ipv4()));
    address.port() != 0 && address.port() == taken.port() && covers
}

/// Where a client on this machine reaches `bound`.
fn url_of(bound: SocketAddr) -> String {
    let ip = match bound.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_cannot_be_bound_twice() {
        for (one, other, alike) in [
            ("127.0.0.1:5001", "127.0.0.1:5001", true),
            ("0.0.0.0:5001", "127.0.0.1:5001", true),
            ("127.0.0.1:5001", "0.0.0.0:5001", true),
            ("[::]:5001", "127.0.0.1:5001", true),
            ("[::1]:5001", "0.0.0.0:5001", false),
            ("127.0.0.2:5001", "127.0.0.1:5001", false),
            ("127.0.0.1:5001", "127.0.0.1:5002", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let bound =
                [("--a", one.parse().expect("an address")), ("--b", other.parse().expect("an address"))];
            assert_eq!(no_two_alike(&bound).is_err(), alike, "{one} {other}");
        }
    }

    #[test]
    fn an_address_of_all_interfaces_is_reached_on_this_machine() {
        for (bound, url) in [
            ("0.0.0.0:5002", "http://127.0.0.1:5002"),
            ("[::]:5002", "http://[::1]:5002"),
            ("10.0.0.7:81", "http://10.0.0.7:81"),
        ] {
            assert_eq!(url_of(bound.parse().expect("an address")), url);
        }
    }
}
