//! Guards that are programs of an operator's own, asked by gRPC.
//!
//! Purpose: [`Outside::check`] hands a part of a call to each external guard that covers it, one after the
//! other in order of name, and says as what it may go on.
//! Invariants: what is sent is what the built-in guards left, as it would be kept: no value that they hide
//! or that a token stands for; an answer that cannot be done blocks, and so does none where the guard does
//! not say `onFailure: allow`; nothing of an answer but its own changes and reason reaches anybody.
//! Every check has a bound in bytes and in time.
//! Left out: retries. Who waits for a check is a caller.

mod apply;
mod channel;
mod clients;
mod queue;
mod windows;

use std::sync::Arc;

use provost_data_guards::{Action, ExternalGuard, Kind, Layout, Tally};
use provost_data_pipeline::{Rejection, RejectionKind};
use provost_mcp::RawJson;
use provost_types::{ExternalFailure, Name};
use provost_wire::guard::{CheckRequest, Direction, Part, check_response::Verdict};

pub(crate) use clients::ExternalClients;
pub(super) use queue::{Queue, Waiting};
pub(super) use windows::Windows;

/// Largest text that is sent to be checked; a larger one counts as not answered.
const CHECKED_BYTES_MAX: usize = 1 << 20;
/// Longest reason that is kept.
const REASON_BYTES_MAX: usize = 200;

/// What a guard is told of the call.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(super) tenant: Name,
    pub(super) principal: String,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) call_id: String,
}

/// Why something does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A guard says so.
    Blocked { guard: Name, reason: String },
    /// A guard that must be asked did not answer.
    Unanswered { guard: Name },
    /// More was streamed than waits to be checked.
    TooFast,
}

impl Stop {
    /// As the caller and the log read it.
    pub(super) fn rejection(&self, ran: bool) -> Rejection {
        let began = if ran { "the call ran, and its answer is held back: " } else { "" };
        match self {
            Stop::Blocked { guard, reason } => Rejection::new(
                RejectionKind::Guarded,
                "PV-GUARD-BLOCKED",
                format!(
                    "{began}the external guard {guard} lets it not pass{}{reason}",
                    if reason.is_empty() { "" } else { ": " }
                ),
            ),
            Stop::Unanswered { guard } => Rejection::new(
                RejectionKind::Guarded,
                "PV-GUARD-EXTERNAL",
                format!("{began}the external guard {guard} did not say whether it may pass; try again later"),
            ),
            Stop::TooFast => Rejection::new(
                RejectionKind::Guarded,
                "PV-GUARD-EXTERNAL",
                format!("{began}more was streamed than external guards could look at in time; ask for less at once"),
            ),
        }
    }
}

/// What became of a part that was checked.
pub(super) struct Checked {
    /// As what it goes on, where that is another.
    pub(super) changed: Option<RawJson>,
    pub(super) tally: Tally,
    pub(super) stop: Option<Stop>,
}

/// The external guards that cover a call one way.
#[derive(Clone)]
pub(crate) struct Outside {
    guards: Vec<Arc<ExternalGuard>>,
    clients: Arc<ExternalClients>,
    about: Arc<About>,
    direction: Direction,
}

impl Outside {
    /// `None`: there are none.
    pub(super) fn new(
        guards: Vec<Arc<ExternalGuard>>,
        clients: &Arc<ExternalClients>,
        about: &Arc<About>,
        direction: Direction,
    ) -> Option<Self> {
        (!guards.is_empty()).then(|| Self { guards, clients: clients.clone(), about: about.clone(), direction })
    }

    /// Asks every guard about a part of the call.
    pub(super) async fn check(&self, part: Part, json: &RawJson, layout: &Layout) -> Checked {
        let mut checked = Checked { changed: None, tally: Tally::default(), stop: None };
        for guard in &self.guards {
            let now = checked.changed.as_ref().unwrap_or(json);
            let (judged, count) = match self.ask(guard, part, now).await {
                Some(verdict) => apply::judge(verdict, now, layout),
                None if guard.spec.on_failure == ExternalFailure::Allow => {
                    checked.tally.add_many(Kind::External, Action::Report, 1);
                    continue;
                }
                None => (apply::Judged::Unanswered, 1),
            };
            if guard.reports {
                checked.tally.add_many(Kind::External, Action::Report, count);
                continue;
            }
            match judged {
                apply::Judged::Pass => {}
                apply::Judged::Changed(changed) => {
                    checked.tally.add_many(Kind::External, Action::Mask, count);
                    checked.changed = Some(changed);
                }
                apply::Judged::Blocked(reason) => {
                    checked.tally.add_many(Kind::External, Action::Block, 1);
                    checked.stop = Some(Stop::Blocked { guard: guard.name.clone(), reason });
                    return checked;
                }
                apply::Judged::Unanswered => {
                    checked.tally.add_many(Kind::External, Action::Block, 1);
                    checked.stop = Some(Stop::Unanswered { guard: guard.name.clone() });
                    return checked;
                }
            }
        }
        checked
    }

    async fn ask(&self, guard: &ExternalGuard, part: Part, json: &RawJson) -> Option<Verdict> {
        let told = |why: &str| {
            tracing::warn!(
                code = "PV-GUARD-EXTERNAL", tenant = %self.about.tenant, guard = %guard.name, call_id = %self.about.call_id,
                why, "an external guard gave no answer"
            );
        };
        if json.as_bytes().len() > CHECKED_BYTES_MAX {
            told("the text is larger than what is sent to be checked");
            return None;
        }
        let request = CheckRequest {
            guard: guard.name.to_string(),
            tenant: self.about.tenant.to_string(),
            principal: self.about.principal.clone(),
            method: self.about.method.clone(),
            target: self.about.target.clone(),
            direction: self.direction.into(),
            part: part.into(),
            call_id: self.about.call_id.clone(),
            json: json.as_str().to_owned(),
        };
        match self.clients.check(&self.about.tenant, &guard.spec, request).await {
            Ok(response) if response.verdict.is_some() => response.verdict,
            Ok(_) => {
                told("it answered without a verdict");
                None
            }
            Err(why) => {
                told(&why);
                None
            }
        }
    }
}

/// A reason as it may be shown: short, on one line.
fn reason(text: &str) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=REASON_BYTES_MAX.min(shown.len())).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or_default();
    shown.get(..end).unwrap_or_default().trim().to_owned()
}
