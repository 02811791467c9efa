//! From what was written to what can be run: defaults, environment, and every problem at once.

use std::{env, net::SocketAddr, path::PathBuf, time::Duration};

use provost_control_api::identity::{AgentNameRule, AgentNames, DEFAULT_LIFE, MIN_LIFE};
use provost_data_serve::bodies::{Identities, Privacy, RedactionPolicy};
use provost_sealed::Keep;
use provost_wire::tls;

use super::{
    AuditSettings, JoinConfig, KeySource, Role, ServerConfig, ServerFile,
    audit::AuditFile,
    file::{AgentNamesFile, KeysFile},
};
use crate::node::doors::AgentTls;

/// Shortest time that grants hold unconfirmed: an election and a reconnection must fit into it.
const MIN_GRANTS_SECONDS: u64 = 5;
/// Longest silence before an election.
const MAX_ELECTION_MS: u64 = 600_000;
/// Longest life of a certificate between nodes: a year.
const MAX_LIFE: Duration = Duration::from_secs(366 * DAY_SECONDS);
/// How long grants hold unconfirmed unless configured.
const DAY_SECONDS: u64 = 24 * 3600;
/// The life of certificates, from the environment. `provost dev --nodes 3` hands it to its voters.
pub const CERTIFICATE_TTL_VARIABLE: &str = "PROVOST_CERTIFICATE_TTL_SECONDS";

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, such as `listen.http`.
    pub key: &'static str,
    /// What is wrong and what to write.
    pub message: String,
}

/// Reads `PROVOST_…` over the file; `get` is the environment.
pub fn with_environment(
    mut file: ServerFile,
    get: impl Fn(&str) -> Option<String>,
) -> Result<ServerFile, Vec<ConfigProblem>> {
    let mut problems = Vec::new();
    if let Some(node) = get("PROVOST_NODE") {
        file.node = Some(node);
    }
    if let Some(dir) = get("PROVOST_DATA_DIR") {
        file.data_dir = Some(PathBuf::from(dir));
    }
    if let Some(advertise) = get("PROVOST_ADVERTISE") {
        file.advertise = Some(advertise);
    }
    if let Some(bodies) = get("PROVOST_AUDIT_BODIES") {
        file.audit.bodies = Some(bodies);
    }
    if let Some(identities) = get("PROVOST_AUDIT_IDENTITIES") {
        file.audit.identities = Some(identities);
    }
    if let Some(list) = get("PROVOST_CONTROL_PLANE") {
        file.control_plane = list.split(',').map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()).collect();
    }
    if let Some(text) = get("PROVOST_GRANTS_MAX_AGE_SECONDS") {
        match text.parse() {
            Ok(seconds) => file.timings.grants_max_age_seconds = Some(seconds),
            Err(_) => {
                let message = format!("PROVOST_GRANTS_MAX_AGE_SECONDS=`{text}` is no number of seconds");
                problems.push(ConfigProblem { key: "timings.grants_max_age_seconds", message });
            }
        }
    }
    if let Some(text) = get(CERTIFICATE_TTL_VARIABLE) {
        match text.parse() {
            Ok(seconds) => file.timings.certificate_ttl_seconds = Some(seconds),
            Err(_) => problems.push(ConfigProblem {
                key: "timings.certificate_ttl_seconds",
                message: format!("{CERTIFICATE_TTL_VARIABLE}=`{text}` is not a number of seconds"),
            }),
        }
    }
    if let Some(dir) = get("PROVOST_TLS_DIR") {
        file.tls.dir = Some(PathBuf::from(dir));
    }
    if let Some(path) = get("PROVOST_JOIN_TOKEN_FILE") {
        file.join.token_file = Some(PathBuf::from(path));
    }
    let listeners = [
        ("listen.http", "PROVOST_HTTP", &mut file.listen.http),
        ("listen.admin", "PROVOST_ADMIN_LISTEN", &mut file.listen.admin),
        ("listen.metrics", "PROVOST_METRICS", &mut file.listen.metrics),
        ("listen.peer", "PROVOST_PEER", &mut file.listen.peer),
    ];
    for (key, variable, slot) in listeners {
        let Some(text) = get(variable) else { continue };
        match text.parse::<SocketAddr>() {
            Ok(address) => *slot = Some(address),
            Err(_) => {
                let message = format!("{variable}=`{text}` is not an address: write IP:PORT");
                problems.push(ConfigProblem { key, message });
            }
        }
    }
    let mut say = |key, message| problems.push(ConfigProblem { key, message });
    super::gpu::with_environment(&mut file.gpu, &get, &mut say);
    super::telemetry::with_environment(&mut file.telemetry, get, &mut say);
    if problems.is_empty() { Ok(file) } else { Err(problems) }
}

