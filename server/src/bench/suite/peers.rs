//! What Provost is compared with, where it is there: nginx as a proxy that looks at nothing, and MCP gateways that
//! the user runs.
//!
//! nginx is started here, with a configuration that is written for it. Gateways are not: what they do to a call is
//! their configuration, which is the user's to answer for. The suite says which it found, and where the upstream is.

use std::{path::Path, str::FromStr, time::Duration};

use anyhow::Context;
use provost_client::{Connector, Endpoint, Options, Transport};
use secrecy::SecretString;
use serde_json::Value;

use super::{
    load::Side,
    program::{Program, Scratch, command, free_ports, is_program, on_path},
    report::PeerFact,
    tokens::{self, Llama},
};
use crate::{
    bench::{Era, client::Target, process::Watched},
    failure::{Failure, Usage},
};

/// The one that is started here.
pub const NGINX: &str = "nginx";
/// The one that answers are compared with: a Python interpreter that has llama.cpp.
pub const LLAMA: &str = "llama";
/// Programs of gateways that are worth a word when they are found.
const GATEWAYS: [&str; 4] = ["agentgateway", "litellm", "mcpgateway", "contextforge"];
/// Said where none is.
const NO_LLAMA: &str = "no llama.cpp is named: --peer llama=PYTHON, an interpreter that has llama_cpp, gguf and numpy, as \
                        scripts/compare_llama.sh makes one";
/// More peers than this are no comparison.
pub const MAX_PEERS: usize = 8;
/// Begins the variable with a peer's token; its name in capitals follows.
const TOKEN_VARIABLE: &str = "PROVOST_BENCH_TOKEN_";
/// The same for what is said of its version: what a gateway says of itself may be what its upstream says.
const VERSION_VARIABLE: &str = "PROVOST_BENCH_VERSION_";
/// The longest version that is shown.
const MAX_VERSION_CHARS: usize = 64;
/// A peer that answers no call within this is not there.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// `NAME=URL`, `NAME=URL#TOOL`, `nginx=PATH` or `llama=PYTHON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerArg {
    /// What it is called.
    pub name: String,
    /// Where it is, or its program.
    pub place: String,
    /// The name of the tool there, where it is another than the upstream's.
    pub tool: Option<String>,
}

impl FromStr for PeerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, place) = text.split_once('=').ok_or("write it as NAME=URL, or nginx=PATH")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || ["direct", "governed"].contains(&name) {
            return Err(format!("`{name}` is no name of a peer: letters, digits, `-` and `_`"));
        }
        let (place, tool) = match place.split_once('#') {
            Some((place, tool)) if !tool.is_empty() => (place, Some(tool.to_owned())),
            _ => (place, None),
        };
        if !place.contains("://") && name != NGINX && name != LLAMA {
            return Err(format!("only nginx is started here; give the URL at which {name} serves"));
        }
        if place.contains("://") && name == LLAMA {
            return Err("llama is a Python interpreter that has llama.cpp: write llama=PATH".to_owned());
        }
        Ok(Self { name: name.to_owned(), place: place.to_owned(), tool })
    }
}

/// The call that every side is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The upstream's tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// What every answer holds.
    pub expect: Option<String>,
}

/// Those that take part, and what is said of all that were found.
#[derive(Default)]
pub struct Peers {
    /// In the order of the report.
    pub sides: Vec<Side>,
    /// For the report.
    pub facts: Vec<PeerFact>,
    /// What is said of those that were named and answered no call.
    pub left_out: Vec<String>,
    /// What answers are compared with.
    pub llama: Option<Llama>,
    /// Why they are not.
    pub without_llama: String,
    nginx: Option<Program>,
}

