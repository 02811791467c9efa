//! Asks witnesses to cosign the cluster's checkpoints, and publishes what they signed.
//!
//! Runs beside the log, never in its way: signing a checkpoint does not wait for it. Each witness is
//! asked by a task of its own, so that one that hangs delays only its own cosignature; whoever has
//! answered for a size is published together.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use provost_audit_core::{AddCheckpoint, CosignerKey, Hash, LogId, MAX_PROOF_HASHES, SignedNote, TreeHead};
use provost_audit_store::AuditNode;
use provost_audit_verify::{Ed25519, LeafHashes, LogLayout};
use tokio::{sync::mpsc, time::MissedTickBehavior};

/// Between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A witness gets so long to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A witness that failed is left alone for so long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The variable that names witnesses: `VKEY URL`, separated by commas.
pub const WITNESSES_VARIABLE: &str = "PROVOST_AUDIT_WITNESSES";

/// A witness to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessAddress {
    /// Its key.
    pub key: CosignerKey,
    /// Its submission prefix.
    pub url: String,
}

impl WitnessAddress {
    /// From the text of a vkey and a URL.
    pub fn parse(key: &str, url: &str) -> Result<Self, String> {
        let key = CosignerKey::parse(key).map_err(|e| e.to_string())?;
        let parsed = url::Url::parse(url).map_err(|e| format!("`{url}` is no URL: {e}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("`{url}` is neither http:// nor https://"));
        }
        Ok(Self { key, url: url.trim_end_matches('/').to_owned() })
    }

    /// From the environment's text.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let pair = |part: &str| {
            let (key, url) = part.split_once(' ').ok_or_else(|| format!("`{part}` is not `VKEY URL`"))?;
            Self::parse(key, url.trim())
        };
        parts.map(pair).collect()
    }
}

/// The witnesses that the environment names; none by default.
pub fn from_environment() -> anyhow::Result<Vec<WitnessAddress>> {
    let text = std::env::var(WITNESSES_VARIABLE).unwrap_or_default();
    WitnessAddress::parse_list(&text).map_err(|why| {
        let hint = "write `VKEY URL`, and commas between several";
        crate::failure::Failure::new("PV-CONFIG-INVALID", format!("{WITNESSES_VARIABLE}: {why}"), hint).into()
    })
}

/// A cosignature that came in.
struct Cosigned {
    size: u64,
    note: Arc<str>,
    witness: String,
    line: String,
}

/// Asks until the log is closed. Only the node that leads the audit group asks.
pub async fn run(log: AuditNode, witnesses: Vec<WitnessAddress>) {
    if witnesses.is_empty() {
        return std::future::pending().await;
    }
    let (sender, mut came) = mpsc::channel(witnesses.len() * 2);
    let asking = witnesses.into_iter().map(|witness| ask(log.clone(), witness, sender.clone()));
    let publishing = async {
        let mut lines: BTreeMap<String, String> = BTreeMap::new();
        let mut current: (u64, Arc<str>) = (0, Arc::from(""));
        while let Some(cosigned) = came.recv().await {
            // A slow witness may come with an older size: only the newest is put together.
            if cosigned.size < current.0 {
                continue;
            }
            if cosigned.note != current.1 {
                lines.clear();
                current = (cosigned.size, cosigned.note.clone());
            }
            lines.insert(cosigned.witness, cosigned.line);
            let note = format!("{}{}", cosigned.note, lines.values().map(String::as_str).collect::<String>());
            if let Err(error) = log.publish_cosigned(note).await {
                tracing::warn!(%error, "a cosigned checkpoint is not published; the next one is tried");
            }
        }
    };
    tokio::join!(futures::future::join_all(asking), publishing);
}

