//! Queries on a SQLite file.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use provost_data_tools::sql::{SqlError, SqlPlugin, create_sqlite_from_script};
use serde_json::json;
use tempfile::TempDir;

use crate::{code, config, object, query, query_with, rows};

const SHOP: &str = include_str!("../../../../examples/quickstart/shop.sql");

async fn database(script: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/shop.db");
    assert_eq!(create_sqlite_from_script(&path, script).await, Ok(true));
    let url = format!("sqlite:{}", path.display());
    (folder, url)
}

async fn shop(extra: &[(&str, &str)]) -> (TempDir, SqlPlugin) {
    let (folder, url) = database(SHOP).await;
    let mut pairs = vec![("url", url.as_str())];
    pairs.extend(extra);
    let plugin = SqlPlugin::open(&config(&pairs)).unwrap();
    (folder, plugin)
}

#[tokio::test]
async fn the_shop_answers() {
    let (_folder, plugin) = shop(&[]).await;
    let sql = "SELECT region, count(*) AS n FROM customers GROUP BY region ORDER BY n DESC";
    let answer = query(&plugin, sql).await.unwrap();
    assert_eq!(answer["columns"], json!(["region", "n"]));
    assert_eq!(answer["rowCount"], json!(3));
    assert_eq!(answer["truncated"], json!(false));
    let total: i64 = answer["rows"].as_array().unwrap().iter().map(|r| r[1].as_i64().unwrap()).sum();
    assert_eq!(total, 72);
    let none = query(&plugin, "SELECT id, name FROM customers WHERE id < 0").await.unwrap();
    assert_eq!(none, json!({"columns": ["id", "name"], "rows": [], "rowCount": 0, "truncated": false}));
}

#[tokio::test]
async fn parameters_are_bound() {
    let (_folder, plugin) = shop(&[]).await;
    let sql = "SELECT count(*) FROM orders WHERE status = ? AND quantity >= ? AND ? IS NULL AND ?";
    let answer = query_with(&plugin, sql, json!(["delivered", 2, null, true])).await.unwrap();
    assert!(answer["rows"][0][0].as_i64().unwrap() > 0);
    let injection = "x'; DROP TABLE orders; --";
    let answer = query_with(&plugin, "SELECT ?", json!([injection])).await.unwrap();
    assert_eq!(answer["rows"], json!([[injection]]));
    for params in [json!([]), json!([1, 2])] {
        let error = query_with(&plugin, "SELECT ?", params).await.unwrap_err();
        assert_eq!(error.code(), "PV-SQL-ARGUMENTS", "{error}");
    }
}

#[tokio::test]
async fn values_of_every_type() {
    let (_folder, plugin) = shop(&[]).await;
    let sql = "SELECT NULL, 1, 9007199254740993, 1.5, 'é', x'00ff', 9e999, 1 = 1";
    assert_eq!(rows(&plugin, sql).await, json!([[null, 1, "9007199254740993", 1.5, "é", "AP8=", "inf", 1]]));
}

#[tokio::test]
async fn only_reading_runs() {
    let (_folder, plugin) = shop(&[]).await;
    for sql in [
        "DROP TABLE customers",
        "DELETE FROM customers",
        "UPDATE customers SET name = 'x' WHERE id = 1",
        "INSERT INTO customers (name) VALUES ('x')",
        "SELECT 1; DROP TABLE customers",
        "SELECT 1; SELECT 2",
        "PRAGMA table_info(customers)",
        "ATTACH DATABASE '/etc/passwd' AS p",
        "VACUUM INTO '/tmp/copy.db'",
        "EXPLAIN SELECT 1",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT zeroblob(1000000000)",
        "SELECT name FROM pragma_table_info('customers')",
        "SELECT name FROM pragma_table_list",
        "BEGIN",
    ] {
        let code = code(&plugin, sql).await;
        assert!(matches!(code, "PV-SQL-REFUSED" | "PV-SQL-PARSE"), "{sql}: {code}");
    }
    assert_eq!(rows(&plugin, "SELECT count(*) FROM customers").await, json!([[72]]));
    assert_eq!(code(&plugin, "SELECT x FROM nowhere").await, "PV-SQL-DATABASE");
}

#[tokio::test]
async fn rows_are_limited() {
    let (_folder, plugin) = shop(&[("maxRows", "10")]).await;
    let answer = query(&plugin, "SELECT id FROM orders ORDER BY id").await.unwrap();
    assert_eq!((&answer["rowCount"], &answer["truncated"]), (&json!(10), &json!(true)));
    let exact = query(&plugin, "SELECT id FROM orders ORDER BY id LIMIT 10").await.unwrap();
    assert_eq!((&exact["rowCount"], &exact["truncated"]), (&json!(10), &json!(false)));
}

