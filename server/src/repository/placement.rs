//! How many instances a model has, on what, and with how many threads: `instance_group` and its defaults.

use convoy_proto::inference::model_instance_group::Kind;
use convoy_proto::inference::{ModelConfig, ModelInstanceGroup};

use super::parameters::Parameters;
use crate::backend::{Device, ExecutionProvider};

/// Instances of one model: more than this is a slip of the pen.
const MAX_INSTANCES: usize = 64;

/// Where a model's instances run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// What runs them.
    pub(crate) provider: ExecutionProvider,
    /// One entry per instance: number of its GPU; 0 on a CPU.
    pub(crate) device_ids: Vec<i32>,
    /// Threads of one instance.
    pub(crate) intra_op_threads: usize,
}

impl Placement {
    /// The device a model wants: its `instance_group` knows better than the server's setting.
    ///
    /// # Errors
    /// For kinds that contradict each other or the server's setting.
    pub(crate) fn device(config: &ModelConfig, device: Device) -> Result<Device, String> {
        let (mut cpu, mut gpu) = (false, false);
        for group in &config.instance_group {
            match kind(group)? {
                Kind::Auto => {}
                Kind::Cpu => cpu = true,
                Kind::Gpu => gpu = true,
                Kind::Model => return Err("instance_group of KIND_MODEL is not supported".to_owned()),
            }
        }
        match (cpu, gpu, device) {
            (true, true, _) => {
                Err("instance_group mixes KIND_CPU and KIND_GPU, which is not supported".to_owned())
            }
            (_, true, Device::Cpu) => {
                Err("instance_group asks for KIND_GPU, but the server's device is cpu".to_owned())
            }
            (true, ..) => Ok(Device::Cpu),
            (_, true, _) => Ok(Device::Cuda),
            (false, false, device) => Ok(device),
        }
    }

    /// The instances on `provider`, on a machine with `cores`.
    ///
    /// Without an `instance_group` there is one: on a CPU it uses every core, on a GPU the device runs one batch
    /// after the other anyway.
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: &Parameters,
        provider: ExecutionProvider,
        cores: usize,
    ) -> Result<Self, String> {
        let mut device_ids = Vec::new();
        for group in &config.instance_group {
            if group.passive || !group.secondary_devices.is_empty() {
                return Err("passive instances and secondary devices are not supported".to_owned());
            }
            let count = usize::try_from(group.count)
                .map_err(|_| format!("instance_group has count {}, and must have 1 or more", group.count))?;
            let gpus = match (provider, group.gpus.is_empty()) {
                (ExecutionProvider::Cpu, _) => vec![0],
                (ExecutionProvider::Cuda, true) => vec![parameters.device_id],
                (ExecutionProvider::Cuda, false) => group.gpus.clone(),
            };
            for gpu in gpus {
                // As in Triton, a count that is not given is 1.
                device_ids.extend(std::iter::repeat_n(gpu, count.clamp(1, MAX_INSTANCES + 1)));
            }
        }
        if device_ids.is_empty() {
            device_ids.push(if provider == ExecutionProvider::Cuda { parameters.device_id } else { 0 });
        }
        if device_ids.len() > MAX_INSTANCES {
            return Err(format!("instance_group asks for more than {MAX_INSTANCES} instances"));
        }
        let share = match provider {
            ExecutionProvider::Cpu => (cores / device_ids.len()).max(1),
            ExecutionProvider::Cuda => 1,
        };
        Ok(Self { provider, intra_op_threads: parameters.intra_op_threads.unwrap_or(share), device_ids })
    }
}

fn kind(group: &ModelInstanceGroup) -> Result<Kind, String> {
    Kind::try_from(group.kind)
        .map_err(|_| format!("instance_group has a kind that does not exist, {}", group.kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::repository::config;
    use std::collections::HashMap;
    use std::path::Path;

    fn parse(text: &str) -> ModelConfig {
        config::parse(Path::new("config.pbtxt"), text).unwrap().config
    }

    fn place(text: &str, provider: ExecutionProvider) -> Result<Placement, String> {
        let parameters = Parameters::parse(&HashMap::new()).unwrap();
        Placement::new(&parse(text), &parameters, provider, 8)
    }

    #[test]
    fn cores_are_shared_by_the_instances() {
        let one = place("", ExecutionProvider::Cpu).unwrap();
        assert_eq!((one.device_ids, one.intra_op_threads), (vec![0], 8));
        let three = place("instance_group [ { count: 3 kind: KIND_CPU } ]", ExecutionProvider::Cpu).unwrap();
        assert_eq!((three.device_ids, three.intra_op_threads), (vec![0; 3], 2));
        let gpus = place("instance_group [ { count: 2 gpus: [ 1, 3 ] } ]", ExecutionProvider::Cuda).unwrap();
        assert_eq!((gpus.device_ids, gpus.intra_op_threads), (vec![1, 1, 3, 3], 1));
        assert!(place("instance_group [ { count: -1 } ]", ExecutionProvider::Cpu).is_err());
        assert!(place("instance_group [ { count: 1000000 } ]", ExecutionProvider::Cpu).is_err());
    }

    #[test]
    fn a_group_knows_its_device_better_than_the_server() {
        let device = |text: &str, device| Placement::device(&parse(text), device);
        assert_eq!(device("", Device::Auto), Ok(Device::Auto));
        assert_eq!(device("instance_group [ { kind: KIND_CPU } ]", Device::Cuda), Ok(Device::Cpu));
        assert_eq!(device("instance_group [ { kind: KIND_GPU } ]", Device::Auto), Ok(Device::Cuda));
        assert!(
            device("instance_group [ { kind: KIND_GPU } ]", Device::Cpu).unwrap_err().contains("KIND_GPU")
        );
        assert!(device("instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]", Device::Auto).is_err());
        assert!(device("instance_group [ { kind: KIND_MODEL } ]", Device::Auto).is_err());
    }
}
