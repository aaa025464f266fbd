//! The thread that a model is loaded on.

use std::any::Any;
use std::sync::Mutex;
use std::thread;

use crate::scheduler::lock;

/// Runs `load` on a thread named for the model: ONNX Runtime's threads, which are started there, take over its name, and
/// keep it for as long as their session lives.
pub(super) fn on_a_thread_for<T: Send>(model: &str, load: impl FnOnce() -> T + Send) -> T {
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    // Either by the thread or, where there is none to be had, here.
    let load = Mutex::new(Some(load));
    let run = || lock(&load).take().map(|load| tracing::dispatcher::with_default(&dispatch, load));
    let loaded = thread::scope(|scope| {
        let thread = thread::Builder::new().name(format!("onnx-{model}")).spawn_scoped(scope, run);
        thread.ok().and_then(|thread| thread.join().ok().flatten())
    });
    loaded.or_else(run).expect("what is loaded was not loaded before, and panics are caught")
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::repository::{ModelRepository, RepositoryConfig};
    use crate::scheduler::NoObserver;
    use crate::test_models;
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    /// As `top -H` shows them.
    #[test]
    fn threads_of_a_session_have_the_name_of_their_model() {
        let two =
            "max_batch_size: 4 parameters { key: \"intra_op_thread_count\" value { string_value: \"2\" } }";
        let root = test_models::repository(&[("named", "lookup", two)]);
        let config = RepositoryConfig {
            onnxruntime_lib: Some(test_models::library()),
            profile_time: Duration::from_millis(1),
            ..RepositoryConfig::new(root.path())
        };
        let _repository = ModelRepository::load(&config, Arc::new(NoObserver)).unwrap();
        let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
            // Other tests' threads end meanwhile.
            fs::read_to_string(task.ok()?.path().join("comm")).ok()
        });
        let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        assert!(names.contains(&"onnx-named".to_owned()), "{names:?}");
    }
}
