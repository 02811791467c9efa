//! Walks a syntax tree and notes what it touches.
//!
//! Where it must guess it notes too much rather than too little: a name that could be a table is
//! one, a name that could be a whole row is `*`.

use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
};

use provost_data_policy::SqlFacts;
use sqlparser::ast::{
    AssignmentTarget, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinConstraint,
    JoinOperator, ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableAlias, TableFactor,
    TableWithJoins, Visitor,
};

use super::Dialect;

/// Longest identifier: PostgreSQL cuts longer ones off, so that two names could be one.
const MAX_IDENT_BYTES: usize = 63;

/// The names of common table expressions that one query defines.
struct CteScope {
    /// The queries that define names, by address, and the names they define.
    pending: Vec<(usize, String)>,
    visible: HashSet<String>,
}

pub(super) struct Collector {
    dialect: Dialect,
    facts: SqlFacts,
    scopes: Vec<CteScope>,
    /// Names and aliases of what is selected from; a column of such a name is a whole row.
    row_names: HashSet<String>,
    identifiers: BTreeSet<String>,
    /// Relations that are calls of table functions, and order-by terms that are output names, by
    /// address.
    function_relations: HashSet<usize>,
    output_names: HashSet<usize>,
    /// Names that are hidden by a common table expression, kept in case the text also writes:
    /// the target of a write is never a common table expression.
    hidden: Vec<(String, String)>,
    writes: bool,
    writes_without_where: bool,
}

type Step = ControlFlow<String>;

fn address<T>(item: &T) -> usize {
    std::ptr::from_ref(item) as usize
}

impl Collector {
    pub(super) fn new(dialect: Dialect, statements: &[Statement]) -> Self {
        let facts = SqlFacts {
            statements: u32::try_from(statements.len()).unwrap_or(u32::MAX),
            has_where: statements.iter().all(top_level_where),
            ..SqlFacts::default()
        };
        Self {
            dialect,
            facts,
            scopes: Vec::new(),
            row_names: HashSet::new(),
            identifiers: BTreeSet::new(),
            function_relations: HashSet::new(),
            output_names: HashSet::new(),
            hidden: Vec::new(),
            writes: false,
            writes_without_where: false,
        }
    }

    pub(super) fn finish(mut self) -> SqlFacts {
        if self.writes {
            self.facts.has_where = !self.writes_without_where;
        }
        if self.facts.kinds.iter().any(|k| k != "SELECT") {
            for (full, bare) in std::mem::take(&mut self.hidden) {
                self.facts.tables.extend([full, bare]);
            }
        }
        // `SELECT t FROM t` is the whole row in PostgreSQL.
        if self.dialect == Dialect::Postgres && self.identifiers.iter().any(|i| self.row_names.contains(i)) {
            self.all_columns();
        }
        self.facts
    }

    fn all_columns(&mut self) {
        self.facts.columns.insert("*".to_owned());
    }

    /// The name as the database compares it: SQLite ignores case, PostgreSQL folds what is not
    /// quoted.
    fn fold(&self, ident: &Ident) -> String {
        match (self.dialect, ident.quote_style) {
            (Dialect::Postgres, Some(_)) => ident.value.clone(),
            _ => ident.value.to_ascii_lowercase(),
        }
    }

    fn column(&mut self, ident: &Ident) {
        let name = self.fold(ident);
        self.identifiers.insert(name.clone());
        self.facts.columns.insert(name.to_ascii_lowercase());
        self.facts.columns.insert(name);
    }

    /// The parts of a dotted name.
    fn parts(&self, name: &ObjectName) -> Option<Vec<String>> {
        name.0.iter().map(|part| part.as_ident().map(|i| self.fold(i))).collect()
    }

    fn relation(&mut self, name: &ObjectName) -> Step {
        let Some(parts) = self.parts(name) else {
            return ControlFlow::Break(format!("the table name `{name}` is computed"));
        };
        // `FROM ONLY t` reads as a table `only` under the alias `t`, which is not what runs.
        if self.dialect == Dialect::Postgres && parts == ["only"] {
            return ControlFlow::Break("`ONLY` is not analysed; leave it out".to_owned());
        }
        let full = parts.join(".");
        let Some(bare) = parts.last().cloned() else { return ControlFlow::Continue(()) };
        if self.function_relations.contains(&address(name)) {
            self.facts.functions.insert(full.to_ascii_lowercase());
            return ControlFlow::Continue(());
        }
        self.row_names.insert(bare.clone());
        let is_cte = parts.len() == 1 && self.scopes.iter().any(|scope| scope.visible.contains(&bare));
        if is_cte {
            self.hidden.push((full, bare));
        } else {
            self.table(full, bare);
        }
        ControlFlow::Continue(())
    }

