//! Decisions that every call waits for, measured within this process on one thread.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Context;
use provost_data_policy::{
    AccessRequest, Facts, PolicyEngine, PriceIndex,
    quota::{Actual, Held, LeaseAnswer, LeaseBook, LeaseGrant, QuotaCall, QuotaIndex},
};
use provost_types::{Action, Name};

use super::{
    judge::Bar,
    report::{Figure, Row},
    sample,
    stage::Effort,
};

const MOST_QUOTA_US: f64 = 0.3;
/// Decisions of a round.
const DECISIONS: u32 = 100_000;
const DECISIONS_QUICK: u32 = 5_000;
/// Policies of the measured state.
const POLICIES: usize = 5;

fn decisions(effort: Effort) -> u32 {
    if effort.quick { DECISIONS_QUICK } else { DECISIONS }
}

/// Microseconds of one of so many.
fn each_us(took: Duration, count: u32) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(count)
}

/// What a node keeps for quotas.
struct Node {
    quotas: QuotaIndex,
    prices: PriceIndex,
    book: LeaseBook,
    started: Instant,
}

/// Takes a unit of every quota as the limit stage does; `None`: one has none.
fn take(node: &Node, call: &QuotaCall<'_>) -> Option<Vec<Held>> {
    let mut held = Vec::new();
    let price = node.prices.of(call.tenant, call.tool, call.model);
    let call = QuotaCall { cost_micro: price.cost_micro(0, 0), ..*call };
    for quota in node.quotas.matching(&call) {
        let now_ns = u64::try_from(node.started.elapsed().as_nanos()).ok()?.max(1);
        held.push(quota.slot(&node.book, &call)?.take(quota.units(&call), now_ns).ok()?);
    }
    Some(held)
}

/// One exchange with the ledger, so that every account has units.
fn supply(node: &Node, call: &QuotaCall<'_>) -> Option<()> {
    let mut waiting = Vec::new();
    for quota in node.quotas.matching(call) {
        waiting.push(quota.slot(&node.book, call)?.wait(1));
    }
    let exchange = node.book.next(1)?;
    let grants = exchange.wants.iter().zip(1..).map(|(want, lease)| LeaseGrant {
        account: want.account.clone(),
        lease,
        units: sample::UNITS,
        remaining: sample::UNITS,
        limit: sample::UNITS,
        window_end_ns: u64::MAX,
        ttl_ms: u64::MAX,
        ..LeaseGrant::default()
    });
    node.book.answered(exchange.seq, &LeaseAnswer { grants: grants.collect(), fenced: false }, 1);
    drop(waiting);
    Some(())
}

/// Row `quota`.
pub fn quota(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let snapshot = sample::snapshot_with_quota()?;
    let node = Node {
        quotas: QuotaIndex::compile(&snapshot),
        prices: PriceIndex::compile(&snapshot),
        book: LeaseBook::default(),
        started: Instant::now(),
    };
    let (tenant, principal) = (Name::new(sample::TENANT)?, Name::new(sample::PRINCIPAL)?);
    let call = QuotaCall {
        tenant: &tenant,
        principal: &principal,
        tool: Some(sample::TOOL),
        model: None,
        workflow: "",
        tokens: 0,
        cost_micro: 0,
    };
    supply(&node, &call).context("PV-BENCH: the quota has no units")?;
    let covered = take(&node, &call).context("PV-BENCH: the quota has no units")?.len();
    anyhow::ensure!(covered == 1, "PV-BENCH: {covered} quotas cover the call");
    let count = decisions(effort);
    let (mut decide, mut settle) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let began = Instant::now();
        for _ in 0..count {
            // What is dropped before the call began goes back: part of what is measured.
            drop(black_box(take(&node, black_box(&call))));
        }
        decide.push(each_us(began.elapsed(), count));
        let began = Instant::now();
        for _ in 0..count {
            if let Some(held) = take(&node, black_box(&call)) {
                held.iter().for_each(Held::begin);
                held.iter().for_each(|one| one.settle(&Actual::default()));
            }
        }
        settle.push(each_us(began.elapsed(), count));
    }
    let figures = vec![
        Figure::new("decide", "decision, one quota of the tenant", "us", decide)
            .against(Bar::at_most(MOST_QUOTA_US), None),
        Figure::new("settle", "decision and settlement", "us", settle),
    ];
    Ok(vec![Row::measured("quota", "", figures, Vec::new())])
}

/// Row `policy`.
pub fn policy(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let (tenant, principal) = (Name::new(sample::TENANT)?, Name::new(sample::PRINCIPAL)?);
    let facts = Facts { transport: "http", ..Facts::default() };
    let request = AccessRequest {
        token: None,
        tenant: &tenant,
        principal: &principal,
        action: Action::CallTool,
        plugin: Some("sql"),
        target: sample::TOOL,
        facts: &facts,
    };
    let count = decisions(effort);
    let mut figures = Vec::new();
    for policies in [0, POLICIES] {
        let compiled = PolicyEngine::compile(&sample::snapshot(policies)?);
        let engine = compiled.map_err(|_| anyhow::anyhow!("PV-BENCH: the measured policies do not compile"))?;
        anyhow::ensure!(
            engine.decide(&request, sample::NOW_NS).is_allow(),
            "PV-BENCH: the measured call is not allowed"
        );
        let mut each = Vec::new();
        for _ in 0..effort.rounds {
            let began = Instant::now();
            for _ in 0..count {
                drop(black_box(engine.decide(black_box(&request), sample::NOW_NS)));
            }
            each.push(each_us(began.elapsed(), count));
        }
        let label = format!("decision, 11 roles and {policies} written policies");
        figures.push(Figure::new(&format!("decide-{policies}"), label, "us", each));
    }
    Ok(vec![Row::measured("policy", "", figures, Vec::new())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_measured_and_made() {
        let effort = Effort { rounds: 2, ..Effort::QUICK };
        for rows in [quota(effort).unwrap(), policy(effort).unwrap()] {
            for row in rows {
                let measured =
                    row.figures.iter().all(|f| f.repetitions.len() == 2 && f.median.is_some_and(|m| m > 0.0));
                assert!(measured && row.figures.len() == 2, "{row:?}");
            }
        }
    }
}
