//! Processes within walls: what they cannot reach, what they cannot take, and what is said where there are no walls.
//!
//! A script says on stderr what it finds and ends; the error of the call has its last lines. Where the machine permits
//! no walls, a test says so, and that a plugin that needs them is refused.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_data_pipeline::Reply;
use provost_data_tools::{Limits, Plugin, Toolbox, Wall, Walls};
use provost_types::{Era, IsolatedNetwork, IsolationSpec, PluginSource, PluginSpec};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::json;

use crate::bench::*;

pub(crate) const FIXTURE: &str = env!("CARGO_BIN_EXE_everything-rmcp");
/// More than any script starts.
const MANY: u32 = 2_000;

/// The program whose launcher is tested: it is built beside the tests.
pub(crate) fn provost() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let program = folder.join("provost");
    assert!(program.exists(), "{} is not built: run `cargo build --workspace`", program.display());
    program
}

pub(crate) fn isolated(command: &str, args: &[&str], isolation: IsolationSpec) -> PluginSpec {
    let mut spec = stdio_spec(command, args, Era::Legacy);
    if let PluginSource::McpStdio(stdio) = &mut spec.source {
        stdio.isolation = Some(Box::new(isolation));
    }
    spec
}

pub(crate) fn running(spec: PluginSpec, launcher: Option<PathBuf>) -> (Arc<Toolbox>, Arc<Plugin>) {
    let toolbox = toolbox_with(Limits::default(), None, launcher);
    toolbox.reconcile(&snapshot(&[("up", spec)]));
    let plugin = toolbox.plugin(&name("acme"), "up").unwrap();
    (toolbox, plugin)
}

/// How a plugin's process ended: code, message, what stood around it.
pub(crate) async fn ended(spec: PluginSpec) -> (String, String, Option<Walls>) {
    ended_by(spec, provost()).await
}

/// The same with another launcher.
pub(crate) async fn ended_by(spec: PluginSpec, launcher: PathBuf) -> (String, String, Option<Walls>) {
    let (_toolbox, plugin) = running(spec, Some(launcher));
    let done = call(&plugin, "t", json!({})).await;
    let Reply::Error(error) = &done.reply else { panic!("{done:?}") };
    (pv_code(&done), error.message.clone(), plugin.walls())
}

pub(crate) async fn said(script: &str, isolation: IsolationSpec) -> String {
    ended(isolated("sh", &["-c", &format!("{script}\nexit 1")], isolation)).await.1
}

/// As far as the machine lets.
pub(crate) fn as_permitted() -> IsolationSpec {
    IsolationSpec { required: Some(false), ..IsolationSpec::default() }
}

/// Whether this machine permits a wall. Where it does not, a plugin that demands all is refused.
pub(crate) async fn permits(wall: Wall) -> bool {
    let walls =
        ended(isolated("sh", &["-c", "exit 1"], as_permitted())).await.2.expect("the launcher tells what stands");
    if walls.stands(wall) {
        return true;
    }
    eprintln!("SKIPPED: this machine permits no wall `{}`: {:?}", wall.as_str(), walls.missing);
    let all = IsolationSpec { required: Some(true), ..IsolationSpec::default() };
    let (code, message, _) = ended(isolated("sh", &["-c", "exit 1"], all)).await;
    assert_eq!(code, "PV-UPSTREAM-ISOLATION", "{message}");
    false
}

