//! An erasure is carried out on every replica of the audit log, also on one that was away.
//!
//! "Nobody can read" is tried with what each replica keeps: its keys, as another audit node would get them. That
//! nothing else on a disk leads to the key is tested beside the store.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Instant};

use prost::Message;
use provost_sealed::{BodyKey, Place};
use provost_types::{CallId, KeyId, Month, Phase, Pseudonym, SubjectKey};
use provost_wire::{
    admin::{ShowBodyRequest, ShowBodyResponse},
    node::{
        AuditKeyRequest, AuditKeysExportRequest, RelayRequest, audit_keys_client::AuditKeysClient,
        audit_relay_client::AuditRelayClient,
    },
    tls::{Expect, Identity, Role, channel},
};
use serde_json::{Value, json};
use tonic::{Status, transport::Channel};

use crate::{
    audit_scene::{Agent, DATA, KEEPERS, audit_dir, leader, records, scene, verify_equal},
    files::holding,
    harness::text,
    processes::{Fleet, SOON, provost},
    restore::apply,
};

const CANARY: &str = "canary-6011-1117-6011-1117";
/// Somebody else, whose bodies stay.
const SAM: &str = "apiVersion: provost/v1\nkind: Principal\nmetadata: { name: sam, tenant: acme }\n\
    spec: { type: agent }\n---\napiVersion: provost/v1\nkind: RoleBinding\n\
    metadata: { name: sam, tenant: acme }\nspec: { role: all, principals: [sam] }\n";
/// Bytes before the first body of a file (docs/audit-format.md).
const BODIES_BEGIN: usize = 48;

/// A replica, as a node of the cluster reaches it.
fn replica(fleet: &Fleet, keeper: &str, caller: &str) -> Channel {
    let identity = Arc::new(Identity::load(&fleet.servers[caller].data().join("identity")).unwrap());
    channel(identity, &fleet.servers[keeper].peer.to_string(), Expect::role(Role::AuditLog)).unwrap()
}

/// What one replica answers an administrator who asks for a body.
async fn body_at(fleet: &Fleet, keeper: &str, index: u64) -> Result<ShowBodyResponse, Status> {
    let question = ShowBodyRequest { tenant: "acme".to_owned(), index }.encode_to_vec();
    let request = RelayRequest {
        caller: "admin".to_owned(),
        authenticated_by: "admin_token".to_owned(),
        kind: "show-body".to_owned(),
        question: question.into(),
        ..RelayRequest::default()
    };
    let answer = AuditRelayClient::new(replica(fleet, keeper, "cp-1")).relay(request).await?.into_inner().answer;
    Ok(ShowBodyResponse::decode(answer).unwrap())
}

