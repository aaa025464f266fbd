//! The host, between a guest that answers anything and the services.

use std::sync::OnceLock;

use bytes::Bytes;
use sandbox::{Color, Decode, Filter, Fit, Resize, Sandbox, SandboxConfig, SandboxError};
use tokio::runtime::{Builder, Runtime};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A sandbox around the guest that answers what it is sent: `preprocess-wasm/host/tests/it/mirror.wat`.
fn mirror() -> &'static (Runtime, Sandbox) {
    static MIRROR: OnceLock<(Runtime, Sandbox)> = OnceLock::new();
    MIRROR.get_or_init(|| {
        let mut resolve = Resolve::default();
        let wit = include_str!("../../preprocess-wasm/wit/preprocess.wit");
        let package = resolve.push_str("preprocess.wit", wit).expect("the interface is valid");
        let world = resolve.select_world(&[package], Some("preprocessor")).expect("it has this world");
        let wat = include_str!("../../preprocess-wasm/host/tests/it/mirror.wat");
        let mut module = wat::parse_str(wat).expect("it is valid");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("it fits");
        let component = ComponentEncoder::default().module(&module).and_then(|mut encoder| encoder.encode());
        let folder = tempfile::tempdir().expect("there is a folder for it");
        let path = folder.path().join("mirror.wasm");
        std::fs::write(&path, component.expect("it becomes a component")).expect("it can be written");
        let config = SandboxConfig { component: Some(path), workers: 1, ..SandboxConfig::default() };
        let sandbox = Sandbox::new(config).expect("it can be used");
        (Builder::new_current_thread().enable_time().build().expect("a runtime starts"), sandbox)
    })
}

/// The host makes a result or a verdict of any answer of a guest, and never panics, hands out pixels of a wrong length or
/// numbers that are none.
pub fn host(data: &[u8]) {
    let (runtime, sandbox) = mirror();
    let resize = Resize {
        width: 2,
        height: 2,
        fit: Fit::Stretch,
        filter: Filter::Nearest,
        color: Color::Rgb,
        decode: Decode::Auto,
    };
    let image = Bytes::copy_from_slice(data);
    runtime.block_on(async {
        match sandbox.tensor(image.clone(), resize, None).await {
            Ok(tensor) => {
                assert_eq!(tensor.pixels.len(), 12);
                assert!(tensor.features.mean_brightness.is_finite());
                let placement = tensor.placement;
                let edges = [placement.x_min, placement.y_min, placement.x_max, placement.y_max];
                assert!(edges.iter().all(|edge| edge.is_finite()), "{edges:?}");
                assert!(tensor.source.width > 0 && tensor.source.height > 0);
            }
            Err(error) => check(&error),
        }
        match sandbox.preprocess(image, resize, None).await {
            Ok(preprocessed) => assert!(preprocessed.features.std_brightness.is_finite()),
            Err(error) => check(&error),
        }
    });
}

/// Fails for what no guest can bring about: a thread that panicked, or one that is not there.
fn check(error: &SandboxError) {
    match error {
        SandboxError::Busy { .. } | SandboxError::Stopped | SandboxError::DeadlineExceeded => {
            panic!("that is nothing that a guest says: {error:?}")
        }
        SandboxError::Component { detail } => assert!(!detail.contains("thread"), "{error:?}"),
        _ => {}
    }
}
