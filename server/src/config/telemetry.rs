//! `[telemetry]` and `[log]`: what a process tells of itself.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `[telemetry]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryFile {
    /// An OpenTelemetry receiver that takes OTLP over HTTP: `http://collector:4318`. Default: calls are not traced.
    pub otlp: Option<String>,
    /// The share of the calls that is traced where their clients do not say, from 0 to 1. Default 1. Less where there are
    /// many calls: a traced one is about two kilobytes to the receiver.
    pub ratio: Option<f64>,
    /// A PEM file to trust instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// A file with the value of the `Authorization` header; read again for each batch.
    pub authorization_file: Option<PathBuf>,
}

/// `[log]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFile {
    /// `text` (default) or `json`: one object a line, with the ids of the call and its trace.
    pub format: Option<LogFormat>,
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Traces, complete and checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TelemetryConfig {
    /// The receiver; `None`: calls are not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// From 0 to 1.
    pub ratio: f64,
    /// A PEM file to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A file with the value of the `Authorization` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
}

/// The receiver, from the environment.
const OTLP_VARIABLE: &str = "PROVOST_OTLP";
/// The share, from the environment.
const RATIO_VARIABLE: &str = "PROVOST_OTLP_RATIO";

/// Reads the environment over the file.
pub fn with_environment(
    file: &mut TelemetryFile,
    get: impl Fn(&str) -> Option<String>,
    say: &mut impl FnMut(&'static str, String),
) {
    if let Some(address) = get(OTLP_VARIABLE) {
        file.otlp = Some(address).filter(|address| !address.is_empty());
    }
    if let Some(text) = get(RATIO_VARIABLE) {
        match text.parse() {
            Ok(share) => file.ratio = Some(share),
            Err(_) => say("telemetry.ratio", format!("{RATIO_VARIABLE}=`{text}` is no number")),
        }
    }
}

/// Checks the section.
pub fn check(file: TelemetryFile, say: &mut impl FnMut(&'static str, String)) -> TelemetryConfig {
    let TelemetryFile { otlp, ratio, ca, authorization_file } = file;
    if let Some(address) = &otlp {
        // The address is not repeated: it may hold what must not be in a log.
        let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
        match rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default()) {
            None => say("telemetry.otlp", "is not an address of OTLP over HTTP: write http://HOST:4318".to_owned()),
            Some(authority) if authority.contains('@') => {
                let text = "holds a user name or a token: write it to a file, and that into `authorization_file`";
                say("telemetry.otlp", text.to_owned());
            }
            Some(_) => {}
        }
    }
    let ratio = ratio.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&ratio) {
        say("telemetry.ratio", format!("is {ratio}: write a share between 0 and 1"));
    }
    TelemetryConfig { otlp, ratio, ca, authorization_file }
}

/// What a node that has no file, such as `provost dev`, is told by its environment.
pub fn of_environment() -> Result<TelemetryConfig, super::check::ConfigProblem> {
    let (mut file, mut problem) = (TelemetryFile::default(), None);
    let mut say = |key, message| problem = Some(super::check::ConfigProblem { key, message });
    with_environment(&mut file, |name| std::env::var(name).ok(), &mut say);
    let config = check(file, &mut say);
    problem.map_or(Ok(config), Err)
}

/// The format of the log that a configuration file names, read before the rest of it is: what is wrong with the file is
/// said when it is checked.
pub fn log_format(path: &Path) -> LogFormat {
    let read = || {
        let file: toml::Table = toml::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        file.get("log")?.get("format")?.as_str().map(str::to_owned)
    };
    if read().as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<TelemetryConfig, Vec<&'static str>> {
        let mut file: TelemetryFile = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let mut say = |key, _: String| problems.push(key);
        let get = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        with_environment(&mut file, get, &mut say);
        let config = check(file, &mut say);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    #[test]
    fn calls_are_traced_where_a_receiver_is_named() {
        assert_eq!(read("", &[]).unwrap().otlp, None);
        let config = read("otlp = 'http://c:4318'\nratio = 0.25\n", &[]).unwrap();
        assert_eq!((config.otlp.as_deref(), config.ratio), (Some("http://c:4318"), 0.25));
        let told = [("PROVOST_OTLP", "http://d:4318"), ("PROVOST_OTLP_RATIO", "1")];
        let config = read("otlp = 'http://c:4318'\nratio = 0.25\n", &told).unwrap();
        assert_eq!((config.otlp.as_deref(), config.ratio), (Some("http://d:4318"), 1.0));
        assert_eq!(read("otlp = 'http://c:4318'\n", &[("PROVOST_OTLP", "")]).unwrap().otlp, None);
        assert_eq!(read("otlp = 'c:4317'\nratio = 2\n", &[]).unwrap_err(), ["telemetry.otlp", "telemetry.ratio"]);
        assert_eq!(read("otlp = 'https://me:secret@c:4318/x'\n", &[]).unwrap_err(), ["telemetry.otlp"]);
        assert!(read("otlp = 'https://c:4318/a@b'\n", &[]).is_ok());
        assert_eq!(read("", &[("PROVOST_OTLP_RATIO", "all")]).unwrap_err(), ["telemetry.ratio"]);
        assert!(toml::from_str::<TelemetryFile>("url = 'x'\n").is_err());
    }

    #[test]
    fn the_format_of_the_log_is_known_before_the_rest_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("provost.toml");
        for (text, expect) in [
            ("[log]\nformat = 'json'\n[unknown]\n", LogFormat::Json),
            ("[log]\nformat = 'text'\n", LogFormat::Text),
            ("[log]\nformat = 3\n", LogFormat::Text),
            ("this is no TOML", LogFormat::Text),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(log_format(&path), expect, "{text}");
        }
        assert_eq!(log_format(&dir.path().join("none")), LogFormat::Text);
        assert!(toml::from_str::<LogFile>("format = 'xml'\n").is_err());
    }
}