    /// A quoted name with capitals is noted twice: an allow list does not match it by accident,
    /// and a deny list catches it.
    fn table(&mut self, full: String, bare: String) {
        for name in [full, bare] {
            self.facts.tables.insert(name.to_ascii_lowercase());
            self.facts.tables.insert(name);
        }
    }

    fn alias(&mut self, alias: Option<&TableAlias>) {
        if let Some(alias) = alias {
            self.row_names.insert(self.fold(&alias.name));
        }
    }

    /// `TABLE name`, which the visitor passes over because it holds bare strings.
    fn bare_tables(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Table(table) => {
                let bare = table.table_name.clone().unwrap_or_default();
                let full = match &table.schema_name {
                    Some(schema) => format!("{schema}.{bare}"),
                    None => bare.clone(),
                };
                self.table(full, bare);
                self.all_columns();
                self.facts.kinds.insert("SELECT".to_owned());
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.bare_tables(left);
                self.bare_tables(right);
            }
            SetExpr::Values(_) => {
                self.facts.kinds.insert("SELECT".to_owned());
            }
            // A nested query is visited as a query of its own, a write as a statement.
            _ => {}
        }
    }

    fn joins(&mut self, tables: &TableWithJoins) {
        for join in &tables.joins {
            match constraint(&join.join_operator) {
                Some(JoinConstraint::Natural) => self.all_columns(),
                Some(JoinConstraint::Using(names)) => {
                    for ident in names.iter().filter_map(|n| n.0.last()?.as_ident()) {
                        self.column(ident);
                    }
                }
                _ => {}
            }
        }
    }

    fn function(&mut self, function: &Function) -> Step {
        let Some(parts) = self.parts(&function.name) else {
            return ControlFlow::Break(format!("the function name `{}` is computed", function.name));
        };
        let name = parts.join(".").to_ascii_lowercase();
        if let FunctionArguments::List(list) = &function.args {
            for arg in &list.args {
                let (FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } | FunctionArg::Unnamed(arg)) =
                    arg;
                let counts_rows = name == "count" && matches!(arg, FunctionArgExpr::Wildcard);
                if !matches!(arg, FunctionArgExpr::Expr(_)) && !counts_rows {
                    self.all_columns();
                }
            }
        }
        self.facts.functions.insert(name);
        ControlFlow::Continue(())
    }

    /// Order-by terms that name an output column say nothing of the tables.
    fn skip_output_names(&mut self, query: &Query) {
        let (Some(select), Some(order)) = (query.body.as_select(), &query.order_by) else { return };
        let OrderByKind::Expressions(terms) = &order.kind else { return };
        let aliases: HashSet<String> = select
            .projection
            .iter()
            .filter_map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => Some(self.fold(alias)),
                _ => None,
            })
            .collect();
        for term in terms {
            if let Expr::Identifier(ident) = &term.expr
                && aliases.contains(&self.fold(ident))
            {
                self.output_names.insert(address(&term.expr));
            }
        }
    }

    fn write(&mut self, kind: &str, has_where: bool) {
        self.facts.kinds.insert(kind.to_owned());
        self.writes = true;
        self.writes_without_where |= !has_where;
    }
}

