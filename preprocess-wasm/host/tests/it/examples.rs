//! The examples of components that models may carry are built, as `docs/preprocessing.md` says, and work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use bytes::Bytes;
use sandbox::{Color, Fit, Resize, Sandbox, SandboxConfig, SandboxError};

use crate::fixtures::{photo, stretch};
use crate::hostile::{WIT, component_of, file};
use crate::toolchain::{Toolchain, componentize};

/// The component of `preprocess-wasm/examples/netpbm`, built once.
fn netpbm() -> Sandbox {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/netpbm");
        // Beside the guest's, so that the standard library is there already.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("guest");
        let module =
            Toolchain::choose().unwrap().compile(&folder, "netpbm_preprocess.wasm", &target).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("netpbm.component.wasm");
        std::fs::write(&path, componentize(&module).unwrap()).unwrap();
        path
    });
    sandbox_of(path)
}

/// The component of `preprocess-wasm/examples/netpbm-c`, if there is a compiler for it.
#[allow(clippy::print_stderr)] // Who reads the output of tests must see what was not tested.
fn netpbm_in_c() -> Option<Sandbox> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let module = Path::new(env!("CARGO_TARGET_TMPDIR")).join("netpbm-c.wasm");
    let output = Command::new(repository.join("scripts/compile-c-module.sh"))
        .args([&repository.join("preprocess-wasm/examples/netpbm-c/netpbm.c"), &module])
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(69) {
        eprintln!("preprocess-wasm/examples/netpbm-c: NOT TESTED. {messages}");
        return None;
    }
    assert!(output.status.success() && messages.is_empty(), "{messages}");
    let (_folder, path) = file(&component_of(WIT, &std::fs::read(module).unwrap()));
    Some(sandbox_of(&path))
}

fn sandbox_of(path: &Path) -> Sandbox {
    let config = SandboxConfig { component: Some(path.to_owned()), workers: 1, ..SandboxConfig::default() };
    Sandbox::new(config).unwrap()
}

#[tokio::test]
async fn the_example_reads_what_the_embedded_component_does_not() {
    reads_netpbm(netpbm()).await;
}

#[tokio::test]
async fn the_example_refuses_with_the_verdicts_of_the_interface() {
    refuses_with_verdicts(netpbm()).await;
}

#[tokio::test]
async fn the_example_in_c_does_the_same() {
    if let Some(netpbm) = netpbm_in_c() {
        reads_netpbm(netpbm.clone()).await;
        refuses_with_verdicts(netpbm).await;
    }
}

async fn reads_netpbm(netpbm: Sandbox) {
    let image = Bytes::from_static(b"P6 # two by one\n2 1\n255\n\xff\x00\x00\x00\x00\xff");
    let tensor = netpbm.tensor(image.clone(), stretch(4, 1), None).await.unwrap();
    assert_eq!(tensor.pixels, [255, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 255]);
    assert_eq!((tensor.source.width, tensor.source.height, tensor.source.format.as_str()), (2, 1, "PPM"));
    assert_eq!((tensor.features.min_pixel, tensor.features.max_pixel), (0, 255));
    let bgr = Resize { color: Color::Bgr, ..stretch(2, 1) };
    assert_eq!(netpbm.tensor(image, bgr, None).await.unwrap().pixels, [0, 0, 255, 255, 0, 0]);
    let grey = netpbm.tensor(Bytes::from_static(b"P5 1 2 255 \x10\x20"), stretch(1, 2), None).await.unwrap();
    assert_eq!(grey.pixels, [16, 16, 16, 32, 32, 32]);
}

async fn refuses_with_verdicts(netpbm: Sandbox) {
    type IsExpected = fn(&SandboxError) -> bool;
    let cases: [(Bytes, IsExpected); 6] = [
        (photo(), |e| *e == SandboxError::NotAnImage),
        (Bytes::from_static(b"P3 1 1 255 1 2 3"), |e| matches!(e, SandboxError::UnsupportedFormat { .. })),
        (Bytes::from_static(b"P6 2 2 255 \0"), |e| matches!(e, SandboxError::Truncated { .. })),
        (Bytes::from_static(b"P6 0 2 255 "), |e| matches!(e, SandboxError::Corrupt { .. })),
        (Bytes::from_static(b"P6 99999999999 2 255 "), |e| matches!(e, SandboxError::Corrupt { .. })),
        (Bytes::from_static(b"P6 60000 60000 255 "), |e| matches!(e, SandboxError::TooManyPixels { .. })),
    ];
    for (image, is_expected) in cases {
        let error = netpbm.tensor(image.clone(), stretch(2, 2), None).await.unwrap_err();
        assert!(is_expected(&error), "{:?}: {error:?}", &image[..8]);
    }
    let cropped = Resize { fit: Fit::Crop, ..stretch(1, 1) };
    let error = netpbm.tensor(Bytes::from_static(b"P5 1 1 255 \x10"), cropped, None).await.unwrap_err();
    assert!(matches!(error, SandboxError::InvalidOptions { .. }), "{error:?}");
}