impl Peers {
    /// Starts nginx if it is there, and asks every named gateway once. One that does not answer is left out, and the rows
    /// that it is missing from say so; with `strict` it is an error: the comparison that was asked for cannot be made.
    pub async fn find(
        scratch: &Scratch,
        named: &[PeerArg],
        upstream: &str,
        asked: &Asked,
        strict: bool,
    ) -> anyhow::Result<Self> {
        let mut peers = Self::default();
        let own = named.iter().find(|peer| peer.name == NGINX);
        match own {
            Some(peer) if peer.place.contains("://") => {}
            Some(peer) if is_program(Path::new(&peer.place)) => {
                peers.start_nginx(scratch, Path::new(&peer.place), upstream, asked).await?;
            }
            Some(peer) => return Err(unusable(&peer.name, &format!("{} is no program", peer.place))),
            None => match on_path(NGINX) {
                Some(program) => {
                    if let Err(cause) = peers.start_nginx(scratch, &program, upstream, asked).await {
                        peers.note(NGINX, "", &format!("found, and not used: {cause:#}"));
                    }
                }
                None => peers.note(NGINX, "", "not on PATH"),
            },
        }
        for peer in named.iter().filter(|peer| peer.place.contains("://")) {
            let version = said_version(&peer.name);
            match reach(peer, asked).await {
                Ok(side) => {
                    let era = if side.era == Era::Modern { "2026-07-28" } else { "2025-11-25" };
                    peers.note(&peer.name, &version, &format!("takes part, as it is configured; speaks {era}"));
                    peers.sides.push(side);
                }
                Err(cause) if strict => return Err(cause),
                Err(cause) => {
                    let said = cause.downcast_ref::<Usage>().map_or_else(|| cause.to_string(), |u| u.0.message.clone());
                    peers.note(&peer.name, &version, "named, and left out: it answered no call");
                    // Without what is to be done about it, which the lines after the first say.
                    peers.left_out.push(format!("left out: {}", said.lines().next().unwrap_or_default()));
                }
            }
        }
        peers.find_llama(named, strict).await?;
        for program in GATEWAYS {
            if on_path(program).is_some() && !named.iter().any(|peer| peer.name.starts_with(program)) {
                let how = format!(
                    "on PATH, and not used: run it before the upstream (--upstream-port), and name it: --peer {program}=URL"
                );
                peers.note(program, "", &how);
            }
        }
        Ok(peers)
    }

    fn note(&mut self, name: &str, version: &str, part: &str) {
        self.facts.push(PeerFact { name: name.to_owned(), version: version.to_owned(), part: part.to_owned() });
    }

    /// Asks the interpreter that was named, or else the one that `scripts/compare_llama.sh` has made.
    async fn find_llama(&mut self, named: &[PeerArg], strict: bool) -> anyhow::Result<()> {
        let is_named = named.iter().any(|peer| peer.name == LLAMA);
        let Some(python) = tokens::offered(named) else {
            NO_LLAMA.clone_into(&mut self.without_llama);
            return Ok(());
        };
        match Llama::ask(python).await {
            Ok(llama) => {
                self.note(LLAMA, &format!("llama-cpp-python {}", llama.version), "takes part in the row tokens");
                self.llama = Some(llama);
            }
            Err(cause) if is_named && strict => return Err(no_llama(&format!("{cause:#}"))),
            Err(cause) => {
                self.without_llama = format!("{LLAMA} is left out: {cause:#}");
                self.note(LLAMA, "", &format!("left out: {cause:#}"));
            }
        }
        Ok(())
    }

    async fn start_nginx(
        &mut self,
        scratch: &Scratch,
        program: &Path,
        upstream: &str,
        asked: &Asked,
    ) -> anyhow::Result<()> {
        let folder = scratch.folder(NGINX)?;
        let port = free_ports(1)?.pop().context("PV-BENCH-START: there is no free port")?;
        let endpoint = Endpoint::parse(upstream, Some(Transport::Http)).context("PV-BENCH-PEER: the upstream's URL")?;
        if endpoint.is_secure() {
            return Err(unusable(NGINX, "the upstream speaks TLS, and this proxy does not"));
        }
        let file = folder.join("nginx.conf");
        crate::dev::write_private(&file, nginx_config(&folder, port, &endpoint.authority()).as_bytes())?;
        let mut command = command(program);
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        let mut running = Program::start(NGINX, command, &folder.join("log"), None)?;
        let url = format!("http://127.0.0.1:{port}{}", endpoint.path());
        let target = target(&url, None, Era::Modern, asked, &asked.tool)?;
        running.until("it answered", async || Box::pin(target.probe()).await.ok()).await?;
        self.note(
            NGINX,
            &version_of(program).await,
            "started here: one process, keep-alive, no log, no look at a call",
        );
        self.sides.push(Side {
            name: NGINX.to_owned(),
            target,
            transport: Transport::Http,
            era: Era::Modern,
            watched: Watched::open(running.pid()),
        });
        self.nginx = Some(running);
        Ok(())
    }

