//! `dynamic_batching` of a model's configuration becomes what the scheduler keeps to.

use std::time::Duration;

use convoy_proto::inference::model_config::SchedulingChoice;
use convoy_proto::inference::model_queue_policy::TimeoutAction;
use convoy_proto::inference::{ModelConfig, ModelDynamicBatching, ModelQueuePolicy};

use crate::scheduler::{PolicyLimits, QueuePolicy};

/// Priorities that a model may have: more is a slip of the pen.
const MAX_PRIORITY_LEVELS: u64 = 100;

/// The limits of a model with this configuration. `queue_size` is how many requests may wait where the configuration
/// does not say; the objective and the instances are the caller's to fill in.
///
/// # Errors
/// For settings that contradict each other or are not supported.
pub(crate) fn limits(
    config: &ModelConfig,
    max_batch_size: usize,
    queue_size: usize,
) -> Result<PolicyLimits, String> {
    let mut limits = PolicyLimits::new(max_batch_size, 1);
    limits.default_queue_policy.max_queue_size = Some(queue_size);
    let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice else {
        return Ok(limits);
    };
    limits.preferred_batch_sizes = preferred(batching, limits.max_batch_size)?;
    limits.max_queue_delay = Duration::from_micros(batching.max_queue_delay_microseconds);
    limits.preserve_ordering = batching.preserve_ordering;
    (limits.priority_levels, limits.default_priority) = priorities(batching)?;
    if let Some(policy) = &batching.default_queue_policy {
        limits.default_queue_policy = queue_policy(policy, queue_size)?;
    }
    for (&level, policy) in &batching.priority_queue_policy {
        let number = u32::try_from(level).ok().filter(|level| (1..=limits.priority_levels).contains(level));
        let number = number.ok_or_else(|| {
            format!(
                "priority_queue_policy has a key {level}, but priority_levels is {}",
                limits.priority_levels
            )
        })?;
        limits.queue_policies.insert(number, queue_policy(policy, queue_size)?);
    }
    Ok(limits)
}

fn preferred(batching: &ModelDynamicBatching, max_batch_size: usize) -> Result<Vec<usize>, String> {
    let size = |&size: &i32| {
        let valid = usize::try_from(size).ok().filter(|size| (1..=max_batch_size).contains(size));
        valid
            .ok_or_else(|| format!("preferred_batch_size has {size}, and max_batch_size is {max_batch_size}"))
    };
    let mut sizes = batching.preferred_batch_size.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

/// How many priorities there are, and which is that of requests that name none.
fn priorities(batching: &ModelDynamicBatching) -> Result<(u32, u32), String> {
    let levels = batching.priority_levels;
    if levels == 0 {
        return Ok((0, 1));
    }
    if levels > MAX_PRIORITY_LEVELS {
        return Err(format!("priority_levels is {levels}, and may be {MAX_PRIORITY_LEVELS} at most"));
    }
    let default = batching.default_priority_level;
    if !(1..=levels).contains(&default) {
        return Err(format!("default_priority_level is {default}, and must be between 1 and {levels}"));
    }
    if batching.preserve_ordering && levels > 1 {
        return Err("preserve_ordering and several priority_levels contradict each other".to_owned());
    }
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok((number(levels), number(default)))
}

/// `allow_timeout_override` changes nothing here: a request's own timeout always counts, as its deadline.
fn queue_policy(policy: &ModelQueuePolicy, queue_size: usize) -> Result<QueuePolicy, String> {
    if policy.timeout_action == i32::from(TimeoutAction::Delay) {
        return Err(
            "timeout_action DELAY is not supported: a request that waited too long is rejected".to_owned()
        );
    }
    // As in Triton, 0 is none.
    let timeout = Duration::from_micros(policy.default_timeout_microseconds);
    let size = usize::try_from(policy.max_queue_size).ok().filter(|&size| size > 0);
    Ok(QueuePolicy {
        max_queue_size: Some(size.unwrap_or(queue_size)),
        timeout: (timeout > Duration::ZERO).then_some(timeout),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::repository::config;
    use std::path::Path;

    fn read(text: &str) -> Result<PolicyLimits, String> {
        limits(&config::parse(Path::new("config.pbtxt"), text).unwrap().config, 8, 256)
    }

    #[test]
    fn everything_that_triton_has_is_read() {
        let limits = read(
            "dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 1500 priority_levels: 3
               default_priority_level: 2 default_queue_policy { max_queue_size: 7 default_timeout_microseconds: 20000 }
               priority_queue_policy { key: 3 value { allow_timeout_override: true } } }",
        )
        .unwrap();
        assert_eq!(
            (limits.preferred_batch_sizes, limits.max_queue_delay),
            (vec![4, 8], Duration::from_micros(1500))
        );
        assert_eq!((limits.priority_levels, limits.default_priority), (3, 2));
        let default = QueuePolicy { max_queue_size: Some(7), timeout: Some(Duration::from_millis(20)) };
        assert_eq!(limits.default_queue_policy, default);
        assert_eq!(limits.queue_policies[&3], QueuePolicy { max_queue_size: Some(256), timeout: None });
        assert!(read("dynamic_batching { preserve_ordering: true }").unwrap().preserve_ordering);
    }

    #[test]
    fn without_it_the_server_decides() {
        for text in ["", "dynamic_batching { }"] {
            let limits = read(text).unwrap();
            let queue = QueuePolicy { max_queue_size: Some(256), timeout: None };
            assert_eq!(limits, PolicyLimits { default_queue_policy: queue, ..PolicyLimits::new(8, 1) });
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (text, part) in [
            ("default_queue_policy { timeout_action: DELAY }", "DELAY"),
            (
                "priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 1 value { timeout_action: DELAY } }",
                "DELAY",
            ),
            ("preferred_batch_size: [ 9 ]", "max_batch_size is 8"),
            ("preferred_batch_size: [ 0 ]", "has 0"),
            ("priority_levels: 2", "default_priority_level is 0"),
            ("priority_levels: 2 default_priority_level: 3", "between 1 and 2"),
            ("priority_levels: 1000000 default_priority_level: 1", "100 at most"),
            ("priority_queue_policy { key: 1 value { } }", "key 1"),
            ("priority_levels: 2 default_priority_level: 1 preserve_ordering: true", "contradict"),
        ] {
            let error = read(&format!("dynamic_batching {{ {text} }}")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
