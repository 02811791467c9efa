//! The `sql` built-in: what is read from a text, and what real databases answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod analysis;
mod postgres;
mod quickstart;
mod server;
mod sqlite;

use std::collections::BTreeMap;

use provost_data_tools::sql::{SqlError, SqlPlugin};
use serde_json::{Map, Value, json};

pub fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The `structuredContent` of `query`.
pub async fn query(plugin: &SqlPlugin, sql: &str) -> Result<Value, SqlError> {
    query_with(plugin, sql, json!([])).await
}

pub async fn query_with(plugin: &SqlPlugin, sql: &str, params: Value) -> Result<Value, SqlError> {
    let arguments = object(json!({ "sql": sql, "params": params }));
    let result = plugin.call("query", &arguments).await?;
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, result["structuredContent"], "text and structure say the same");
    assert_eq!(result["isError"], json!(false));
    Ok(result["structuredContent"].clone())
}

pub async fn rows(plugin: &SqlPlugin, sql: &str) -> Value {
    query(plugin, sql).await.unwrap()["rows"].clone()
}

/// The code of the error that a query ends in.
pub async fn code(plugin: &SqlPlugin, sql: &str) -> &'static str {
    query(plugin, sql).await.map(|r| panic!("{sql} answered {r}")).unwrap_err().code()
}