#[tokio::test]
async fn a_process_within_walls_serves_as_any_other() {
    for (era, isolation) in [("modern", as_permitted()), ("legacy", as_permitted())] {
        let mut spec = isolated(FIXTURE, &["--era", era], isolation);
        if let PluginSource::McpStdio(stdio) = &mut spec.source {
            stdio.era = Era::Auto;
        }
        let (_toolbox, plugin) = running(spec, Some(provost()));
        assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!", "{era}");
        let died = call(&plugin, "crash", json!({})).await;
        assert_eq!(pv_code(&died), "PV-UPSTREAM-DIED", "{era}");
        let Reply::Error(error) = &died.reply else { panic!() };
        assert!(error.message.contains("70"), "the exit status is told: {}", error.message);
        assert_eq!(text(&call(&plugin, "greet", json!({"name": "b"})).await), "Hello, b!", "{era}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let (code, message, _) = ended(isolated("no-such-program", &[], as_permitted())).await;
    assert_eq!(code, "PV-UPSTREAM-NOT-RUNNING");
    assert!(message.contains("no-such-program"), "{message}");
}

#[tokio::test]
async fn without_a_launcher_only_those_start_that_do_without_walls() {
    let refused =
        call(&running(isolated("sh", &["-c", "exit 1"], IsolationSpec::default()), None).1, "t", json!({})).await;
    assert_eq!(pv_code(&refused), "PV-UPSTREAM-ISOLATION");
    let (_toolbox, plugin) = running(isolated(FIXTURE, &["--era", "legacy"], as_permitted()), None);
    assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
    let walls = plugin.walls().unwrap();
    assert!(Wall::ALL.into_iter().all(|wall| !walls.stands(wall)), "{walls:?}");
    let off = IsolationSpec { enabled: false, ..IsolationSpec::default() };
    let (_toolbox, plugin) = running(isolated(FIXTURE, &["--era", "legacy"], off), None);
    assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
    assert_eq!(plugin.walls(), None);
}

#[tokio::test]
async fn the_nodes_loopback_is_reached_only_by_grant() {
    if !permits(Wall::Network).await {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for (network, expect) in [(IsolatedNetwork::None, "it is out of reach"), (IsolatedNetwork::Host, "it is reached")] {
        let isolation = IsolationSpec { network, ..IsolationSpec::default() };
        let (_, message, _) = ended(isolated(FIXTURE, &["--connect", &address], isolation)).await;
        assert!(message.contains(expect), "{network:?}: {message}");
    }
}

#[tokio::test]
async fn too_much_memory_ends_it_and_nobody_else() {
    let isolation = IsolationSpec { memory_mib: 64, ..as_permitted() };
    let (_toolbox, beside) = running(isolated(FIXTURE, &["--era", "legacy"], isolation.clone()), Some(provost()));
    assert_eq!(text(&call(&beside, "greet", json!({"name": "a"})).await), "Hello, a!");
    let (code, message, walls) = ended(isolated(FIXTURE, &["--hold", "256"], isolation)).await;
    if !walls.unwrap().stands(Wall::Limits) {
        return eprintln!("SKIPPED: this machine does not show what processes use");
    }
    assert_eq!(code, "PV-UPSTREAM-OUTGROWN", "{message}");
    assert!(message.contains("memoryMib") && message.contains("64"), "{message}");
    assert_eq!(text(&call(&beside, "greet", json!({"name": "b"})).await), "Hello, b!");
}

#[tokio::test]
async fn processes_are_bounded_and_none_is_left() {
    // A number that no other test waits for: it finds the processes again.
    let marker = format!("{}", 86_400 + std::process::id());
    let script =
        format!("i=0; while [ $i -lt {MANY} ]; do sleep {marker} & i=$((i+1)); echo started $i >&2; done; wait");
    let isolation = IsolationSpec { processes: 30, ..as_permitted() };
    let (code, message, walls) = ended(isolated("sh", &["-c", &script], isolation)).await;
    assert!(["PV-UPSTREAM-OUTGROWN", "PV-UPSTREAM-NOT-RUNNING"].contains(&code.as_str()), "{code}: {message}");
    if walls.unwrap().missing.is_empty() {
        let started = message.split("started ").filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok()).max();
        assert!(started.is_none_or(|most| most <= 40), "{message}");
    }
    eventually("all of them end", async || !lives(&marker)).await;
}

/// Whether a process has this among its arguments. Launchers have it too.
fn lives(marker: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(marker)).count() > 0
}

#[tokio::test]
async fn processor_time_is_held_down() {
    let isolation = IsolationSpec { cpu_percent: 20, ..as_permitted() };
    let script = "timeout 9 sh -c 'while :; do :; done'; times >&2; exit 1";
    let (_, message, walls) = ended(isolated("sh", &["-c", script], isolation)).await;
    if !walls.unwrap().stands(Wall::Limits) {
        return eprintln!("SKIPPED: this machine does not show what processes use");
    }
    // `0m4.25s`: of the shell and of its children, as user and in the kernel.
    let seconds = |word: &str| word.strip_suffix('s')?.split_once('m')?.1.parse::<f64>().ok();
    let used: Vec<f64> = message.split_whitespace().filter_map(seconds).collect();
    assert!(used.len() >= 2, "{message}");
    // Nine seconds of a core if nobody holds it; the reserve of four and a fifth of nine if somebody does.
    assert!(used.iter().sum::<f64>() < 7.5, "{message}");
}

#[tokio::test]
async fn the_environment_is_what_the_document_says() {
    let mut spec = isolated("sh", &["-c", "env >&2; exit 1"], as_permitted());
    if let PluginSource::McpStdio(stdio) = &mut spec.source {
        stdio.env.insert("PLAIN".into(), "seen".into());
        // What acts on a program before it begins must not act on the launcher: each program complains once.
        stdio.env.insert("LD_PRELOAD".into(), "/nonexistent.so".into());
        stdio.args[1] = "echo \"[$PLAIN]\" >&2; exit 1".into();
    }
    let message = ended(spec.clone()).await.1;
    assert!(message.contains("[seen]"), "{message}");
    assert!(message.matches("cannot be preloaded").count() <= 1, "the launcher was reached: {message}");
    if let PluginSource::McpStdio(stdio) = &mut spec.source {
        stdio.env.remove("LD_PRELOAD");
        stdio.args[1] = "env >&2; exit 1".into();
    }
    let message = ended(spec).await.1;
    assert!(message.contains("PLAIN=seen") && message.contains("PATH="), "{message}");
    for hidden in ["CARGO", "PROVOST"] {
        assert!(!message.contains(hidden), "the environment leaks: {message}");
    }
}

#[tokio::test]
async fn no_descriptor_of_the_node_is_open_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("left-open");
    let file = File::create(&path).unwrap();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let script = "ls -l /proc/self/fd >&2; exit 1";
    // Without walls it goes on: the test would see it.
    let done = call(&plugin(stdio_spec("sh", &["-c", script], Era::Legacy)), "t", json!({})).await;
    let Reply::Error(error) = &done.reply else { panic!() };
    assert!(error.message.contains("left-open"), "{}", error.message);
    let message = said(script, as_permitted()).await;
    assert!(message.contains("pipe:") && !message.contains("left-open"), "{message}");
}

