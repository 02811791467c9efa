//! `[audit]`: where records are sent, how long they are kept, and who outside vouches for them and reads
//! them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use provost_audit_core::LogId;
use provost_audit_store::{ForwardConfig, ForwardTarget, OtlpTarget, SyslogTarget};
use provost_data_serve::bodies::RedactionRule;
use provost_types::Name;
use serde::{Deserialize, Serialize};

use super::{
    AuditSettings,
    outside::{self, Outside, WitnessFile},
};
use crate::{cli::parse_duration, witness::ask::WitnessAddress};

/// Shortest time that a policy may keep records: less is a slip of the pen.
const MIN_KEEP: Duration = Duration::from_secs(24 * 3600);
/// Every tenant without a rule of its own.
const EVERY_TENANT: &str = "*";

/// `[audit]` as people write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditFile {
    /// `[[audit.forward]]`: who gets a copy of each record. Write it on one audit node: each node
    /// that is told to forward forwards everything.
    pub forward: Vec<ForwardFile>,
    /// `[[audit.retention]]`: how long records are kept. Write the same on all audit nodes: whoever
    /// leads goes by its own. Default: for ever.
    pub retention: Vec<RetentionFile>,
    /// `[[audit.witnesses]]`: who is asked to cosign the cluster log's checkpoints. Name those that
    /// auditors run; write the same on every audit node. Default: none.
    pub witnesses: Vec<WitnessFile>,
    /// Serves tiles and proofs of the logs here, read-only: plain HTTP on loopback, else TLS with the
    /// node's certificate. Set it for monitors that follow a log. Default: not served.
    pub listen: Option<SocketAddr>,
    /// The file that lists who may read which log. Default: nobody.
    pub readers: Option<PathBuf>,
    /// `sealed` (default): arguments and answers are kept beside the log, sealed under a key of the
    /// caller's that can be destroyed. `commitments`: they are not kept; whoever did keep one can
    /// still show that it is the one. Choose that where not even sealed contents may be stored.
    pub bodies: Option<String>,
    /// `names` (default) or `pseudonyms`: how records name the callers of calls. Choose pseudonyms
    /// where copies of the log go to people who must not see who called; nodes still resolve them.
    pub identities: Option<String>,
    /// `[[audit.redact]]`: what is taken out before a body is sealed or committed to.
    pub redact: Vec<RedactionRule>,
}

/// One of `[[audit.forward]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardFile {
    /// Names the cursor and the metrics. Another name begins anew.
    pub name: String,
    /// `syslog` or `otlp`.
    pub kind: String,
    /// `syslog`: `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `syslog`: speak TLS, to a certificate of these authorities (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// `otlp`: `https://collector:4318/v1/logs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `otlp`: authorities (PEM) instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// `otlp`: a file with the value of the `Authorization` header; read for each batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
    /// Only these tenants' logs; `cluster` is the cluster's own. Default: all.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Where to begin without a cursor: `start` (default) or `now`.
    #[serde(default = "start")]
    pub from: String,
}

fn start() -> String {
    "start".to_owned()
}

/// One of `[[audit.retention]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionFile {
    /// The tenant; `cluster` is the cluster's own log, `*` every tenant without a rule of its own.
    pub tenant: String,
    /// How long, such as `400d`. At least a day.
    pub keep: String,
}

/// `[audit]`, checked. It is printed as it is written.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditConfig {
    /// Receivers.
    pub forward: Vec<ForwardFile>,
    /// Rules.
    pub retention: Vec<RetentionFile>,
    /// Each is a key and a URL.
    pub witnesses: Vec<WitnessFile>,
    /// Where tiles are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// To whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<PathBuf>,
    /// What is kept of calls.
    #[serde(flatten)]
    pub privacy: AuditSettings,
}

impl AuditConfig {
    /// The witnesses, ready to be asked.
    pub fn witness_addresses(&self) -> Vec<WitnessAddress> {
        self.witnesses.iter().filter_map(|w| WitnessAddress::parse(&w.key, &w.url).ok()).collect()
    }

    /// The receivers, as the forwarders take them.
    pub fn forwards(&self) -> Vec<ForwardConfig> {
        self.forward.iter().filter_map(|file| forward(file).ok()).collect()
    }

