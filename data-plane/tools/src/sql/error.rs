//! What can go wrong with a query, for the caller to act on.

/// A failure of the `sql` built-in. Messages never hold a URL, a password or data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The plugin's settings are wrong.
    #[error("PV-SQL-CONFIG: {0}")]
    Config(String),
    /// The tool's arguments are wrong.
    #[error("PV-SQL-ARGUMENTS: {0}")]
    Arguments(String),
    /// The text is not SQL that can be analysed.
    #[error("PV-SQL-PARSE: {0}")]
    Parse(String),
    /// The text is SQL that this plugin does not run.
    #[error("PV-SQL-REFUSED: {0}")]
    Refused(String),
    /// The database cannot be reached or opened.
    #[error("PV-SQL-CONNECT: {0}")]
    Connect(String),
    /// The query ran into the time limit and was stopped.
    #[error(
        "PV-SQL-TIMEOUT: the query was stopped after {0} ms; narrow it, or raise `timeoutMs` of \
         the plugin"
    )]
    Timeout(u64),
    /// One row is larger than an answer may be.
    #[error("PV-SQL-TOO-LARGE: one row is larger than {0} bytes; select fewer or shorter columns")]
    TooLarge(usize),
    /// The database refused the query.
    #[error("PV-SQL-DATABASE: {0}")]
    Database(String),
}

impl SqlError {
    /// The stable code, such as `PV-SQL-PARSE`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "PV-SQL-CONFIG",
            Self::Arguments(_) => "PV-SQL-ARGUMENTS",
            Self::Parse(_) => "PV-SQL-PARSE",
            Self::Refused(_) => "PV-SQL-REFUSED",
            Self::Connect(_) => "PV-SQL-CONNECT",
            Self::Timeout(_) => "PV-SQL-TIMEOUT",
            Self::TooLarge(_) => "PV-SQL-TOO-LARGE",
            Self::Database(_) => "PV-SQL-DATABASE",
        }
    }

    /// The error as an MCP tool result with `isError`, for the model to read.
    pub fn to_tool_result(&self) -> serde_json::Value {
        serde_json::json!({
            "content": [{ "type": "text", "text": self.to_string() }],
            "isError": true,
        })
    }

    /// A failure reported by the driver or the database.
    pub(super) fn from_driver(error: &sqlx::Error) -> Self {
        match error {
            // The database's own words speak of the statement: names and syntax.
            sqlx::Error::Database(e) => Self::Database(e.message().to_owned()),
            sqlx::Error::PoolTimedOut => Self::Connect("no connection became free in time; try again".to_owned()),
            sqlx::Error::Io(e) => Self::Connect(format!("the database is out of reach: {}", e.kind())),
            sqlx::Error::Tls(_) => Self::Connect("TLS with the database failed".to_owned()),
            _ => Self::Connect("the connection to the database failed".to_owned()),
        }
    }
}
