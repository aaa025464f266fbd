//! Says in the log why a model runs on something else than what was looked for first.

use std::collections::HashSet;
use std::sync::Mutex;

use super::version::ModelVersion;
use crate::backend::ExecutionProvider;
use crate::scheduler::lock;

/// What was said already: a model that is loaded again, or has several versions, says the same thing once.
#[derive(Debug, Default)]
pub(super) struct Fallbacks(Mutex<HashSet<(String, ExecutionProvider, String)>>);

impl Fallbacks {
    /// Says it of a model that was loaded, if there is something to say.
    pub(super) fn tell_of(&self, model: &ModelVersion) {
        if let Some(reason) = model.fallback_reason() {
            self.tell(model.name(), model.execution_provider(), reason);
        }
    }

    fn tell(&self, model: &str, provider: ExecutionProvider, reason: &str) {
        if !lock(&self.0).insert((model.to_owned(), provider, reason.to_owned())) {
            return;
        }
        if provider.is_gpu() {
            tracing::info!(reason, model, %provider, "The model runs on CUDA, without TensorRT");
        } else {
            tracing::info!(reason, model, %provider, "The model runs on the CPU");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_logs::Log;

    #[test]
    fn each_model_says_once_what_it_runs_on_and_why() {
        let (fallbacks, log) = (Fallbacks::default(), Log::new());
        let collecting = log.collect();
        let tell = |model, provider, reason| fallbacks.tell(model, provider, reason);
        let (cpu, cuda) = (ExecutionProvider::Cpu, ExecutionProvider::Cuda);
        tell("a", cuda, "no TensorRT");
        tell("a", cuda, "no TensorRT");
        tell("b", cpu, "no GPU");
        tell("a", cpu, "no TensorRT");
        tell("a", cpu, "no GPU");
        tell("b", cpu, "no GPU");
        drop(collecting);
        let said: Vec<_> = log.lines().iter().map(|line| line["fields"].clone()).collect();
        let texts = |name: &str| said.iter().map(|fields| fields[name].clone()).collect::<Vec<_>>();
        assert_eq!(texts("model"), ["a", "b", "a", "a"]);
        assert_eq!(texts("provider"), ["cuda", "cpu", "cpu", "cpu"]);
        assert_eq!(texts("reason"), ["no TensorRT", "no GPU", "no TensorRT", "no GPU"]);
        let of_cpu =
            texts("message").iter().map(|text| text == "The model runs on the CPU").collect::<Vec<_>>();
        assert_eq!(of_cpu, [false, true, true, true]);
    }
}
