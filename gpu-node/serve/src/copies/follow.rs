//! What is declared and not here, as long as that is so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_types::FileDigest;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::fetch::Target;
use super::{BlobPeer, Failed, MOST_COPIES};
use crate::catalogue::Catalogue;

/// Between two looks at what is declared.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What no node has is asked for again after so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3);
/// What did not come to its end is tried again after so long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What came of a copy.
type Done = (FileDigest, Result<(), Failed>);

/// Copies what is declared and not here, for ever. Dropping the future ends what runs; it is gone on with the next time.
pub(crate) async fn follow(catalogue: Arc<Catalogue>, peers: watch::Receiver<Vec<BlobPeer>>, reserve_bytes: u64) {
    let Some(store) = catalogue.store().cloned() else { return };
    let target = Target { store, copies: catalogue.copies().clone(), reserve_bytes };
    let mut running: JoinSet<Done> = JoinSet::new();
    let mut under_way: BTreeMap<FileDigest, AbortHandle> = BTreeMap::new();
    let mut later: BTreeMap<FileDigest, Instant> = BTreeMap::new();
    let mut before: Option<BTreeSet<FileDigest>> = None;
    loop {
        if catalogue.is_told() {
            let lacking = catalogue.lacking();
            if before.as_ref() != Some(&lacking) {
                for digest in before.iter().flatten().filter(|digest| !lacking.contains(*digest)) {
                    if let Some(copy) = under_way.remove(digest) {
                        copy.abort();
                    }
                    later.remove(digest);
                    target.copies.forget(*digest);
                    // One that came to its end just now is there.
                    catalogue.look_again();
                }
                let (store, kept) = (target.store.clone(), lacking.clone());
                // What cannot be removed is said in the log, and removed the next time.
                let _ = tokio::task::spawn_blocking(move || store.forget_arrivals(&kept)).await;
            }
            later.retain(|_, at| *at > Instant::now());
            let due = lacking.iter().filter(|digest| !under_way.contains_key(*digest) && !later.contains_key(*digest));
            let due: Vec<FileDigest> = due.copied().take(MOST_COPIES.saturating_sub(under_way.len())).collect();
            for digest in due {
                let (target, peers) = (target.clone(), peers.borrow().clone());
                let copy = running.spawn(async move { (digest, target.fetch(digest, peers).await) });
                under_way.insert(digest, copy);
            }
            before = Some(lacking);
        }
        tokio::select! {
            Some(done) = running.join_next_with_id(), if !running.is_empty() => {
                match done {
                    // One that is not wanted any more was ended, or has just come to its end; another one may run since.
                    Ok((id, (digest, result))) => {
                        if under_way.get(&digest).is_some_and(|copy| copy.id() == id) {
                            under_way.remove(&digest);
                            if let Some(again_after) = settle(&catalogue, digest, result) {
                                later.insert(digest, Instant::now() + again_after);
                            }
                        }
                    }
                    Err(ended) => {
                        let defect = under_way.iter().find(|(_, copy)| copy.id() == ended.id()).map(|(digest, _)| *digest);
                        if let Some(digest) = defect {
                            under_way.remove(&digest);
                            let why = format!("PV-MODEL-COPY: copying ended by a defect: {ended}; it is tried again");
                            if target.copies.stuck(digest, why.clone()) {
                                tracing::error!(%digest, why, "a model was not copied");
                            }
                            later.insert(digest, Instant::now() + TRY_AGAIN_AFTER);
                        }
                    }
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Tells what came of a copy, and when it is to be tried again.
fn settle(catalogue: &Catalogue, digest: FileDigest, result: Result<(), Failed>) -> Option<Duration> {
    let Err(failed) = result else {
        catalogue.copies().forget(digest);
        catalogue.look_again();
        return None;
    };
    // It is said once, however often it is tried.
    if catalogue.copies().stuck(digest, failed.to_string()) {
        tracing::warn!(%digest, %failed, "a model was not copied");
    }
    Some(if matches!(failed, Failed::Nobody) { ASK_AGAIN_AFTER } else { TRY_AGAIN_AFTER })
}
