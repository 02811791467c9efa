//! The settings of the plugin, checked.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use sqlx::{ConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use super::SqlError;

/// Rows of an answer if `maxRows` is not given.
const DEFAULT_MAX_ROWS: usize = 1_000;
/// The most that `maxRows` may be.
const LIMIT_MAX_ROWS: usize = 100_000;
/// Time of a query if `timeoutMs` is not given.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;
/// The most that `timeoutMs` may be.
const LIMIT_TIMEOUT_MS: u64 = 600_000;

/// Which database, and how to reach it.
#[derive(Clone)]
pub(super) enum Target {
    Sqlite(SqliteConnectOptions),
    Postgres(PgConnectOptions),
}

/// The plugin's settings.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) target: Target,
    /// Rows of an answer; more are cut off and `truncated` says so.
    pub(super) max_rows: usize,
    pub(super) timeout: Duration,
}

impl Config {
    /// Reads `url`, `maxRows` and `timeoutMs`; any other key is an error.
    pub(super) fn read(config: &BTreeMap<String, String>) -> Result<Self, SqlError> {
        if let Some(key) = config.keys().find(|k| !matches!(k.as_str(), "url" | "maxRows" | "timeoutMs")) {
            let message = format!("`{key}` is not a setting; there are url, maxRows and timeoutMs");
            return Err(SqlError::Config(message));
        }
        let url = config
            .get("url")
            .ok_or_else(|| SqlError::Config("`url` is missing: sqlite:PATH or postgres://HOST/DATABASE".to_owned()))?;
        let max_rows = number(config, "maxRows", DEFAULT_MAX_ROWS as u64, LIMIT_MAX_ROWS as u64)?;
        let timeout_ms = number(config, "timeoutMs", DEFAULT_TIMEOUT_MS, LIMIT_TIMEOUT_MS)?;
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Self { target: target(url, timeout)?, max_rows: max_rows as usize, timeout })
    }
}

fn number(config: &BTreeMap<String, String>, key: &str, default: u64, limit: u64) -> Result<u64, SqlError> {
    let Some(text) = config.get(key) else { return Ok(default) };
    match text.parse() {
        Ok(n) if (1..=limit).contains(&n) => Ok(n),
        _ => Err(SqlError::Config(format!("`{key}: {text}` is not a number from 1 to {limit}"))),
    }
}

fn target(url: &str, timeout: Duration) -> Result<Target, SqlError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Target::Sqlite(sqlite(path.strip_prefix("//").unwrap_or(path), timeout)?));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        // The parser's error may quote the URL, password and all: it is not passed on.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| SqlError::Config("`url` is not a PostgreSQL URL".to_owned()))?;
        return Ok(Target::Postgres(postgres(options, timeout)));
    }
    let message = "`url` must begin with sqlite: or postgres://".to_owned();
    Err(SqlError::Config(message))
}

fn sqlite(path: &str, timeout: Duration) -> Result<SqliteConnectOptions, SqlError> {
    if path.is_empty() || path.contains(":memory:") || path.contains('?') {
        let message = "`url` must name a database file: sqlite:PATH".to_owned();
        return Err(SqlError::Config(message));
    }
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(timeout)
        .pragma("query_only", "ON")
        .pragma("trusted_schema", "OFF")
        .statement_cache_capacity(0)
        .disable_statement_logging())
}

fn postgres(options: PgConnectOptions, timeout: Duration) -> PgConnectOptions {
    let ms = timeout.as_millis();
    options
        .application_name("provost")
        .statement_cache_capacity(0)
        .options([
            ("default_transaction_read_only", "on".to_owned()),
            ("statement_timeout", format!("{ms}ms")),
            ("lock_timeout", format!("{ms}ms")),
            ("idle_in_transaction_session_timeout", format!("{ms}ms")),
            ("standard_conforming_strings", "on".to_owned()),
        ])
        .disable_statement_logging()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<(usize, Duration), SqlError> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::read(&map).map(|c| (c.max_rows, c.timeout))
    }

    #[test]
    fn settings_are_checked() {
        assert_eq!(read(&[("url", "sqlite:a.db")]), Ok((DEFAULT_MAX_ROWS, Duration::from_millis(DEFAULT_TIMEOUT_MS))));
        assert_eq!(
            read(&[("url", "postgres://u:secret@h/d"), ("maxRows", "5"), ("timeoutMs", "7")]),
            Ok((5, Duration::from_millis(7)))
        );
        for bad in [
            &[][..],
            &[("url", "mysql://h/d")],
            &[("url", "sqlite:")],
            &[("url", "sqlite::memory:")],
            &[("url", "sqlite:a?mode=rwc")],
            &[("url", "postgres://u:secret@h:port/d")],
            &[("url", "sqlite:a"), ("maxRows", "0")],
            &[("url", "sqlite:a"), ("timeoutMs", "x")],
            &[("url", "sqlite:a"), ("maxrows", "1")],
        ] {
            match read(bad) {
                Err(error) => {
                    assert_eq!(error.code(), "PV-SQL-CONFIG", "{bad:?}");
                    assert!(!error.to_string().contains("secret"), "{error}");
                }
                Ok(_) => panic!("{bad:?} was taken"),
            }
        }
    }
}
