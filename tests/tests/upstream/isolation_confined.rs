//! Where the machine permits no namespaces, as in most containers: no sockets, and rules about files.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use provost_data_pipeline::Reply;
use provost_data_tools::Wall;
use provost_types::{IsolatedNetwork, IsolationSpec};
use serde_json::json;

use crate::{
    bench::*,
    isolation::{FIXTURE, ended_by, isolated, provost},
};

/// What the launcher says where the kernel has no Landlock.
const NO_RULES: &str = "files cannot be confined";

/// A launcher that may make no namespaces. `None`: this machine permits none anyway, or nothing to take them away with.
fn without_namespaces(folder: &Path) -> Option<PathBuf> {
    let tried = Command::new("unshare").args(["-U", "-r", "setpriv", "--bounding-set=-all", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: no namespace in which there may be no others");
        return None;
    }
    let script = folder.join("launcher.sh");
    let text = format!(
        "#!/bin/sh\nexec unshare -U -r sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" \"$@\"' '{}' \"$@\"\n",
        provost().display()
    );
    // Not by this process: a file that it, or a child of its that just begins, has open cannot be run.
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let written = Command::new("sh").args(["-c", write, "sh", &text]).arg(&script).status().unwrap();
    assert!(written.success());
    Some(script)
}

#[tokio::test]
async fn without_namespaces_there_is_no_network_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let Some(launcher) = without_namespaces(folder.path()) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for (network, expect) in [(IsolatedNetwork::None, "it is out of reach"), (IsolatedNetwork::Host, "it is reached")] {
        let isolation = IsolationSpec { network, ..IsolationSpec::default() };
        let spec = isolated(FIXTURE, &["--connect", &address], isolation);
        let (code, message, walls) = ended_by(spec, launcher.clone()).await;
        if code == "PV-UPSTREAM-ISOLATION" && message.contains(NO_RULES) {
            return eprintln!("SKIPPED: {message}");
        }
        assert!(message.contains(expect), "{network:?}: {code} {message}");
        let walls = walls.unwrap();
        assert!(walls.stands(Wall::Network) && walls.stands(Wall::Calls), "{walls:?}");
        assert!(!walls.stands(Wall::Files) && !walls.stands(Wall::Processes), "{walls:?}");
    }
}

#[tokio::test]
async fn without_namespaces_it_opens_what_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let Some(launcher) = without_namespaces(folder.path()) else { return };
    let place = |name: &str| folder.path().join(name);
    for name in ["data", "open", "beside"] {
        fs::create_dir(place(name)).unwrap();
    }
    fs::write(place("data/key"), "hidden-key").unwrap();
    let script = format!(
        "echo begins >&2; cat {data}/key >&2; echo a > {beside}/made; echo a > {open}/made && echo wrote >&2
         echo a > own && echo \"own: $(pwd)/own\" >&2; exit 1",
        data = place("data").display(),
        beside = place("beside").display(),
        open = place("open").display()
    );
    fs::write(place("server.sh"), script).unwrap();
    let writable = BTreeSet::from([place("open").to_str().unwrap().to_owned()]);
    let isolation = IsolationSpec { writable, ..IsolationSpec::default() };
    let toolbox = toolbox_walled(&place("data"), launcher);
    toolbox.reconcile(&snapshot(&[("up", isolated("sh", &[place("server.sh").to_str().unwrap()], isolation))]));
    let done = call(&toolbox.plugin(&name("acme"), "up").unwrap(), "t", json!({})).await;
    let Reply::Error(error) = &done.reply else { panic!("{done:?}") };
    let message = &error.message;
    if message.contains(NO_RULES) {
        return eprintln!("SKIPPED: {message}");
    }
    assert!(message.contains("begins") && message.contains("wrote") && place("open/made").exists(), "{message}");
    assert!(!message.contains("hidden-key") && !place("beside/made").exists(), "{message}");
    let own = message.split_whitespace().find(|word| word.contains("/provost-stdio-")).expect("it says where it is");
    eventually("its own folder goes with it", async || !Path::new(own).exists()).await;
}
