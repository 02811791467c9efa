//! The rules that models keep.

use provost_types::{ModelFiles, ModelSpec};

use crate::fields::Check;

/// Longest description, path and element type, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 1024;
const MAX_PATH_BYTES: usize = 4096;
const MAX_DTYPE_BYTES: usize = 16;
/// The highest price of a million tokens: a million units of the currency.
const MAX_PRICE_MICRO: u64 = 1_000_000_000_000;

/// Checks one model by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &ModelSpec) {
    let bytes = spec.description.len();
    check.require(bytes <= MAX_DESCRIPTION_BYTES, "spec.description", || {
        format!("has {bytes} bytes; at most {MAX_DESCRIPTION_BYTES}")
    });
    if let ModelFiles::Path(path) = &spec.source {
        check.require(path.len() <= MAX_PATH_BYTES && !path.contains('\0'), "spec.source.path", || {
            format!("is no path: it has a NUL character or more than {MAX_PATH_BYTES} bytes")
        });
        check.require(path.starts_with('/'), "spec.source.path", || {
            format!("`{path}` begins nowhere: write the absolute path that the files have on every node")
        });
        let climbs = path.split('/').any(|part| part == "..");
        check.require(!climbs, "spec.source.path", || format!("`{path}`: write the path without `..`"));
    }
    if let Some(dtype) = &spec.dtype {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let good = (1..=MAX_DTYPE_BYTES).contains(&dtype.len()) && dtype.bytes().all(plain);
        check.require(good, "spec.dtype", || {
            format!("`{dtype}` is no element type: write it as f32, bf16, q4_0 or q6k")
        });
    }
    let prices = spec.prices.unwrap_or_default();
    for (field, price) in [
        ("spec.prices.perMillionInputTokensMicro", prices.per_million_input_tokens_micro),
        ("spec.prices.perMillionOutputTokensMicro", prices.per_million_output_tokens_micro),
    ] {
        check.require(price <= MAX_PRICE_MICRO, field, || {
            format!("{price} is more than {MAX_PRICE_MICRO}: prices are in millionths of the currency")
        });
    }
}
