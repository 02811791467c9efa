//! Exports are read back: JSON Lines and OCSF as text, Parquet by a foreign reader where there is
//! one (pyarrow), by the library that wrote it otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{fs::File, path::Path, process::Command as Process};

use common::{Lab, event, tenant};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
};
use provost_audit_core::{LogId, leaf_hash};
use provost_audit_store::{ExportFormat, Query, export};
use provost_types::{CallStatus, Phase, Subject};
use serde_json::Value;

/// Two logs; 600 calls, a denial and an event.
fn logs(dir: &Path) {
    let mut lab = Lab::open(dir);
    let acme = tenant("acme");
    lab.calls(&acme, 600);
    let mut denied = event(&acme, Phase::Denied, 7_001, common::START_NS + 9_000_000_000_001);
    denied.status = Some(CallStatus::Denied);
    denied.decision = Some(provost_types::Effect::Deny);
    denied.why.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    denied.error = Some("PV-POLICY-DENIED".to_owned());
    denied.reason = Some("no \u{1} role\n\"fits\" … ü".to_owned());
    denied.guards = vec!["card:block=1".to_owned(), "email:tokenise=2".to_owned()];
    let mut start = event(&LogId::CLUSTER, Phase::Event, 7_002, common::START_NS);
    start.who = provost_types::Who::default();
    start.what = provost_types::What {
        subject: Some(Subject { event: "log.start".to_owned(), objects: vec!["n1".to_owned()], detail: String::new() }),
        ..provost_types::What::default()
    };
    start.decision = None;
    let entry = lab.writer.entry(&[denied, start]);
    lab.apply(entry);
    lab.machine.persist().unwrap();
}

fn exported(audit: &Path, format: ExportFormat, query: Query) -> (Vec<u8>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let count = export(audit, query, format, File::create(&path).unwrap()).unwrap();
    (std::fs::read(path).unwrap(), count)
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_lines_hold_the_stored_bytes() {
    let dir = tempfile::tempdir().unwrap();
    logs(dir.path());
    let audit = dir.path().join("audit");
    let (bytes, count) = exported(&audit, ExportFormat::Jsonl, Query::default());
    assert_eq!(count, 1_202);
    let text = String::from_utf8(bytes).unwrap();
    let mut time = 0;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let (_, leaf) = line.split_once("\"record\":").unwrap();
        let leaf = leaf.strip_suffix('}').unwrap();
        assert_eq!(value["leaf_hash"], leaf_hash(leaf.as_bytes()).to_string());
        let at: u64 = value["record"]["time_ns"].as_str().unwrap().parse().unwrap();
        assert!(at >= time, "the logs are merged by time");
        time = at;
    }
    let query = Query { log: Some(LogId::CLUSTER), ..Query::default() };
    assert_eq!(exported(&audit, ExportFormat::Jsonl, query).1, 1);
}

