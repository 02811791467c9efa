#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| provost_data_fuzz::targets::quic_stream(data));
