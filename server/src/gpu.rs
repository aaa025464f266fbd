//! NVIDIA's GPUs as their driver tells of them through NVML: whether CUDA can use them, and their metrics.
//!
//! The driver's library is looked for when the server starts. On a machine without one, nothing here runs and nothing
//! is linked.
//!
//! **Architecture invariant:** only this module imports `nvml_wrapper`.

mod health;
mod monitor;
mod xid;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

pub use health::GpuHealth;
pub(crate) use monitor::GpuMonitor;

/// What a container has of the driver: the name without a version comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// The oldest driver on Linux that runs CUDA 13, by its release notes.
const OLDEST_DRIVER: u32 = 580;
/// The oldest compute capability (major, minor) that CUDA 13's libraries have code for: Turing.
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);

/// Why a GPU cannot be used; each is the middle of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GpuError {
    /// No library, or one that does not work.
    #[error("there is no NVIDIA driver here ({0})")]
    NoDriver(String),
    /// A driver that is too old.
    #[error("NVIDIA's driver {found} is too old for CUDA 13: it must be {OLDEST_DRIVER} or newer")]
    OldDriver {
        /// Its version.
        found: String,
    },
    /// A number beyond those there are.
    #[error("there is no GPU {number}: the driver knows {count}, numbered from 0")]
    NoSuchGpu {
        /// What was asked for.
        number: i32,
        /// How many there are.
        count: u32,
    },
    /// A GPU that is too old.
    #[error(
        "GPU {number}, {name}, has compute capability {}.{}, and CUDA 13 needs {}.{}",
        capability.0, capability.1, OLDEST_CAPABILITY.0, OLDEST_CAPABILITY.1
    )]
    OldGpu {
        /// Its number.
        number: i32,
        /// The card's name.
        name: String,
        /// Major and minor.
        capability: (i32, i32),
    },
    /// Numbers that CUDA and the driver may give to different GPUs, one of which is too old.
    #[error(
        "the GPUs here are of different kinds, and {name} has compute capability {}.{}, where CUDA 13 needs {}.{}: set \
         CUDA_DEVICE_ORDER=PCI_BUS_ID, so that GPU {number} is the same one for CUDA and for its driver",
        capability.0, capability.1, OLDEST_CAPABILITY.0, OLDEST_CAPABILITY.1
    )]
    Ambiguous {
        /// What was asked for.
        number: i32,
        /// The card that is too old.
        name: String,
        /// Its capability, major and minor.
        capability: (i32, i32),
    },
    /// A GPU that does not answer.
    #[error("GPU {number} does not answer its driver: {detail}")]
    Failed {
        /// Its number.
        number: i32,
        /// What NVML said.
        detail: String,
    },
}

/// A GPU that CUDA can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// Number, as CUDA and `instance_group { gpus }` count: from 0.
    pub number: i32,
    /// The card's name.
    pub name: String,
    /// Its identity, as the metrics' label `gpu_uuid` has it.
    pub uuid: String,
    /// Whether CUDA's GPU of this number surely is the one that is told of here: CUDA counts the fastest first unless
    /// `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`, the order of the driver.
    pub is_certain: bool,
    /// Version of the driver.
    pub driver: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

/// The driver's view of the machine's GPUs; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gpus(Arc<Nvml>);

impl Gpus {
    /// Opens the driver's library.
    ///
    /// # Errors
    /// [`GpuError::NoDriver`].
    pub(crate) fn open() -> Result<Self, GpuError> {
        Self::open_at(Path::new(LIBRARY))
    }

    fn open_at(library: &Path) -> Result<Self, GpuError> {
        let opened = Nvml::builder().lib_path(OsStr::new(library)).init();
        match opened {
            Ok(nvml) => Ok(Self(Arc::new(nvml))),
            Err(error) => Err(GpuError::NoDriver(one_line(&error))),
        }
    }

    /// What there is to know of GPU `number`, if CUDA 13 can use it.
    ///
    /// # Errors
    /// [`GpuError`], for a driver or a GPU that is too old, absent, or does not answer.
    pub(crate) fn usable(&self, number: i32) -> Result<GpuFacts, GpuError> {
        self.usable_with(number, &Surroundings::of_process())
    }