#[test]
fn ocsf_events_have_what_the_class_requires() {
    let dir = tempfile::tempdir().unwrap();
    logs(dir.path());
    let (bytes, _) = exported(&dir.path().join("audit"), ExportFormat::Ocsf, Query::default());
    let events = lines(&bytes);
    for event in &events {
        // Required by base_event and api_activity; `at least one of` by actor, endpoint, attestation.
        for key in ["activity_id", "category_uid", "class_uid", "severity_id", "time", "type_uid"] {
            assert!(event[key].is_u64(), "{key}: {event}");
        }
        for path in [
            "/metadata/version",
            "/metadata/product/vendor_name",
            "/api/operation",
            "/api/request/uid",
            "/actor/user/name",
            "/attestation_list/0/fingerprint/value",
        ] {
            assert!(event.pointer(path).is_some_and(Value::is_string), "{path}: {event}");
        }
        assert!(event["src_endpoint"]["ip"].is_string() || event["src_endpoint"]["name"].is_string());
        let (class, activity) = (event["class_uid"].as_u64().unwrap(), event["activity_id"].as_u64().unwrap());
        assert_eq!((class, event["category_uid"].as_u64()), (6_003, Some(6)));
        assert_eq!(event["type_uid"].as_u64(), Some(class * 100 + activity));
        assert_eq!(event["metadata"]["version"], "1.9.0");
        assert!(event["time"].as_u64().unwrap() < 2_000_000_000_000, "milliseconds");
        let raw = event["raw_data"].as_str().unwrap();
        assert_eq!(event["unmapped"]["leaf_hash"], leaf_hash(raw.as_bytes()).to_string());
    }
    let of = |phase: &str| events.iter().find(|e| e["unmapped"]["phase"] == phase).unwrap();
    let (ok, denied, start) = (of("outcome"), of("denied"), of("event"));
    assert_eq!(
        (ok["status_id"].as_u64(), ok["action_id"].as_u64(), ok["severity_id"].as_u64()),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!(
        (denied["status_id"].as_u64(), denied["action_id"].as_u64(), denied["disposition_id"].as_u64()),
        (Some(2), Some(2), Some(2))
    );
    assert_eq!(denied["trace"]["uid"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(denied["resources"][0]["name"], "sql.query");
    assert_eq!(denied["unmapped"]["guards"], serde_json::json!(["card:block=1", "email:tokenise=2"]));
    assert!(ok["unmapped"].get("guards").is_none(), "{ok}");
    assert_eq!(
        (start["api"]["operation"].as_str(), start["actor"]["user"]["type_id"].as_u64()),
        (Some("log.start"), Some(3))
    );

    // The fingerprint, made again by another program from the line alone.
    let script = r#"
import hashlib, json, sys
for line in sys.stdin:
    event = json.loads(line)
    attestation = event["attestation_list"][0]
    wanted = attestation.pop("fingerprint")["value"]
    form = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(form.encode()).hexdigest() == wanted, line
    print(1)
"#;
    let path = dir.path().join("ocsf");
    std::fs::write(&path, &bytes).unwrap();
    let made = Process::new("python3").args(["-c", script]).stdin(File::open(path).unwrap()).output().unwrap();
    let checked = String::from_utf8_lossy(&made.stdout).lines().count();
    assert_eq!(checked, events.len(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn parquet_is_read_back_by_others() {
    let dir = tempfile::tempdir().unwrap();
    logs(dir.path());
    let audit = dir.path().join("audit");
    let path = dir.path().join("audit.parquet");
    let count = export(&audit, Query::default(), ExportFormat::Parquet, File::create(&path).unwrap()).unwrap();
    assert_eq!(count, 1_202);

    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let columns = reader.metadata().file_metadata().schema().get_fields().len();
    let (mut rows, mut found) = (0, Vec::new());
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        rows += 1;
        // First hash, then the exact record: they belong together.
        let (hash, record) = (row.get_string(2).unwrap(), row.get_string(columns - 2).unwrap());
        assert_eq!(hash, &leaf_hash(record.as_bytes()).to_string());
        found.extend(row.get_string(columns - 1).ok().cloned());
    }
    assert_eq!(rows, 1_202);
    assert_eq!(found, [r#"["card:block=1","email:tokenise=2"]"#], "what guards found, and null elsewhere");

    let python = std::env::var("PROVOST_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = r#"
import sys
try:
    import pyarrow.parquet as pq
except ImportError:
    print("no pyarrow"); sys.exit(0)
import hashlib
table = pq.read_table(sys.argv[1])
assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]", table.schema
rows = table.select(["log", "index", "status", "leaf_hash", "record", "rows", "duration_us"]).to_pylist()
for row in rows:
    record = row["record"]
    record = record.encode() if isinstance(record, str) else bytes(record)
    assert hashlib.sha256(b"\0" + record).hexdigest() == row["leaf_hash"]
print(len(rows), sum(r["status"] == "denied" for r in rows), sum(r["log"] == "cluster" for r in rows),
      sum(r["rows"] is None for r in rows), {r["duration_us"] for r in rows})
"#;
    let read = Process::new(python).arg("-c").arg(script).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&read.stdout).trim().to_owned();
    println!("foreign reader: {said}");
    assert!(said == "no pyarrow" || said == "1202 1 1 1202 {900}", "{said} {}", String::from_utf8_lossy(&read.stderr));
}
