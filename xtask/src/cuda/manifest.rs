//! candle-core's manifest, changed so that one binary starts with and without CUDA's libraries.
//!
//! As it is published, its feature `cuda` has cudarc link the driver: such a binary does not start where there is no
//! `libcuda.so.1`. cudarc can also look for the libraries when they are first used; whether it does is said by features of cudarc
//! that candle-core sets, and only its own manifest can unset one.

use anyhow::{Result, bail};

/// The feature that candle-core sets.
const LINKED: &str = "\"dynamic-linking\"";
/// What is set in its place.
const LOADED: &str = "\"fallback-dynamic-loading\"";

/// candle-core's manifest with cudarc's libraries loaded when they are used.
///
/// # Errors
/// When the feature is not there exactly once: another version of candle-core, which wants another look.
pub(super) fn patched(manifest: &str) -> Result<String> {
    match manifest.matches(LINKED).count() {
        1 => Ok(manifest.replace(LINKED, LOADED)),
        found => bail!(
            "candle-core's manifest has {LINKED} {found} times, not once: look at what its feature `cuda` does now"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_feature_of_cudarc_is_another_and_the_rest_stays() {
        let manifest =
            "[dependencies.cudarc]\nfeatures = [\n    \"driver\",\n    \"dynamic-linking\",\n]\noptional = true\n";
        let expected = "[dependencies.cudarc]\nfeatures = [\n    \"driver\",\n    \"fallback-dynamic-loading\",\n]\noptional = true\n";
        assert_eq!(patched(manifest).ok().as_deref(), Some(expected));
    }

    #[test]
    fn a_manifest_that_is_not_known_is_refused() {
        assert!(patched("[dependencies.cudarc]\n").is_err());
        assert!(patched("\"dynamic-linking\", \"dynamic-linking\"").is_err());
    }
}
