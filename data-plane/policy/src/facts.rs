//! What is known of one call beside who, what and when.

use std::{collections::BTreeSet, net::IpAddr};

use cedar_policy::RestrictedExpression;

/// The facts of one call that policies read through `context`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The arguments as JSON text: one object. `None`: the call has none. Parsed only where a
    /// policy looks at arguments.
    pub arguments: Option<&'a str>,
    /// What a SQL text in the arguments does; `None` for calls that carry none.
    pub sql: Option<&'a SqlFacts>,
    /// `http`, `ws`, `h3`, `quic`, `stdio`, `internal`.
    pub transport: &'a str,
    /// The peer's address.
    pub client_address: Option<IpAddr>,
}

/// What a SQL text does, from its syntax tree. Each statement counts, nested ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlFacts {
    /// Statements in the text.
    pub statements: u32,
    /// The SQL verb of every statement, nested ones included, in upper case: `SELECT`, `INSERT`,
    /// `UPDATE`, `DELETE`, `DROP`, `CREATE`, …; `OTHER` for a statement without a name here.
    pub kinds: BTreeSet<String>,
    /// Tables and views, in lower case: as written (`hr.people`) and without schema (`people`).
    /// Names of common table expressions are not tables.
    pub tables: BTreeSet<String>,
    /// Columns without their table, in lower case; `*` where all columns of a table are read.
    pub columns: BTreeSet<String>,
    /// Functions in lower case.
    pub functions: BTreeSet<String>,
    /// Every `UPDATE` and `DELETE` has a `WHERE`; where there is neither, every top-level
    /// `SELECT` has one.
    pub has_where: bool,
}

impl SqlFacts {
    /// The one verb of the text, or `MULTIPLE`.
    pub fn kind(&self) -> &str {
        match (self.kinds.len(), self.kinds.first()) {
            (1, Some(kind)) => kind,
            _ => "MULTIPLE",
        }
    }

    pub(crate) fn to_expression(&self) -> Option<RestrictedExpression> {
        let text = |s: &str| RestrictedExpression::new_string(s.to_owned());
        let set = |values: &BTreeSet<String>| RestrictedExpression::new_set(values.iter().map(|v| text(v)));
        let fields = [
            ("kind", text(self.kind())),
            ("kinds", set(&self.kinds)),
            ("tables", set(&self.tables)),
            ("columns", set(&self.columns)),
            ("functions", set(&self.functions)),
            ("has_where", RestrictedExpression::new_bool(self.has_where)),
            ("statements", RestrictedExpression::new_long(i64::from(self.statements))),
        ];
        RestrictedExpression::new_record(fields.map(|(k, v)| (k.to_owned(), v))).ok()
    }
}
