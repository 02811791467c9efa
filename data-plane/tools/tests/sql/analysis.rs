//! SQL texts and the facts in them.

use std::collections::BTreeSet;

use provost_data_tools::sql::{Dialect, SqlError, analyse};

const BOTH: &[Dialect] = &[Dialect::Sqlite, Dialect::Postgres];
const SQLITE: &[Dialect] = &[Dialect::Sqlite];
const POSTGRES: &[Dialect] = &[Dialect::Postgres];

fn words(set: &BTreeSet<String>) -> String {
    set.iter().cloned().collect::<Vec<_>>().join(" ")
}

#[test]
fn tables_are_found_wherever_they_are() {
    let mut wrong = Vec::new();
    for (dialects, sql, kinds, tables) in [
        (BOTH, "SELECT 1", "SELECT", ""),
        (BOTH, "SELECT * FROM Customers", "SELECT", "customers"),
        (BOTH, "SELECT a FROM hr.people", "SELECT", "hr.people people"),
        (BOTH, "SELECT a FROM x JOIN y ON x.i = y.i LEFT JOIN z USING (i), w", "SELECT", "w x y z"),
        (BOTH, "SELECT a FROM (SELECT b FROM x) AS q", "SELECT", "x"),
        (BOTH, "SELECT (SELECT max(b) FROM y) FROM x WHERE a IN (SELECT c FROM z)", "SELECT", "x y z"),
        (BOTH, "SELECT a FROM x WHERE EXISTS (SELECT 1 FROM y WHERE y.i = x.i)", "SELECT", "x y"),
        (BOTH, "SELECT a FROM x UNION SELECT b FROM y EXCEPT SELECT c FROM z", "SELECT", "x y z"),
        (BOTH, "SELECT a FROM x ORDER BY (SELECT b FROM y)", "SELECT", "x y"),
        (BOTH, "SELECT a FROM x LIMIT (SELECT count(*) FROM y)", "SELECT", "x y"),
        (BOTH, "SELECT a FROM x GROUP BY a HAVING count(*) > (SELECT b FROM y)", "SELECT", "x y"),
        (BOTH, "SELECT CASE WHEN a THEN (SELECT b FROM y) END FROM x", "SELECT", "x y"),
        (BOTH, "VALUES (1), ((SELECT b FROM y))", "SELECT", "y"),
        // Common table expressions are not tables, but do not hide what they read.
        (BOTH, "WITH q AS (SELECT a FROM x) SELECT a FROM q", "SELECT", "x"),
        (BOTH, "WITH employees AS (SELECT * FROM employees) SELECT * FROM employees", "SELECT", "employees"),
        (BOTH, "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", "SELECT", "b"),
        (BOTH, "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t", "SELECT", ""),
        (BOTH, "SELECT * FROM (WITH q AS (SELECT 1) SELECT * FROM q) AS s, q", "SELECT", "q"),
        (BOTH, "WITH q AS (SELECT 1) SELECT * FROM hr.q", "SELECT", "hr.q q"),
        (BOTH, "WITH q AS (WITH r AS (SELECT a FROM x) SELECT a FROM r) SELECT a FROM q, r", "SELECT", "r x"),
        // Comments and case change nothing.
        (BOTH, "select/* FROM y */a -- FROM z\n from X", "SELECT", "x"),
        (BOTH, "SELECT 'FROM y; DROP TABLE z' FROM x", "SELECT", "x"),
        // Quoted names.
        (SQLITE, "SELECT a FROM \"Employees\", [Pay], `Roll`", "SELECT", "employees pay roll"),
        (POSTGRES, "SELECT a FROM \"Employees\"", "SELECT", "Employees employees"),
        (POSTGRES, "SELECT a FROM \"hr\".\"people\"", "SELECT", "hr.people people"),
        (POSTGRES, "WITH q AS (SELECT 1) TABLE hr.employees", "SELECT", "employees hr.employees"),
        (POSTGRES, "SELECT a FROM x UNION TABLE employees", "SELECT", "employees x"),
        (POSTGRES, "SELECT a FROM x, LATERAL (SELECT b FROM y WHERE y.i = x.i) AS l", "SELECT", "x y"),
        (SQLITE, "SELECT * FROM pragma_table_list", "SELECT", "pragma_table_list"),
        // Writes.
        (BOTH, "INSERT INTO x SELECT a FROM y", "INSERT SELECT", "x y"),
        (BOTH, "UPDATE x SET a = (SELECT b FROM y)", "SELECT UPDATE", "x y"),
        (BOTH, "DELETE FROM x", "DELETE", "x"),
        (BOTH, "DROP TABLE x, hr.y", "DROP", "hr.y x y"),
        (BOTH, "CREATE TABLE x AS SELECT a FROM y", "CREATE SELECT", "x y"),
        (BOTH, "SELECT 1; DROP TABLE x", "DROP SELECT", "x"),
        (POSTGRES, "WITH d AS (DELETE FROM x RETURNING *) SELECT * FROM d", "DELETE SELECT", "d x"),
        (POSTGRES, "WITH x AS (SELECT 1) UPDATE x SET a = 1", "SELECT UPDATE", "x"),
        (POSTGRES, "SELECT a INTO t FROM x", "CREATE SELECT", "t x"),
        (POSTGRES, "EXPLAIN ANALYZE DELETE FROM x", "DELETE EXPLAIN", "x"),
        (POSTGRES, "TRUNCATE x", "TRUNCATE", "x"),
    ] {
        for dialect in dialects {
            let found = analyse(*dialect, sql)
                .map(|a| (words(&a.facts.kinds), words(&a.facts.tables)))
                .unwrap_or_else(|e| (e.to_string(), String::new()));
            if found != (kinds.to_owned(), tables.to_owned()) {
                wrong.push(format!("{dialect:?} {sql}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn columns_and_functions_are_found() {
    for (dialects, sql, columns, functions) in [
        (BOTH, "SELECT a, t.B FROM t WHERE c = 1 GROUP BY d ORDER BY e", "a b c d e", ""),
        (BOTH, "SELECT * FROM t", "*", ""),
        (BOTH, "SELECT t.* FROM t", "*", ""),
        (BOTH, "SELECT count(*) FROM t", "", "count"),
        (BOTH, "SELECT count(*) AS n, a FROM t GROUP BY a ORDER BY n DESC", "a", "count"),
        (BOTH, "SELECT a FROM t JOIN u USING (k)", "a k", ""),
        (BOTH, "SELECT a FROM t NATURAL JOIN u", "* a", ""),
        (BOTH, "SELECT Upper(a) FROM t WHERE lower(b) = 'x'", "a b", "lower upper"),
        (BOTH, "SELECT sum(a) OVER (PARTITION BY b ORDER BY c) FROM t", "a b c", "sum"),
        (SQLITE, "SELECT value FROM json_each('[1]')", "value", "json_each"),
        (SQLITE, "SELECT load_extension('x')", "", "load_extension"),
        (POSTGRES, "SELECT pg_catalog.pg_sleep(1)", "", "pg_catalog.pg_sleep"),
        (POSTGRES, "SELECT g FROM generate_series(1, 3) AS g", "* g", "generate_series"),
        // The whole row by the name of its table or alias.
        (POSTGRES, "SELECT employees FROM employees", "* employees", ""),
        (POSTGRES, "SELECT to_json(e) FROM employees AS e", "* e", "to_json"),
        (POSTGRES, "SELECT to_json(e.*) FROM employees AS e", "*", "to_json"),
    ] {
        for dialect in dialects {
            let facts = analyse(*dialect, sql).unwrap_or_else(|e| panic!("{dialect:?} {sql}: {e}")).facts;
            assert_eq!(words(&facts.columns), columns, "{dialect:?} {sql}");
            assert_eq!(words(&facts.functions), functions, "{dialect:?} {sql}");
        }
    }
}

#[test]
fn a_where_counts_where_it_matters() {
    for (sql, expect) in [
        ("SELECT a FROM t", false),
        ("SELECT a FROM t WHERE b", true),
        ("SELECT a FROM t WHERE b UNION SELECT a FROM u", false),
        ("SELECT a FROM (SELECT a FROM t WHERE b) AS q", false),
        ("SELECT a FROM t WHERE b; SELECT a FROM t", false),
        ("UPDATE t SET a = 1", false),
        ("UPDATE t SET a = 1 WHERE b", true),
        ("DELETE FROM t WHERE b", true),
        ("DELETE FROM t WHERE b; DELETE FROM t", false),
    ] {
        for dialect in BOTH {
            assert_eq!(analyse(*dialect, sql).unwrap().facts.has_where, expect, "{sql}");
        }
    }
    let nested = "WITH d AS (DELETE FROM t RETURNING a) SELECT a FROM d WHERE true";
    assert!(!analyse(Dialect::Postgres, nested).unwrap().facts.has_where);
}

#[test]
fn kinds_and_counts() {
    let facts = analyse(Dialect::Sqlite, "SELECT 1; DROP TABLE x;").unwrap().facts;
    assert_eq!((facts.statements, facts.kind()), (2, "MULTIPLE"));
    let facts = analyse(Dialect::Sqlite, "SELECT 1;").unwrap().facts;
    assert_eq!((facts.statements, facts.kind()), (1, "SELECT"));
    for (sql, kind) in [
        ("PRAGMA user_version", "PRAGMA"),
        ("ATTACH DATABASE 'x' AS y", "ATTACH"),
        ("BEGIN", "BEGIN"),
        ("ALTER TABLE x ADD COLUMN y INT", "ALTER"),
    ] {
        assert_eq!(analyse(Dialect::Sqlite, sql).unwrap().facts.kind(), kind);
    }
    assert_eq!(analyse(Dialect::Postgres, "COPY x TO STDOUT").unwrap().facts.kind(), "COPY");
    assert_eq!(analyse(Dialect::Postgres, "SET search_path = y").unwrap().facts.kind(), "SET");
}

#[test]
fn what_runs_is_what_was_read() {
    let sql = "select /* x */ a , 'it''s' from t -- y\n where b = ?";
    let canonical = analyse(Dialect::Sqlite, sql).unwrap().canonical;
    assert_eq!(canonical, "SELECT a, 'it''s' FROM t WHERE b = ?");
}

#[test]
fn bad_text_is_refused_with_its_place() {
    for (sql, part) in [
        ("SELECT FROM WHERE", "Line: 1"),
        ("SELECT a\nFROM t WHERE (", "EOF"),
        ("SELEKT 1", "Line: 1, Column: 1"),
        ("", "no statement"),
        (" ; ; ", "no statement"),
        ("SELECT 'open", "Unterminated"),
        ("SELECT 1\0", "NUL"),
    ] {
        match analyse(Dialect::Sqlite, sql) {
            Err(error @ SqlError::Parse(_)) => {
                assert!(error.to_string().contains(part), "{sql:?}: {error}");
            }
            other => panic!("{sql:?}: {other:?}"),
        }
    }
}

#[test]
fn huge_and_deep_text_is_bounded() {
    let long = format!("SELECT {}", "1,".repeat(20_000));
    assert!(matches!(analyse(Dialect::Sqlite, &long), Err(SqlError::Parse(_))));
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let error = analyse(Dialect::Sqlite, &deep).unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
    // The longest chain that fits: its tree is as deep as it is long, and no stack is overrun.
    let chain = format!("SELECT {}1 FROM t", "1+".repeat(16_000));
    assert_eq!(words(&analyse(Dialect::Sqlite, &chain).unwrap().facts.tables), "t");
    let postgres_name = format!("SELECT a FROM {}", "x".repeat(64));
    assert!(matches!(analyse(Dialect::Postgres, &postgres_name), Err(SqlError::Refused(_))));
}

/// Syntax that the database reads otherwise than the parser must not get through with the wrong
/// facts: it is refused, or the table is found.
#[test]
fn no_table_is_read_behind_the_parser() {
    for (dialect, sql) in [
        (Dialect::Postgres, "SELECT a FROM ONLY employees"),
        (Dialect::Postgres, "SELECT a FROM ONLY (employees)"),
        (Dialect::Postgres, "SELECT a FROM employees *"),
        (Dialect::Postgres, "SELECT a FROM ROWS FROM (employees())"),
        (Dialect::Postgres, "SELECT U&\"\\0061\" FROM U&\"employees\""),
        (Dialect::Postgres, "SELECT a FROM x WHERE a = ANY (TABLE employees)"),
        (Dialect::Postgres, "SELECT ARRAY(SELECT a FROM employees)"),
        (Dialect::Postgres, "SELECT (SELECT e FROM employees AS e LIMIT 1).a"),
        (Dialect::Postgres, "SELECT a FROM x TABLESAMPLE system (1), employees"),
        (Dialect::Postgres, "SELECT a FROM x FOR UPDATE OF employees"),
        (Dialect::Sqlite, "SELECT a FROM x WHERE a IN employees"),
        (Dialect::Sqlite, "SELECT a FROM x WHERE a IN main.employees"),
        (Dialect::Sqlite, "SELECT a FROM 'employees'"),
        (Dialect::Sqlite, "SELECT a FROM x, employees INDEXED BY i"),
        (Dialect::Sqlite, "SELECT a FROM x OUTER JOIN employees"),
        (Dialect::Sqlite, "SELECT a FROM (employees)"),
        (Dialect::Sqlite, "SELECT a FROM (x, (employees))"),
        (Dialect::Sqlite, "SELECT a FROM employees('match')"),
        (Dialect::Sqlite, "SELECT a FROM x /*! , employees */"),
        (Dialect::Sqlite, "SELECT a FROM x -- , employees"),
    ] {
        let Ok(analysis) = analyse(dialect, sql) else { continue };
        let facts = &analysis.facts;
        let seen = facts.tables.contains("employees") || facts.functions.contains("employees");
        let gone = !analysis.canonical.contains("employees");
        assert!(seen || gone, "{dialect:?} {sql}: {facts:?}");
    }
}
