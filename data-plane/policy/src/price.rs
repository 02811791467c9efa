//! What a call costs, from the prices of one snapshot.
//!
//! Invariants: the name itself wins over every prefix, a longer prefix over a shorter one, and what a `Model` says of itself
//! holds where no price of the tenant names it; an adapter costs what its base costs where no price names the adapter; nothing
//! depends on the order of resources. A cost is rounded up, and never more than the worst case that was reserved for it.
//! Left out: currencies (admission sees to it that a tenant has one), and who pays.

use std::{collections::HashMap, sync::Arc};

use provost_types::{Kind, ModelPrices, Name, PriceSpec, Resource, Snapshot, Spec};

use crate::RunModel;

/// Tokens that prices are given for.
const PRICED_TOKENS: u128 = 1_000_000;

/// The price of one call: of its tool and of the model that runs for it, together. In millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallPrice {
    per_call: u64,
    per_million_input: u64,
    per_million_output: u64,
}

impl CallPrice {
    fn of(spec: &PriceSpec) -> Self {
        Self {
            per_call: spec.per_call_micro,
            per_million_input: spec.per_million_input_tokens_micro,
            per_million_output: spec.per_million_output_tokens_micro,
        }
    }

    fn of_tokens(prices: &ModelPrices) -> Self {
        Self {
            per_call: 0,
            per_million_input: prices.per_million_input_tokens_micro,
            per_million_output: prices.per_million_output_tokens_micro,
        }
    }

    /// What a call costs that used so many tokens, rounded up.
    pub fn cost_micro(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        let read = u128::from(tokens_in) * u128::from(self.per_million_input);
        let made = u128::from(tokens_out) * u128::from(self.per_million_output);
        let tokens = read.saturating_add(made);
        u64::try_from(tokens.div_ceil(PRICED_TOKENS)).unwrap_or(u64::MAX).saturating_add(self.per_call)
    }

    /// Whether nothing of it costs anything.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

/// Prices by pattern.
#[derive(Debug, Default)]
struct Prices {
    exact: HashMap<Box<str>, CallPrice>,
    /// Longest first.
    prefixes: Vec<(Box<str>, CallPrice)>,
}

impl Prices {
    fn add(&mut self, pattern: &str, price: CallPrice) {
        match pattern.strip_suffix('*') {
            // Admission refuses a second price of a pattern; were it here, the first would hold.
            None => drop(self.exact.entry(pattern.into()).or_insert(price)),
            Some(prefix) => self.prefixes.push((prefix.into(), price)),
        }
    }

    fn of(&self, name: &str) -> Option<CallPrice> {
        let longest = || self.prefixes.iter().find(|(prefix, _)| name.starts_with(&**prefix)).map(|(_, price)| *price);
        self.exact.get(name).copied().or_else(longest)
    }
}

#[derive(Debug, Default)]
struct TenantPrices {
    tools: Prices,
    models: Prices,
}

/// All prices of one revision by tenant: one that has none is not in it.
#[derive(Debug, Default)]
pub struct PriceIndex {
    tenants: HashMap<Name, TenantPrices>,
    /// What models that have a price of their own cost.
    models: HashMap<Box<str>, CallPrice>,
}

impl PriceIndex {
    /// Compiles the prices of a snapshot.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for resource in snapshot.of_kind(Kind::Price) {
            let (Some(tenant), Spec::Price(spec)) = (&resource.metadata.tenant, &resource.spec) else { continue };
            let of_tenant = index.tenants.entry(tenant.clone()).or_default();
            spec.tools.iter().for_each(|pattern| of_tenant.tools.add(pattern, CallPrice::of(spec)));
            spec.models.iter().for_each(|pattern| of_tenant.models.add(pattern, CallPrice::of(spec)));
        }
        for prices in index.tenants.values_mut().flat_map(|t| [&mut t.tools, &mut t.models]) {
            // Stable: of equals the first stays first.
            prices.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        let priced = |resource: &Arc<Resource>| match &resource.spec {
            Spec::Model(spec) => {
                let price = CallPrice::of_tokens(spec.prices.as_ref()?);
                Some((Box::<str>::from(resource.metadata.name.as_str()), price))
            }
            _ => None,
        };
        index.models = snapshot.of_kind(Kind::Model).filter_map(priced).collect();
        index
    }

    /// Whether anything costs the tenant something.
    pub fn has_any(&self, tenant: &Name) -> bool {
        !self.models.is_empty() || (!self.tenants.is_empty() && self.tenants.contains_key(tenant))
    }