const ENDLESS: &str = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t";

#[tokio::test]
async fn an_endless_query_is_stopped_and_frees_its_connection() {
    // Long enough for a query that has an end, on a busy machine.
    let (_folder, plugin) = shop(&[("timeoutMs", "1000")]).await;
    // More than the pool has connections: each must come back.
    for _ in 0..6 {
        assert_eq!(query(&plugin, ENDLESS).await, Err(SqlError::Timeout(1_000)));
    }
    assert_eq!(rows(&plugin, "SELECT 1").await, json!([[1]]));
}

#[tokio::test]
async fn a_query_stops_when_its_caller_goes() {
    let (_folder, plugin) = shop(&[("timeoutMs", "60000")]).await;
    for _ in 0..6 {
        let gone = tokio::time::timeout(Duration::from_millis(50), query(&plugin, ENDLESS)).await;
        assert!(gone.is_err(), "the query is endless");
    }
    let started = Instant::now();
    assert_eq!(rows(&plugin, "SELECT 1").await, json!([[1]]));
    assert!(started.elapsed() < Duration::from_secs(50), "the abandoned queries were stopped");
}

#[tokio::test]
async fn a_huge_row_is_refused() {
    let (_folder, plugin) = shop(&[]).await;
    let doubled = "WITH RECURSIVE t(n, s) AS (SELECT 0, 'xxxxxxxx' UNION ALL \
                   SELECT n + 1, s || s FROM t WHERE n < 20) SELECT s FROM t WHERE n = 20";
    assert_eq!(code(&plugin, doubled).await, "PV-SQL-TOO-LARGE");
    let enormous = doubled.replace("20", "30");
    assert_eq!(code(&plugin, &enormous).await, "PV-SQL-DATABASE", "SQLite's memory is bounded");
    assert_eq!(rows(&plugin, "SELECT 1").await, json!([[1]]));
}

#[tokio::test]
async fn the_schema_is_listed() {
    let (_folder, plugin) = shop(&[]).await;
    let result = plugin.call("schema", &object(json!({}))).await.unwrap();
    let tables = &result["structuredContent"]["tables"];
    let names: Vec<&str> = tables.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["customers", "employees", "orders", "products"]);
    let id = json!({"name": "id", "type": "INTEGER", "nullable": true, "primaryKey": true});
    assert_eq!(tables[0]["columns"][0], id);
}

#[tokio::test]
async fn arguments_and_tools_are_checked() {
    let (_folder, plugin) = shop(&[]).await;
    for (tool, arguments) in [
        ("query", json!({})),
        ("query", json!({"sql": 1})),
        ("query", json!({"sql": "SELECT 1", "limit": 1})),
        ("query", json!({"sql": "SELECT ?", "params": [[1]]})),
        ("drop", json!({})),
    ] {
        let error = plugin.call(tool, &object(arguments.clone())).await.unwrap_err();
        assert_eq!(error.code(), "PV-SQL-ARGUMENTS", "{tool} {arguments}");
    }
    let facts = plugin.facts("query", &object(json!({"sql": "SELECT a FROM t"}))).unwrap().unwrap();
    assert_eq!(facts.kind(), "SELECT");
    assert_eq!(plugin.facts("schema", &object(json!({}))), Ok(None));
    let names: Vec<_> = plugin.tools().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["query", "schema"]);
}

#[tokio::test]
async fn a_missing_file_is_reported_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let plugin = SqlPlugin::open(&config(&[("url", &format!("sqlite:{}", path.display()))])).unwrap();
    let error = plugin.call("query", &object(json!({"sql": "SELECT 1"}))).await.unwrap_err();
    assert_eq!(error.code(), "PV-SQL-CONNECT");
    let said = error.to_string();
    assert!(said.contains("no database file") && !said.contains("none.db"), "{said}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_script_runs_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let broken = "CREATE TABLE t (a); INSERT INTO nowhere VALUES (1);";
    assert!(create_sqlite_from_script(&path, broken).await.is_err());
    assert!(!path.exists(), "a failed script leaves no database");
    assert_eq!(create_sqlite_from_script(&path, "CREATE TABLE t (a);").await, Ok(true));
    assert_eq!(create_sqlite_from_script(&path, "CREATE TABLE u (a);").await, Ok(false));
    let only: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| Path::new(&e.unwrap().file_name()).to_owned()).collect();
    assert_eq!(only, [Path::new("a.db")]);
}
