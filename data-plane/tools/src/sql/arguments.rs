//! The arguments of the `query` tool.

use serde_json::{Map, Value};

use super::SqlError;

/// Most parameters of one query.
const MAX_PARAMS: usize = 100;

/// A value bound to a placeholder.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

/// `{ "sql": TEXT, "params": [ … ] }`.
#[derive(Debug, PartialEq)]
pub(super) struct QueryArguments {
    pub(super) sql: String,
    pub(super) params: Vec<Param>,
}

impl QueryArguments {
    pub(super) fn read(arguments: &Map<String, Value>) -> Result<Self, SqlError> {
        if let Some(key) = arguments.keys().find(|k| !matches!(k.as_str(), "sql" | "params")) {
            let message = format!("`{key}` is not an argument; there are `sql` and `params`");
            return Err(SqlError::Arguments(message));
        }
        let Some(Value::String(sql)) = arguments.get("sql") else {
            return Err(SqlError::Arguments("`sql` must be a string".to_owned()));
        };
        let params = match arguments.get("params") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) if items.len() <= MAX_PARAMS => {
                items.iter().map(param).collect::<Result<_, _>>()?
            }
            Some(_) => {
                let message = format!("`params` must be an array of at most {MAX_PARAMS} values");
                return Err(SqlError::Arguments(message));
            }
        };
        Ok(Self { sql: sql.clone(), params })
    }
}

fn param(value: &Value) -> Result<Param, SqlError> {
    Ok(match value {
        Value::Null => Param::Null,
        Value::Bool(b) => Param::Bool(*b),
        Value::String(s) => Param::Text(s.clone()),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Param::Integer(i),
            (None, Some(f)) => Param::Float(f),
            (None, None) => Param::Text(n.to_string()),
        },
        Value::Array(_) | Value::Object(_) => {
            let message = "`params` may hold strings, numbers, booleans and null".to_owned();
            return Err(SqlError::Arguments(message));
        }
    })
}

/// The error for a text with another number of placeholders than values.
pub(super) fn wrong_count(expected: usize, given: usize) -> SqlError {
    let message = format!("the query has {expected} placeholders and `params` has {given} values");
    SqlError::Arguments(message)
}