    fn usable_with(&self, number: i32, surroundings: &Surroundings) -> Result<GpuFacts, GpuError> {
        let failed = |error: NvmlError| GpuError::Failed { number, detail: one_line(&error) };
        let driver = self.0.sys_driver_version().map_err(failed)?;
        if major(&driver).is_none_or(|major| major < OLDEST_DRIVER) {
            return Err(GpuError::OldDriver { found: driver });
        }
        let count = self.0.device_count().map_err(failed)?;
        let index = u32::try_from(number).ok().filter(|index| *index < count);
        let (device, by_index) = match visible(surroundings.visible_devices.as_deref(), number) {
            Visible::As(_) if index.is_none() && surroundings.visible_devices.is_none() => {
                return Err(GpuError::NoSuchGpu { number, count });
            }
            Visible::As(index) if index >= count => return Err(GpuError::NoSuchGpu { number, count }),
            Visible::As(index) => (self.0.device_by_index(index).map_err(failed)?, true),
            Visible::Uuid(uuid) => (self.by_uuid(uuid, number, count)?, false),
            Visible::Hidden(count) => return Err(GpuError::NoSuchGpu { number, count }),
        };
        let capability = device.cuda_compute_capability().map_err(failed)?;
        let mut facts = GpuFacts {
            number,
            name: device.name().map_err(failed)?,
            uuid: device.uuid().map_err(failed)?,
            is_certain: true,
            driver,
            capability: (capability.major, capability.minor),
        };
        if by_index && !surroundings.in_bus_order {
            facts.is_certain = self.is_one_as_another(number, count, &facts)?;
        }
        if facts.capability < OLDEST_CAPABILITY {
            return Err(GpuError::OldGpu { number, name: facts.name, capability: facts.capability });
        }
        Ok(facts)
    }

    /// The GPU whose UUID begins so: as CUDA takes them, it may be cut short as long as only one is meant.
    fn by_uuid(&self, start: &str, number: i32, count: u32) -> Result<Device<'_>, GpuError> {
        let failed = |detail: String| GpuError::Failed { number, detail };
        if start.starts_with("MIG-") {
            return self.0.device_by_uuid(start).map_err(|error| failed(one_line(&error)));
        }
        let devices = (0..count).filter_map(|index| self.0.device_by_index(index).ok());
        let mut meant = devices.filter(|device| device.uuid().is_ok_and(|uuid| uuid.starts_with(start)));
        match (meant.next(), meant.next()) {
            (Some(device), None) => Ok(device),
            (None, _) => Err(failed(format!("CUDA_VISIBLE_DEVICES names {start}, and there is no such GPU"))),
            (Some(_), Some(_)) => {
                Err(failed(format!("CUDA_VISIBLE_DEVICES names {start}, which begins several UUIDs")))
            }
        }
    }

    /// Whether all GPUs are of one kind, so that it makes no difference in what order CUDA counts them but for their names.
    fn is_one_as_another(&self, number: i32, count: u32, facts: &GpuFacts) -> Result<bool, GpuError> {
        let mut same = true;
        for index in 0..count {
            let Ok(other) = self.0.device_by_index(index) else { continue };
            let (Ok(name), Ok(found)) = (other.name(), other.cuda_compute_capability()) else { continue };
            let capability = (found.major, found.minor);
            same &= name == facts.name;
            if name != facts.name && capability < OLDEST_CAPABILITY {
                return Err(GpuError::Ambiguous { number, name, capability });
            }
        }
        Ok(same)
    }
}

/// What of the process's environment decides how CUDA counts.
struct Surroundings {
    visible_devices: Option<String>,
    /// `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    in_bus_order: bool,
}

impl Surroundings {
    fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            visible_devices: variable("CUDA_VISIBLE_DEVICES"),
            in_bus_order: variable("CUDA_DEVICE_ORDER").as_deref() == Some("PCI_BUS_ID"),
        }
    }
}

/// Whether CUDA 13 can use GPU `number` of this machine.
///
/// # Errors
/// A reason, for the middle of a sentence.
pub fn usable(number: i32) -> Result<GpuFacts, String> {
    Gpus::open().and_then(|gpus| gpus.usable(number)).map_err(|error| error.to_string())
}

/// Where the driver has what CUDA calls GPU `number`.
#[derive(Debug, PartialEq, Eq)]
enum Visible<'a> {
    As(u32),
    Uuid(&'a str),
    /// Not at all; CUDA sees so many.
    Hidden(u32),
}

/// `CUDA_VISIBLE_DEVICES` is a list of indices or UUIDs that CUDA counts through, up to the first that is neither
/// (CUDA C++ Programming Guide, "Environment Variables").
fn visible(list: Option<&str>, number: i32) -> Visible<'_> {
    let Ok(number) = u32::try_from(number) else { return Visible::Hidden(0) };
    let Some(list) = list else { return Visible::As(number) };
    let valid =
        |entry: &&str| entry.starts_with("GPU-") || entry.starts_with("MIG-") || entry.parse::<u32>().is_ok();
    let entries: Vec<&str> = list.split(',').map(str::trim).take_while(valid).collect();
    match entries.get(number as usize) {
        None => Visible::Hidden(u32::try_from(entries.len()).unwrap_or(u32::MAX)),
        Some(entry) => entry.parse().map_or(Visible::Uuid(entry), Visible::As),
    }
}

/// `580.65.06` is 580.
fn major(driver: &str) -> Option<u32> {
    driver.split('.').next()?.trim().parse().ok()
}

fn one_line(error: &NvmlError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