/// The file with the process's environment over it, complete; or every problem.
pub fn check(file: ServerFile) -> Result<ServerConfig, Vec<ConfigProblem>> {
    let file = with_environment(file, |name| env::var(name).ok())?;
    complete(file)
}

fn complete(file: ServerFile) -> Result<ServerConfig, Vec<ConfigProblem>> {
    let mut problems = Vec::new();
    let mut say = |key: &'static str, message: String| problems.push(ConfigProblem { key, message });
    let mut roles = file.roles.clone();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        let text = "is empty: write roles = [\"control-plane\"], or any of audit-log, data-plane, gpu-node";
        say("roles", text.to_owned());
    }
    let node = file.node.clone().unwrap_or_default();
    if provost_types::Name::new(&node).is_err() {
        say("node", format!("`{node}` is not a name: lower-case letters, digits and dashes, such as node = \"cp-1\""));
    }
    let data_dir = file.data_dir.clone().unwrap_or_default();
    if data_dir.as_os_str().is_empty() {
        say("data_dir", "is missing: write data_dir = \"/var/lib/provost\"".to_owned());
    }
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let peer = file.listen.peer.unwrap_or(any(8423));
    let advertise = match &file.advertise {
        Some(address) if tls::is_address(address) => address.clone(),
        Some(address) => {
            say("advertise", format!("`{address}` is not HOST:PORT"));
            String::new()
        }
        None if peer.ip().is_unspecified() => {
            say("advertise", "is missing: others cannot reach 0.0.0.0; write advertise = \"HOST:PORT\"".to_owned());
            String::new()
        }
        None => peer.to_string(),
    };
    let needs_control_plane = !roles.contains(&Role::ControlPlane) || file.join.token_file.is_some();
    if needs_control_plane && file.control_plane.is_empty() {
        say(
            "control_plane",
            "is missing: write control_plane = [\"HOST:8423\", …], the nodes to connect to".to_owned(),
        );
    }
    let mut control_plane = file.control_plane.clone();
    for address in control_plane.iter().filter(|address| !tls::is_address(address)) {
        say("control_plane", format!("`{address}` is not HOST:PORT"));
    }
    let takes_state = roles.contains(&Role::DataPlane) || roles.contains(&Role::GpuNode);
    if roles.contains(&Role::ControlPlane) && takes_state && !control_plane.contains(&advertise) {
        // What takes its state here is served by the control plane here, like any other.
        control_plane.insert(0, advertise.clone());
    }
    let timings = &file.timings;
    let heartbeat_ms = timings.heartbeat_ms.unwrap_or(150);
    let election_min_ms = timings.election_min_ms.unwrap_or(500);
    let election_max_ms = timings.election_max_ms.unwrap_or(1_000);
    if !(heartbeat_ms * 2 < election_min_ms && election_min_ms < election_max_ms) {
        say("timings", "must have 2 * heartbeat_ms < election_min_ms < election_max_ms".to_owned());
    } else if election_max_ms > MAX_ELECTION_MS {
        say("timings.election_max_ms", format!("is above {MAX_ELECTION_MS}: without a leader nothing can be changed"));
    }
    let grants_seconds = timings.grants_max_age_seconds.unwrap_or(DAY_SECONDS);
    if (1..MIN_GRANTS_SECONDS).contains(&grants_seconds) {
        let text = format!("is below {MIN_GRANTS_SECONDS}: a change of leader would deny calls; 0 is for ever");
        say("timings.grants_max_age_seconds", text);
    }
    let min_voters = file.membership.min_voters.unwrap_or(1);
    if min_voters == 0 {
        say("membership.min_voters", "is 0: write at least 1".to_owned());
    }
    let remove_dead_after = file.membership.remove_dead_after_seconds.map(Duration::from_secs);
    if remove_dead_after.is_some_and(|after| after < Duration::from_millis(election_max_ms * 2)) {
        let text = "is shorter than two elections (2 * timings.election_max_ms): a restart would be taken for a death";
        say("membership.remove_dead_after_seconds", text.to_owned());
    }
    let certificate_ttl = timings.certificate_ttl_seconds.map_or(DEFAULT_LIFE, Duration::from_secs);
    if certificate_ttl < MIN_LIFE {
        let text = format!("is below {}: nodes must have time to renew, and to try again", MIN_LIFE.as_secs());
        say("timings.certificate_ttl_seconds", text);
    } else if certificate_ttl > MAX_LIFE {
        let text = format!("is above {}: a stolen key would be of use for so long", MAX_LIFE.as_secs());
        say("timings.certificate_ttl_seconds", text);
    }
    let keys = keys(&file, &data_dir, &mut say);
    let agents = super::data_plane::check(&file.data_plane, &data_dir, &mut say);
    if file.tls.dir.is_some() && agents.tls.as_ref().is_some_and(AgentTls::is_of_cluster) {
        let text = "is \"cluster\", but the operator certifies the nodes (tls.dir): write certificate and key";
        say("data_plane.tls.issuer", text.to_owned());
    }
    let rule = |r: &AgentNamesFile| AgentNameRule { nodes: r.nodes.clone(), names: r.names.clone() };
    let agent_names = AgentNames::new(file.agent_names.iter().map(rule).collect()).unwrap_or_else(|problem| {
        say("agent_names", problem);
        AgentNames::default()
    });
    let egress = super::data_plane::egress(&file.data_plane.egress, &mut say);
    let mut audit = super::audit::check(&file.audit, roles.contains(&Role::AuditLog), &mut say);
    audit.privacy = privacy(&file.audit, &mut say);
    let gpu = super::gpu::check(&file.gpu, &mut say);
    let telemetry = super::telemetry::check(file.telemetry.clone(), &mut say);
    let join = file.join.token_file.clone().map(|token_file| JoinConfig { token_file });
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(ServerConfig {
        node,
        roles,
        data_dir,
        http: file.listen.http.unwrap_or(any(8420)),
        admin: file.listen.admin.unwrap_or(local(8421)),
        peer,
        metrics: file.listen.metrics.unwrap_or(local(8422)),
        advertise,
        control_plane,
        join,
        tls_dir: file.tls.dir,
        keys,
        models: file.models,
        gpu,
        heartbeat_ms,
        election_min_ms,
        election_max_ms,
        promote_after_ms: timings.promote_after_ms.unwrap_or(10_000),
        min_voters,
        remove_dead_after,
        certificate_ttl,
        agent_names,
        grants_max_age: (grants_seconds > 0).then(|| Duration::from_secs(grants_seconds)),
        agents,
        egress,
        audit,
        telemetry,
        log: file.log.format.unwrap_or_default(),
    })
}

