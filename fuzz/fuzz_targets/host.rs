//! libFuzzer's way to `convoy_fuzz::host`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| convoy_fuzz::host(data));
