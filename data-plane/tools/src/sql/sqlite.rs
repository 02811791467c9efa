//! Queries on a SQLite file.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Column as _, Decode, Either, Executor as _, Row as _, SqlSafeStr as _, Sqlite, SqlitePool,
    Statement as _, TypeInfo as _, ValueRef as _,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow, SqliteValueRef},
};

use super::{
    SqlError,
    arguments::{Param, wrong_count},
    result::{Rows, blob, float, integer, tool_result},
};

/// Connections of one plugin: queries that run at once.
const MAX_CONNECTIONS: u32 = 4;
/// Virtual machine steps between two looks at the clock: well under a millisecond.
const STEPS_PER_CHECK: i32 = 1_000;
/// SQLite's result code when the progress handler says stop.
const SQLITE_INTERRUPT: &str = "9";
/// Memory of all SQLite connections of the process: a query cannot take the node's.
const HEAP_LIMIT_BYTES: &str = "268435456";

/// A pool of read-only connections.
#[derive(Clone)]
pub(super) struct SqliteSource {
    pool: SqlitePool,
    file: Arc<Path>,
    timeout: Duration,
    max_rows: usize,
}

/// Stops the query when the caller goes away.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SqliteSource {
    /// Connects on first use. Call it within a tokio runtime.
    pub(super) fn new(options: SqliteConnectOptions, timeout: Duration, max_rows: usize) -> Self {
        let options = options.pragma("hard_heap_limit", HEAP_LIMIT_BYTES);
        let file = Arc::from(options.get_filename());
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(timeout)
            .connect_lazy_with(options);
        Self { pool, file, timeout, max_rows }
    }

    /// Runs one analysed query.
    pub(super) async fn query(&self, sql: &str, params: &[Param]) -> Result<Rows, SqlError> {
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(stop.clone());
        let mut connection = self.connect(stop).await?;
        self.rows(&mut connection, sql, params).await.map_err(|e| self.explain(e))
    }

    /// A connection whose queries end at the time limit, or when `stop` is set.
    async fn connect(&self, stop: Arc<AtomicBool>) -> Result<PoolConnection<Sqlite>, SqlError> {
        let deadline = Instant::now() + self.timeout;
        let mut connection = self.pool.acquire().await.map_err(|e| self.cannot_open(&e))?;
        let keep_on = move || !stop.load(Ordering::Relaxed) && Instant::now() < deadline;
        let mut handle = connection.lock_handle().await.map_err(|e| SqlError::from_driver(&e))?;
        handle.set_progress_handler(STEPS_PER_CHECK, keep_on);
        drop(handle);
        Ok(connection)
    }

    /// Says what is wrong, and not where on the node the file would lie.
    fn cannot_open(&self, error: &sqlx::Error) -> SqlError {
        match error {
            sqlx::Error::Database(_) if !self.file.exists() => {
                let text = "there is no database file on this node where the plugin's `url` leads; a relative path is \
                            below the node's data folder";
                SqlError::Connect(text.to_owned())
            }
            sqlx::Error::Database(e) => {
                SqlError::Connect(format!("the database file cannot be opened: {}", e.message()))
            }
            other => SqlError::from_driver(other),
        }
    }

    async fn rows(
        &self,
        connection: &mut PoolConnection<Sqlite>,
        sql: &str,
        params: &[Param],
    ) -> Result<Rows, Failure> {
        let statement = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
        if let Some(Either::Right(expected)) = statement.parameters()
            && expected != params.len()
        {
            return Err(wrong_count(expected, params.len()).into());
        }
        let names = statement.columns().iter().map(|c| c.name().to_owned()).collect();
        let mut rows = Rows::new(names, self.max_rows);
        let mut query = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false);
        for param in params {
            query = match param {
                Param::Null => query.bind(None::<String>),
                Param::Bool(b) => query.bind(*b),
                Param::Integer(i) => query.bind(*i),
                Param::Float(f) => query.bind(*f),
                Param::Text(s) => query.bind(s.clone()),
            };
        }
        // The driver's worker thread can die of a value too large for the heap limit, and a stream
        // of rows alone then looks as if it had ended. Only the count after the last row ends it.
        #[allow(deprecated, reason = "one statement; the only stream that says how it ended")]
        let mut stream = query.fetch_many(&mut **connection);
        while let Some(step) = stream.try_next().await? {
            match step {
                Either::Left(_) => return Ok(rows),
                Either::Right(row) if !rows.push(cells(&row)?)? => return Ok(rows),
                Either::Right(_) => {}
            }
        }
        let cause = "the query ended without an end: it most likely ran out of memory; ask for less";
        Err(SqlError::Database(cause.to_owned()).into())
    }

    fn explain(&self, failure: Failure) -> SqlError {
        match failure {
            Failure::Sql(error) => error,
            Failure::Driver(sqlx::Error::Database(e)) if e.code().as_deref() == Some(SQLITE_INTERRUPT) => {
                SqlError::Timeout(self.timeout.as_millis() as u64)
            }
            Failure::Driver(error) => SqlError::from_driver(&error),
        }
    }

    /// Tables and views with their columns.
    pub(super) async fn schema(&self) -> Result<Value, SqlError> {
        const TEXT: &str = "SELECT m.name, m.type, p.name, p.type, p.\"notnull\", p.pk \
             FROM sqlite_schema AS m, pragma_table_info(m.name) AS p \
             WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY m.name, p.cid";
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(stop.clone());
        let mut connection = self.connect(stop).await?;
        let rows = sqlx::query(TEXT).fetch_all(&mut *connection).await.map_err(|e| self.explain(e.into()))?;
        let mut tables = TableList::default();
        for row in rows {
            let get = |e: sqlx::Error| SqlError::from_driver(&e);
            let (not_null, key): (i64, i64) = (row.try_get(4).map_err(get)?, row.try_get(5).map_err(get)?);
            tables.column(
                row.try_get(0).map_err(get)?,
                row.try_get(1).map_err(get)?,
                json!({
                    "name": row.try_get::<String, _>(2).map_err(get)?,
                    "type": row.try_get::<String, _>(3).map_err(get)?,
                    "nullable": not_null == 0,
                    "primaryKey": key > 0,
                }),
            );
        }
        Ok(tables.into_tool_result())
    }
}