fn privacy(file: &AuditFile, say: &mut impl FnMut(&'static str, String)) -> AuditSettings {
    let keep = match file.bodies.as_deref() {
        None | Some("sealed") => Keep::Sealed,
        Some("commitments") => Keep::Commitment,
        Some(other) => {
            say("audit.bodies", format!("`{other}` is neither sealed nor commitments"));
            Keep::Sealed
        }
    };
    let identities = match file.identities.as_deref() {
        None | Some("names") => Identities::Names,
        Some("pseudonyms") => Identities::Pseudonyms,
        Some(other) => {
            say("audit.identities", format!("`{other}` is neither names nor pseudonyms"));
            Identities::Names
        }
    };
    let redact = RedactionPolicy::new(file.redact.clone()).unwrap_or_else(|problem| {
        say("audit.redact", problem.to_string());
        RedactionPolicy::default()
    });
    AuditSettings(Privacy { keep, identities, redact })
}

/// What is kept of calls by a node that has no file, such as `provost dev`: the environment, else
/// the defaults.
pub fn audit_of_environment() -> Result<AuditSettings, ConfigProblem> {
    let get = |name: &str| env::var(name).ok();
    let (bodies, identities) = (get("PROVOST_AUDIT_BODIES"), get("PROVOST_AUDIT_IDENTITIES"));
    let mut problem = None;
    let file = AuditFile { bodies, identities, ..AuditFile::default() };
    let settings = privacy(&file, &mut |key, message| problem = Some(ConfigProblem { key, message }));
    problem.map_or(Ok(settings), Err)
}

fn keys(file: &ServerFile, data_dir: &std::path::Path, say: &mut impl FnMut(&'static str, String)) -> KeySource {
    let keys = &file.keys;
    for key in of_the_other(keys) {
        // Not only a slip: who forgets the provider would have secrets wrapped by a file, and believe that Vault did it.
        say(
            "keys",
            format!("has `{key}`, which provider = {:?} does not know", keys.provider.as_deref().unwrap_or("file")),
        );
    }
    match keys.provider.as_deref().unwrap_or("file") {
        "vault" => {
            if keys.address.is_none() || keys.key.is_none() {
                say("keys", "with provider = \"vault\" needs address and key".to_owned());
            }
            KeySource::Vault {
                address: keys.address.clone().unwrap_or_default(),
                key: keys.key.clone().unwrap_or_default(),
                mount: keys.mount.clone().unwrap_or_else(|| "transit".to_owned()),
                namespace: keys.namespace.clone(),
                token_file: keys.token_file.clone(),
                ca: keys.ca.clone(),
            }
        }
        other => {
            if other != "file" {
                say("keys.provider", format!("`{other}` is not a provider: write file or vault"));
            }
            KeySource::File { path: keys.path.clone().unwrap_or_else(|| data_dir.join("secrets.key")) }
        }
    }
}

/// The keys of `[keys]` that only the other provider knows.
fn of_the_other(keys: &KeysFile) -> Vec<&'static str> {
    let of_vault = [
        ("address", keys.address.is_some()),
        ("key", keys.key.is_some()),
        ("mount", keys.mount.is_some()),
        ("namespace", keys.namespace.is_some()),
        ("token_file", keys.token_file.is_some()),
        ("ca", keys.ca.is_some()),
    ];
    let of_file = [("path", keys.path.is_some())];
    let others = match keys.provider.as_deref() {
        None | Some("file") => &of_vault[..],
        Some("vault") => &of_file[..],
        Some(_) => &[],
    };
    others.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServerConfig, Vec<&'static str>> {
        let file: ServerFile = toml::from_str(text).unwrap();
        complete(file).map_err(|problems| problems.into_iter().map(|p| p.key).collect())
    }

    const GOOD: &str = "node = 'cp-1'\nroles = ['control-plane']\ndata_dir = '/d'\nadvertise = 'cp-1:8423'\n";

    #[test]
    fn a_small_file_is_enough() {
        let config = read(GOOD).unwrap();
        assert_eq!((config.http.port(), config.admin.to_string().as_str()), (8420, "127.0.0.1:8421"));
        assert_eq!(config.role_names(), "control-plane");
        assert_eq!(config.certificate_ttl, Duration::from_secs(86_400));
        assert_eq!(config.grants_max_age, Some(Duration::from_secs(86_400)));
        let of = |seconds: u64| read(&format!("{GOOD}[timings]\ngrants_max_age_seconds = {seconds}\n"));
        assert_eq!(of(0).unwrap().grants_max_age, None);
        assert_eq!(of(90).unwrap().grants_max_age, Some(Duration::from_secs(90)));
        assert_eq!(of(4).unwrap_err(), ["timings.grants_max_age_seconds"]);
    }

    #[test]
    fn names_for_agents_are_rules_and_need_the_clusters_ca() {
        let rules = "[[agent_names]]\nnodes = ['dp-*']\nnames = ['mcp.example.com']\n";
        assert_ne!(read(&format!("{GOOD}{rules}")).unwrap().agent_names, AgentNames::default());
        let bad = format!("{GOOD}[[agent_names]]\nnodes = ['dp-*']\nnames = ['*']\n");
        assert_eq!(read(&bad).unwrap_err(), ["agent_names"]);
        let of_cluster = "[data_plane]\nhosts = ['mcp.example.com']\n[data_plane.tls]\nissuer = 'cluster'\n";
        assert!(read(&format!("{GOOD}{of_cluster}")).is_ok());
        let both = read(&format!("{GOOD}{of_cluster}[tls]\ndir = '/t'\n"));
        assert_eq!(both.unwrap_err(), ["data_plane.tls.issuer"]);
    }

    #[test]
    fn every_problem_is_named() {
        let problems = read(
            "node = 'Bad Name'\n[membership]\nmin_voters = 0\nremove_dead_after_seconds = 1\n[timings]\nheartbeat_ms = 900\ncertificate_ttl_seconds = 5\n[keys]\nprovider = 'paper'\n",
        );
        assert_eq!(
            problems.unwrap_err(),
            [
                "roles",
                "node",
                "data_dir",
                "advertise",
                "control_plane",
                "timings",
                "membership.min_voters",
                "membership.remove_dead_after_seconds",
                "timings.certificate_ttl_seconds",
                "keys.provider"
            ]
        );
    }

    #[test]
    fn what_cannot_be_meant_so_is_a_problem() {
        let vault = "provider = 'vault'\naddress = 'https://v:8200'\nkey = 'k'\n";
        for (more, keys) in [
            ("[keys]\naddress = 'https://v:8200'\nkey = 'k'\n".to_owned(), "keys keys"),
            ("[keys]\nprovider = 'file'\ntoken_file = '/t'\n".to_owned(), "keys"),
            (format!("[keys]\n{vault}path = '/k'\n"), "keys"),
            (format!("[keys]\n{vault}"), ""),
            (
                "control_plane = ['cp-2', 'http://cp-2:1', 'cp-2:0', '', '[::1]:1', 'cp-2.svc:8423']\n".to_owned(),
                "control_plane control_plane control_plane control_plane",
            ),
            ("[timings]\nelection_max_ms = 600001\n".to_owned(), "timings.election_max_ms"),
            (
                "[timings]\ncertificate_ttl_seconds = 9223372036854775807\n".to_owned(),
                "timings.certificate_ttl_seconds",
            ),
        ] {
            let bad = read(&format!("{GOOD}{more}")).err().unwrap_or_default();
            assert_eq!(bad.join(" "), keys, "{more}");
        }
        for bad in ["http://cp-1:8423", "cp-1:0", ":1", "cp-1"] {
            assert_eq!(read(&GOOD.replace("'cp-1:8423'", &format!("'{bad}'"))).unwrap_err(), ["advertise"], "{bad}");
        }
    }

    #[test]
    fn bodies_are_sealed_unless_the_file_says_otherwise() {
        let privacy = read(GOOD).unwrap().audit.privacy.0;
        assert_eq!((privacy.keep, privacy.identities), (Keep::Sealed, Identities::Names));
        let text = format!(
            "{GOOD}[audit]\nbodies = 'commitments'\nidentities = 'pseudonyms'\n[[audit.redact]]\ntool = 'sql.*'\nfields = ['ssn']\npointers = ['/a/*']\n"
        );
        let config = read(&text).unwrap();
        let privacy = &config.audit.privacy.0;
        assert_eq!((privacy.keep, privacy.identities), (Keep::Commitment, Identities::Pseudonyms));
        assert_eq!(privacy.redact.rules().len(), 1);
        let printed = toml::to_string(&config.audit).unwrap();
        assert!(printed.contains("bodies = \"commitments\"") && printed.contains("ssn"), "{printed}");
        let text = format!("{GOOD}[audit]\nbodies = 'plain'\nidentities = 'x'\n[[audit.redact]]\npointers = ['a']\n");
        assert_eq!(read(&text).unwrap_err(), ["audit.bodies", "audit.identities", "audit.redact"]);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = toml::from_str::<ServerFile>("nodes = 'x'\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `nodes`"), "{error}");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file: ServerFile = toml::from_str(GOOD).unwrap();
        let set = |name: &str| match name {
            "PROVOST_NODE" => Some("cp-2".to_owned()),
            "PROVOST_CONTROL_PLANE" => Some("a:1, b:2".to_owned()),
            "PROVOST_PEER" => Some("127.0.0.1:9".to_owned()),
            CERTIFICATE_TTL_VARIABLE => Some("30".to_owned()),
            "PROVOST_TLS_DIR" => Some("/pki".to_owned()),
            _ => None,
        };
        let config = complete(with_environment(file, set).unwrap()).unwrap();
        assert_eq!((config.node.as_str(), config.control_plane.len(), config.peer.port()), ("cp-2", 2, 9));
        assert_eq!((config.certificate_ttl, config.tls_dir), (MIN_LIFE, Some(PathBuf::from("/pki"))));
        let bad = with_environment(ServerFile::default(), |n| (n == CERTIFICATE_TTL_VARIABLE).then(|| "1h".to_owned()));
        assert_eq!(bad.unwrap_err()[0].key, "timings.certificate_ttl_seconds");
        let bad = with_environment(ServerFile::default(), |n| (n == "PROVOST_PEER").then(|| "x".to_owned()));
        assert_eq!(bad.unwrap_err()[0].key, "listen.peer");
    }
}
