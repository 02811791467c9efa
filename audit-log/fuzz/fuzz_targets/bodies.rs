#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| provost_audit_fuzz::targets::bodies(data));
