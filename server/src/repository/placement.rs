//! How many instances a model has, on what, and with how many threads: `instance_group`, or what is worth measuring.

use std::collections::HashMap;

use convoy_proto::inference::model_instance_group::Kind;
use convoy_proto::inference::{ModelConfig, ModelInstanceGroup, ModelParameter};

use super::parameters::Parameters;
use super::shapes::{self, InstanceShape};
use crate::backend::{Device, ExecutionProvider, ProviderNodes};

/// Instances of one model: more than this is a slip of the pen.
const MAX_INSTANCES: usize = 64;

/// Where a model's instances run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// What runs them.
    pub(crate) provider: ExecutionProvider,
    /// One entry per instance: number of its GPU; 0 on a CPU, where there may be more instances than entries.
    pub(crate) device_ids: Vec<i32>,
    /// What the instances may be. The first is the one with the fewest sessions; with several, measuring decides.
    pub(crate) shapes: Vec<InstanceShape>,
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
            (_, true, device) => Ok(Device::Cuda(device.gpu())),
            (false, false, device) => Ok(device),
        }
    }

    /// The instances on `provider`, on a machine with `cores`; on the GPU of this number where nothing says another.
    ///
    /// Without an `instance_group` it is measured which way of sharing a CPU's cores is best, and on a GPU whether a second
    /// instance carries more: one batch is copied while the other is computed. `intra_op_thread_count` alone means one
    /// instance of so many threads on a CPU.
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: &Parameters,
        (provider, gpu): (ExecutionProvider, u8),
        cores: usize,
    ) -> Result<Self, String> {
        let gpu = parameters.device_id.unwrap_or(i32::from(gpu));
        let mut device_ids = Vec::new();
        for group in &config.instance_group {
            if group.passive || !group.secondary_devices.is_empty() {
                return Err("passive instances and secondary devices are not supported".to_owned());
            }
            let count = usize::try_from(group.count)
                .map_err(|_| format!("instance_group has count {}, and must have 1 or more", group.count))?;
            let gpus = match (provider.is_gpu(), group.gpus.is_empty()) {
                (false, _) => vec![0],
                (true, true) => vec![gpu],
                (true, false) => group.gpus.clone(),
            };
            if let Some(wrong) = gpus.iter().find(|&&gpu| gpu < 0) {
                return Err(format!("instance_group names the GPU {wrong}: they are numbered from 0"));
            }
            for gpu in gpus {
                // As in Triton, a count that is not given is 1.
                device_ids.extend(std::iter::repeat_n(gpu, count.clamp(1, MAX_INSTANCES + 1)));
            }
        }
        if device_ids.len() > MAX_INSTANCES {
            return Err(format!("instance_group asks for more than {MAX_INSTANCES} instances"));
        }
        let given = !device_ids.is_empty();
        if !given {
            device_ids.push(if provider.is_gpu() { gpu } else { 0 });
        }
        let instances = device_ids.len();
        let shapes = match (provider.is_gpu(), parameters.intra_op_threads) {
            (false, Some(threads)) => vec![InstanceShape { instances, threads }],
            (true, threads) if given => vec![InstanceShape { instances, threads: threads.unwrap_or(1) }],
            (true, threads) => shapes::in_flight(threads.unwrap_or(1)),
            (false, None) if given => {
                vec![InstanceShape { instances, threads: (cores / instances).max(1) }]
            }
            (false, None) => shapes::candidates(cores),
        };
        Ok(Self { provider, device_ids, shapes })
    }
}

