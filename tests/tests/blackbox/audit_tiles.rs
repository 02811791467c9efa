//! Tiles and proofs over HTTP: what a monitor reads, and what nobody else does.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::harness::{Dev, START_LIMIT, binary, text};

/// Patience with the next checkpoint.
const PATIENCE: Duration = Duration::from_secs(30);

/// Status and body of a request.
async fn request(base: &str, method: &str, path: &str, token: &str) -> (u16, Vec<u8>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{base}{path}");
    let mut request = client.request(method.parse().unwrap(), url).timeout(START_LIMIT);
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

#[test]
fn a_reader_gets_its_log_and_nobody_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let (data, readers) = (dir.path().join("data"), dir.path().join("readers"));
    let environment = [("PROVOST_AUDIT_LISTEN", "127.0.0.1:0"), ("PROVOST_AUDIT_READERS", readers.to_str().unwrap())];
    let dev = Dev::start_env(&data, None, &[], &environment);
    let call = dev.cli(&["call", "sql.query", "--show-meta", "--arg", "sql=SELECT count(*) AS n FROM customers"]);
    assert!(call.status.success(), "{}", text(&call));
    let result: serde_json::Value = serde_json::from_slice(&call.stdout).unwrap();
    let receipt = &result["_meta"]["io.provost/audit"];
    let tenant = receipt["log"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let index = receipt["index"].as_u64().unwrap();

    let said = dev.stderr();
    let line = said.lines().find(|line| line.contains("audit tiles are served")).expect("it says where");
    // Colours, if any, stand around the value.
    let at = line.find("127.0.0.1:").unwrap();
    let address: String = line[at..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    let base = format!("http://{address}");
    let made = dev.cli(&["audit", "reader-token", "--log", &tenant]);
    let made = String::from_utf8(made.stdout).unwrap();
    let (token, entry) = made.trim().split_once('\n').unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let get = |path: &str, token: &str| runtime.block_on(request(&base, "GET", path, token));
    let own = |path: &str| format!("/tenants/{tenant}/{path}");
    assert_eq!(get(&own("checkpoint"), token).0, 401, "no file: nobody");
    fs::write(&readers, format!("# monitors\n{entry}\n")).unwrap();
    let began = Instant::now();
    let proof = loop {
        let (status, body) = get(&own(&format!("prove/inclusion?index={index}")), token);
        if status == 200 {
            break body;
        }
        assert!(status == 404 && began.elapsed() < PATIENCE, "{status} {}", String::from_utf8_lossy(&body));
        std::thread::sleep(Duration::from_millis(200));
    };
    let (status, note) = get(&own("checkpoint"), token);
    let size: u64 = String::from_utf8(note).unwrap().lines().nth(1).unwrap().parse().unwrap();
    assert_eq!(status, 200);
    assert!(size > index && size < 256, "one partial tile: {size}");
    let (status, tile) = get(&own(&format!("tile/0/000.p/{size}")), token);
    assert_eq!((status, tile.len() as u64), (200, size * 32));
    let (status, entries) = get(&own(&format!("tile/entries/000.p/{size}")), token);
    assert_eq!(status, 200);
    let first = usize::from(u16::from_be_bytes([entries[0], entries[1]]));
    let record: serde_json::Value = serde_json::from_slice(&entries[2..2 + first]).unwrap();
    assert_eq!(record["tenant"], tenant.as_str());
    assert_eq!(get(&own("prove/consistency?old=1"), token).0, 200);

    for (path, token, status) in [
        (own("checkpoint"), "", 401),
        (own("checkpoint"), "pva_guessed", 401),
        ("/cluster/checkpoint".to_owned(), token, 404),
        ("/tenants/nobody/checkpoint".to_owned(), token, 404),
        (own("tile/0/000"), token, 404),
        (own(&format!("tile/0/000.p/{}", size.max(200) + 50)), token, 404),
        (own("../../state"), token, 404),
        (own("tail-00000000000000000000.raw"), token, 404),
        (own("prove/inclusion"), token, 400),
        (own("prove/inclusion?index=x"), token, 400),
        (own("prove/inclusion?index=99999999"), token, 404),
        ("/metrics".to_owned(), token, 404),
    ] {
        let (found, body) = get(&path, token);
        assert_eq!(found, status, "{path}: {}", String::from_utf8_lossy(&body));
    }
    assert_eq!(runtime.block_on(request(&base, "DELETE", &own("checkpoint"), token)).0, 405);
    for name in ["state", "audit.key", "segments/x", "tail-1.raw", "files"] {
        assert_eq!(get(&own(&format!("files/{name}")), token).0, 404, "{name}");
    }
    assert_eq!(get("/logs", token), (200, format!("tenants/{tenant}\n").into_bytes()));

    // The verifier copies for itself what a token is for.
    let kept_checkpoint = dir.path().join("kept-checkpoint");
    let all_signed = || {
        let notes = fs::read_to_string(data.join("audit/checkpoint")).unwrap_or_default();
        notes.contains("/_cluster\n") && notes.contains(&format!("/{tenant}\n"))
    };
    while !all_signed() {
        assert!(began.elapsed() < PATIENCE, "not every log is signed: {}", dev.stderr());
        std::thread::sleep(Duration::from_millis(200));
    }
    fs::copy(data.join("audit/checkpoint"), &kept_checkpoint).unwrap();
    let anchor = ["--against", kept_checkpoint.to_str().unwrap()];
    let verify = |token: &str, more: &[&str]| {
        let mut verify = Command::new(binary("provost"));
        verify.args(["audit", "verify", "--json", "--url", base.as_str()]).args(more).env("PROVOST_AUDIT_TOKEN", token);
        let output = verify.output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), report, text(&output))
    };
    let (code, report, said) = verify(token, &["--tenant", tenant.as_str()]);
    assert_eq!((code, report["path"].as_str()), (Some(2), Some(base.as_str())), "{said}");
    let (code, _, said) = verify(token, &[&anchor[..], &["--tenant", tenant.as_str()]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = verify(token, &["--tenant", "cluster"]);
    assert!(code == Some(5) && said.contains("PV-AUDIT-COPY"), "{said}");
    let (code, _, said) = verify("pva_guessed", &[]);
    assert!(code == Some(5) && said.contains("PV-AUDIT-READER"), "{said}");
    let all = dev.cli(&["audit", "reader-token", "--log", "*", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    let (everything, all) = (all["token"].as_str().unwrap(), all["line"].as_str().unwrap());
    fs::write(&readers, format!("{entry}\n{all}\n")).unwrap();
    let copy = dir.path().join("copy");
    let (code, report, said) = verify(everything, &[&anchor[..], &["--keep", copy.to_str().unwrap()]].concat());
    assert_eq!((code, report["logs"].as_array().map(Vec::len)), (Some(0), Some(2)), "{said}");
    let again = Command::new(binary("provost")).args(["audit", "verify"]).arg(&copy).args(anchor).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "the copy is as good: {}", text(&again));
    fs::remove_dir_all(copy.join("tenants").join(&tenant)).unwrap();
    for (more, code, what) in [(&anchor[..], Some(1), "it was deleted"), (&anchor[..0], Some(5), "holds no log of")] {
        let mut one = Command::new(binary("provost"));
        let gone = one.args(["audit", "verify", "--tenant", tenant.as_str()]).arg(&copy).args(more).output().unwrap();
        assert!(gone.status.code() == code && text(&gone).contains(what), "the anchor knows it: {}", text(&gone));
    }
    let (code, _, said) = verify(everything, &["--keep", copy.to_str().unwrap()]);
    assert!(code == Some(5) && said.contains("is there already"), "{said}");
    let both = Command::new(binary("provost")).args(["audit", "verify", ".", "--url", base.as_str()]).output().unwrap();
    assert_eq!(both.status.code(), Some(5), "a folder or an address: {}", text(&both));
    // A line that is taken out counts at once.
    fs::write(&readers, "").unwrap();
    assert_eq!(get(&own("checkpoint"), token).0, 401);

    let (file, kept) = (dir.path().join("proof"), dir.path().join("receipt"));
    fs::write(&file, proof).unwrap();
    fs::write(&kept, &call.stdout).unwrap();
    let key = fs::read_to_string(data.join("audit/tenants").join(&tenant).join("audit.pub")).unwrap();
    let mut check = Command::new(binary("provost"));
    check.args(["audit", "check-proof", "--key", key.trim(), "--receipt"]).arg(&kept).arg(&file);
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
}
