//! Queries on PostgreSQL.
//!
//! The database turns every value into text, which knows all of its types; the types of the
//! columns, asked for before, say how each text becomes JSON. Parameters go the other way: as
//! text, cast to the type that the database inferred for the placeholder.

use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Column as _, Either, Executor as _, PgPool, Postgres, Row as _, SqlSafeStr as _, Statement as _,
    Transaction, TypeInfo as _,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

use super::{
    SqlError,
    analysis::cast_placeholders,
    arguments::{Param, wrong_count},
    result::{MAX_RESULT_BYTES, Rows, blob, float, integer},
    sqlite::TableList,
};

/// Connections of one plugin: queries that run at once.
const MAX_CONNECTIONS: u32 = 4;
/// How much longer than the server's own time limit the node waits for its answer.
const GRACE: Duration = Duration::from_secs(2);
/// SQLSTATE of a statement that ran into `statement_timeout`.
const QUERY_CANCELED: &str = "57014";

/// A pool of connections.
#[derive(Clone)]
pub(super) struct PostgresSource {
    pool: PgPool,
    timeout: Duration,
    max_rows: usize,
}

impl PostgresSource {
    /// Connects on first use. Call it within a tokio runtime.
    pub(super) fn new(options: PgConnectOptions, timeout: Duration, max_rows: usize) -> Self {
        let pool =
            PgPoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(timeout).connect_lazy_with(options);
        Self { pool, timeout, max_rows }
    }

    /// Runs one analysed query in a read-only transaction, which is rolled back.
    pub(super) async fn query(&self, sql: &str, params: &[Param]) -> Result<Rows, SqlError> {
        self.in_time(async {
            let mut transaction = self.begin().await?;
            let rows = self.rows(&mut transaction, sql, params).await?;
            transaction.rollback().await.map_err(|e| self.explain(&e))?;
            Ok(rows)
        })
        .await
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, SqlError> {
        self.pool.begin_with("BEGIN READ ONLY").await.map_err(|e| match &e {
            // Wrong password, no such database: the server's words, which hold no secret.
            sqlx::Error::Database(e) => SqlError::Connect(e.message().to_owned()),
            other => SqlError::from_driver(other),
        })
    }

    /// The server stops at the time limit; a server that does not answer is given up.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, SqlError>>) -> Result<T, SqlError> {
        let limit = self.timeout + GRACE;
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(SqlError::Timeout(limit.as_millis() as u64)),
        }
    }

    fn explain(&self, error: &sqlx::Error) -> SqlError {
        match error {
            sqlx::Error::Database(e) if e.code().as_deref() == Some(QUERY_CANCELED) => {
                SqlError::Timeout(self.timeout.as_millis() as u64)
            }
            other => SqlError::from_driver(other),
        }
    }

    async fn rows(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
        sql: &str,
        params: &[Param],
    ) -> Result<Rows, SqlError> {
        let statement =
            transaction.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await.map_err(|e| self.explain(&e))?;
        let types: Vec<String> = match statement.parameters() {
            Some(Either::Left(types)) => types.iter().map(|t| t.name().to_owned()).collect(),
            _ => Vec::new(),
        };
        if types.len() != params.len() {
            return Err(wrong_count(types.len(), params.len()));
        }
        let columns = statement.columns();
        if columns.is_empty() {
            return Err(SqlError::Refused("the query has no columns".to_owned()));
        }
        let kinds: Vec<String> = columns.iter().map(|c| c.type_info().name().to_ascii_uppercase()).collect();
        let names = columns.iter().map(|c| c.name().to_owned()).collect();
        let text = as_text(&cast_placeholders(sql, &types)?, kinds.len(), self.max_rows);
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(false);
        for param in params {
            query = query.bind(match param {
                Param::Null => None,
                Param::Bool(b) => Some(b.to_string()),
                Param::Integer(i) => Some(i.to_string()),
                Param::Float(f) => Some(f.to_string()),
                Param::Text(s) => Some(s.clone()),
            });
        }
        let mut rows = Rows::new(names, self.max_rows);
        let mut stream = query.fetch(&mut **transaction);
        while let Some(row) = stream.try_next().await.map_err(|e| self.explain(&e))? {
            if !rows.push(cells(&row, &kinds)?)? {
                break;
            }
        }
        Ok(rows)
    }

    /// Tables and views that the database user may read, with their columns.
    pub(super) async fn schema(&self) -> Result<Value, SqlError> {
        const TEXT: &str = "SELECT CASE WHEN c.table_schema = 'public' THEN c.table_name::text \
               ELSE c.table_schema || '.' || c.table_name END, \
             CASE t.table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END, \
             c.column_name::text, c.data_type::text, c.is_nullable = 'YES' \
             FROM information_schema.columns AS c \
             JOIN information_schema.tables AS t USING (table_catalog, table_schema, table_name) \
             WHERE c.table_schema NOT IN ('pg_catalog', 'information_schema') \
             ORDER BY c.table_schema, c.table_name, c.ordinal_position";
        self.in_time(async {
            let mut transaction = self.begin().await?;
            let rows =
                sqlx::query(TEXT).persistent(false).fetch_all(&mut *transaction).await.map_err(|e| self.explain(&e))?;
            let mut tables = TableList::default();
            for row in rows {
                let get = |e: sqlx::Error| SqlError::from_driver(&e);
                let column = json!({
                    "name": row.try_get::<String, _>(2).map_err(get)?,
                    "type": row.try_get::<String, _>(3).map_err(get)?,
                    "nullable": row.try_get::<bool, _>(4).map_err(get)?,
                });
                let (table, kind) = (row.try_get(0).map_err(get)?, row.try_get(1).map_err(get)?);
                tables.column(table, kind, column);
            }
            Ok(tables.into_tool_result())
        })
        .await
    }
}

