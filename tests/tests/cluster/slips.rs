//! What operators get wrong: it is refused before it costs a token, a key or a node, and says so.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::processes::{Fleet, SOON, page};

/// Starts a node that must refuse, and says so by this code.
fn refuses(fleet: &mut Fleet, name: &str, code: &str) {
    fleet.start(name);
    let server = fleet.get(name);
    assert!(!server.ended(SOON).success(), "{name} ended well");
    assert!(server.log().contains(code), "{name} does not say {code}");
}

/// The status of a page at a node's metrics address.
fn status_of(fleet: &Fleet, name: &str, path: &str) -> Option<String> {
    page(fleet.servers[name].metrics, path).ok()?.split(' ').nth(1).map(str::to_owned)
}

#[test]
fn slips_cost_neither_tokens_nor_keys_nor_nodes() {
    let mut fleet = Fleet::new("slips");
    fleet.add("cp-1", "control-plane+audit-log");
    fleet.add("dp-1", "data-plane");
    fleet.init("cp-1");
    let mode = fs::metadata(fleet.servers["cp-1"].data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "other users can look into the data folder");

    // Nobody is there to join by: it waits for longer than this test would, and ends when it is told to.
    fleet.start("dp-1");
    fleet.until("dp-1 looks for its cluster", |f| f.servers["dp-1"].log().contains("cannot join yet"));
    assert_eq!(status_of(&fleet, "dp-1", "/healthz").as_deref(), Some("200"), "it lives");
    assert_eq!(status_of(&fleet, "dp-1", "/readyz").as_deref(), Some("503"), "and is not ready");
    let (took, status) = fleet.get("dp-1").terminate();
    assert!(status.success(), "{status} after {took:?}");

    fleet.start("cp-1");
    fleet.agreed(&["cp-1"]);
    fleet.until("cp-1 is ready", |f| status_of(f, "cp-1", "/readyz").as_deref() == Some("200"));
    // There is something to seal with.
    fleet.until("keys are rotated", |f| f.cli("cp-1", &["cluster", "rotate-keys"]).status.success());
    let status = fleet.status("cp-1").unwrap();
    let ends = status["members"][0]["certificate_expires"].as_str().unwrap().to_owned();
    assert!(ends.ends_with('Z') && ends.len() == "2026-01-01T00:00:00Z".len(), "{status}");

    // The key is not where the configuration says: none is made, and the token stays good.
    let (key, away) = (fleet.secrets_key(), fleet.path("away.key"));
    fs::rename(&key, &away).unwrap();
    refuses(&mut fleet, "dp-1", "PV-SECRET-PROVIDER");
    assert!(!key.exists(), "a data-plane node made a key of its own");
    fs::rename(&away, &key).unwrap();

    // A token for another name makes no member, and stays good for the one that it is for.
    fleet.add("dp-2", "data-plane");
    let made = fleet.ok("cp-1", &["cluster", "join-token", "--node", "dp-3", "--role", "data-plane"]);
    fleet.give_token("dp-2", made.lines().next().unwrap());
    refuses(&mut fleet, "dp-2", "PV-JOIN-TOKEN");
    assert!(!fleet.knows("cp-1", "dp-3") && !fleet.knows("cp-1", "dp-2"));
    fleet.add("dp-3", "data-plane");
    fleet.give_token("dp-3", made.lines().next().unwrap());
    fleet.start("dp-3");
    fleet.until("dp-3 has joined", |f| f.knows("cp-1", "dp-3"));
    fleet.get("dp-3").kill();

    // A key that opens nothing of the backup is refused while the right one can still be looked for.
    let other = fleet.path("other.key");
    fs::write(&other, [7_u8; 32]).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (file, data) = (text(fleet.path("all.pvb")), text(fleet.path("restored")));
    fleet.ok("cp-1", &["cluster", "backup", &file]);
    let (wrong, right) = (text(other.clone()), text(key.clone()));
    let restore = ["cluster", "restore", &file, "--data-dir", &data, "--cluster", "slips-2", "--secrets-key"];
    fleet.refused("cp-1", &[&restore[..], &[wrong.as_str()]].concat(), "PV-SECRET-KEY");
    assert!(!fleet.path("restored").exists(), "something was restored");
    fleet.ok("cp-1", &[&restore[..], &[right.as_str()]].concat());

    // Its data under another name, and with another key.
    assert!(fleet.get("cp-1").terminate().1.success());
    let config = fleet.servers["cp-1"].config();
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, before.replace("node = \"cp-1\"", "node = \"cp-7\"")).unwrap();
    refuses(&mut fleet, "cp-1", "PV-SERVER-NODE");
    fs::write(&config, before.replace(&right, &wrong)).unwrap();
    fleet.start("cp-1");
    fleet.until("cp-1 says that its key is another one", |f| f.servers["cp-1"].log().contains("PV-SECRET-KEY"));

    // As an init leaves a folder that is killed before it could show the administrator's token.
    fleet.get("cp-1").kill();
    fs::write(&config, &before).unwrap();
    fs::remove_dir_all(fleet.servers["cp-1"].data().join("identity")).unwrap();
    let config = text(config);
    let init = ["cluster", "init", "--cluster", "slips", "--config", &config];
    let said = fleet.refused("cp-1", &init, "PV-CLUSTER-INITIALIZED");
    assert!(said.contains("cut off"), "{said}");
}