    /// The price of a call of a tool, of a model, or of a tool that runs a model.
    pub fn of(&self, tenant: &Name, tool: Option<&str>, model: Option<RunModel<'_>>) -> CallPrice {
        let own = self.tenants.get(tenant);
        let tool = tool.and_then(|name| own?.tools.of(name)).unwrap_or_default();
        let of_tenant = |name: &str| own.and_then(|prices| prices.models.of(name));
        let of_model = |name: &str| self.models.get(name).copied();
        let priced =
            |model: RunModel<'_>| model.names().find_map(of_tenant).or_else(|| model.names().find_map(of_model));
        let model = model.and_then(priced).unwrap_or_default();
        CallPrice {
            per_call: tool.per_call.saturating_add(model.per_call),
            // Tokens are the model's.
            ..model
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;
    use provost_types::{Metadata, Resource, Revision};
    use serde_json::{Value, json};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn index(prices: &[(&str, Value)]) -> PriceIndex {
        let mut snapshot = Snapshot::default();
        for (own, spec) in prices {
            let metadata = Metadata { name: name(own), tenant: Some(name("acme")), labels: BTreeMap::new() };
            let mut spec = spec.clone();
            spec["currency"] = json!("EUR");
            let spec = Spec::Price(serde_json::from_value(spec).unwrap());
            let price = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
            snapshot.resources.insert(price.key(), Arc::new(price));
        }
        PriceIndex::compile(&snapshot)
    }

    #[test]
    fn the_name_itself_wins_then_the_longest_prefix() {
        let index = index(&[
            ("a", json!({"tools": ["*"], "perCallMicro": 1})),
            ("b", json!({"tools": ["sql.*"], "perCallMicro": 10})),
            ("c", json!({"tools": ["sql.query*"], "perCallMicro": 100})),
            ("d", json!({"tools": ["sql.query"], "perCallMicro": 0})),
            (
                "m",
                json!({"models": ["tiny"], "perCallMicro": 7, "perMillionInputTokensMicro": 500_000,
                "perMillionOutputTokensMicro": 2_000_000}),
            ),
        ]);
        let acme = name("acme");
        // Tool, model, tokens in and out, cost.
        let table = [
            (Some("echo.echo"), None, (0, 0), 1),
            (Some("sql.tables"), None, (0, 0), 10),
            (Some("sql.query2"), None, (0, 0), 100),
            (Some("sql.query"), None, (0, 0), 0),
            // Tokens that no model used cost nothing.
            (Some("echo.echo"), None, (1_000, 1_000), 1),
            (None, Some("tiny"), (0, 0), 7),
            (None, Some("tiny"), (10, 10), 7 + 5 + 20),
            // Rounded up.
            (None, Some("tiny"), (1, 0), 8),
            (Some("ai.chat"), Some("tiny"), (10, 10), 1 + 7 + 5 + 20),
            (None, Some("large"), (1_000, 1_000), 0),
            (None, None, (1_000, 1_000), 0),
        ];
        for (tool, model, (tokens_in, tokens_out), cost) in table {
            let price = index.of(&acme, tool, model.map(RunModel::plain));
            assert_eq!(price.cost_micro(tokens_in, tokens_out), cost, "{tool:?} {model:?}");
        }
        assert!(index.of(&name("umbra"), Some("sql.query"), Some(RunModel::plain("tiny"))).is_free());
    }

    #[test]
    fn a_models_own_price_holds_where_the_tenant_has_none_for_it() {
        let mut snapshot = Snapshot::default();
        let mut add = |own: &str, tenant: Option<Name>, spec: Value| {
            let metadata = Metadata { name: name(own), tenant, labels: BTreeMap::new() };
            let spec = serde_json::from_value(spec).unwrap();
            let added = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
            snapshot.resources.insert(added.key(), Arc::new(added));
        };
        let prices = json!({"perMillionInputTokensMicro": 1_000_000, "perMillionOutputTokensMicro": 2_000_000});
        add("tiny", None, json!({"Model": {"source": {"path": "/m"}, "prices": prices}}));
        add("free", None, json!({"Model": {"source": {"path": "/m"}}}));
        add("p", Some(name("acme")), json!({"Price": {"currency": "EUR", "models": ["ti*"], "perCallMicro": 5}}));
        let index = PriceIndex::compile(&snapshot);
        let cost_of = |tenant: &str, model: RunModel<'_>| index.of(&name(tenant), None, Some(model)).cost_micro(3, 4);
        let cost = |tenant: &str, model: &str| cost_of(tenant, RunModel::plain(model));
        assert_eq!((cost("acme", "tiny"), cost("umbra", "tiny"), cost("umbra", "free")), (5, 3 + 8, 0));
        assert!(index.has_any(&name("umbra")) && !PriceIndex::default().has_any(&name("umbra")));
        // An adapter costs what its base costs, whoever says so.
        let over = |tenant: &str, model: &str, base: &str| cost_of(tenant, RunModel { name: model, base: Some(base) });
        assert_eq!((over("umbra", "support", "tiny"), over("umbra", "support", "free")), (3 + 8, 0));
        assert_eq!(over("acme", "support", "tiny"), 5);
        assert_eq!(cost("umbra", "support"), 0, "it is no adapter");
    }

    #[test]
    fn an_adapter_may_have_a_price_of_its_own() {
        let index = index(&[
            ("base", json!({"models": ["tiny"], "perMillionInputTokensMicro": 1_000_000})),
            ("own", json!({"models": ["tuned-*"], "perMillionInputTokensMicro": 7_000_000})),
        ]);
        let cost = |model: &str| {
            let model = RunModel { name: model, base: Some("tiny") };
            index.of(&name("acme"), None, Some(model)).cost_micro(1, 0)
        };
        assert_eq!((cost("tuned-1"), cost("other")), (7, 1));
    }

    proptest! {
        /// What was reserved covers what is charged.
        #[test]
        fn fewer_tokens_never_cost_more(
            price in (any::<u64>(), any::<u64>(), any::<u64>()),
            used in (any::<u64>(), any::<u64>()),
            bound in (any::<u64>(), any::<u64>()),
        ) {
            let price = CallPrice { per_call: price.0, per_million_input: price.1, per_million_output: price.2 };
            let at_most = price.cost_micro(used.0.max(bound.0), used.1.max(bound.1));
            prop_assert!(price.cost_micro(used.0, used.1) <= at_most);
        }
    }
}
