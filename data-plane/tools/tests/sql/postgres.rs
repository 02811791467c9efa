//! Queries on a PostgreSQL server that the test starts.

use provost_data_tools::sql::{SqlError, SqlPlugin};
use serde_json::json;
use sqlx::Connection as _;

use crate::{code, config, object, query, query_with, rows, server::Server};

const SCRIPT: &str = "
    CREATE TABLE customers (id INT PRIMARY KEY, name TEXT NOT NULL, since DATE NOT NULL);
    INSERT INTO customers VALUES (1, 'Ada', '2024-01-02'), (2, 'Ben', '2025-03-04');
    CREATE TABLE orders (id BIGINT PRIMARY KEY, customer_id INT, amount NUMERIC(10, 2));
    INSERT INTO orders SELECT i, 1 + i % 2, i / 3.0 FROM generate_series(1, 500) AS i;
    CREATE SCHEMA hr;
    CREATE TABLE hr.people (name TEXT);
    CREATE VIEW recent AS SELECT id FROM customers;
    CREATE SEQUENCE s;
    CREATE FUNCTION sneaky() RETURNS INT LANGUAGE sql AS 'SELECT 1';";

/// A server with tables, and a plugin on it.
async fn prepared(extra: &[(&str, &str)]) -> Option<(Server, SqlPlugin)> {
    let server = Server::start()?;
    let url = server.url();
    // The socket accepts a little before the server does.
    let mut tries = 0;
    let mut connection = loop {
        match sqlx::PgConnection::connect(&url).await {
            Ok(connection) => break connection,
            Err(error) if tries > 200 => panic!("no connection: {error}"),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    sqlx::raw_sql(SCRIPT).execute(&mut connection).await.unwrap();
    let mut pairs = vec![("url", url.as_str())];
    pairs.extend(extra);
    let plugin = SqlPlugin::open(&config(&pairs)).unwrap();
    Some((server, plugin))
}

#[tokio::test]
async fn queries_values_parameters_and_schema() {
    let Some((_server, plugin)) = prepared(&[("maxRows", "100")]).await else { return };

    let joined = query(
        &plugin,
        "SELECT c.name, count(*) AS n FROM customers AS c JOIN orders AS o ON o.customer_id = c.id \
         GROUP BY c.name ORDER BY n DESC, c.name",
    )
    .await
    .unwrap();
    assert_eq!(joined["columns"], json!(["name", "n"]));
    assert_eq!(joined["rows"], json!([["Ada", 250], ["Ben", 250]]));

    let sql = "SELECT NULL, true, 1::smallint, 9007199254740993::bigint, 1.5::float8, \
        'NaN'::float8, 12345678901234567890.5::numeric, 'é', '\\x00ff'::bytea, \
        '{\"a\": [1]}'::jsonb, DATE '2026-11-21', ARRAY[1, 2], 1 AS x, 2 AS x";
    assert_eq!(
        rows(&plugin, sql).await,
        json!([[
            null, true, 1, "9007199254740993", 1.5, "NaN", "12345678901234567890.5", "é", "AP8=",
            {"a": [1]}, "2026-11-21", "{1,2}", 1, 2
        ]])
    );

    let cut = query(&plugin, "SELECT id FROM orders ORDER BY id").await.unwrap();
    assert_eq!((&cut["rowCount"], &cut["truncated"]), (&json!(100), &json!(true)));
    assert_eq!(cut["rows"][99], json!([100]));
    let none = query(&plugin, "SELECT id, name FROM customers WHERE false").await.unwrap();
    assert_eq!(none, json!({"columns": ["id", "name"], "rows": [], "rowCount": 0, "truncated": false}));

    let sql = "SELECT name FROM customers WHERE since >= $1 AND id < $2 AND $3 LIMIT $4";
    let bound = query_with(&plugin, sql, json!(["2024-06-01", 10, true, 5])).await.unwrap();
    assert_eq!(bound["rows"], json!([["Ben"]]));
    let null = query_with(&plugin, "SELECT count(*) FROM customers WHERE id = $1", json!([null]));
    assert_eq!(null.await.unwrap()["rows"], json!([[0]]));
    let injection = "x'; DROP TABLE orders; --";
    let echoed = query_with(&plugin, "SELECT $1", json!([injection])).await.unwrap();
    assert_eq!(echoed["rows"], json!([[injection]]));
    let error = query_with(&plugin, "SELECT $1", json!([])).await.unwrap_err();
    assert_eq!(error.code(), "PV-SQL-ARGUMENTS");

    let schema = plugin.call("schema", &object(json!({}))).await.unwrap();
    let tables = schema["structuredContent"]["tables"].as_array().unwrap();
    let names: Vec<String> = tables.iter().map(|t| format!("{} {}", t["name"], t["kind"]).replace('"', "")).collect();
    assert_eq!(names, ["hr.people table", "customers table", "orders table", "recent view"]);
    let id = json!({"name": "id", "type": "integer", "nullable": false});
    assert_eq!(tables[1]["columns"][0], id);
}

#[tokio::test]
async fn only_reading_runs() {
    let Some((_server, plugin)) = prepared(&[]).await else { return };
    for sql in [
        "DROP TABLE customers",
        "DELETE FROM customers",
        "WITH d AS (DELETE FROM customers RETURNING id) SELECT id FROM d",
        "SELECT 1; DROP TABLE customers",
        "SELECT id INTO copy FROM customers",
        "COPY customers TO '/tmp/x'",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SET default_transaction_read_only = off",
        "EXPLAIN ANALYZE DELETE FROM customers",
        "SELECT pg_sleep(10)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT query_to_xml('SELECT * FROM hr.people', true, true, '')",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT nextval('s')",
        "SELECT id FROM customers FOR UPDATE",
        "SELECT sneaky()",
        "SELECT * FROM pg_ls_dir('/')",
        "DO $$ BEGIN END $$",
        "SELECT repeat('x', 1000000000)",
    ] {
        let code = code(&plugin, sql).await;
        assert!(matches!(code, "PV-SQL-REFUSED" | "PV-SQL-PARSE"), "{sql}: {code}");
    }
    // And the server would not write either.
    let setting = "SELECT setting FROM pg_settings WHERE name = 'transaction_read_only'";
    assert_eq!(rows(&plugin, setting).await, json!([["on"]]));
    assert_eq!(code(&plugin, "SELECT x FROM nowhere").await, "PV-SQL-DATABASE");
    assert_eq!(rows(&plugin, "SELECT count(*) FROM customers").await, json!([[2]]));
}

#[tokio::test]
async fn an_endless_query_is_stopped_by_the_server() {
    let Some((_server, plugin)) = prepared(&[("timeoutMs", "1000")]).await else { return };
    let endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n % 7 + 1 FROM t) SELECT max(n) FROM t";
    for _ in 0..5 {
        assert_eq!(query(&plugin, endless).await, Err(SqlError::Timeout(1_000)));
    }
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%RECURSIVE t(n)%' \
                AND state = 'active' AND query NOT LIKE '%pg_stat_activity%'";
    assert_eq!(rows(&plugin, busy).await, json!([[0]]));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_reported_without_the_password() {
    let url = "postgres://ana:secret-word@127.0.0.1:1/shop";
    let plugin = SqlPlugin::open(&config(&[("url", url), ("timeoutMs", "500")])).unwrap();
    let error = query(&plugin, "SELECT 1").await.unwrap_err();
    assert_eq!(error.code(), "PV-SQL-CONNECT");
    assert!(!error.to_string().contains("secret-word"), "{error}");
}
