//! Judges a run by everything that clients saw.

use std::{path::PathBuf, time::Duration};

use crate::{
    cluster::Place,
    history::{Operation, longest_outage},
    linearizable, revisions,
    workload::{Ran, Scene},
};

/// Reads everything once more, then fails the test unless
/// - each register's history is linearizable,
/// - revisions follow real time over all registers,
/// - every acknowledged write stands in the log, and all nodes show the same log.
///
/// Returns the longest time without an acknowledged write while the load ran.
pub async fn judge(name: &str, cluster: &impl AsRef<Place>, scene: &Scene, mut ran: Ran) -> Duration {
    scene.writable_everywhere(cluster).await;
    scene.read_everything(cluster).await;
    for member in cluster.as_ref().members() {
        assert!(ran.witness.look(&scene.admin, member.id).await, "node {} shows no history", member.id);
    }

    let operations = scene.recorder.operations();
    let acknowledged = operations.iter().filter(|o| o.acknowledged_write().is_some()).count();
    let unknown = operations.iter().filter(|o| o.returned.is_none()).count();
    let reads = operations.len() - acknowledged - unknown;
    let (outage, at) = longest_outage(&operations, ran.began, ran.ended);
    println!("{name}: {acknowledged} acknowledged writes, {unknown} of unknown outcome, {reads} reads");
    println!("{name}: longest time without an acknowledged write {outage:?}, from {at:?} on");

    if let Err((key, fault)) = linearizable::check_keys(&operations, &scene.initial) {
        panic!("{name}: {key}: {fault}\nall operations: {}", keep(&operations).display());
    }
    if let Err(fault) = revisions::check(&operations) {
        panic!("{name}: {fault}\nall operations: {}", keep(&operations).display());
    }
    match ran.witness.check(&operations) {
        Ok(unjudged) => {
            println!("{name}: {} transactions witnessed, {unjudged} writes not judged by them", ran.witness.len());
            assert!(unjudged * 2 <= acknowledged, "the witness missed most writes");
        }
        Err(fault) => panic!("{name}: {fault}\nall operations: {}", keep(&operations).display()),
    }
    assert!(acknowledged > 0 && reads > 0, "the load did nothing");
    outage
}

/// Keeps the operations of a failed run for whoever looks into it.
fn keep(operations: &[Operation]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("provost-cluster-operations-{}.txt", std::process::id()));
    let lines: Vec<String> = operations.iter().map(|o| format!("{o:?}")).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}
