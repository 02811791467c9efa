//! The one path by which anything changes: plan and check here, then commit.

use std::collections::BTreeMap;

use provost_control_state::{ChangeKind, Draft, Event, Problem, Rejected, State, Transaction};
use provost_types::{ResourceKey, Revision, Snapshot};
use provost_wire::admin::Problem as LocatedProblem;

use crate::{
    Caller, ControlError, ControlNode, ErrorKind, ResourceDiff, Scope, SourceFile, carrier,
    commit::Committed,
    diff,
    documents::{self, Origin, Unread},
    merged_uris,
    reach::{Reach, Turn},
    record::{Record, now_ns},
    retry::Retry,
};

/// Changes in a transaction that is checked where it is asked for: another thread would cost more.
const MAX_INLINE_CHANGES: usize = 8;

/// The code of a change that somebody else's came before.
pub(crate) const CONFLICT: &str = "PV-CTL-CONFLICT";
/// The code of a reference to what does not exist.
const REFERENCE: &str = "PV-RES-REFERENCE";

/// What a change did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeReport {
    /// The state's revision after it; of a dry run the one it was compared with.
    pub revision: Revision,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Every resource that was named, with what differs.
    pub diffs: Vec<ResourceDiff>,
}

/// A change as asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) event: Event,
    pub(crate) message: &'a str,
    pub(crate) dry_run: bool,
    /// Where the resources were written, for the places of problems.
    pub(crate) files: &'a [SourceFile],
    /// Documents that could not be read: nothing is changed, but the others are checked too.
    pub(crate) unread: Unread,
}

impl Wanted<'_> {
    /// A transaction of this change without puts and deletes.
    pub(crate) fn transaction(&self) -> Transaction {
        Transaction {
            event: self.event,
            time_ns: now_ns(),
            author: self.caller.name.clone(),
            message: self.message.to_owned(),
            expect_revision: None,
            expect: Vec::new(),
            puts: Vec::new(),
            deletes: Vec::new(),
            sealing_key: None,
            authorship: None,
        }
    }

    fn locate(origins: &BTreeMap<ResourceKey, Origin>, problem: Problem) -> LocatedProblem {
        let origin = problem.key.as_ref().and_then(|key| origins.get(key));
        let (line, column) = origin.map_or((0, 0), |o| o.place_of(&problem.field));
        LocatedProblem {
            file: origin.map_or(String::new(), |o| o.file.clone()),
            line,
            column,
            resource: problem.key.map_or(String::new(), |k| k.to_string()),
            field: problem.field,
            code: problem.code.into_owned(),
            message: problem.message,
            hint: problem.hint,
        }
    }

    fn located(&self, problems: Vec<Problem>) -> ControlError {
        let origins = documents::origins(self.files);
        let mut located = self.unread.problems.clone();
        located.extend(problems.into_iter().map(|p| Self::locate(&origins, p)));
        located.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        ControlError::problems(located)
    }

    /// Whether a problem is a reference to what may stand in a document that could not be read.
    fn awaits_unread(&self, problem: &Problem, transaction: &Transaction) -> bool {
        if problem.code != REFERENCE {
            return false;
        }
        let draft = transaction.puts.iter().find(|d| Some(d.key()) == problem.key);
        let mut targets = draft.into_iter().flat_map(Draft::references);
        targets.any(|(field, target)| field == problem.field && self.unread.may_hold(&target))
    }

    fn check_scope(&self, transaction: &Transaction) -> Result<(), ControlError> {
        let Scope::Tenant(own) = &self.caller.scope else { return Ok(()) };
        let keys = transaction.puts.iter().map(|d| d.key()).chain(transaction.deletes.clone());
        let foreign: Vec<_> = keys.filter(|key| !self.caller.may_change(key)).collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = foreign.iter().map(|k| k.to_string()).collect();
        let text = format!("{} administers tenant {own} only, not {}", self.caller.name, names.join(", "));
        let hint = "ask a cluster administrator";
        Err(ControlError::new(ErrorKind::Forbidden, "PV-ADMIN-SCOPE", text, hint))
    }
}

