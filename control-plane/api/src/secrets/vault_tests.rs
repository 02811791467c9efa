//! Against a small server that answers as Vault's transit engine is documented to, and really
//! encrypts. It is not Vault: that Vault answers so is its documentation's word.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::*;
use crate::secrets::cipher::Cipher;

const TOKEN: &str = "hvs.test-token";

/// What one request was: path, token, namespace, body.
type Seen = Arc<Mutex<Vec<(String, String, String, Value)>>>;

struct Transit {
    address: String,
    seen: Seen,
    /// Statuses to answer first, before working.
    first: Arc<Mutex<Vec<(u16, &'static str)>>>,
}

impl Transit {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (seen, first) = (Seen::default(), Arc::<Mutex<Vec<_>>>::default());
        let served = (seen.clone(), first.clone());
        thread::spawn(move || {
            let key = Cipher::new(&[0x42; 32]).unwrap();
            for stream in listener.incoming() {
                // One request a connection: simple, and the client makes a new one each time.
                let _ = answer(stream.unwrap(), &key, &served.0, &served.1);
            }
        });
        Self { address, seen, first }
    }

    fn config(&self) -> VaultConfig {
        VaultConfig {
            address: self.address.clone(),
            mount: "transit".into(),
            key_name: "provost".into(),
            namespace: None,
            token: VaultToken::Env("PROVOST_TEST_NO_SUCH_VARIABLE".into()),
            ca: None,
        }
    }

    fn with_token(&self, dir: &std::path::Path) -> VaultConfig {
        let path = dir.join("token");
        fs::write(&path, format!("{TOKEN}\n")).unwrap();
        VaultConfig { token: VaultToken::File(path), ..self.config() }
    }
}

fn answer(stream: TcpStream, key: &Cipher, seen: &Seen, first: &Mutex<Vec<(u16, &str)>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = lines.iter().find_map(|l| l.split_once(": ").filter(|(k, _)| k.eq_ignore_ascii_case(name)));
        found.map_or(String::new(), |(_, v)| v.to_owned())
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push((path.clone(), header("x-vault-token"), header("x-vault-namespace"), body.clone()));
    let queued = { first.lock().unwrap().pop() };
    let (status, text) = match queued {
        Some((status, error)) => (status, json!({ "errors": [error] })),
        None if header("x-vault-token") != TOKEN => (403, json!({ "errors": ["permission denied"] })),
        None => match work(&path, &body, key) {
            Some(data) => (200, json!({ "request_id": "1", "data": data })),
            None => (400, json!({ "errors": ["cipher: message authentication failed"] })),
        },
    };
    let text = text.to_string();
    let length = text.len();
    write!(
        reader.get_mut(),
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
}

fn work(path: &str, body: &Value, key: &Cipher) -> Option<Value> {
    let context = b"transit";
    match path {
        "/v1/transit/encrypt/provost" => {
            let plain = STANDARD.decode(body["plaintext"].as_str()?).ok()?;
            let sealed = STANDARD.encode(key.seal(context, &plain).ok()?);
            Some(json!({ "ciphertext": format!("vault:v1:{sealed}"), "key_version": 1 }))
        }
        "/v1/transit/decrypt/provost" => {
            let sealed = STANDARD.decode(body["ciphertext"].as_str()?.strip_prefix("vault:v1:")?).ok()?;
            Some(json!({ "plaintext": STANDARD.encode(&*key.open(context, &sealed, "x").ok()?) }))
        }
        _ => None,
    }
}

#[test]
fn a_key_goes_there_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Transit::start();
    let vault =
        VaultTransit::new(VaultConfig { namespace: Some("team".into()), ..server.with_token(dir.path()) }).unwrap();
    let wrapped = vault.wrap(&[9; 32]).unwrap();
    assert!(wrapped.starts_with(b"vault:v1:"));
    assert_eq!(**vault.unwrap(&wrapped).unwrap(), [9; 32]);
    let seen = server.seen.lock().unwrap();
    let paths: Vec<&str> = seen.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["/v1/transit/encrypt/provost", "/v1/transit/decrypt/provost"]);
    assert!(seen.iter().all(|(_, token, namespace, _)| token == TOKEN && namespace == "team"));
    assert_eq!(seen[0].3["plaintext"], STANDARD.encode([9; 32]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn it_may_be_called_from_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let server = Transit::start();
    let vault = VaultTransit::new(server.with_token(dir.path())).unwrap();
    let wrapped = vault.wrap(&[1; 32]).unwrap();
    assert_eq!(**vault.unwrap(&wrapped).unwrap(), [1; 32]);
}

#[test]
fn what_passes_is_tried_again_and_what_lasts_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Transit::start();
    let vault = VaultTransit::new(server.with_token(dir.path())).unwrap();
    *server.first.lock().unwrap() = vec![(503, "Vault is sealed"), (429, "quota")];
    vault.wrap(&[1; 32]).unwrap();
    assert_eq!(server.seen.lock().unwrap().len(), 3);

    server.seen.lock().unwrap().clear();
    *server.first.lock().unwrap() = vec![(503, "Vault is sealed"); 8];
    let error = vault.wrap(&[1; 32]).unwrap_err();
    assert!(error.code() == "PV-SECRET-PROVIDER" && error.to_string().contains("sealed"), "{error}");
    assert_eq!(server.seen.lock().unwrap().len(), MAX_TRIES as usize);
    server.first.lock().unwrap().clear();

    // A token that an agent renews is read again for each call.
    fs::write(dir.path().join("token"), "hvs.revoked").unwrap();
    server.seen.lock().unwrap().clear();
    let error = vault.wrap(&[1; 32]).unwrap_err().to_string();
    assert!(error.contains("403") && error.contains("permission denied"), "{error}");
    assert!(!error.contains("revoked"), "the token is in the error: {error}");
    assert_eq!(server.seen.lock().unwrap().len(), 1);
    fs::write(dir.path().join("token"), TOKEN).unwrap();
    vault.wrap(&[1; 32]).unwrap();
}

