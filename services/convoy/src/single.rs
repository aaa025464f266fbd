//! The subcommands that run one service: what containers run.

use crate::exit::Failure;
use crate::fleet::{Fleet, Service};
use crate::options::{ProcessArgs, SandboxArgs};
use crate::ready_file::Addresses;
use crate::supervise::Program;
use feature_service::config::MAX_IMAGE_BYTES;
use service_kit::ByteSize;

/// `convoy model-serving`.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelServingArgs {
    #[command(flatten)]
    service: model_serving::Config,
    #[command(flatten)]
    sandbox: SandboxArgs,
    // Not of its `Config`: `up` takes feature-service's flag of this name for both.
    /// Largest encoded image model-serving takes; with what else is in its message it must fit into 64 MiB. No smaller than
    /// feature-service's, which sends on what a model with a component of its own is to decode
    #[arg(long, env = "MAX_IMAGE_BYTES", default_value_t = ByteSize::from(32 << 20), value_name = "BYTES")]
    max_image_bytes: ByteSize,
    #[command(flatten)]
    process: ProcessArgs,
}

impl Program for ModelServingArgs {
    fn process(&self) -> &ProcessArgs {
        &self.process
    }

    fn validate(&self) -> Result<(), Failure> {
        if !(1..=MAX_IMAGE_BYTES).contains(&self.max_image_bytes.get()) {
            return Err(Failure::Usage(format!(
                "--max-image-bytes (MAX_IMAGE_BYTES) is {}, but must be between 1 and 1GiB.",
                self.max_image_bytes
            )));
        }
        self.service.validate().map_err(usage)?;
        self.sandbox.validate()
    }

    async fn start(self) -> Result<Fleet, Failure> {
        let sandbox = self.sandbox.start(Some(self.max_image_bytes.get())).await?;
        let listeners = model_serving::Listeners::bind(&self.service).await.map_err(cannot_start)?;
        let addresses = Addresses {
            grpc: Some(listeners.grpc_addr()),
            http: Some(listeners.http_addr()),
            metrics: Some(listeners.metrics_addr()),
            ..Addresses::default()
        };
        let service = Service::start(MODEL_SERVING, |readiness, shutdown| {
            model_serving::run(self.service, listeners, sandbox, readiness, shutdown)
        });
        Ok(Fleet::new(addresses, vec![service]))
    }
}

/// `convoy feature-service`.
#[derive(clap::Args, Clone, Debug)]
pub struct FeatureServiceArgs {
    #[command(flatten)]
    service: feature_service::Config,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

impl Program for FeatureServiceArgs {
    fn process(&self) -> &ProcessArgs {
        &self.process
    }

    fn validate(&self) -> Result<(), Failure> {
        self.service.validate().map_err(usage)?;
        self.sandbox.validate()
    }

    async fn start(self) -> Result<Fleet, Failure> {
        let sandbox = self.sandbox.start(Some(self.service.max_image_bytes.get())).await?;
        let listeners = feature_service::Listeners::bind(&self.service).await.map_err(cannot_start)?;
        let addresses = Addresses { feature: Some(listeners.addr()), ..Addresses::default() };
        let service = Service::start(FEATURE_SERVICE, |readiness, shutdown| {
            feature_service::run(self.service, listeners, sandbox, readiness, shutdown)
        });
        Ok(Fleet::new(addresses, vec![service]))
    }
}

/// `convoy results-service`.
#[derive(clap::Args, Clone, Debug)]
pub struct ResultsServiceArgs {
    #[command(flatten)]
    service: results_service::Config,
    #[command(flatten)]
    process: ProcessArgs,
}

impl Program for ResultsServiceArgs {
    fn process(&self) -> &ProcessArgs {
        &self.process
    }

    fn validate(&self) -> Result<(), Failure> {
        self.service.validate().map_err(usage)
    }

    async fn start(self) -> Result<Fleet, Failure> {
        let listeners = results_service::Listeners::bind(&self.service).await.map_err(cannot_start)?;
        let addresses = Addresses {
            results: Some(listeners.addr()),
            admin: Some(listeners.admin_addr()),
            ..Addresses::default()
        };
        let service = Service::start(RESULTS_SERVICE, |readiness, shutdown| {
            results_service::run(self.service, listeners, readiness, shutdown)
        });
        Ok(Fleet::new(addresses, vec![service]))
    }
}

pub(crate) const MODEL_SERVING: &str = "model-serving";
pub(crate) const FEATURE_SERVICE: &str = "feature-service";
pub(crate) const RESULTS_SERVICE: &str = "results-service";

pub(crate) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

pub(crate) fn cannot_start(error: impl std::fmt::Display) -> Failure {
    Failure::CannotStart(error.to_string())
}