impl Visitor for Collector {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &Statement) -> Step {
        match statement {
            // Its parts say what kind it is.
            Statement::Query(_) => {}
            Statement::Update(update) => {
                self.write("UPDATE", update.selection.is_some());
                for assignment in &update.assignments {
                    let names = match &assignment.target {
                        AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
                        AssignmentTarget::Tuple(names) => names.as_slice(),
                    };
                    for ident in names.iter().filter_map(|n| n.0.last()?.as_ident()) {
                        self.column(ident);
                    }
                }
            }
            Statement::Delete(delete) => {
                self.write("DELETE", delete.selection.is_some());
                for name in &delete.tables {
                    self.relation(name)?;
                }
            }
            other => {
                let kind = verb(other);
                if kind == "DROP"
                    && let Statement::Drop { names, .. } = other
                {
                    for name in names {
                        self.relation(name)?;
                    }
                }
                self.facts.kinds.insert(kind);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> Step {
        let mut scope = CteScope { pending: Vec::new(), visible: HashSet::new() };
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let name = self.fold(&cte.alias.name);
                self.row_names.insert(name.clone());
                if with.recursive {
                    scope.visible.insert(name);
                } else {
                    scope.pending.push((address(&*cte.query), name));
                }
            }
        }
        for lock in &query.locks {
            self.facts.kinds.insert("LOCK".to_owned());
            if let Some(name) = &lock.of {
                self.relation(name)?;
            }
        }
        self.scopes.push(scope);
        self.bare_tables(&query.body);
        self.skip_output_names(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> Step {
        self.scopes.pop();
        // From here on the name that this query defines hides a table of that name.
        if let Some(scope) = self.scopes.last_mut()
            && let Some(place) = scope.pending.iter().position(|(at, _)| *at == address(query))
        {
            let (_, name) = scope.pending.swap_remove(place);
            scope.visible.insert(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Step {
        self.facts.kinds.insert("SELECT".to_owned());
        for item in &select.projection {
            if matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)) {
                self.all_columns();
            }
        }
        if let Some(into) = &select.into {
            self.facts.kinds.insert("CREATE".to_owned());
            for target in &into.targets {
                let parts = match target {
                    Expr::Identifier(ident) => vec![self.fold(ident)],
                    Expr::CompoundIdentifier(parts) => parts.iter().map(|i| self.fold(i)).collect(),
                    _ => return ControlFlow::Break(format!("the table name `{target}` is computed")),
                };
                let bare = parts.last().cloned().unwrap_or_default();
                self.table(parts.join("."), bare);
            }
        }
        for tables in &select.from {
            self.joins(tables);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Step {
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                self.alias(alias.as_ref());
                if args.is_some() {
                    self.function_relations.insert(address(name));
                }
            }
            TableFactor::Derived { alias, .. } => self.alias(alias.as_ref()),
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.alias(alias.as_ref());
                self.joins(table_with_joins);
            }
            TableFactor::Function { name, alias, .. } => {
                self.alias(alias.as_ref());
                let Some(parts) = self.parts(name) else {
                    return ControlFlow::Break(format!("the function name `{name}` is computed"));
                };
                self.facts.functions.insert(parts.join(".").to_ascii_lowercase());
            }
            TableFactor::UNNEST { alias, .. } => {
                self.alias(alias.as_ref());
                self.facts.functions.insert("unnest".to_owned());
            }
            TableFactor::TableFunction { alias, .. } => self.alias(alias.as_ref()),
            other => {
                return ControlFlow::Break(format!("`{other}` is not a source that is analysed"));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Step {
        self.relation(relation)
    }

    fn pre_visit_ident(&mut self, ident: &Ident) -> Step {
        if self.dialect == Dialect::Postgres && ident.value.len() > MAX_IDENT_BYTES {
            let message = format!("a name is longer than {MAX_IDENT_BYTES} bytes");
            return ControlFlow::Break(message);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Step {
        match expr {
            Expr::Identifier(ident) if !self.output_names.contains(&address(expr)) => {
                self.column(ident);
            }
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.last() {
                    self.column(last);
                }
            }
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => self.all_columns(),
            Expr::Function(function) => self.function(function)?,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Whether a top-level query selects under a `WHERE` in all its parts.
fn top_level_where(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => body_where(&query.body),
        _ => false,
    }
}

fn body_where(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.selection.is_some(),
        SetExpr::Query(query) => body_where(&query.body),
        SetExpr::SetOperation { left, right, .. } => body_where(left) && body_where(right),
        _ => false,
    }
}

/// The first word of a statement, in upper case.
fn verb(statement: &Statement) -> String {
    let text = statement.to_string();
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).find(|w| !w.is_empty());
    word.map_or_else(|| "OTHER".to_owned(), str::to_ascii_uppercase)
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Semi(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::Anti(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c)
        | JoinOperator::StraightJoin(c)
        | JoinOperator::AsOf { constraint: c, .. } => Some(c),
        JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => None,
    }
}
