//! `provost cluster status`.

use clap::Args;
use provost_wire::admin::{ClusterStatusRequest, ClusterStatusResponse};
use serde_json::{Value, json};

use super::super::{
    AdminArgs,
    admin::{connect, failed},
    table,
};

#[derive(Args)]
pub struct StatusArgs {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let (mut client, _) = connect(&args.admin).await?;
    let status = client.cluster_status(ClusterStatusRequest {}).await.map_err(failed)?.into_inner();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&value(&status))?);
        return Ok(());
    }
    println!("cluster {}, revision {}, term {}", status.cluster, status.revision, status.term);
    if !status.confirmed {
        println!("no quorum confirmed this: it is what node {} knows", status.node_id);
    }
    if let Some(text) = release(&status) {
        println!("{text}");
    }
    println!();
    table::print(
        &["ID", "NODE", "ADDRESS", "MEMBER", "ROLE", "APPLIED", "LAG", "VERSION", "CERTIFICATE UNTIL"],
        &members(&status),
    );
    if !status.subscribers.is_empty() {
        println!();
        table::print(
            &["NODE", "ROLE", "REVISION", "LAG", "STAGE", "HEARD", "VERSION", "VIA", "PROBLEM"],
            &subscribers(&status),
        );
    }
    for name in unheard(&status) {
        println!("\n{name} is a member, and no control-plane node that answers hears it");
        println!("  if it is gone for good: provost cluster remove {name}");
    }
    Ok(())
}

fn known(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// What is held back, in a sentence; `None`: nothing is.
fn release(status: &ClusterStatusResponse) -> Option<String> {
    let release = status.release.as_ref()?;
    let (released, head) = (release.released, status.revision);
    match (release.halted, release.waits_for.as_str()) {
        _ if released >= head => None,
        (0, "") => Some(format!("revision {head} is held back; nodes outside the group run {released}")),
        (0, why) => Some(format!("revision {head} is held back: {why}; nodes outside the group run {released}")),
        (halted, _) => Some(format!(
            "revision {halted} was halted, every node runs {released}: {}\napply a better one, or `provost cluster \
             release` to let it through",
            release.reasons.join("; ")
        )),
    }
}

fn members(status: &ClusterStatusResponse) -> Vec<Vec<String>> {
    let row = |m: &provost_wire::admin::ClusterMember| {
        // A member that did not answer, and is not known by the leader's word either.
        let measured = m.applied > 0 || m.id == status.node_id;
        let number = |n: u64| if measured { n.to_string() } else { "-".to_owned() };
        vec![
            m.id.to_string(),
            known(&m.name),
            known(&m.address),
            m.membership.clone(),
            known(&m.role),
            number(m.applied),
            number(m.lag),
            known(&m.version),
            known(&m.certificate_expires),
        ]
    };
    status.members.iter().map(row).collect()
}

/// Members that serve calls and take configuration from nobody: stopped, cut off, or gone.
fn unheard(status: &ClusterStatusResponse) -> Vec<&str> {
    // One with a replica stands in the group, and has its configuration from there.
    let serves = |m: &&provost_wire::admin::ClusterMember| {
        m.membership.is_empty() && m.roles.split(',').any(|role| role == "data-plane")
    };
    let heard = |m: &&provost_wire::admin::ClusterMember| status.subscribers.iter().any(|s| s.node == m.name);
    status.members.iter().filter(serves).filter(|m| !heard(m)).map(|m| m.name.as_str()).collect()
}

fn subscribers(status: &ClusterStatusResponse) -> Vec<Vec<String>> {
    let row = |s: &provost_wire::admin::Subscriber| {
        vec![
            s.node.clone(),
            s.role.clone(),
            s.revision.to_string(),
            s.lag.to_string(),
            known(&s.stage),
            format!("{:.1}s ago", s.silent_ms as f64 / 1_000.0),
            known(&s.version),
            known(&s.via),
            s.problems.first().map_or(String::new(), |p| p.to_string()),
        ]
    };
    status.subscribers.iter().map(row).collect()
}

fn value(status: &ClusterStatusResponse) -> Value {
    let member = |m: &provost_wire::admin::ClusterMember| {
        json!({
            "id": m.id, "name": m.name, "address": m.address, "membership": m.membership, "role": m.role,
            "roles": m.roles.split(',').filter(|role| !role.is_empty()).collect::<Vec<_>>(),
            "applied": m.applied, "lag": m.lag, "version": m.version,
            "certificate_expires": m.certificate_expires, "wire_version": m.wire_version,
        })
    };
    let subscriber = |s: &provost_wire::admin::Subscriber| {
        let problems: Vec<String> = s.problems.iter().map(|p| p.to_string()).collect();
        json!({
            "node": s.node, "role": s.role, "revision": s.revision, "lag": s.lag, "silent_ms": s.silent_ms,
            "problems": problems, "version": s.version, "via": s.via, "stage": s.stage,
        })
    };
    json!({
        "cluster": status.cluster,
        "revision": status.revision,
        "node_id": status.node_id,
        "leader_id": status.leader_id,
        "term": status.term,
        "confirmed": status.confirmed,
        "release": status.release.as_ref().map(|r| json!({
            "released": r.released, "halted": r.halted, "reasons": r.reasons, "waits_for": r.waits_for,
        })),
        "wire_version": status.wire_version,
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "subscribers": status.subscribers.iter().map(subscriber).collect::<Vec<_>>(),
        "unheard": unheard(status),
    })
}

#[cfg(test)]
mod tests {
    use provost_wire::admin::{ClusterMember, Subscriber};

    use super::*;

    #[test]
    fn what_is_not_known_is_not_shown_as_zero() {
        let member = |id, applied| ClusterMember { id, applied, membership: "voter".into(), ..Default::default() };
        let status = ClusterStatusResponse {
            node_id: 1,
            members: vec![member(1, 0), member(2, 0), member(3, 7)],
            ..Default::default()
        };
        let applied: Vec<_> = members(&status).into_iter().map(|row| row[5].clone()).collect();
        assert_eq!(applied, ["0", "-", "7"]);
        assert_eq!(value(&status)["members"][2]["applied"], 7);
    }

    #[test]
    fn who_serves_calls_and_is_not_heard_is_named() {
        let member = |name: &str, roles: &str, membership: &str| ClusterMember {
            name: name.into(),
            roles: roles.into(),
            membership: membership.into(),
            ..Default::default()
        };
        let status = ClusterStatusResponse {
            members: vec![
                member("cp-1", "control-plane,data-plane", "voter"),
                member("log-1", "audit-log", ""),
                member("dp-1", "data-plane", ""),
                member("dp-2", "audit-log,data-plane", ""),
                member("older", "", ""),
            ],
            subscribers: vec![Subscriber { node: "dp-1".into(), ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(unheard(&status), ["dp-2"]);
        let value = value(&status);
        assert_eq!(
            (&value["unheard"], &value["members"][3]["roles"]),
            (&json!(["dp-2"]), &json!(["audit-log", "data-plane"]))
        );
    }
}