/// Tells clients in the model's configuration what it really runs on, and why that is not the GPU that `auto` looked for.
pub(crate) fn tell(
    parameters: &mut HashMap<String, ModelParameter>,
    provider: ExecutionProvider,
    nodes: &[ProviderNodes],
    fallback_reason: Option<&str>,
) {
    if let Some(given) = parameters.get("execution_provider")
        && given.string_value.trim() != provider.as_str()
    {
        tracing::warn!(
            given = given.string_value,
            %provider,
            "The parameter execution_provider has no effect: it tells what a model runs on. An instance_group of KIND_GPU \
             or KIND_CPU, or --device, chooses that"
        );
    }
    let mut put = |name: &str, value: &str| {
        parameters.insert(name.to_owned(), ModelParameter { string_value: value.to_owned() })
    };
    put("execution_provider", provider.as_str());
    if !nodes.is_empty() {
        let counts: Vec<_> = nodes
            .iter()
            .map(|of_provider| format!("{} {}", of_provider.provider, of_provider.nodes))
            .collect();
        put("execution_nodes", &counts.join(", "));
    }
    if let Some(reason) = fallback_reason {
        put("device_fallback", reason);
    } else {
        parameters.remove("device_fallback");
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
    use crate::test_logs;
    use std::path::Path;

    fn parse(text: &str) -> ModelConfig {
        config::parse(Path::new("config.pbtxt"), text).unwrap().config
    }

    fn place(text: &str, provider: ExecutionProvider) -> Result<Placement, String> {
        let parameters = Parameters::parse(&HashMap::new()).unwrap();
        Placement::new(&parse(text), &parameters, (provider, 0), 8)
    }

    fn pairs(placement: &Placement) -> Vec<(usize, usize)> {
        placement.shapes.iter().map(|shape| (shape.instances, shape.threads)).collect()
    }

    #[test]
    fn without_a_word_it_is_measured_what_a_processor_and_a_gpu_do_best() {
        let parameters = Parameters::parse(&HashMap::new()).unwrap();
        let place = |provider| Placement::new(&parse(""), &parameters, (provider, 0), 8).unwrap();
        assert_eq!(place(ExecutionProvider::Cpu).shapes, shapes::candidates(8));
        for gpu in [ExecutionProvider::Cuda, ExecutionProvider::TensorRt] {
            assert_eq!(pairs(&place(gpu)), [(1, 1), (2, 1)]);
            assert_eq!(place(gpu).device_ids, [0]);
        }
        let two = Parameters { intra_op_threads: Some(2), ..parameters };
        let placed = Placement::new(&parse(""), &two, (ExecutionProvider::Cpu, 0), 8).unwrap();
        assert_eq!(pairs(&placed), [(1, 2)]);
    }

    #[test]
    fn cores_are_shared_by_the_instances() {
        let three = place("instance_group [ { count: 3 kind: KIND_CPU } ]", ExecutionProvider::Cpu).unwrap();
        assert_eq!((pairs(&three), three.device_ids), (vec![(3, 2)], vec![0; 3]));
        let gpus = place("instance_group [ { count: 2 gpus: [ 1, 3 ] } ]", ExecutionProvider::Cuda).unwrap();
        assert_eq!((pairs(&gpus), gpus.device_ids), (vec![(4, 1)], vec![1, 1, 3, 3]));
        let groups =
            "instance_group [ { kind: KIND_GPU gpus: [ 0 ] count: 2 }, { kind: KIND_GPU gpus: [ 1 ] } ]";
        let uneven = place(groups, ExecutionProvider::Cuda).unwrap();
        assert_eq!((pairs(&uneven), uneven.device_ids), (vec![(3, 1)], vec![0, 0, 1]));
        let unnamed =
            place("instance_group [ { kind: KIND_GPU count: 2 } ]", ExecutionProvider::Cuda).unwrap();
        assert_eq!((pairs(&unnamed), unnamed.device_ids), (vec![(2, 1)], vec![0, 0]));
        let error = place("instance_group [ { gpus: [ -1 ] } ]", ExecutionProvider::Cuda).unwrap_err();
        assert!(error.contains("numbered from 0"), "{error}");
        assert!(place("instance_group [ { count: -1 } ]", ExecutionProvider::Cpu).is_err());
        assert!(place("instance_group [ { count: 1000000 } ]", ExecutionProvider::Cpu).is_err());
    }

    #[test]
    fn a_group_knows_its_device_better_than_the_server() {
        let device = |text: &str, device| Placement::device(&parse(text), device);
        assert_eq!(device("", Device::Auto), Ok(Device::Auto));
        assert_eq!(device("instance_group [ { kind: KIND_CPU } ]", Device::Cuda(1)), Ok(Device::Cpu));
        assert_eq!(device("instance_group [ { kind: KIND_GPU } ]", Device::Auto), Ok(Device::Cuda(0)));
        assert!(
            device("instance_group [ { kind: KIND_GPU } ]", Device::Cpu).unwrap_err().contains("KIND_GPU")
        );
        assert!(device("instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]", Device::Auto).is_err());
        assert!(device("instance_group [ { kind: KIND_MODEL } ]", Device::Auto).is_err());
    }

    #[test]
    fn a_provider_that_is_only_written_down_is_warned_of() {
        let tell_given = |given: Option<&str>| {
            let given = given.map(|given| ModelParameter { string_value: given.to_owned() });
            let mut parameters: HashMap<_, _> =
                given.into_iter().map(|given| ("execution_provider".to_owned(), given)).collect();
            let levels = test_logs::levels(|| tell(&mut parameters, ExecutionProvider::Cpu, &[], None));
            assert_eq!(parameters["execution_provider"].string_value, "cpu");
            levels
        };
        assert_eq!(tell_given(Some("cuda")), ["WARN"]);
        assert!(tell_given(Some("cpu")).is_empty() && tell_given(None).is_empty());
    }
}
