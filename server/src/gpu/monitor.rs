//! The GPUs' metrics, under Triton's names where Triton has one: read from the driver once a second, on a thread of
//! their own, since a driver may take its time.

use super::Gpus;
use super::health::GpuHealth;
use super::xid::XidEvents;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use prometheus::{GaugeVec, Opts, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two readings. NVML's own utilization is a mean over about as long.
const INTERVAL: Duration = Duration::from_secs(1);
/// Readings without an answer before a GPU counts as lost: one may fail for a reason of its own.
const LOST_AFTER: u32 = 2;
/// How long the end of the thread is waited for: NVML may hang with a GPU that does.
const END: Duration = Duration::from_secs(2);
const LABEL: [&str; 1] = ["gpu_uuid"];

/// Reads the metrics until it is dropped.
#[derive(Debug)]
pub(crate) struct GpuMonitor {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread ends.
    ended: Receiver<()>,
}

impl GpuMonitor {
    /// Adds the GPUs' metrics to `registry` and reads them from now on. They are there when this returns. `health` is told
    /// which GPUs are lost.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub(crate) fn start(
        gpus: Gpus,
        registry: &Registry,
        health: GpuHealth,
    ) -> Result<Self, prometheus::Error> {
        let mut gauges = Gauges::register(registry)?;
        gauges.read(&gpus, &health);
        let (stop, stopped) = sync_channel(0);
        let (running, ended) = sync_channel::<()>(0);
        let read = move || {
            let _running = running;
            watch(&gpus, &mut gauges, &health, &stopped);
        };
        let thread = thread::Builder::new().name("gpu-metrics".to_owned()).spawn(read);
        let thread = thread
            .map_err(|error| prometheus::Error::Msg(format!("no thread for the GPUs' metrics: {error}")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), ended })
    }
}

impl Drop for GpuMonitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("NVIDIA's driver does not answer: the GPUs' metrics are left to themselves");
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(gpus: &Gpus, gauges: &mut Gauges, health: &GpuHealth, stopped: &Receiver<()>) {
    let events = XidEvents::of_all(&gpus.0);
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        events.read(health);
        gauges.read(gpus, health);
    }
}

/// The metrics, one series for each GPU.
pub(super) struct Gauges {
    utilization: GaugeVec,
    memory_total: GaugeVec,
    memory_used: GaugeVec,
    power_usage: GaugeVec,
    power_limit: GaugeVec,
    energy: GaugeVec,
    temperature: GaugeVec,
    /// Those that answered the last time.
    known: BTreeSet<String>,
    /// Readings in a row that those that once answered were missing from.
    missing: BTreeMap<String, u32>,
    /// Joules that each had used when it was first read.
    energy_at_start: BTreeMap<String, f64>,
}

impl Gauges {
    /// Adds the families to `registry`, without a series.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = GaugeVec::new(Opts::new(name, help), &LABEL)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            utilization: gauge("nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0]")?,
            memory_total: gauge("nv_gpu_memory_total_bytes", "GPU total memory, in bytes")?,
            memory_used: gauge("nv_gpu_memory_used_bytes", "GPU used memory, in bytes")?,
            power_usage: gauge("nv_gpu_power_usage", "GPU power usage in watts")?,
            power_limit: gauge("nv_gpu_power_limit", "GPU power management limit in watts")?,
            energy: gauge(
                "nv_energy_consumption",
                "GPU energy consumption in joules since the server started",
            )?,
            temperature: gauge("convoy_gpu_temperature_celsius", "GPU temperature in degrees Celsius")?,
            known: BTreeSet::new(),
            missing: BTreeMap::new(),
            energy_at_start: BTreeMap::new(),
        })
    }

    /// Reads every GPU. One that does not answer any more loses its series, and is told of once.
    pub(super) fn read(&mut self, gpus: &Gpus, health: &GpuHealth) {
        let count = gpus.0.device_count().unwrap_or(0);
        let mut seen = BTreeSet::new();
        for index in 0..count {
            let read = gpus.0.device_by_index(index).and_then(|device| {
                let uuid = device.uuid()?;
                self.set(&device, &uuid)?;
                Ok(uuid)
            });
            match read {
                Ok(uuid) => {
                    seen.insert(uuid);
                }
                Err(error) => tracing::debug!(index, %error, "A GPU does not answer"),
            }
        }
        for lost in self.known.difference(&seen) {
            tracing::error!(gpu_uuid = %lost, "A GPU does not answer its driver any more");
            for gauge in self.all() {
                let _ = gauge.remove_label_values(&[lost]);
            }
        }
        for found in seen.difference(&self.known) {
            tracing::info!(gpu_uuid = %found, "A GPU is watched");
            self.missing.insert(found.clone(), 0);
        }
        for (uuid, missing) in &mut self.missing {
            if seen.contains(uuid) {
                *missing = 0;
                health.answers(uuid);
                continue;
            }
            *missing = missing.saturating_add(1);
            if *missing >= LOST_AFTER {
                health.lost(uuid, "it does not answer its driver any more", false);
            }
        }
        self.known = seen;
    }

    fn set(&mut self, device: &Device<'_>, uuid: &str) -> Result<(), NvmlError> {
        let memory = device.memory_info()?;
        self.memory_total.with_label_values(&[uuid]).set(memory.total as f64);
        self.memory_used.with_label_values(&[uuid]).set(memory.used as f64);
        // The rest is not offered by every card and in every partition of one.
        let optional = |gauge: &GaugeVec, value: Result<f64, NvmlError>| {
            if let Ok(value) = value {
                gauge.with_label_values(&[uuid]).set(value);
            }
        };
        optional(&self.utilization, device.utilization_rates().map(|rates| f64::from(rates.gpu) / 100.0));
        // NVML counts milliwatts and millijoules.
        optional(&self.power_usage, device.power_usage().map(|milliwatts| f64::from(milliwatts) / 1e3));
        optional(
            &self.power_limit,
            device.enforced_power_limit().map(|milliwatts| f64::from(milliwatts) / 1e3),
        );
        // As Triton counts: since the server was started.
        let energy = device.total_energy_consumption().map(|millijoules| {
            let joules = millijoules as f64 / 1e3;
            joules - *self.energy_at_start.entry(uuid.to_owned()).or_insert(joules)
        });
        optional(&self.energy, energy);
        optional(&self.temperature, device.temperature(TemperatureSensor::Gpu).map(f64::from));
        Ok(())
    }

    fn all(&self) -> [&GaugeVec; 7] {
        [
            &self.utilization,
            &self.memory_total,
            &self.memory_used,
            &self.power_usage,
            &self.power_limit,
            &self.energy,
            &self.temperature,
        ]
    }
}