#[test]
fn what_is_not_vaults_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let server = Transit::start();
    let vault = VaultTransit::new(server.with_token(dir.path())).unwrap();
    let mut wrapped = vault.wrap(&[1; 32]).unwrap();
    wrapped.truncate(wrapped.len() - 8);
    let foreign = [&b"\x01\x02 a key wrapped by a file"[..], b"", &wrapped];
    for bad in foreign {
        assert_eq!(vault.unwrap(bad).unwrap_err().code(), "PV-SECRET-KEY");
    }
    // What was never Vault's is not sent there.
    assert_eq!(server.seen.lock().unwrap().len(), 2);
}

#[test]
fn a_wrong_configuration_is_refused_at_once() {
    let server = Transit::start();
    let good = server.config();
    let with = |change: fn(&mut VaultConfig)| {
        let mut config = good.clone();
        change(&mut config);
        VaultTransit::new(config).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|c| c.mount = "infra/transit".into()), Ok(()));
    for (name, result) in [
        ("plain http elsewhere", with(|c| c.address = "http://vault.example:8200".into())),
        ("no address", with(|c| c.address = "vault".into())),
        ("no key", with(|c| c.key_name = String::new())),
        ("a path in the mount", with(|c| c.mount = "a/../b".into())),
        ("a CA file that is not there", with(|c| c.ca = Some("/no/such/file".into()))),
    ] {
        assert!(result.is_err(), "{name} was taken");
    }
    let error = VaultTransit::new(good).unwrap().wrap(&[1; 32]).unwrap_err().to_string();
    assert!(error.contains("PROVOST_TEST_NO_SUCH_VARIABLE"), "{error}");
}

/// Statuses and texts as Vault 1.x and OpenBao 2.x give them: written down from their documentation and
/// source, not from a running Vault.
#[test]
fn each_answer_of_vault_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = Transit::start();
    let vault = VaultTransit::new(server.with_token(dir.path())).unwrap();
    let old = b"vault:v7:AAAA";
    let denied = "1 error occurred:\n\t* permission denied\n\n";
    let no_route = "no handler for route \"transit/encrypt/provost\". route entry not found.";
    let too_old = "ciphertext or signature version is disallowed by policy (too old)";
    const PROVIDER: &str = "PV-SECRET-PROVIDER";
    for (decrypts, status, said, code, part, tries) in [
        (false, 403, denied, PROVIDER, "may it encrypt?", 1),
        (true, 403, denied, PROVIDER, "may it decrypt?", 1),
        (false, 400, "missing client token", PROVIDER, "missing client token", 1),
        (true, 400, "missing client token", PROVIDER, "missing client token", 1),
        (false, 404, no_route, PROVIDER, "mounted at transit", 1),
        (true, 400, "encryption key not found", PROVIDER, "no key provost", 1),
        (true, 400, too_old, PROVIDER, "min_decryption_version", 1),
        (true, 400, "cipher: message authentication failed", "PV-SECRET-KEY", "does not open", 1),
        (true, 400, "invalid ciphertext: no prefix", "PV-SECRET-KEY", "does not open", 1),
        (false, 307, "", PROVIDER, "active node", 1),
        (true, 503, "Vault is sealed", PROVIDER, "Vault is sealed", MAX_TRIES as usize),
        (false, 500, "internal error", PROVIDER, "internal error", MAX_TRIES as usize),
    ] {
        server.seen.lock().unwrap().clear();
        *server.first.lock().unwrap() = vec![(status, said); tries];
        let error = if decrypts { vault.unwrap(old).map(drop) } else { vault.wrap(&[1; 32]).map(drop) };
        let error = error.unwrap_err();
        assert!(error.code() == code && error.to_string().contains(part), "{status} {said}: {error}");
        let seen = server.seen.lock().unwrap();
        assert_eq!(seen.len(), tries, "{status} {said}");
        // A key of whatever version goes back to Vault as it came from it.
        assert!(!decrypts || seen[0].3["ciphertext"] == "vault:v7:AAAA");
        assert!(!error.to_string().contains(TOKEN), "the token is in the error: {error}");
    }
    // Nobody there: a bound, and the address.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = VaultConfig { address: format!("http://{nobody}"), ..server.with_token(dir.path()) };
    let error = VaultTransit::new(config).unwrap().wrap(&[1; 32]).unwrap_err();
    assert!(error.code() == PROVIDER && error.to_string().contains("does not answer"), "{error}");
}