    /// How long the records of a log are kept, and the rule that says so; `None`: for ever, as the
    /// cluster's log is.
    pub fn keep(&self, log: &LogId) -> Option<(Duration, String)> {
        if *log == LogId::CLUSTER {
            return None;
        }
        let of = |wanted: &str| self.retention.iter().find(|rule| rule.tenant == wanted);
        let rule = of(log.tenant()).or_else(|| of(EVERY_TENANT))?;
        Some((parse_duration(&rule.keep).ok()?, format!("keep {} for {}", rule.keep, rule.tenant)))
    }
}

/// Checks the section.
pub fn check(file: &AuditFile, has_log: bool, say: &mut impl FnMut(&'static str, String)) -> AuditConfig {
    for (key, given) in [("audit.forward", file.forward.is_empty()), ("audit.retention", file.retention.is_empty())] {
        if !given && !has_log {
            say(key, "needs the role audit-log: only nodes that keep the log can do that".to_owned());
        }
    }
    let mut names: Vec<&str> = file.forward.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        say("audit.forward", "names two receivers alike: they would share a cursor".to_owned());
    }
    for entry in &file.forward {
        if let Err(why) = forward(entry) {
            say("audit.forward", format!("has a wrong entry `{}`: {why}", entry.name));
        }
    }
    let mut tenants: Vec<&str> = file.retention.iter().map(|r| r.tenant.as_str()).collect();
    tenants.sort_unstable();
    if tenants.windows(2).any(|pair| pair.first() == pair.last()) {
        say("audit.retention", "has two rules for one tenant".to_owned());
    }
    for rule in &file.retention {
        if rule.tenant == "cluster" {
            say("audit.retention", "has a rule for `cluster`: that log proves the others and is kept whole".to_owned());
        } else if rule.tenant != EVERY_TENANT && log_of(&rule.tenant).is_none() {
            say("audit.retention", format!("has a rule for `{}`, which is no tenant's name or `*`", rule.tenant));
        }
        match parse_duration(&rule.keep) {
            Ok(keep) if keep >= MIN_KEEP => {}
            Ok(_) => say("audit.retention", format!("keeps `{}` for `{}` only: at least 1d", rule.tenant, rule.keep)),
            Err(why) => say("audit.retention", format!("has a wrong rule for `{}`: {why}", rule.tenant)),
        }
    }
    let Outside { witnesses, listen, readers } = outside::check(file, say);
    let (forward, retention) = (file.forward.clone(), file.retention.clone());
    AuditConfig { forward, retention, witnesses, listen, readers, privacy: AuditSettings::default() }
}

fn log_of(name: &str) -> Option<LogId> {
    match name {
        "cluster" => Some(LogId::CLUSTER),
        tenant => Name::new(tenant).ok().map(|name| LogId(Some(name))),
    }
}

fn forward(file: &ForwardFile) -> Result<ForwardConfig, String> {
    Name::new(&file.name).map_err(|e| format!("its name: {e}"))?;
    let target = match file.kind.as_str() {
        "syslog" => {
            refuse("syslog", &[("url", file.url.is_some()), ("ca", file.ca.is_some())])?;
            refuse("syslog", &[("authorization_file", file.authorization_file.is_some())])?;
            let address = file.address.clone().ok_or("kind = \"syslog\" needs address = \"HOST:PORT\"")?;
            let port =
                address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(format!("address = `{address}` is not HOST:PORT"));
            }
            ForwardTarget::Syslog(SyslogTarget { address, tls_ca: file.tls_ca.clone() })
        }
        "otlp" => {
            refuse("otlp", &[("address", file.address.is_some()), ("tls_ca", file.tls_ca.is_some())])?;
            let url = file.url.clone().ok_or("kind = \"otlp\" needs url = \"https://HOST:4318/v1/logs\"")?;
            let parsed = url::Url::parse(&url).map_err(|e| format!("url = `{url}`: {e}"))?;
            if !matches!(parsed.scheme(), "http" | "https") {
                return Err(format!("url = `{url}` is neither http:// nor https://"));
            }
            if !parsed.username().is_empty() || parsed.password().is_some() {
                return Err("a url holds no password: use authorization_file".to_owned());
            }
            let (ca, authorization_file) = (file.ca.clone(), file.authorization_file.clone());
            ForwardTarget::Otlp(OtlpTarget { url, ca, authorization_file })
        }
        other => return Err(format!("kind = `{other}` is neither syslog nor otlp")),
    };
    let log = |name: &String| log_of(name).ok_or_else(|| format!("tenants: `{name}` is no tenant's name"));
    let logs = file.tenants.iter().map(log).collect::<Result<_, _>>()?;
    let from_now = match file.from.as_str() {
        "start" => false,
        "now" => true,
        other => return Err(format!("from = `{other}` is neither start nor now")),
    };
    Ok(ForwardConfig { name: file.name.clone(), target, logs, from_now })
}

