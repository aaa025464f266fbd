#![allow(clippy::unwrap_used)]

use super::*;
use prometheus::{Encoder as _, Registry, TextEncoder};
use std::process::Command;
use tempfile::TempDir;

/// A driver's library with two GPUs of this driver's version and compute capability (7.5 is 75).
fn driver(version: &str, capability: u32) -> (TempDir, Result<Gpus, GpuError>) {
    driver_with(version, capability, &[])
}

/// As [`driver`], with these definitions besides.
fn driver_with(version: &str, capability: u32, defined: &[&str]) -> (TempDir, Result<Gpus, GpuError>) {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(format!("-DFAKE_DRIVER=\"{version}\""))
        .arg(format!("-DFAKE_CAPABILITY={capability}"))
        .args(defined)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/gpu/nvml_stub.c"))
        .status()
        .unwrap();
    assert!(compiled.success());
    let gpus = Gpus::open_at(&library);
    (folder, gpus)
}

#[test]
fn a_machine_without_a_driver_says_so() {
    let error = Gpus::open_at(Path::new("/no/such/libnvidia-ml.so.1")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, GpuError::NoDriver(_)), "{text}");
    assert!(text.starts_with("there is no NVIDIA driver here (") && !text.contains('\n'), "{text}");
}

#[test]
fn a_gpu_is_usable_when_it_and_its_driver_are_new_enough() {
    let (_folder, gpus) = driver("580.65.06", 90);
    let gpus = gpus.unwrap();
    let facts = gpus.usable(0).unwrap();
    assert_eq!(
        (facts.name.as_str(), facts.uuid.as_str(), facts.capability),
        ("Test GPU", "GPU-first", (9, 0))
    );
    assert_eq!(gpus.usable(2).unwrap_err(), GpuError::NoSuchGpu { number: 2, count: 2 });

    let (_folder, gpus) = driver("575.51.03", 90);
    assert_eq!(gpus.unwrap().usable(0).unwrap_err(), GpuError::OldDriver { found: "575.51.03".to_owned() });

    let (_folder, gpus) = driver("590.1", 70);
    let text = gpus.unwrap().usable(0).unwrap_err().to_string();
    assert_eq!(text, "GPU 0, Test GPU, has compute capability 7.0, and CUDA 13 needs 7.5");
}

