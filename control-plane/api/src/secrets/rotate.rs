//! A new data key, every secret sealed again under it, and the keys of the CAs sealed anew.
//!
//! The key is proposed first; from then on new values are sealed with it. Then the secrets are
//! taken in batches, each a transaction that holds only if none of its secrets was changed
//! meanwhile: a batch that lost is read again. A crash in between leaves some secrets under older
//! keys, which the ring still holds; the next rotation takes them too. The CA's keys are no secrets
//! of a tenant and need no ring: each is sealed under a key of its own, which the provider wraps with
//! what it wraps with now (Vault: the newest version of the transit key).

use std::collections::BTreeSet;

use provost_control_state::{
    ClusterCommand, Draft, Event, Expectation, Problem, SealingKey, State, StoredCommand, Transaction,
};
use provost_types::{Kind, Resource, Spec};

use super::{SecretError, ring};
use crate::{
    Caller, ControlError, ControlNode, ErrorKind,
    identity::{Registry, resealed_key},
    machine::Reply,
    members::Deed,
    reach::{Reach, Turn},
    record::now_ns,
};

/// Data keys before the new one that stay: tokens of guards that were made from them open as long. Data-plane nodes
/// take the eight newest.
const KEPT_KEYS: u32 = 7;
/// Secrets sealed again by one transaction.
const MAX_BATCH: usize = 100;
/// Bytes of ciphertext in one transaction; at least one secret is always taken.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// Tries against other writers in a row; each loses only to a change that was made meanwhile.
const MAX_LOST: u32 = 16;
/// The code of a change that somebody else's came before.
const CONFLICT: &str = "PV-CTL-CONFLICT";

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// The new data key's term.
    pub term: u64,
    /// Secrets sealed again.
    pub sealed: u64,
}

impl ControlNode {
    /// Makes a new data key and seals every secret again. Secrets stay readable all the while.
    /// Those that do not open are left as they are and listed in the error.
    pub async fn rotate_keys(&self, caller: &Caller) -> Result<KeyRotation, ControlError> {
        caller.needs_cluster("the keys of secrets")?;
        let deed = Deed::new("keys.rotate", Vec::new(), "");
        let (node, author) = (self.clone(), caller.name.clone());
        self.recorded(caller, deed, async move { node.rotate_all(&author).await }).await
    }

    async fn rotate_all(&self, author: &str) -> Result<KeyRotation, ControlError> {
        let term = self.propose_key(author).await?;
        let mut sealed = 0;
        let mut unopened: Vec<Problem> = Vec::new();
        let mut lost = 0;
        loop {
            let _turn = Turn::take(&self.inner.writing, Reach::Keys).await;
            let state = self.fresh_state().await?;
            let node = self.clone();
            let bad: Vec<_> = unopened.iter().filter_map(|p| p.key.clone()).collect();
            // Opening may ask the key provider, and a batch is work: not on the runtime's threads.
            let batch = tokio::task::spawn_blocking(move || node.next_batch(&state, term, &bad)).await;
            let Batch { puts, problems } = batch.map_err(ControlError::internal)?;
            unopened.extend(problems);
            if puts.is_empty() {
                break;
            }
            let count = puts.len() as u64;
            let message = format!("sealed again under data key {term}");
            if self.propose_reseal(author, None, puts, message).await? {
                (sealed, lost) = (sealed + count, 0);
            } else {
                lost += 1;
                if lost == MAX_LOST {
                    return Err(busy("seal the rest again"));
                }
            }
        }
        self.reseal_authorities().await?;
        if unopened.is_empty() { Ok(KeyRotation { term, sealed }) } else { Err(not_opened(term, sealed, unopened)) }
    }

