//! The component that is embedded in the binary, and its interface.

/// The component as the build script made it of `preprocess-wasm/guest`.
pub(crate) static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preprocess.component.wasm"));

/// The bytes of the embedded preprocessing component, for whoever wants to inspect what runs.
pub fn component_bytes() -> &'static [u8] {
    EMBEDDED
}

#[allow(missing_docs, unreachable_pub)] // Generated from the WIT, where the documentation is.
pub(crate) mod bindings {
    wasmtime::component::bindgen!({ path: "../wit", world: "preprocessor" });
}

pub(crate) use bindings::exports::convoy::preprocess::images as wit;
