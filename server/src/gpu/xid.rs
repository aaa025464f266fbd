//! Xid events: what a driver tells of a GPU's errors. Most are a program's; after some nothing runs on the GPU any more.

use super::health::GpuHealth;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::event::EventSet;
use std::collections::BTreeMap;

/// Those after which a GPU must be reset or replaced (NVIDIA's "Xid Errors" catalog): 48 and 95 uncorrectable ECC errors, 62
/// a halt of its microcontroller, 79 it has fallen off the bus, 119 and 120 its system processor does not answer, 140 an
/// unrecovered ECC error.
const FATAL: [u64; 7] = [48, 62, 79, 95, 119, 120, 140];
/// Events read at once, so that a GPU in trouble does not keep its watcher from its other work.
const AT_ONCE: usize = 64;

/// The events of all GPUs, if the driver has them.
pub(super) struct XidEvents<'nvml>(Vec<(String, EventSet<'nvml>)>);

impl<'nvml> XidEvents<'nvml> {
    /// Asks for the events of every GPU: a set for each, so that one that has none leaves the others theirs.
    pub(super) fn of_all(nvml: &'nvml Nvml) -> Self {
        let count = nvml.device_count().unwrap_or(0);
        let register = |index| {
            let device = nvml.device_by_index(index)?;
            let uuid = device.uuid()?;
            let set = nvml.create_event_set()?;
            let set =
                device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| error.error)?;
            Ok::<_, nvml_wrapper::error::NvmlError>((uuid, set))
        };
        let sets = (0..count).filter_map(|index| {
            register(index).inspect_err(|error| tracing::debug!(index, %error, "A GPU tells no events")).ok()
        });
        Self(sets.collect())
    }

    /// Reads what has happened since it was last read.
    pub(super) fn read(&self, health: &GpuHealth) {
        let mut seen = BTreeMap::new();
        for (uuid, set) in &self.0 {
            // Nothing is waited for: no event is an error of its own, `Timeout`.
            for event in (0..AT_ONCE).map_while(|_| set.wait(0).ok()) {
                if let Some(XidError::Value(xid)) = event.event_data {
                    seen.insert((uuid, xid), ());
                }
            }
        }
        for (uuid, xid) in seen.into_keys() {
            if FATAL.contains(&xid) {
                tracing::error!(gpu_uuid = %uuid, xid, "A GPU has failed: nothing runs on it until it is reset");
                health.lost(uuid, &format!("Xid {xid}"), true);
            } else {
                tracing::warn!(gpu_uuid = %uuid, xid, "A GPU reports an error");
            }
        }
    }
}
