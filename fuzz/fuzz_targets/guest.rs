//! libFuzzer's way to `convoy_fuzz::guest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| convoy_fuzz::guest(data));
