//! From SQL text to facts, without running it.

use std::ops::ControlFlow;

use provost_data_policy::SqlFacts;
use sqlparser::{
    ast::{Expr, Statement, Value, Visit, visit_expressions_mut},
    dialect::{PostgreSqlDialect, SQLiteDialect},
    parser::{Parser, ParserError},
};

use super::{SqlError, collector::Collector};

/// Longest SQL text, in bytes.
const MAX_SQL_BYTES: usize = 32 * 1024;
/// Deepest nesting of parentheses and subqueries.
const MAX_NESTING: usize = 64;
/// Stack for one analysis. A chain of operators as long as `MAX_SQL_BYTES` allows makes a tree as
/// deep, and it is walked, compared and freed by recursion.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite 3.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// Whose SQL the `sql` built-in with this `url` speaks.
    pub fn of_url(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }
}

/// What a text says, and the text to run instead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// The facts, for policy.
    pub facts: SqlFacts,
    /// The statements rendered from the syntax tree: no comments, one line, and the same tree.
    pub canonical: String,
}

/// Analyses every statement of `sql`. Text that cannot be parsed is an error with its place, and
/// so is text that does not render to an equal tree.
pub fn analyse(dialect: Dialect, sql: &str) -> Result<Analysis, SqlError> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("the text has {} bytes, at most {MAX_SQL_BYTES} are read", sql.len());
        return Err(SqlError::Parse(message));
    }
    if sql.contains('\0') {
        return Err(SqlError::Parse("the text holds a NUL character".to_owned()));
    }
    stacker::grow(STACK_BYTES, || analyse_here(dialect, sql))
}

fn analyse_here(dialect: Dialect, sql: &str) -> Result<Analysis, SqlError> {
    let statements = parse(dialect, sql).map_err(|e| SqlError::Parse(sentence(&e)))?;
    if statements.is_empty() {
        return Err(SqlError::Parse("the text has no statement".to_owned()));
    }
    let canonical = statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if parse(dialect, &canonical).ok().as_ref() != Some(&statements) {
        let message = "the text can be read in two ways; write it more plainly".to_owned();
        return Err(SqlError::Parse(message));
    }
    let mut collector = Collector::new(dialect, &statements);
    if let ControlFlow::Break(why) = statements.visit(&mut collector) {
        return Err(SqlError::Refused(why));
    }
    Ok(Analysis { facts: collector.finish(), canonical })
}

fn parse(dialect: Dialect, sql: &str) -> Result<Vec<Statement>, ParserError> {
    let parser = match dialect {
        Dialect::Sqlite => Parser::new(&SQLiteDialect {}),
        Dialect::Postgres => Parser::new(&PostgreSqlDialect {}),
    };
    parser.with_recursion_limit(MAX_NESTING).try_with_sql(sql)?.parse_statements()
}

fn sentence(error: &ParserError) -> String {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => {
            format!("the text is nested deeper than {MAX_NESTING} levels")
        }
    }
}

/// The query with each placeholder `$n` as text cast to the type that the database inferred for
/// it, so that every parameter can be sent as text.
pub(super) fn cast_placeholders(sql: &str, types: &[String]) -> Result<String, SqlError> {
    if types.is_empty() {
        return Ok(sql.to_owned());
    }
    stacker::grow(STACK_BYTES, || {
        let mut statements = parse(Dialect::Postgres, sql).map_err(|e| SqlError::Parse(sentence(&e)))?;
        let result = visit_expressions_mut(&mut statements, |expr| {
            let Some(cast) = placeholder_cast(expr, types) else {
                return ControlFlow::Continue(());
            };
            let parsed =
                Parser::new(&PostgreSqlDialect {}).try_with_sql(&cast).and_then(|mut parser| parser.parse_expr());
            match parsed {
                Ok(parsed) => {
                    *expr = parsed;
                    ControlFlow::Continue(())
                }
                Err(_) => ControlFlow::Break(SqlError::Arguments(format!(
                    "a placeholder is of a type that cannot be sent; write `{cast}` with its name"
                ))),
            }
        });
        match result {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    })
}

fn placeholder_cast(expr: &Expr, types: &[String]) -> Option<String> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    let index: usize = name.strip_prefix('$')?.parse().ok()?;
    let kind = types.get(index.checked_sub(1)?)?;
    Some(format!("CAST(CAST({name} AS TEXT) AS {kind})"))
}
