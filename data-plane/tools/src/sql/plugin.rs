//! The plugin: its two tools and how they are called.

use std::collections::BTreeMap;

use provost_data_policy::SqlFacts;
use serde_json::{Map, Value, json};

use super::{
    Analysis, Dialect, SqlError, analyse,
    arguments::QueryArguments,
    config::{Config, Target},
    functions,
    postgres::PostgresSource,
    sqlite::SqliteSource,
};

enum Source {
    Sqlite(SqliteSource),
    Postgres(PostgresSource),
}

/// An open `sql` built-in. Cheap to ask for facts; connects to the database on the first call.
pub struct SqlPlugin {
    source: Source,
    dialect: Dialect,
}

impl SqlPlugin {
    /// Checks the settings: `url` (`sqlite:PATH` or `postgres://…`), `maxRows` (1000),
    /// `timeoutMs` (10000). Must be called within a tokio runtime; connects on the first call.
    pub fn open(config: &BTreeMap<String, String>) -> Result<Self, SqlError> {
        let Config { target, max_rows, timeout } = Config::read(config)?;
        Ok(match target {
            Target::Sqlite(options) => {
                Self { source: Source::Sqlite(SqliteSource::new(options, timeout, max_rows)), dialect: Dialect::Sqlite }
            }
            Target::Postgres(options) => Self {
                source: Source::Postgres(PostgresSource::new(options, timeout, max_rows)),
                dialect: Dialect::Postgres,
            },
        })
    }

    /// Whose SQL it speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The tools as MCP describes them, in order of name; names without a prefix.
    pub fn tools(&self) -> Vec<Value> {
        let database = match self.dialect {
            Dialect::Sqlite => "SQLite; placeholders are `?`",
            Dialect::Postgres => "PostgreSQL; placeholders are `$1`, `$2`, …",
        };
        vec![query_tool(database), schema_tool()]
    }

    /// What a call would do, for policy: `None` for a tool that takes no SQL.
    pub fn facts(&self, tool: &str, arguments: &Map<String, Value>) -> Result<Option<SqlFacts>, SqlError> {
        facts(self.dialect, tool, arguments)
    }

    /// Calls a tool; the result is an MCP tool result. Dropping the future stops the query.
    pub async fn call(&self, tool: &str, arguments: &Map<String, Value>) -> Result<Value, SqlError> {
        match tool {
            "query" => {
                let QueryArguments { sql, params } = QueryArguments::read(arguments)?;
                let analysis = analyse(self.dialect, &sql)?;
                self.check(&analysis.facts)?;
                self.run(&analysis, &params).await.map(super::result::Rows::into_tool_result)
            }
            "schema" => match &self.source {
                Source::Sqlite(source) => source.schema().await,
                Source::Postgres(source) => source.schema().await,
            },
            other => Err(SqlError::Arguments(format!("there is no tool `{other}`"))),
        }
    }

    async fn run(
        &self,
        analysis: &Analysis,
        params: &[super::arguments::Param],
    ) -> Result<super::result::Rows, SqlError> {
        match &self.source {
            Source::Sqlite(source) => source.query(&analysis.canonical, params).await,
            Source::Postgres(source) => source.query(&analysis.canonical, params).await,
        }
    }

    /// What holds whatever policy permits.
    fn check(&self, facts: &SqlFacts) -> Result<(), SqlError> {
        let refuse = |message: String| Err(SqlError::Refused(message));
        if facts.statements != 1 {
            return refuse(format!("the text has {} statements; send one a call", facts.statements));
        }
        if let Some(kind) = facts.kinds.iter().find(|k| *k != "SELECT") {
            return refuse(format!("this plugin only reads; {kind} is not run"));
        }
        if facts.kinds.is_empty() {
            return refuse("this plugin only runs queries".to_owned());
        }
        if let Some(name) = facts.functions.iter().find(|f| !functions::is_allowed(self.dialect, f)) {
            return refuse(format!("the function `{name}` is not one that queries may call"));
        }
        // SQLite offers its pragmas as tables as well.
        if self.dialect == Dialect::Sqlite
            && let Some(name) = facts.tables.iter().find(|t| t.starts_with("pragma_"))
        {
            return refuse(format!("`{name}` is a pragma; use the schema tool"));
        }
        Ok(())
    }
}

/// What a call of the `sql` built-in's tool would do, without the database.
pub fn facts(dialect: Dialect, tool: &str, arguments: &Map<String, Value>) -> Result<Option<SqlFacts>, SqlError> {
    match tool {
        "query" => {
            let arguments = QueryArguments::read(arguments)?;
            Ok(Some(analyse(dialect, &arguments.sql)?.facts))
        }
        _ => Ok(None),
    }
}

fn query_tool(database: &str) -> Value {
    json!({
        "name": "query",
        "title": "Run a SQL query",
        "description": format!(
            "Runs one read-only SQL query and returns its rows. The database is {database}. \
             Integers beyond 2^53 and exact decimals come as strings, blobs as base64."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "sql": { "type": "string", "description": "One SELECT statement." },
                "params": {
                    "type": "array",
                    "description": "Values for the placeholders, in order.",
                    "items": { "type": ["string", "number", "boolean", "null"] },
                    "maxItems": 100,
                },
            },
            "required": ["sql"],
            "additionalProperties": false,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "columns": { "type": "array", "items": { "type": "string" } },
                "rows": { "type": "array", "items": { "type": "array" } },
                "rowCount": { "type": "integer" },
                "truncated": {
                    "type": "boolean",
                    "description": "There were more rows than an answer may hold.",
                },
            },
            "required": ["columns", "rows", "rowCount", "truncated"],
        },
        "annotations": read_only(),
    })
}

fn schema_tool() -> Value {
    json!({
        "name": "schema",
        "title": "List tables and columns",
        "description": "Lists the tables and views of the database with their columns.",
        "inputSchema": { "type": "object", "properties": {}, "additionalProperties": false },
        "outputSchema": {
            "type": "object",
            "properties": {
                "tables": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": { "type": "string" },
                            "kind": { "enum": ["table", "view"] },
                            "columns": { "type": "array", "items": { "type": "object" } },
                        },
                        "required": ["name", "kind", "columns"],
                    },
                },
            },
            "required": ["tables"],
        },
        "annotations": read_only(),
    })
}

fn read_only() -> Value {
    json!({
        "readOnlyHint": true,
        "destructiveHint": false,
        "idempotentHint": true,
        "openWorldHint": false,
    })
}