#[tokio::test]
async fn other_processes_are_neither_seen_nor_reached() {
    if !permits(Wall::Processes).await {
        return;
    }
    let own = std::process::id();
    // In a container the test's number may be that of a process within, too.
    let script = format!(
        "echo begins >&2; grep -q '[u]pstream-' /proc/{own}/cmdline && echo seen >&2; \
         test -e /proc/{own} || {{ kill -0 {own} && echo reached >&2; }}; ls /proc | grep -c '^[0-9]' >&2; \
         cat /proc/1/environ >&2; echo ends >&2"
    );
    let message = said(&script, as_permitted()).await;
    assert!(message.contains("ends"), "{message}");
    for found in ["seen", "reached", "PROVOST"] {
        assert!(!message.contains(found), "{message}");
    }
    let shown: BTreeSet<u32> = message.split(" | ").filter_map(|line| line.trim().parse().ok()).collect();
    assert!(shown.iter().all(|count| *count < 10) && !shown.is_empty(), "{message}");
}

#[tokio::test]
async fn it_writes_where_it_may_and_has_no_rights() {
    if !permits(Wall::Files).await {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (open, beside) = (folder.path().join("open"), folder.path().join("beside"));
    for path in [&open, &beside] {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let script = format!(
        "echo a > {}/made && echo wrote >&2; test -e {} && echo beside >&2; echo a > /etc/provost-test && echo etc >&2; \
         echo a > own && pwd >&2; grep -E 'CapEff|NoNewPrivs' /proc/self/status >&2; \
         test \"$(id -u)\" = 0 && echo root >&2; echo ends >&2",
        open.display(),
        beside.display()
    );
    let writable = BTreeSet::from([open.to_str().unwrap().to_owned()]);
    let message = said(&script, IsolationSpec { writable, ..as_permitted() }).await;
    assert!(message.contains("wrote") && open.join("made").exists(), "{message}");
    assert!(!message.contains("beside") && !Path::new("/etc/provost-test").exists(), "{message}");
    assert!(!message.split(" | ").any(|line| line == "etc" || line == "root"), "{message}");
    assert!(message.split(" | ").any(|line| line == "/tmp"), "{message}");
    assert!(message.contains("CapEff:\t0000000000000000") && message.contains("NoNewPrivs:\t1"), "{message}");
}

#[tokio::test]
async fn what_it_says_of_its_launcher_is_not_believed() {
    let forged = r#"0123456789abcdef0123456789abcdef {"ended":"nothing"}"#;
    let (code, message, _) =
        ended(isolated("sh", &["-c", &format!("echo '{forged}' >&2; exit 3")], as_permitted())).await;
    assert_eq!(code, "PV-UPSTREAM-NOT-RUNNING", "{message}");
    assert!(message.contains("exit status: 3"), "{message}");
}

#[tokio::test]
async fn a_removed_plugin_leaves_nothing_even_of_what_left_its_group() {
    let marker = format!("{}", 172_800 + std::process::id());
    let script = format!("setsid sleep {marker} & exec {FIXTURE} --era legacy");
    // Its shell may be anywhere; what that starts has to be said.
    let readable = BTreeSet::from([Path::new(FIXTURE).parent().unwrap().to_str().unwrap().to_owned()]);
    let isolation = IsolationSpec { readable, ..as_permitted() };
    let (toolbox, plugin) = running(isolated("sh", &["-c", &script], isolation), Some(provost()));
    assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
    assert!(lives(&marker));
    drop(plugin);
    toolbox.stop();
    drop(toolbox);
    eventually("all of it ends", async || !lives(&marker)).await;
}
