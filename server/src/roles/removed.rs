//! A node that was removed from its cluster says so and serves no more.
//!
//! Nobody tells it: the others have closed their doors to it. So it asks, now and then, and notes
//! the answer durably: a later start refuses at once, whoever can be reached then. A node that can
//! ask nobody goes on, as a node that is cut off does.

use std::{fs::File, io::Write, path::Path, sync::Arc, time::Duration};

use provost_control_api::{ControlNode, identity::ask_removed};
use provost_wire::tls::{Identity, Material};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Between two questions; each goes to the next control-plane node.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The same on a control-plane node: there are few of them.
const CONTROL_ASKS_EVERY: Duration = Duration::from_secs(2);
/// The file in the identity's folder that notes the removal.
const MARK: &str = "removed";

/// Refuses where a removal was noted.
pub fn check(identity_dir: &Path) -> anyhow::Result<()> {
    if is_noted(identity_dir) { Err(failure(identity_dir).into()) } else { Ok(()) }
}

/// Whether a removal was noted in this folder.
pub fn is_noted(identity_dir: &Path) -> bool {
    identity_dir.join(MARK).exists()
}

/// What such a node says at its end.
pub fn failure(identity_dir: &Path) -> Failure {
    let text = format!("this node was removed from its cluster ({} says so)", identity_dir.join(MARK).display());
    let hint = "to take it in again, empty its data_dir and join it as a new node, with a new token";
    Failure::new("PV-CLUSTER-REMOVED", text, hint)
}

/// Asks until it learns that this node was removed; then notes it and cancels `removed`.
pub async fn watch(
    identity: Arc<Identity>,
    dir: std::path::PathBuf,
    configured: Vec<String>,
    control: Option<ControlNode>,
    removed: CancellationToken,
) {
    // Certificates of an operator's own CA carry no number: there is nothing to ask.
    let Some(node_id) = identity.certified().serial_node_id else { return };
    let every = if control.is_some() { CONTROL_ASKS_EVERY } else { ASK_EVERY };
    let mut asked = 0_usize;
    loop {
        tokio::time::sleep(every).await;
        let addresses = addresses(&configured, control.as_ref(), node_id);
        if addresses.is_empty() {
            continue;
        }
        let address = &addresses[asked % addresses.len()];
        asked = asked.wrapping_add(1);
        // Read again: authorities change.
        let Ok(material) = Material::load(&dir) else { continue };
        match ask_removed(address, &material.bundle, node_id).await {
            Ok(false) => {}
            Ok(true) => {
                let said = failure(&dir);
                tracing::error!(code = said.code, node_id, told_by = %address, "{}", said.message);
                if let Err(cause) = mark(&dir, node_id) {
                    tracing::warn!(%cause, "the removal could not be noted: the next start asks again");
                }
                return removed.cancel();
            }
            Err(error) => tracing::debug!(%address, code = error.code(), %error, "whether it was removed is not known"),
        }
    }
}

/// The control-plane nodes other than this one: those configured, and those that its own state names.
fn addresses(configured: &[String], control: Option<&ControlNode>, node_id: u64) -> Vec<String> {
    let mut addresses = configured.to_vec();
    let known = control.map(|node| node.status().group.addresses).unwrap_or_default();
    addresses.extend(known.into_iter().filter(|(id, _)| *id != node_id).map(|(_, address)| address));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn mark(dir: &Path, node_id: u64) -> std::io::Result<()> {
    let mut file = File::create(dir.join(MARK))?;
    writeln!(file, "{node_id}")?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}