/// The query with every column as text of bounded length, and one row more than are wanted, by
/// which a cut is noticed.
fn as_text(sql: &str, columns: usize, max_rows: usize) -> String {
    let names: Vec<String> = (0..columns).map(|i| format!("c{i}")).collect();
    let cells: Vec<String> = names
        .iter()
        .map(|n| {
            let limit = MAX_RESULT_BYTES + 1;
            format!("pg_catalog.left(q.{n}::pg_catalog.text, {limit})")
        })
        .collect();
    format!("SELECT {} FROM ({sql}) AS q({}) LIMIT {}", cells.join(", "), names.join(", "), max_rows.saturating_add(1))
}

fn cells(row: &PgRow, kinds: &[String]) -> Result<Vec<Value>, SqlError> {
    let mut cells = Vec::with_capacity(kinds.len());
    for (i, kind) in kinds.iter().enumerate() {
        let text: Option<String> = row.try_get(i).map_err(|e| SqlError::from_driver(&e))?;
        cells.push(match text {
            None => Value::Null,
            Some(text) if text.len() > MAX_RESULT_BYTES => {
                return Err(SqlError::TooLarge(MAX_RESULT_BYTES));
            }
            Some(text) => cell(kind, text),
        });
    }
    Ok(cells)
}

/// PostgreSQL's text of a value as JSON. What has no exact JSON form stays text.
fn cell(kind: &str, text: String) -> Value {
    let parsed = match kind {
        "BOOL" => text.parse().ok().map(Value::Bool),
        "INT2" | "INT4" | "INT8" => text.parse().ok().map(integer),
        "FLOAT4" | "FLOAT8" => text.parse().ok().map(float),
        "JSON" | "JSONB" => serde_json::from_str(&text).ok(),
        "BYTEA" => text.strip_prefix("\\x").and_then(unhex).map(|bytes| blob(&bytes)),
        _ => None,
    };
    parsed.unwrap_or(Value::String(text))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