impl ControlNode {
    /// Makes a change. `build` makes the transaction for a given state; it is called again if
    /// somebody else changed the state meanwhile, for a bounded time ([`Retry`]).
    pub(crate) async fn change(
        &self,
        wanted: Wanted<'_>,
        build: impl Fn(&State) -> Result<Transaction, ControlError>,
    ) -> Result<ChangeReport, ControlError> {
        // What others apply meanwhile is found out when this is applied: the state need not be
        // asked for at the leader first, unless nothing would be proposed or something is missing.
        let mut fresh = wanted.dry_run;
        let mut turn = Turn::take(&self.inner.writing, Reach::Keys).await;
        let mut retry = Retry::new();
        loop {
            if fresh {
                self.inner.group.read_barrier().await?;
            }
            let state = self.inner.published.state.load_full();
            let mut transaction = build(&state)?;
            let reach = Reach::of(&transaction);
            if !turn.covers(reach) {
                drop(turn);
                turn = Turn::take(&self.inner.writing, reach).await;
                continue;
            }
            reach.expect(&mut transaction, &state);
            wanted.check_scope(&transaction)?;
            let diffs = match self.admit(&wanted, &state, &transaction, reach).await? {
                Ok(diffs) => diffs,
                Err(_) if !fresh => {
                    fresh = true;
                    continue;
                }
                Err(problems) => return Err(wanted.located(problems)),
            };
            let touched = diffs.iter().filter(|d| d.kind != ChangeKind::Unchanged);
            let changed: Vec<ResourceKey> = touched.map(|d| d.key.clone()).collect();
            if wanted.dry_run || changed.is_empty() {
                if !fresh {
                    fresh = true;
                    continue;
                }
                let (revision, dry_run) = (state.revision(), wanted.dry_run);
                return Ok(ChangeReport { revision, dry_run, diffs });
            }
            // Stopping calls cannot wait for the audit log: the outbox keeps its record until that is back.
            if wanted.event != Event::KillSwitchOn {
                self.inner.carrying.check()?;
            }
            let record = Record::new(wanted.caller, wanted.event, &changed, wanted.message, state.revision());
            transaction.authorship = (!wanted.event.is_routine()).then(|| record.authorship());
            match self.commit(&record, transaction).await? {
                Committed::At(revision) => return Ok(ChangeReport { revision, dry_run: false, diffs }),
                // It lost only to a change that was made meanwhile.
                Committed::Not(problems) if problems.iter().any(|p| p.code == CONFLICT) => {
                    fresh = true;
                    // Others of this node go on while it waits.
                    drop(turn);
                    retry.again("nothing was changed").await?;
                    turn = Turn::take(&self.inner.writing, reach).await;
                }
                Committed::Full(why) => return Err(carrier::refusal(&why)),
                Committed::Not(problems) => return Err(wanted.located(problems)),
            }
        }
    }

    /// Every check, before anything is recorded or proposed. What the change would do, or its problems.
    async fn admit(
        &self,
        wanted: &Wanted<'_>,
        state: &State,
        transaction: &Transaction,
        reach: Reach,
    ) -> Result<Result<Vec<ResourceDiff>, Vec<Problem>>, ControlError> {
        let next = Revision(state.revision().0 + 1);
        let planned = state.plan(next, transaction);
        let admission = self.inner.admission.clone();
        let mut kinds =
            transaction.puts.iter().map(|d| d.spec.kind()).chain(transaction.deletes.iter().map(|k| k.kind));
        let candidate = kinds.any(|kind| admission.judges(kind)).then(|| match &planned {
            Ok((after, _)) => Snapshot { revision: next, resources: after.clone() },
            Err(_) => state.preview(next, transaction),
        });
        let small = transaction.puts.len() + transaction.deletes.len() <= MAX_INLINE_CHANGES;
        let mut problems = match candidate {
            None => Vec::new(),
            Some(candidate) if small && reach == Reach::Keys => admission.check(&candidate),
            Some(candidate) => {
                let checked = tokio::task::spawn_blocking(move || admission.check(&candidate)).await;
                checked.map_err(ControlError::internal)?
            }
        };
        let report = match planned {
            Ok((after, applied)) => {
                let diff = |(key, kind): &(ResourceKey, _)| {
                    let (old, new) = (state.resources().get(key), after.get(key));
                    diff::of(key, *kind, old.map(|r| &**r), new.map(|r| &**r))
                };
                applied.changes.iter().map(diff).collect()
            }
            Err(Rejected { problems: own }) => {
                problems.splice(0..0, own);
                Vec::new()
            }
        };
        problems.extend(merged_uris::problems(&transaction.puts, state.resources()));
        problems.retain(|p| !wanted.awaits_unread(p, transaction));
        let sound = problems.is_empty() && wanted.unread.problems.is_empty();
        Ok(if sound { Ok(report) } else { Err(problems) })
    }
}