    /// Ends what was started.
    pub async fn stop(self) {
        if let Some(nginx) = self.nginx {
            nginx.kill().await;
        }
    }
}

/// Asks a gateway once, in the newer era and then in the older.
async fn reach(peer: &PeerArg, asked: &Asked) -> anyhow::Result<Side> {
    let token = std::env::var(token_variable(&peer.name)).ok().filter(|token| !token.is_empty());
    let tool = peer.tool.as_deref().unwrap_or(&asked.tool);
    let mut refusal = String::new();
    for era in [Era::Modern, Era::Legacy] {
        let target = target(&peer.place, token.clone(), era, asked, tool)?;
        match Box::pin(target.probe()).await {
            Ok(()) => {
                let watched = watched_at(&peer.place);
                return Ok(Side { name: peer.name.clone(), target, transport: Transport::Http, era, watched });
            }
            Err(cause) => refusal = format!("{cause:#}"),
        }
    }
    Err(unusable(&peer.name, &refusal))
}

/// The call over one connection to `url`.
pub fn target(url: &str, token: Option<String>, era: Era, asked: &Asked, tool: &str) -> anyhow::Result<Target> {
    let wrong = "PV-BENCH-PEER: the URL or its token cannot be used";
    let endpoint = Endpoint::parse(url, Some(Transport::Http)).context(wrong)?;
    let options = Options { token: token.map(SecretString::from), ..Options::default() };
    let connector = Connector::new(endpoint, options).context(wrong)?;
    let target = Target::new(connector, era, tool, &asked.arguments)?;
    Ok(target.expecting(asked.expect.clone()).within(CALL_LIMIT))
}

fn unusable(name: &str, cause: &str) -> anyhow::Error {
    let hint = "does it serve MCP over Streamable HTTP there, with the upstream behind it? another name of the tool \
                is given as URL#TOOL, and its token in the environment; see docs/benchmarking.md";
    Usage(Failure::new("PV-BENCH-PEER", format!("the peer {name} cannot be measured: {cause}"), hint)).into()
}

fn no_llama(cause: &str) -> anyhow::Error {
    let hint = "name an interpreter that has llama_cpp, gguf and numpy; scripts/compare_llama.sh makes one";
    Usage(Failure::new("PV-BENCH-PEER", format!("the peer {LLAMA} cannot be measured: {cause}"), hint)).into()
}

/// How many take part in calls at the most.
pub fn count(named: &[PeerArg]) -> usize {
    let is_named = named.iter().any(|peer| peer.name == NGINX);
    named.iter().filter(|peer| peer.name != LLAMA).count() + usize::from(!is_named && on_path(NGINX).is_some())
}

/// The process that serves a URL, if that is on this machine.
pub fn watched_at(url: &str) -> Option<Watched> {
    let authority = Endpoint::parse(url, Some(Transport::Http)).ok()?.authority();
    let (host, port) = authority.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_here.then(|| Watched::listening(port.parse().ok()?))?
}

/// Where a peer's token is.
fn token_variable(name: &str) -> String {
    variable(TOKEN_VARIABLE, name)
}

fn variable(prefix: &str, name: &str) -> String {
    prefix.to_owned() + &name.to_ascii_uppercase().replace('-', "_")
}

/// Its version, where who started it said one.
fn said_version(name: &str) -> String {
    let said = std::env::var(variable(VERSION_VARIABLE, name)).unwrap_or_default();
    said.chars().take(MAX_VERSION_CHARS).collect()
}

