//! What glibc's allocator is told, so that an unloaded model's memory goes back to the system, and a loaded one's lies in
//! huge pages.
//!
//! glibc raises the size from which a block gets pages of its own whenever such a block is freed, up to 32 MiB; the
//! sessions of the next model then lie in its heaps among what lives on, and stay resident when they are freed (seen:
//! 84 MiB at the start, 330 to 490 after an unload). A threshold that is set is not raised (the same: 165 to 275, and with 1 MiB 145 to 255). glibc
//! takes it from the environment only, when a process starts; `mallopt` and `malloc_trim` are not for safe code. So a
//! server starts itself once more with it: process id, standard streams and arguments stay what they are.

use std::ffi::OsStr;

/// Names and values. Blocks from so many bytes on have pages of their own, and so many may stay free at the end of a
/// heap: smaller ones cost page faults for each answer of raw outputs (644 KB for the detector; seen: 112 a request), and for each
/// FP32 tensor of 3x300x300 or UINT8 one of 640x640x3 (with 1 MiB: 250 a request, half a millisecond); larger ones stay resident.
///
/// `hugetlb=1` asks the system for transparent huge pages, where it gives them to who asks (`madvise`, the usual setting): a
/// model's weights and activations are read whole for each request, between which others use the cache of addresses. With it
/// the detector answers 16 callers on two virtual cores some 5 % faster. glibc before 2.35 does not know it, and no harm is done.
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "2097152"),
    ("MALLOC_TRIM_THRESHOLD_", "8388608"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
];
/// Puts another allocator in the place of glibc's.
const OTHER_ALLOCATOR: &str = "LD_PRELOAD";
/// The commands that load models, or measure as if they did.
const SERVERS: [&str; 3] = ["up", "model-serving", "bench"];

/// Starts this program again with the settings, if it is to run models on glibc and nobody has set them. Returns if not, or
/// if it cannot be started: it works without, too.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt as _;
        use std::process::Command;

        let mut arguments = std::env::args_os();
        let (name, command) = (arguments.next(), arguments.next());
        if !is_wanted(command.as_deref(), |variable| std::env::var_os(variable).is_some()) {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut again = Command::new(program);
        again.args(std::env::args_os().skip(1)).envs(SETTINGS);
        if let Some(name) = name {
            again.arg0(name);
        }
        // Only a failure comes back from here.
        let _ = again.exec();
    }
}

fn is_wanted(command: Option<&OsStr>, is_set: impl Fn(&str) -> bool) -> bool {
    command.is_some_and(|command| SERVERS.iter().any(|server| command == *server))
        && !set_by_operator().any(is_set)
}

/// Variables by which an operator settles the same.
fn set_by_operator() -> impl Iterator<Item = &'static str> {
    SETTINGS.into_iter().map(|(name, _)| name).chain([OTHER_ALLOCATOR])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_settle_once_and_leave_an_operators_settings_alone() {
        let command = |name: &'static str| Some(OsStr::new(name));
        for server in ["up", "model-serving", "bench"] {
            assert!(is_wanted(command(server), |_| false));
            for variable in set_by_operator() {
                assert!(!is_wanted(command(server), |set| set == variable), "{variable}");
            }
        }
        for other in [None, command("detect"), command("results-service"), command("--version")] {
            assert!(!is_wanted(other, |_| false), "{other:?}");
        }
        assert!(
            SETTINGS.iter().all(|(name, _)| set_by_operator().any(|set| set == *name)),
            "else it would start itself for ever"
        );
    }
}
