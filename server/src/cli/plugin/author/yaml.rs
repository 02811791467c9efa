//! YAML that authors write, into types; what is wrong is named with its line.

use serde::de::DeserializeOwned;

/// The value, or what is wrong with the text and where.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let said = error.without_snippet().to_string();
        let said = said.lines().next().unwrap_or("it is not YAML");
        match error.location() {
            Some(place) if !said.contains("line ") => {
                format!("line {}, column {}: {said}", place.line(), place.column())
            }
            _ => said.to_owned(),
        }
    })
}
