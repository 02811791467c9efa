//! A node of one: apply, history, rollback, secrets, tokens, and the audit log's veto.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{ACME, admin, file, name, open};
use provost_control_api::{
    Admission, Caller, ControlConfig, ControlNode, ErrorKind, ResourceFilter, SourceFile, diff_text, document_yaml,
};
use provost_control_state::{ChangeKind, Problem};
use provost_types::{
    IsolationSpec, Kind, PluginSource, PluginSpec, Resource, ResourceKey, Revision, SecretRef, Snapshot, Spec,
};
use secrecy::ExposeSecret;

const CANARY: &str = "canary-5d1f3b0c9e7a";

fn reference(secret: &str) -> SecretRef {
    SecretRef { secret: name(secret), prefix: "Bearer ".into() }
}

async fn keys(node: &ControlNode) -> Vec<String> {
    let (_, found) = node.get(&admin(), &ResourceFilter::default()).await.unwrap();
    found.iter().map(|r| r.key().to_string()).collect()
}

const ALL: [&str; 4] = ["Tenant/acme", "Principal/acme/ann", "Principal/acme/bob", "Role/acme/reader"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_resource_at_once_are_all_made() {
    const WRITERS: usize = 24;
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    node.apply(&admin(), &[file("a.yaml", ACME)], "first", false).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let node = node.clone();
            let text = format!(
                "apiVersion: provost/v1\nkind: Principal\nmetadata: {{name: bob, tenant: acme, labels: {{n: v{n}}}}}\n"
            );
            tokio::spawn(async move { node.apply(&admin(), &[file("b.yaml", &text)], "at once", false).await })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap().unwrap().revision);
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), WRITERS, "each at a revision of its own");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_resources_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let snapshots = node.snapshots();
    let report = node.apply(&admin(), &[file("a.yaml", ACME)], "first", false).await.unwrap();
    assert!(report.diffs.iter().all(|d| d.kind == ChangeKind::Created));
    assert_eq!(snapshots.borrow().revision, report.revision);
    assert_eq!(keys(&node).await, ALL);
    assert_eq!(recorder.taken(&node).await, ["apply Some(Ok) None"]);

    let again = node.apply(&admin(), &[file("a.yaml", ACME)], "again", false).await.unwrap();
    assert_eq!(again.revision, report.revision);
    assert!(again.diffs.iter().all(|d| d.kind == ChangeKind::Unchanged));
    assert!(recorder.taken(&node).await.is_empty(), "nothing changed, nothing to record");
    node.shutdown().await.unwrap();

    let (node, _) = open(dir.path()).await;
    assert_eq!(node.snapshots().borrow().revision, report.revision);
    assert_eq!(keys(&node).await, ALL);
    let (history, _) = node.history(&admin(), None, 0).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].entry.author.as_str(), history[0].entry.message.as_str()), ("root", "first"));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_stdio_plugin_is_isolated_unless_it_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    let plugin = |name: &str, isolation: &str| {
        format!(
            "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{name: {name}, tenant: acme}}\n\
             spec: {{source: {{mcp-stdio: {{command: a{isolation}}}}}}}\n"
        )
    };
    let text = format!("{ACME}{}{}", plugin("plain", ""), plugin("open", ", isolation: {enabled: false}"));
    node.apply(&admin(), &[file("a.yaml", &text)], "", false).await.unwrap();
    let filter = ResourceFilter { kind: Some(Kind::Plugin), ..ResourceFilter::default() };
    let (_, found) = node.get(&admin(), &filter).await.unwrap();
    let isolation = |wanted: &str| {
        let plugin = found.iter().find(|r| r.metadata.name.as_str() == wanted).unwrap();
        match &plugin.spec {
            Spec::Plugin(PluginSpec { source: PluginSource::McpStdio(stdio), .. }) => stdio.isolation.clone().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(*isolation("plain"), IsolationSpec::default());
    assert!(!isolation("open").enabled);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_problem_anywhere_changes_nothing_and_all_are_listed_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let bad = "\
apiVersion: provost/v1
kind: RoleBinding
metadata: {name: b, tenant: acme}
spec:
  role: nope
  principals: [ann, zoe]
  expires: soon
";
    let error = node.apply(&admin(), &[file("a.yaml", ACME), file("b.yaml", bad)], "", false).await.unwrap_err();
    let found: Vec<_> =
        error.failure.problems.iter().map(|p| format!("{}:{} {} {}", p.file, p.line, p.code, p.field)).collect();
    assert_eq!(
        found,
        [
            "b.yaml:5 PV-RES-REFERENCE spec.role",
            "b.yaml:6 PV-RES-REFERENCE spec.principals[1]",
            "b.yaml:7 PV-RES-FIELD spec.expires",
        ]
    );
    assert!(keys(&node).await.is_empty());
    assert!(recorder.take().is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_do_not_parse_hide_no_problem_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let role = "apiVersion: provost/v1\nkind: Role\nmetadata: {name: r, tenant: acme}\nspec: {colour: red}\n";
    let binding = "\
apiVersion: provost/v1
kind: RoleBinding
metadata: {name: b, tenant: acme}
spec:
  role: r
  principals: [ann, zoe]
";
    let found = async |files: &[SourceFile]| {
        let error = node.apply(&admin(), files, "", false).await.unwrap_err();
        let text = |p: &provost_wire::admin::Problem| format!("{}:{} {} {}", p.file, p.line, p.code, p.field);
        error.failure.problems.iter().map(text).collect::<Vec<_>>()
    };
    // The role stands in a document of its own, broken but named: only zoe is missing.
    assert_eq!(
        found(&[file("a.yaml", ACME), file("b.yaml", binding), file("c.yaml", role)]).await,
        ["b.yaml:6 PV-RES-REFERENCE spec.principals[1]", "c.yaml:4 PV-DOC-UNKNOWN spec.colour"]
    );
    // A file that is not YAML may hold anything: no reference is called missing.
    assert_eq!(
        found(&[file("a.yaml", ACME), file("b.yaml", binding), file("c.yaml", "a: [\n")]).await.len(),
        1,
        "one syntax error"
    );
    assert_eq!(found(&[file("a.yaml", "# nothing\n")]).await, [":0 PV-DOC-EMPTY "]);
    assert!(keys(&node).await.is_empty());
    assert!(recorder.take().is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_and_a_diff_say_what_would_change() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let dry = node.apply(&admin(), &[file("a.yaml", ACME)], "", true).await.unwrap();
    assert!(dry.dry_run && dry.diffs.len() == 4);
    assert!(keys(&node).await.is_empty());
    node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap();
    recorder.taken(&node).await;
    let changed = ACME.replace("displayName: Acme", "displayName: Acme Ltd");
    let diff = node.diff(&admin(), &[file("a.yaml", &changed)]).await.unwrap();
    assert_eq!(
        diff_text(&diff.diffs),
        "~ Tenant/acme (updated)\n  - spec.displayName: \"Acme\"\n  + spec.displayName: \"Acme Ltd\"\n"
    );
    assert!(recorder.take().is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_get_prints_can_be_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap();
    let (_, found) = node.get(&admin(), &ResourceFilter::default()).await.unwrap();
    let text: Vec<String> = found.iter().map(|r: &Arc<Resource>| document_yaml(r)).collect();
    let again = node.apply(&admin(), &[file("b.yaml", &text.join("---\n"))], "", false).await.unwrap();
    assert!(again.diffs.iter().all(|d| d.kind == ChangeKind::Unchanged), "{:?}", again.diffs);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_and_rollback_are_transactions_in_history() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let first = node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap().revision;
    let role = ResourceKey { kind: Kind::Role, tenant: Some(name("acme")), name: name("reader") };
    node.delete(&admin(), std::slice::from_ref(&role), "not needed", false).await.unwrap();
    assert_eq!(keys(&node).await.len(), 3);
    let missing = node.delete(&admin(), std::slice::from_ref(&role), "", false).await.unwrap_err();
    assert_eq!(missing.failure.problems[0].code, "PV-RES-NOT-FOUND");
    recorder.taken(&node).await;
    node.rollback(&admin(), first, "", false).await.unwrap();
    assert_eq!(keys(&node).await, ALL);
    assert_eq!(recorder.taken(&node).await, [r#"rollback Some(Ok) Some("acme")"#]);
    let (history, _) = node.history(&admin(), Some(&role), 0).await.unwrap();
    let events: Vec<_> = history.iter().map(|h| h.entry.event.as_str()).collect();
    assert_eq!(events, ["rollback", "delete", "apply"]);
    let future = node.rollback(&admin(), Revision(9_999), "", false).await.unwrap_err();
    assert_eq!(future.code(), "PV-CTL-FUTURE");
    node.shutdown().await.unwrap();
}

fn contains(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return contains(&path, needle);
        }
        fs::read(path).unwrap().windows(needle.len()).any(|w| w == needle)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_sealed_everywhere_and_opens_only_here() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let tenant = name("acme");
    node.apply(&admin(), &[file("a.yaml", ACME)], "a-visible-message", false).await.unwrap();
    let unset = node.secrets().unseal(&tenant, &reference("api")).unwrap_err();
    assert_eq!(unset.code(), "PV-SECRET-NOT-FOUND");
    node.secret_set(&admin(), &tenant, &name("api"), b"older", "").await.unwrap();
    node.secret_set(&admin(), &tenant, &name("api"), CANARY.as_bytes(), "").await.unwrap();
    let open_value =
        |node: &ControlNode| node.secrets().unseal(&tenant, &reference("api")).unwrap().expose_secret().to_owned();
    assert_eq!(open_value(&node), format!("Bearer {CANARY}"));

    // Applying the document keeps the value; its history and its views do not show it.
    let document =
        "apiVersion: provost/v1\nkind: Secret\nmetadata: {name: api, tenant: acme}\nspec: {description: d}\n";
    node.apply(&admin(), &[file("s.yaml", document)], "", false).await.unwrap();
    assert_eq!(open_value(&node), format!("Bearer {CANARY}"));
    let (_, found) =
        node.get(&admin(), &ResourceFilter { kind: Some(Kind::Secret), ..Default::default() }).await.unwrap();
    assert!(!document_yaml(&found[0]).contains("ciphertext"));
    let (history, _) = node.history(&admin(), None, 0).await.unwrap();
    let shown: String = history.iter().map(|h| diff_text(&h.diffs)).collect();
    assert!(shown.contains("spec.valueVersion: 2") && !shown.contains("ciphertext"), "{shown}");
    node.wait_recorded(Duration::from_secs(60)).await;
    let records = format!("{:?}", recorder.events.lock().unwrap());
    assert!(records.contains("secret.set") && !records.contains(CANARY));

    node.shutdown().await.unwrap();
    assert!(contains(dir.path(), b"a-visible-message"), "the scan sees what is stored");
    assert!(!contains(dir.path(), CANARY.as_bytes()));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.path().join("secrets.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let (node, _) = open(dir.path()).await;
    assert_eq!(open_value(&node), format!("Bearer {CANARY}"));
    node.shutdown().await.unwrap();
    fs::remove_file(dir.path().join("secrets.key")).unwrap();
    let (node, _) = open(dir.path()).await;
    let error = node.secrets().unseal(&tenant, &reference("api")).unwrap_err();
    assert_eq!(error.code(), "PV-SECRET-KEY");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_value_opens_only_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    let other = ACME.replace("acme", "umbra").replace("Acme", "Umbra");
    node.apply(&admin(), &[file("a", ACME), file("b", &other)], "", false).await.unwrap();
    node.secret_set(&admin(), &name("acme"), &name("api"), CANARY.as_bytes(), "").await.unwrap();
    let foreign = node.secrets().unseal(&name("umbra"), &reference("api")).unwrap_err();
    assert_eq!(foreign.code(), "PV-SECRET-NOT-FOUND");
    for bad in [&b""[..], b"\xff\xfe", b"a\0b", &vec![b'x'; 70_000]] {
        let error = node.secret_set(&admin(), &name("acme"), &name("x"), bad, "").await.unwrap_err();
        assert_eq!(error.code(), "PV-SECRET-VALUE");
    }
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_stored_as_a_hash_only() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap();
    recorder.taken(&node).await;
    let (acme, ann) = (name("acme"), name("ann"));
    let hour = Some(Duration::from_secs(3600));
    let made = node.token_create(&admin(), &acme, &ann, hour, "").await.unwrap();
    let text = made.token.expose_secret().to_owned();
    let snapshot = node.snapshots().borrow().clone();
    match &snapshot.get(&made.key).unwrap().spec {
        Spec::ApiKey(spec) => {
            assert_eq!(spec.hash, blake3::hash(text.as_bytes()).to_hex().as_str());
            assert_eq!(spec.expires, made.expires);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(recorder.taken(&node).await, [r#"token.create Some(Ok) Some("acme")"#]);
    let nobody = node.token_create(&admin(), &acme, &name("zoe"), None, "").await.unwrap_err();
    assert_eq!(nobody.failure.problems[0].code, "PV-RES-REFERENCE");
    node.shutdown().await.unwrap();
    assert!(!contains(dir.path(), text.as_bytes()));
}

/// Applies a tenant of this name; the revision, or the code of the refusal.
async fn apply_tenant(node: &ControlNode, tenant: &str) -> Result<u64, &'static str> {
    let text = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{name: {tenant}}}\n");
    let applied = node.apply(&admin(), &[file("t.yaml", &text)], tenant, false).await;
    applied.map(|report| report.revision.0).map_err(|error| {
        assert_eq!(error.kind, ErrorKind::Unavailable);
        if error.code() == "PV-ADMIN-AUDIT" { "PV-ADMIN-AUDIT" } else { "another" }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_refused_while_records_do_not_get_through_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    recorder.refuse.store(true, Ordering::Relaxed);
    // It is made, and its record waits in the state; the next are refused.
    apply_tenant(&node, "first").await.unwrap();
    let mut made = 1;
    let refused = tokio::time::timeout(Duration::from_secs(60), async {
        while apply_tenant(&node, &format!("more-{made}")).await.is_ok() {
            made += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    refused.await.expect("refused in the end");
    assert_eq!(apply_tenant(&node, "later").await, Err("PV-ADMIN-AUDIT"));
    assert_eq!(keys(&node).await.len(), made);
    assert!(recorder.take().is_empty());
    node.shutdown().await.unwrap();

    // The duty to record outlives the process.
    let (node, recorder) = open(dir.path()).await;
    node.wait_ready(Duration::from_secs(30)).await.unwrap();
    assert_eq!(recorder.taken(&node).await, vec!["apply Some(Ok) None"; made]);
    apply_tenant(&node, "later").await.unwrap();
    assert_eq!(recorder.taken(&node).await, ["apply Some(Ok) None"]);
    node.shutdown().await.unwrap();
    let (node, recorder) = open(dir.path()).await;
    node.wait_ready(Duration::from_secs(30)).await.unwrap();
    assert!(recorder.taken(&node).await.is_empty(), "what was recorded is not recorded again");
    node.shutdown().await.unwrap();
}

struct NoRoles;

impl Admission for NoRoles {
    fn check(&self, candidate: &Snapshot) -> Vec<Problem> {
        let roles = candidate.of_kind(Kind::Role);
        roles.map(|r| Problem::of_field(&r.key(), "spec.rules", "PV-TEST", "roles are not liked")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_sees_the_candidate_and_its_problems_have_places() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(common::Recorder::default());
    let config = ControlConfig::new(dir.path(), "test", "node-1");
    let node = ControlNode::open(config, Arc::new(NoRoles), recorder).await.unwrap();
    let error = node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap_err();
    let problem = &error.failure.problems[0];
    assert_eq!((problem.code.as_str(), problem.line), ("PV-TEST", 19));
    node.shutdown().await.unwrap();
}

/// Judges roles alone, and counts how often it is asked.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Admission for Counted {
    fn check(&self, _: &Snapshot) -> Vec<Problem> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }
    fn judges(&self, kind: Kind) -> bool {
        kind == Kind::Role
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_is_asked_only_about_what_it_judges() {
    let dir = tempfile::tempdir().unwrap();
    let admission = Arc::new(Counted::default());
    let config = ControlConfig::new(dir.path(), "test", "node-1");
    let recorder = Arc::new(common::Recorder::default());
    let node = ControlNode::open(config, admission.clone(), recorder).await.unwrap();
    apply_tenant(&node, "other").await.unwrap();
    assert_eq!(admission.0.load(Ordering::SeqCst), 0, "a tenant alone");
    node.apply(&admin(), &[file("a.yaml", ACME)], "", false).await.unwrap();
    let asked = admission.0.load(Ordering::SeqCst);
    assert!(asked > 0, "a role beside other resources");
    let role = ResourceKey { kind: Kind::Role, tenant: Some(name("acme")), name: name("reader") };
    node.delete(&admin(), &[role], "", false).await.unwrap();
    assert!(admission.0.load(Ordering::SeqCst) > asked, "a role that goes");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    let writes = (0..20).map(|n| {
        let node = node.clone();
        tokio::spawn(async move {
            let text = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{name: t{n}}}\n");
            let caller = Caller::internal(format!("writer-{n}"));
            node.apply(&caller, &[file("t.yaml", &text)], "", false).await.unwrap().revision
        })
    });
    let mut revisions = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        revisions.push(write.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 20);
    assert_eq!(keys(&node).await.len(), 20);
    node.shutdown().await.unwrap();
}