/// Waits until a replica says this of a body.
async fn until_state(fleet: &Fleet, keeper: &str, index: u64, state: &str) -> ShowBodyResponse {
    let began = Instant::now();
    loop {
        let answer = body_at(fleet, keeper, index).await;
        match answer {
            Ok(shown) if shown.state == state => return shown,
            other => assert!(began.elapsed() < SOON, "{keeper}: record {index} is not {state}: {other:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// All keys of a replica, as it gives them to another one.
async fn keys_of(fleet: &Fleet, keeper: &str) -> Vec<u8> {
    let other = KEEPERS.into_iter().find(|name| *name != keeper).unwrap();
    let mut client = AuditKeysClient::new(replica(fleet, keeper, other));
    client.export(AuditKeysExportRequest {}).await.unwrap().into_inner().keys.to_vec()
}

/// The key of a subject's bodies, as a data-plane node gets it.
async fn key(fleet: &Fleet, keeper: &str, subject: &str, month: Month) -> SubjectKey {
    let (tenant, subject, month) = ("acme".to_owned(), subject.to_owned(), month.to_string());
    let mut client = AuditKeysClient::new(replica(fleet, keeper, "dp-1"));
    let key = client.key(AuditKeyRequest { tenant, subject, month }).await.unwrap().into_inner();
    let id = |bytes: &[u8]| bytes.try_into().unwrap();
    SubjectKey::new(KeyId(id(&key.id)), Pseudonym(id(&key.pseudonym)), key.secret.as_ref().try_into().unwrap())
}

/// An intent, and the sealed body beside it.
struct Sealed {
    index: u64,
    subject: String,
    month: Month,
    call_id: CallId,
    key: String,
    commit: [u8; 32],
    bytes: Vec<u8>,
}

impl Sealed {
    /// Of the call with this number of an agent's, once this replica has it.
    fn of(fleet: &Fleet, keeper: &str, (agent, call): (&str, u64)) -> Self {
        let call = call.to_string();
        let began = Instant::now();
        let found = loop {
            let mut all = records(fleet, keeper).into_iter();
            let is_intent = |r: &Value| r["jsonrpc.request.id"] == *call && r["phase"] == "intent";
            let wanted = |r: &Value| is_intent(r) && r["principal"] == agent;
            if let Some(found) = all.find(|found| wanted(&found["record"])) {
                break found;
            }
            assert!(began.elapsed() < SOON, "{keeper} does not hold call {call} of {agent}");
        };
        let record = |name: &str| found["record"][name].as_str().unwrap().to_owned();
        let index = found["index"].as_u64().unwrap();
        let commit = record("body.commit");
        let byte = |n: usize| u8::from_str_radix(&commit[2 * n..2 * n + 2], 16).unwrap();
        Self {
            index,
            subject: record("principal"),
            month: Month::of_ns(record("time_ns").parse().unwrap()),
            call_id: CallId(u128::from_str_radix(&record("call_id"), 16).unwrap()),
            key: record("body.key"),
            commit: std::array::from_fn(byte),
            bytes: stored_body(&audit_dir(fleet, keeper), index),
        }
    }

    fn opens_with(&self, key: &SubjectKey) -> Option<Vec<u8>> {
        let (month, call_id) = (self.month, self.call_id);
        let place = Place { tenant: "acme", subject: &self.subject, month, call_id, phase: Phase::Intent };
        let opened = BodyKey::new(key, &place).open(&self.bytes, &self.commit);
        opened.ok().map(|body| body.to_vec())
    }

    /// Tries every 32 bytes of `keys` as the key.
    fn opens_with_any_of(&self, keys: &[u8]) -> bool {
        let named = |secret: &[u8]| SubjectKey::new(KeyId([0; 16]), Pseudonym([0; 16]), secret.try_into().unwrap());
        keys.windows(32).any(|secret| self.opens_with(&named(secret)).is_some())
    }
}

/// The sealed body of a record, from a replica's files.
fn stored_body(audit: &Path, index: u64) -> Vec<u8> {
    let file = std::fs::read(audit.join("tenants/acme/segments/00000000000000000000.body")).unwrap();
    let mut rest = &file[BODIES_BEGIN..];
    while let Some((head, after)) = rest.split_at_checked(12) {
        let len = u32::from_le_bytes(head[8..].try_into().unwrap()) as usize;
        if u64::from_le_bytes(head[..8].try_into().unwrap()) == index {
            return after[..len].to_vec();
        }
        rest = &after[len..];
    }
    panic!("no body of record {index}");
}

async fn called(agent: &Agent, said: &str) -> u64 {
    let began = Instant::now();
    loop {
        let ended = agent.call("echo.echo", json!({ "text": said })).await;
        match ended.refusal {
            None => return ended.id,
            Some(why) => assert!(began.elapsed() < SOON, "{why}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erasure_reaches_every_replica_and_one_that_was_away() {
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("audit-erase"));
    let bot = Agent::new(&fleet, token);
    bot.ready().await;
    let leads = leader(&fleet).await;
    let sams = tokio::task::block_in_place(|| {
        apply(&fleet, "cp-1", "sam.yaml", SAM);
        fleet.ok("cp-1", &["token", "create", "--principal", "sam"]).trim().to_owned()
    });
    let sam = Agent::new(&fleet, sams);
    let of_sam = ("sam", called(&sam, "sam's own").await);
    let of_bot = ("bot", called(&bot, CANARY).await);
    let (of_bot, of_sam) =
        tokio::task::block_in_place(|| (Sealed::of(&fleet, leads, of_bot), Sealed::of(&fleet, leads, of_sam)));
    let secret = key(&fleet, leads, &of_bot.subject, of_bot.month).await;
    assert_eq!(secret.id.to_string(), of_bot.key);
    let opened = of_bot.opens_with(&secret).expect("its key does not open it");
    assert!(String::from_utf8_lossy(&opened).contains(CANARY));
    for keeper in KEEPERS {
        let shown = until_state(&fleet, keeper, of_bot.index, "opened").await;
        assert!(String::from_utf8_lossy(&shown.body).contains(CANARY), "{keeper} opens another body");
        assert!(of_bot.opens_with_any_of(&keys_of(&fleet, keeper).await), "{keeper} does not keep the key");
    }

    let away = KEEPERS.into_iter().find(|name| *name != leads).unwrap();
    fleet.get(away).kill();
    let erase = ["audit", "erase", "--tenant", "acme", "--subject", &of_bot.subject, "--reason", "request 4711"];
    let said = tokio::task::block_in_place(|| {
        let output = fleet.cli("cp-1", &erase);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    });
    assert!(said.contains("1 keys"), "{said}");
    // Where it was answered the key is gone at once; the other replica applies the entry within moments.
    for keeper in KEEPERS.into_iter().filter(|name| *name != away) {
        let shown = until_state(&fleet, keeper, of_bot.index, "erased").await;
        assert!(shown.body.is_empty(), "{keeper} says erased and shows it");
    }
    // Each data-plane node hears of it with the first record that it writes, and then asks for a new key.
    let mut heard = BTreeSet::new();
    while heard.len() < DATA.len() {
        // The number of the call chooses the node, and one that is refused takes a number too.
        heard.insert(called(&bot, "heard").await % DATA.len() as u64);
    }
    let later = ("bot", called(&bot, "after").await);
    fleet.start(away);
    for keeper in KEEPERS {
        until_state(&fleet, keeper, of_bot.index, "erased").await;
        assert!(!of_bot.opens_with_any_of(&keys_of(&fleet, keeper).await), "{keeper} has a key that opens it");
        until_state(&fleet, keeper, of_sam.index, "opened").await;
        let again = key(&fleet, keeper, &of_bot.subject, of_bot.month).await;
        assert!(of_bot.opens_with(&again).is_none() && again.id != secret.id, "{keeper} makes no new key");
    }
    let later = tokio::task::block_in_place(|| Sealed::of(&fleet, away, later));
    until_state(&fleet, away, later.index, "opened").await;

    leader(&fleet).await;
    tokio::task::block_in_place(|| {
        for name in DATA {
            assert!(fleet.get(name).terminate().1.success(), "{name} did not end well");
        }
        verify_equal(&fleet, &KEEPERS);
        let erasures = |r: &Value| r["record"]["event"] == "audit.erase";
        for keeper in KEEPERS {
            let erased: Vec<Value> = records(&fleet, keeper).into_iter().filter(erasures).collect();
            assert_eq!(erased.len(), 1, "{erased:#?}");
            assert!(erased[0]["record"]["event.objects"].to_string().contains(&of_bot.key), "{erased:#?}");
            fleet.get(keeper).kill();
            let output = provost().args(["audit", "verify"]).arg(audit_dir(&fleet, keeper)).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{keeper}: {}", text(&output));
            assert!(text(&output).contains("of them erased: their keys were destroyed"), "{}", text(&output));
            for needle in [CANARY.as_bytes(), secret.secret()] {
                let found = holding(&fleet.servers[keeper].data(), needle);
                assert!(found.is_empty(), "{keeper} holds it in clear: {found:?}");
            }
        }
    });
}