    async fn reseal_authorities(&self) -> Result<(), ControlError> {
        let mut lost = 0;
        let mut done = BTreeSet::new();
        loop {
            let cluster = Registry::confirmed(self).await?;
            let next = cluster.authorities().iter().find(|(id, _)| !done.contains(*id));
            let (Some(name), Some((&id, authority))) = (cluster.name().cloned(), next) else { return Ok(()) };
            let (secrets, authority) = (self.inner.secrets.clone(), authority.clone());
            let old = authority.sealed_key.clone();
            // Asks the key provider: not on the runtime's threads.
            let made = tokio::task::spawn_blocking(move || resealed_key(&*secrets, &name, &authority)).await;
            let new = made.map_err(ControlError::internal)??;
            match Registry::change(self, ClusterCommand::CaResealed { id, old, new }).await {
                Ok(_) => drop(done.insert(id)),
                // A change of the CA, or another rotation, came first.
                Err(error) if error.code() == CONFLICT && lost < MAX_LOST => lost += 1,
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn propose_key(&self, author: &str) -> Result<u64, ControlError> {
        for _ in 0..MAX_LOST {
            let _turn = Turn::take(&self.inner.writing, Reach::Keys).await;
            let state = self.fresh_state().await?;
            let node = self.clone();
            let term = ring::next_term(&state);
            let made = move || node.inner.secrets.new_key(&node.inner.config.cluster, term);
            let made = tokio::task::spawn_blocking(made).await.map_err(ControlError::internal)?.map_err(unsealed)?;
            let cluster = state.cluster();
            // Not before every control-plane node does the same with it.
            let is_kept = cluster.name().is_none() || cluster.version() >= SealingKey::KEEPS_VERSION;
            let key = SealingKey { keeps: if is_kept { KEPT_KEYS } else { 0 }, ..made };
            let message = format!("data key {term}");
            if self.propose_reseal(author, Some(key), Vec::new(), message).await? {
                return Ok(term);
            }
        }
        Err(busy("make a data key"))
    }

    async fn fresh_state(&self) -> Result<std::sync::Arc<State>, ControlError> {
        self.inner.group.read_barrier().await?;
        Ok(self.inner.published.state.load_full())
    }

    /// Whether it took effect; `false`: somebody else's change came first.
    async fn propose_reseal(
        &self,
        author: &str,
        sealing_key: Option<SealingKey>,
        puts: Vec<(Draft, Expectation)>,
        message: String,
    ) -> Result<bool, ControlError> {
        let (puts, expect) = puts.into_iter().unzip();
        let transaction = Transaction {
            event: Event::KeysRotate,
            time_ns: now_ns(),
            author: author.to_owned(),
            message,
            expect_revision: None,
            expect,
            puts,
            deletes: Vec::new(),
            sealing_key,
            authorship: None,
        };
        match self.propose_command(&StoredCommand::V1(transaction)).await? {
            Reply::Applied { .. } => Ok(true),
            Reply::Rejected { problems } if problems.iter().any(|p| p.code == CONFLICT) => Ok(false),
            other => Err(ControlError::internal(format!("sealing again was answered by {other:?}"))),
        }
    }

    fn next_batch(&self, state: &State, term: u64, leave: &[provost_types::ResourceKey]) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for (key, resource) in
            state.resources().iter().filter(|(key, _)| matches!(key.kind, Kind::Secret | Kind::Connection))
        {
            if batch.puts.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES {
                break;
            }
            if leave.contains(key) {
                continue;
            }
            match self.resealed(state, term, resource) {
                None => {}
                Some(Ok((draft, size))) => {
                    bytes += size;
                    let expectation = Expectation { key: key.clone(), modified: Some(resource.modified) };
                    batch.puts.push((draft, expectation));
                }
                Some(Err(e)) => {
                    let hint = "set it again with `provost secret set`";
                    batch.problems.push(Problem::of_field(key, "", e.code(), e.to_string()).hint(hint));
                }
            }
        }
        batch
    }

    /// `None`: it has no value, or one under this key or a newer one already.
    fn resealed(&self, state: &State, term: u64, resource: &Resource) -> Option<Result<(Draft, usize), SecretError>> {
        let sealed = provost_control_state::sealed(&resource.spec).filter(|s| s.key_term < term)?;
        let made = self.inner.secrets.reseal(state, term, &resource.key(), sealed);
        Some(made.map(|sealed| {
            let size = sealed.ciphertext.len();
            let mut spec = resource.spec.clone();
            match &mut spec {
                Spec::Secret(spec) => spec.sealed = Some(sealed),
                Spec::Connection(spec) => spec.sealed = Some(sealed),
                _ => {}
            }
            (Draft { metadata: resource.metadata.clone(), spec }, size)
        }))
    }
}

#[derive(Default)]
struct Batch {
    puts: Vec<(Draft, Expectation)>,
    problems: Vec<Problem>,
}

fn unsealed(error: SecretError) -> ControlError {
    ControlError::new(ErrorKind::Internal, error.code(), error.to_string(), "")
}

fn busy(what: &str) -> ControlError {
    let text = format!("other changes kept coming first; could not {what}");
    ControlError::new(ErrorKind::Unavailable, "PV-CTL-BUSY", text, "run it again")
}

fn not_opened(term: u64, sealed: u64, unopened: Vec<Problem>) -> ControlError {
    let count = unopened.len();
    let text = format!("data key {term} is in use and {sealed} secrets are under it; {count} do not open");
    let mut error = ControlError::new(ErrorKind::Refused, "PV-SECRET-KEY", text, "set them again");
    error.failure.problems = unopened.into_iter().map(located).collect();
    error
}

fn located(problem: Problem) -> crate::LocatedProblem {
    crate::LocatedProblem {
        resource: problem.key.map_or(String::new(), |k| k.to_string()),
        code: problem.code.into_owned(),
        message: problem.message,
        hint: problem.hint,
        ..Default::default()
    }
}
