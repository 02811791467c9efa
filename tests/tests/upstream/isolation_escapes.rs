//! Ways out of the walls that are closed: past what hides the node's folder, through the terminal, by owning files.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use provost_data_pipeline::Reply;
use provost_data_tools::Wall;
use provost_types::{IsolationSpec, PluginSource};
use serde_json::json;

use crate::{
    bench::*,
    isolation::{FIXTURE, as_permitted, ended, isolated, permits, provost, running, said},
};

#[tokio::test]
async fn the_nodes_folder_is_not_seen_within_a_folder_that_is() {
    if !permits(Wall::Files).await {
        return;
    }
    for mode in [0o755, 0o700] {
        let folder = tempfile::tempdir().unwrap();
        let (data, script) = (folder.path().join("data"), folder.path().join("server.sh"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("key"), "hidden-key").unwrap();
        fs::write(&script, format!("echo begins >&2; cat {}/key >&2; exit 1", data.display())).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let toolbox = toolbox_walled(&data, provost());
        let spec = isolated("sh", &[script.to_str().unwrap()], as_permitted());
        toolbox.reconcile(&snapshot(&[("up", spec)]));
        let done = call(&toolbox.plugin(&name("acme"), "up").unwrap(), "t", json!({})).await;
        let Reply::Error(error) = &done.reply else { panic!("{done:?}") };
        assert!(error.message.contains("begins") && !error.message.contains("hidden-key"), "{}", error.message);
    }
}

#[tokio::test]
async fn who_stays_root_has_neither_settings_nor_devices() {
    if !permits(Wall::Files).await {
        return;
    }
    // Where the node is root, a folder that is closed to others keeps the process root.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server.sh");
    let text = "echo begins >&2; test -w /proc/sys/kernel/core_pattern && echo settings >&2
        test -w /proc/sysrq-trigger && echo keys >&2
        echo a > /dev/null && echo nothing >&2; echo a > /dev/shm/a && echo shared >&2
        test \"$(id -u)\" = 0 && ls -l /dev | grep -q ^b && echo disks >&2; exit 1";
    fs::write(&script, text).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let (_, message, walls) = ended(isolated("sh", &[script.to_str().unwrap()], as_permitted())).await;
    assert!(["begins", "nothing", "shared"].iter().all(|word| message.contains(word)), "{message}");
    assert!(!["settings", "keys", "disks"].iter().any(|word| message.contains(word)), "{message}");
    assert!(walls.unwrap().stands(Wall::Files));
}

#[tokio::test]
async fn a_pipe_among_the_arguments_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let script = "test -p \"$0\" && echo a-pipe >&2; exit 1";
    let (_, message, _) = ended(isolated("sh", &["-c", script, pipe.to_str().unwrap()], as_permitted())).await;
    assert!(message.contains("a-pipe"), "{message}");
}

#[tokio::test]
async fn the_terminal_of_the_node_is_not_its_own() {
    let marker = format!("{}", 259_200 + std::process::id());
    let script = format!("sleep {marker} & exec {FIXTURE} --era legacy");
    let readable = BTreeSet::from([Path::new(FIXTURE).parent().unwrap().to_str().unwrap().to_owned()]);
    let isolation = IsolationSpec { readable, ..as_permitted() };
    let (_toolbox, plugin) = running(isolated("sh", &["-c", &script], isolation), Some(provost()));
    assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
    let own = session(Path::new("/proc/self")).unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_marked = |path: &PathBuf| fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains(&marker));
    let sessions: Vec<u32> = entries.filter(is_marked).filter_map(|path| session(&path)).collect();
    assert!(!sessions.is_empty() && !sessions.contains(&own), "{own} {sessions:?}");
}

/// The session of a process, by proc_pid_stat(5): 0 where its leader lies outside of the namespace, as in a container.
fn session(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name, in parentheses, may hold anything; after it come state, parent, group, session.
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

#[tokio::test]
async fn a_working_directory_may_be_said_from_where_the_node_runs() {
    let mut spec = isolated("sh", &["-c", "pwd >&2; exit 1"], as_permitted());
    if let PluginSource::McpStdio(stdio) = &mut spec.source {
        stdio.cwd = Some("tests".to_owned());
    }
    let expect = std::env::current_dir().unwrap().join("tests");
    let (_, message, _) = ended(spec).await;
    assert!(message.contains(expect.to_str().unwrap()), "{message}");
}

#[tokio::test]
async fn there_are_walls_wherever_a_user_may_have_namespaces() {
    let is_permitted = Command::new("unshare").args(["--user", "--pid", "--net", "--mount", "--fork", "true"]).status();
    if !is_permitted.is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: this machine permits no namespaces");
    }
    let (_, message, walls) = ended(isolated("sh", &["-c", "exit 1"], as_permitted())).await;
    let walls = walls.unwrap();
    assert!(walls.stands(Wall::Network) && walls.stands(Wall::User), "{message}: {walls:?}");
}

#[tokio::test]
async fn calls_that_no_server_needs_are_closed() {
    if !permits(Wall::Calls).await {
        return;
    }
    // Without the filter a namespace of users is refused for the number of them, or made.
    let script = "LC_ALL=C; export LC_ALL; grep '^Seccomp:' /proc/self/status >&2; unshare -U true; echo ends >&2";
    let message = said(script, as_permitted()).await;
    assert!(message.contains("Seccomp:\t2") && message.contains("ends"), "{message}");
    assert!(message.contains("Operation not permitted"), "{message}");
}