/// Columns gathered under their tables, in order.
#[derive(Default)]
pub(super) struct TableList {
    tables: Vec<(String, String, Vec<Value>)>,
}

impl TableList {
    pub(super) fn column(&mut self, table: String, kind: String, column: Value) {
        match self.tables.last_mut() {
            Some((last, _, columns)) if *last == table => columns.push(column),
            _ => self.tables.push((table, kind, vec![column])),
        }
    }

    pub(super) fn into_tool_result(self) -> Value {
        let tables: Vec<Value> = self
            .tables
            .into_iter()
            .map(|(name, kind, columns)| json!({ "name": name, "kind": kind, "columns": columns }))
            .collect();
        tool_result(json!({ "tables": tables }))
    }
}

/// Either the driver's error, to be explained, or one of ours.
enum Failure {
    Driver(sqlx::Error),
    Sql(SqlError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

fn cells(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.len()).map(|i| cell(row.try_get_raw(i)?)).collect()
}

/// A value by its own type: SQLite columns hold values of any.
fn cell(raw: SqliteValueRef<'_>) -> Result<Value, sqlx::Error> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" => integer(<i64 as Decode<Sqlite>>::decode(raw).map_err(sqlx::Error::Decode)?),
        "REAL" => float(<f64 as Decode<Sqlite>>::decode(raw).map_err(sqlx::Error::Decode)?),
        "BLOB" => blob(<&[u8] as Decode<Sqlite>>::decode(raw).map_err(sqlx::Error::Decode)?),
        _ => {
            let bytes = <&[u8] as Decode<Sqlite>>::decode(raw).map_err(sqlx::Error::Decode)?;
            String::from_utf8_lossy(bytes).into_owned().into()
        }
    })
}
