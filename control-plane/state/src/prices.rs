//! The rules that prices keep, each by itself and those of a tenant together.
//!
//! Invariants: sums of money are of one currency, so a tenant's prices have the same; which price holds
//! never depends on the order of documents, so a pattern has one price.

use std::collections::BTreeMap;

use provost_types::{Kind, Name, PriceSpec, ResourceKey, Spec};

use crate::{Problem, Resources, fields::Check};

const CODE: &str = "PV-RES-FIELD";
/// The highest price of a call or of a million tokens: a million units of the currency.
const MAX_PRICE_MICRO: u64 = 1_000_000_000_000;

/// Checks one price by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &PriceSpec) {
    let is_code = spec.currency.len() == 3 && spec.currency.bytes().all(|b| b.is_ascii_uppercase());
    check.require(is_code, "spec.currency", || {
        format!("`{}` is not a currency: three capital letters such as EUR or USD", spec.currency)
    });
    check.require(!spec.tools.is_empty() || !spec.models.is_empty(), "spec", || {
        "names neither tools nor models, so it is the price of nothing; `tools: [\"*\"]` names all".into()
    });
    check.patterns("spec.tools", &spec.tools);
    check.patterns("spec.models", &spec.models);
    let of_tokens = [
        ("spec.perMillionInputTokensMicro", spec.per_million_input_tokens_micro),
        ("spec.perMillionOutputTokensMicro", spec.per_million_output_tokens_micro),
    ];
    for (field, price) in of_tokens {
        check.require(price == 0 || !spec.models.is_empty(), field, || {
            "tokens are counted for models: name them in `models`".into()
        });
        within_bounds(check, field, price);
    }
    within_bounds(check, "spec.perCallMicro", spec.per_call_micro);
}

fn within_bounds(check: &mut Check<'_>, field: &str, price: u64) {
    check.require(price <= MAX_PRICE_MICRO, field, || {
        format!("{price} is more than {MAX_PRICE_MICRO}: prices are in millionths of the currency")
    });
}

/// Checks the prices of each tenant together.
pub(crate) fn check_together(all: &Resources, problems: &mut Vec<Problem>) {
    let mut currencies: BTreeMap<Option<&Name>, (&str, &ResourceKey)> = BTreeMap::new();
    let mut patterns: BTreeMap<(Option<&Name>, &str, &str), &ResourceKey> = BTreeMap::new();
    for (key, resource) in all.iter().filter(|(key, _)| key.kind == Kind::Price) {
        let Spec::Price(spec) = &resource.spec else { continue };
        let tenant = key.tenant.as_ref();
        let (currency, first) = currencies.entry(tenant).or_insert((&spec.currency, key));
        if *currency != spec.currency {
            let text =
                format!("is {}, and {first} is in {currency}: the prices of a tenant have one currency", spec.currency);
            problems.push(Problem::of_field(key, "spec.currency", CODE, text));
        }
        let tools = spec.tools.iter().map(|p| ("tools", p));
        for (field, pattern) in tools.chain(spec.models.iter().map(|p| ("models", p))) {
            if let Some(first) = patterns.insert((tenant, field, pattern), key) {
                let text = format!("`{pattern}` has a price in {first} already; a pattern has one price");
                problems.push(Problem::of_field(key, format!("spec.{field}"), CODE, text));
            }
        }
    }
}
