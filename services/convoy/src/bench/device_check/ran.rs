//! What the model runs on, as its server found it.

use super::super::raw::RawDevice;
use convoy_proto::inference::ModelConfig;
use model_serving::backend::{Device, ExecutionProvider};
use model_serving::gpu::{self, GpuFacts};

/// What runs the model. For `auto` that is known when a session of it was opened and warmed, and not before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) provider: ExecutionProvider,
    /// Why it is not what was looked for first.
    pub(super) fallback_reason: Option<String>,
    pub(super) gpu: Option<GpuFacts>,
}

impl Ran {
    /// Of a model of this configuration, which the server has told, where `requested` was asked for.
    pub(super) fn of(requested: Device, device: &RawDevice, config: &ModelConfig) -> Self {
        let provider = device.provider;
        let told = config.parameters.get("device_fallback").map(|reason| reason.string_value.clone());
        let fallback_reason = told.or_else(|| {
            let is_given = !provider.is_gpu() && requested != Device::Cpu;
            is_given.then(|| "the model's configuration puts it on the CPU".to_owned())
        });
        let gpu = provider.is_gpu().then(|| gpu::usable(device.gpu).ok()).flatten();
        Self { provider, fallback_reason, gpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoy_proto::inference::ModelParameter;
    use model_serving::backend::Acceleration;

    #[test]
    fn what_the_server_fell_back_to_is_what_is_checked() {
        let ran = |requested, told: Option<&str>| {
            let mut config = ModelConfig::default();
            if let Some(told) = told {
                let reason = ModelParameter { string_value: told.to_owned() };
                config.parameters.insert("device_fallback".to_owned(), reason);
            }
            let acceleration = Acceleration::default();
            let device = RawDevice { provider: ExecutionProvider::Cpu, gpu: 0, acceleration };
            Ran::of(requested, &device, &config)
        };
        let on_cpu = |reason: Option<&str>| Ran {
            provider: ExecutionProvider::Cpu,
            fallback_reason: reason.map(str::to_owned),
            gpu: None,
        };
        // There is a driver and a GPU, and the session fails.
        let reason = Some("CUDA failure 802: system not yet initialized");
        assert_eq!(ran(Device::Auto, reason), on_cpu(reason));
        assert_eq!(ran(Device::Cpu, None), on_cpu(None));
        let of_group = Some("the model's configuration puts it on the CPU");
        assert_eq!(ran(Device::Auto, None), on_cpu(of_group));
        assert_eq!(ran(Device::Cuda(0), None), on_cpu(of_group));
    }
}