/// Asks one witness, for ever.
async fn ask(log: AuditNode, witness: WitnessAddress, came: mpsc::Sender<Cosigned>) {
    let client =
        reqwest::Client::builder().timeout(ANSWER_LIMIT).redirect(reqwest::redirect::Policy::none()).no_proxy().build();
    let Ok(client) = client else { return };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut done, mut rest_until) = (0, 0, Instant::now());
    loop {
        ticks.tick().await;
        if !log.is_leader() || Instant::now() < rest_until {
            continue;
        }
        let newest = log.checkpoints().into_iter().find(|(id, _)| *id == LogId::CLUSTER);
        let Some((_, note)) = newest else { continue };
        let Some(head) = head_of(&note).filter(|head| head.size > done) else { continue };
        let dir = log.dir().join(LogId::CLUSTER.folder());
        match cosign(&client, &witness, dir, &note, &head, &mut known).await {
            Ok(line) => {
                (known, done) = (head.size, head.size);
                let (size, witness) = (head.size, witness.key.name.clone());
                if came.send(Cosigned { size, note: note.into(), witness, line }).await.is_err() {
                    return;
                }
            }
            Err(why) => {
                tracing::warn!(witness = witness.key.name, size = head.size, why, "not cosigned; it is asked again");
                rest_until = Instant::now() + PAUSE_AFTER_FAILURE;
            }
        }
    }
}

fn head_of(note: &str) -> Option<TreeHead> {
    TreeHead::parse_text(SignedNote::parse(note).ok()?.text).ok()
}

/// One cosignature line; a witness that stands elsewhere than we knew is asked a second time.
async fn cosign(
    client: &reqwest::Client,
    witness: &WitnessAddress,
    dir: PathBuf,
    note: &str,
    head: &TreeHead,
    known: &mut u64,
) -> Result<String, String> {
    for _ in 0..2 {
        let proof = proof(dir.clone(), *known, head.size).await?;
        let request = AddCheckpoint { old_size: *known, proof, note: note.to_owned() };
        let sent = client.post(format!("{}/add-checkpoint", witness.url)).body(request.to_text()).send().await;
        let mut response = sent.map_err(|e| e.without_url().to_string())?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| e.without_url().to_string())? {
            body.extend_from_slice(&part);
            if body.len() > MAX_ANSWER_BYTES {
                return Err("its answer is too long".to_owned());
            }
        }
        let body = String::from_utf8_lossy(&body);
        match status {
            200 => return own_line(&witness.key, note, &body),
            409 => {
                let size: u64 = body.trim_end().parse().map_err(|_| "its answer 409 names no size".to_owned())?;
                if size > head.size {
                    let text = "the witness has cosigned more records than this log holds: was storage rolled back?";
                    tracing::error!(code = "PV-AUDIT-WITNESS-AHEAD", witness = witness.key.name, size, text);
                    return Err(format!("it is ahead, at {size} records"));
                }
                if size == *known {
                    return Err(format!("it has cosigned another history of {size} records"));
                }
                *known = size;
            }
            status => return Err(format!("it answered {status}: {}", body.trim_end())),
        }
    }
    Err("it names another size each time".to_owned())
}

/// The valid line of this witness in its answer.
fn own_line(key: &CosignerKey, note: &str, body: &str) -> Result<String, String> {
    let mut found = None;
    for line in body.split_inclusive('\n') {
        let with = format!("{note}{line}");
        let parsed = SignedNote::parse(&with).map_err(|e| format!("its answer is no signature line: {e}"))?;
        match key.cosigned(&parsed, &Ed25519) {
            Ok(Some(_)) => found = Some(line.to_owned()),
            Ok(None) => {}
            Err(_) => return Err("its cosignature does not verify".to_owned()),
        }
    }
    found.ok_or_else(|| "its answer holds no cosignature of the key that is configured".to_owned())
}

async fn proof(dir: PathBuf, old: u64, new: u64) -> Result<Vec<Hash>, String> {
    if old == 0 || old >= new {
        return Ok(Vec::new());
    }
    let made = tokio::task::spawn_blocking(move || {
        LeafHashes::open(LogLayout::new(dir)).and_then(|hashes| hashes.consistency(old, new))
    });
    let proof = made.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    if proof.len() > MAX_PROOF_HASHES { Err("the proof is too long".to_owned()) } else { Ok(proof) }
}
