//! Example databases made from a script.

use std::path::{Path, PathBuf};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use super::SqlError;

/// Makes the SQLite file `path` from `script` unless it is there already, and says whether it did.
/// Missing folders are made.
///
/// The script runs on a file beside `path`, which then takes its name: a crash in between leaves
/// no half-made database under `path`, and the next start makes it anew.
pub async fn create_sqlite_from_script(path: &Path, script: &str) -> Result<bool, SqlError> {
    if path.exists() {
        return Ok(false);
    }
    let making = |e: std::io::Error| SqlError::Connect(format!("{} cannot be made: {e}", path.display()));
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(making)?;
    }
    let draft = draft_path(path);
    match tokio::fs::remove_file(&draft).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(making(e)),
        _ => {}
    }
    run(&draft, script).await?;
    tokio::fs::rename(&draft, path).await.map_err(making)?;
    Ok(true)
}

fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

async fn run(path: &Path, script: &str) -> Result<(), SqlError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .disable_statement_logging();
    let explain = |e: sqlx::Error| SqlError::from_driver(&e);
    let mut connection = options.connect().await.map_err(explain)?;
    sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut connection).await.map_err(explain)?;
    connection.close().await.map_err(explain)
}