#[test]
fn metrics_have_tritons_units_and_end_with_their_gpu() {
    let (_folder, gpus) = driver("580.65.06", 90);
    let registry = Registry::new();
    let mut gauges = monitor::Gauges::register(&registry).unwrap();
    let gpus = gpus.unwrap();
    let render = || {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let health = GpuHealth::default();
    gauges.read(&gpus, &health);
    let text = render();
    for line in [
        "nv_gpu_utilization{gpu_uuid=\"GPU-first\"} 0.25",
        "nv_gpu_memory_total_bytes{gpu_uuid=\"GPU-first\"} 80000000000",
        "nv_gpu_memory_used_bytes{gpu_uuid=\"GPU-second\"} 2000000000",
        "nv_gpu_power_usage{gpu_uuid=\"GPU-first\"} 123.5",
        "nv_gpu_power_limit{gpu_uuid=\"GPU-first\"} 700",
        "nv_energy_consumption{gpu_uuid=\"GPU-first\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("convoy_gpu_temperature_celsius{"), "the card offers none:\n{text}");

    // The second one is gone: its series at once, and it counts as lost when it misses the next reading, too.
    gauges.read(&gpus, &health);
    let text = render();
    assert!(text.contains("GPU-first") && !text.contains("GPU-second"), "{text}");
    // Both cards' readings of before count: it is one counter in the test's library.
    assert!(text.contains("nv_energy_consumption{gpu_uuid=\"GPU-first\"} 3\n"), "{text}");
    assert_eq!(health.check("GPU-second"), Ok(()));
    gauges.read(&gpus, &health);
    assert!(health.check("GPU-second").unwrap_err().contains("does not answer its driver"));
    assert_eq!(health.check("GPU-first"), Ok(()));
}

#[test]
fn the_monitor_reads_before_it_returns_and_ends_when_dropped() {
    let (_folder, gpus) = driver("580.65.06", 90);
    let registry = Registry::new();
    let monitor = GpuMonitor::start(gpus.unwrap(), &registry, GpuHealth::default()).unwrap();
    assert!(registry.gather().iter().any(|family| family.name() == "nv_gpu_memory_total_bytes"));
    drop(monitor);
}

#[test]
fn cuda_counts_through_the_visible_devices() {
    assert_eq!(visible(None, 1), Visible::As(1));
    assert_eq!(visible(Some("3,GPU-abc"), 0), Visible::As(3));
    assert_eq!(visible(Some("3, GPU-abc"), 1), Visible::Uuid("GPU-abc"));
    assert_eq!(visible(Some("3,GPU-abc"), 2), Visible::Hidden(2));
    // What follows an entry that is none is not seen.
    assert_eq!(visible(Some("0,-1,1"), 1), Visible::Hidden(1));
    assert_eq!(visible(Some(""), 0), Visible::Hidden(0));
    assert_eq!(visible(None, -1), Visible::Hidden(0));
}

#[test]
fn an_xid_after_which_nothing_runs_takes_the_gpu_out_until_it_is_reset() {
    for (xid, is_fatal) in [(79, true), (31, false)] {
        let (_folder, gpus) = driver_with("580.65.06", 90, &[&format!("-DFAKE_XID={xid}")]);
        let (gpus, health) = (gpus.unwrap(), GpuHealth::default());
        xid::XidEvents::of_all(&gpus.0).read(&health);
        assert_eq!(health.check("GPU-first").is_err(), is_fatal, "Xid {xid}");
        health.answers("GPU-first");
        assert_eq!(health.check("GPU-first").is_err(), is_fatal, "its driver answers for it all the same");
        assert_eq!(health.check("GPU-second"), Ok(()));
    }
}

#[test]
fn gpus_are_found_as_cuda_counts_them() {
    let around = |visible: Option<&str>, in_bus_order| Surroundings {
        visible_devices: visible.map(str::to_owned),
        in_bus_order,
    };
    let (_folder, gpus) = driver("580.65.06", 90);
    let gpus = gpus.unwrap();
    let uuid =
        |visible: Option<&str>, number| gpus.usable_with(number, &around(visible, false)).map(|gpu| gpu.uuid);
    assert_eq!(uuid(None, 1).unwrap(), "GPU-second");
    assert_eq!(uuid(Some("1,0"), 0).unwrap(), "GPU-second");
    // Cut short, as long as only one is meant.
    assert_eq!(uuid(Some("GPU-s"), 0).unwrap(), "GPU-second");
    assert!(uuid(Some("GPU-"), 0).unwrap_err().to_string().contains("begins several UUIDs"));
    assert!(uuid(Some("GPU-x"), 0).unwrap_err().to_string().contains("no such GPU"));
    assert_eq!(uuid(Some("1"), 1).unwrap_err(), GpuError::NoSuchGpu { number: 1, count: 1 });
    assert_eq!(uuid(Some("7"), 0).unwrap_err(), GpuError::NoSuchGpu { number: 0, count: 2 });
    assert!(gpus.usable_with(0, &around(None, false)).unwrap().is_certain, "one is as the other");
}

#[test]
fn gpus_of_different_kinds_must_be_counted_as_their_driver_does() {
    let around = |visible: Option<&str>, in_bus_order| Surroundings {
        visible_devices: visible.map(str::to_owned),
        in_bus_order,
    };
    let (_folder, gpus) = driver_with("580.65.06", 90, &["-DFAKE_SECOND=80"]);
    let gpus = gpus.unwrap();
    let certain = |visible, bus| gpus.usable_with(0, &around(visible, bus)).unwrap().is_certain;
    assert_eq!(
        [certain(None, false), certain(None, true), certain(Some("GPU-first"), false)],
        [false, true, true]
    );

    let (_folder, gpus) = driver_with("580.65.06", 90, &["-DFAKE_SECOND=61"]);
    let gpus = gpus.unwrap();
    let text = gpus.usable_with(0, &around(None, false)).unwrap_err().to_string();
    assert!(
        text.contains("Old GPU has compute capability 6.1") && text.contains("CUDA_DEVICE_ORDER"),
        "{text}"
    );
    assert!(gpus.usable_with(0, &around(None, true)).unwrap().is_certain);
}

#[test]
fn a_driver_that_hangs_does_not_keep_the_server_from_stopping() {
    let (_folder, gpus) = driver_with("580.65.06", 90, &["-DFAKE_HANG"]);
    let registry = Registry::new();
    let monitor = GpuMonitor::start(gpus.unwrap(), &registry, GpuHealth::default()).unwrap();
    // Joining its thread would never end.
    drop(monitor);
}