fn refuse(kind: &str, keys: &[(&str, bool)]) -> Result<(), String> {
    match keys.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(format!("{key} is not for kind = \"{kind}\"")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> (AuditConfig, Vec<String>) {
        let mut problems = Vec::new();
        let file: AuditFile = toml::from_str(text).unwrap();
        let config = check(&file, true, &mut |key, text| problems.push(format!("{key} {text}")));
        (config, problems)
    }

    #[test]
    fn receivers_and_rules_are_read() {
        let (config, problems) = read(
            "[[forward]]\nname='siem'\nkind='syslog'\naddress='siem:6514'\ntls_ca='/ca.pem'\ntenants=['acme','cluster']\n\
             [[forward]]\nname='otel'\nkind='otlp'\nurl='https://c:4318/v1/logs'\nfrom='now'\n\
             [[retention]]\ntenant='*'\nkeep='400d'\n[[retention]]\ntenant='acme'\nkeep='2d'\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let forwards = config.forwards();
        assert_eq!((forwards.len(), forwards[0].logs.len(), forwards[1].from_now), (2, 2, true));
        let of = |name: &str| config.keep(&log_of(name).unwrap()).map(|(keep, _)| keep.as_secs() / 86_400);
        assert_eq!((of("acme"), of("other"), of("cluster")), (Some(2), Some(400), None));
        assert!(toml::to_string(&config).unwrap().contains("address = \"siem:6514\""));
    }

    #[test]
    fn each_wrong_key_is_said() {
        let cases = [
            ("[[forward]]\nname='A b'\nkind='syslog'\naddress='h:1'\n", "its name"),
            ("[[forward]]\nname='a'\nkind='smtp'\n", "neither syslog nor otlp"),
            ("[[forward]]\nname='a'\nkind='syslog'\naddress='h'\n", "not HOST:PORT"),
            ("[[forward]]\nname='a'\nkind='syslog'\naddress='h:1'\nurl='x'\n", "url is not for kind"),
            ("[[forward]]\nname='a'\nkind='otlp'\nurl='ftp://x'\n", "neither http"),
            ("[[forward]]\nname='a'\nkind='otlp'\nurl='https://u:p@x/'\n", "authorization_file"),
            ("[[forward]]\nname='a'\nkind='otlp'\nurl='http://x'\nfrom='then'\n", "neither start nor now"),
            ("[[forward]]\nname='a'\nkind='otlp'\nurl='http://x'\ntenants=['A b']\n", "no tenant's name"),
            ("[[retention]]\ntenant='acme'\nkeep='1h'\n", "at least 1d"),
            ("[[retention]]\ntenant='acme'\nkeep='ever'\n", "not a duration"),
            ("[[retention]]\ntenant='a b'\nkeep='9d'\n", "no tenant's name"),
            ("[[retention]]\ntenant='cluster'\nkeep='9d'\n", "kept whole"),
            ("[[retention]]\ntenant='a'\nkeep='9d'\n[[retention]]\ntenant='a'\nkeep='8d'\n", "two rules"),
        ];
        for (text, part) in cases {
            let (_, problems) = read(text);
            assert!(problems.len() == 1 && problems[0].contains(part), "{text}: {problems:?}");
        }
        let file: AuditFile = toml::from_str("[[retention]]\ntenant='a'\nkeep='9d'\n").unwrap();
        let mut keys = Vec::new();
        check(&file, false, &mut |key, _| keys.push(key));
        assert_eq!(keys, ["audit.retention"]);
    }
}