async fn version_of(program: &Path) -> String {
    let Ok(output) = command(program).arg("-v").output().await else { return String::new() };
    // nginx says it on stderr.
    String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned()
}

/// A proxy that looks at nothing, with every file of its own below `folder`. One process: it is gone when it is killed,
/// and its CPU time is all there is.
fn nginx_config(folder: &Path, port: u16, upstream: &str) -> String {
    let folder = folder.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.iter().map(|kind| format!("  {kind}_temp_path \"{folder}/{kind}\";\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid \"{folder}/pid\";\nerror_log \"{folder}/error.log\" warn;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n{temporary}  keepalive_timeout 600s;\n  \
         keepalive_requests 100000000;\n  upstream direct {{ server {upstream}; keepalive 256; keepalive_requests \
         100000000; }}\n  server {{\n    listen 127.0.0.1:{port};\n    location / {{\n      proxy_pass \
         http://direct;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header Host \"{upstream}\";\n    }}\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named() {
        let peer = |name: &str, place: &str, tool: Option<&str>| PeerArg {
            name: name.to_owned(),
            place: place.to_owned(),
            tool: tool.map(str::to_owned),
        };
        let table = [
            ("agentgateway=http://h:1/mcp", peer("agentgateway", "http://h:1/mcp", None)),
            ("litellm=http://h:1/mcp#up_echo", peer("litellm", "http://h:1/mcp", Some("up_echo"))),
            ("nginx=/usr/sbin/nginx", peer("nginx", "/usr/sbin/nginx", None)),
            ("llama=/venv/bin/python", peer("llama", "/venv/bin/python", None)),
        ];
        for (text, expect) in table {
            assert_eq!(text.parse::<PeerArg>(), Ok(expect));
        }
        let wrong = [
            "agentgateway",
            "=http://h",
            "a b=http://h",
            "agentgateway=/usr/bin/x",
            "direct=http://h/",
            "llama=http://h",
        ];
        for text in wrong {
            assert!(text.parse::<PeerArg>().is_err(), "{text}");
        }
        assert_eq!(token_variable("agentgateway-rules"), "PROVOST_BENCH_TOKEN_AGENTGATEWAY_RULES");
        let named = [peer("litellm", "http://h:1/mcp", None), peer("nginx", "http://h:2/mcp", None)];
        assert_eq!(count(&named), 2);
        let beside = [&named[..], &[peer("llama", "/venv/bin/python", None)]].concat();
        assert_eq!(count(&beside), 2, "it answers no calls");
    }

    #[tokio::test]
    async fn an_interpreter_that_is_not_there_is_left_out_and_said_and_with_strict_ends_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        let named =
            [PeerArg { name: LLAMA.to_owned(), place: dir.path().join("gone").display().to_string(), tool: None }];
        let mut peers = Peers::default();
        peers.find_llama(&named, false).await.unwrap();
        assert!(peers.llama.is_none() && peers.without_llama.contains("cannot be started"), "{}", peers.without_llama);
        let refused = peers.find_llama(&named, true).await.unwrap_err().to_string();
        assert!(refused.contains("PV-BENCH-PEER") && refused.contains("scripts/compare_llama.sh"), "{refused}");
    }

    #[test]
    fn only_a_server_of_this_machine_is_watched() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let watched = watched_at(&format!("http://127.0.0.1:{port}/mcp")).unwrap();
        assert_eq!(watched.pid(), std::process::id());
        assert!(watched_at(&format!("http://192.0.2.1:{port}/mcp")).is_none() && watched_at("nonsense").is_none());
    }

    #[test]
    fn a_proxy_keeps_all_its_files_in_its_folder() {
        let config = nginx_config(Path::new("/d/nginx"), 4711, "127.0.0.1:9");
        assert_eq!(config.matches("\"/d/nginx/").count(), 7);
        assert_eq!(config.matches('{').count(), config.matches('}').count());
        assert!(config.contains("listen 127.0.0.1:4711;") && config.contains("server 127.0.0.1:9;"), "{config}");
    }
}
