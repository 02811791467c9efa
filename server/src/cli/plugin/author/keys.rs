//! `provost plugin keygen`, and keys in files.
//!
//! Invariants: a private key is in a file that only its owner can read, and nowhere else: not in arguments, not in what
//! is printed.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use provost_package::{PackageError, SigningKey};
use provost_types::Name;
use serde_json::json;
use zeroize::Zeroizing;

use super::files;
use crate::failure::Failure;

/// What stands around a key in PEM (RFC 7468).
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// The largest file that is looked at, in bytes: a key has about 120.
const MAX_BYTES: u64 = 16 << 10;
/// Characters of a line in PEM.
const LINE: usize = 64;
/// Bits of a mode by which others than the owner may read or write.
const OTHERS: u32 = 0o077;

#[derive(Args)]
pub struct KeygenArgs {
    /// The file for the private key; a new one.
    file: PathBuf,
    /// The publisher's name in the resource that is printed.
    #[arg(long, default_value = "example")]
    publisher: Name,
    /// The tenant that is to trust the key, in the resource that is printed.
    #[arg(long, env = "PROVOST_TENANT")]
    tenant: Option<Name>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    let key = SigningKey::generate().map_err(|error| refused(&args.file, &error))?;
    write(&args.file, &key)?;
    let public = key.public();
    if args.json {
        let value = json!({
            "file": args.file, "publisher": args.publisher, "tenant": args.tenant, "publicKey": public.to_string(),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    // A document with remarks: with a tenant it can be applied as it is.
    println!("# The public key is {public}");
    println!("# Who applies this trusts packages that are signed with {}.", args.file.display());
    print!("{}", document(&args.publisher, args.tenant.as_ref(), &public.to_string()));
    eprintln!("{} holds the private key: keep it secret, and a copy of it safe", args.file.display());
    Ok(ExitCode::SUCCESS)
}

/// The resource by which a tenant trusts a key.
fn document(publisher: &Name, tenant: Option<&Name>, public: &str) -> String {
    let (remark, metadata) = match tenant {
        Some(tenant) => ("", format!("{{ name: {publisher}, tenant: {tenant} }}")),
        None => (
            "# Before it is applied, the tenant that trusts the key belongs into the metadata (`tenant: NAME`); --tenant writes it.\n",
            format!("{{ name: {publisher} }}"),
        ),
    };
    format!("{remark}apiVersion: provost/v1\nkind: Publisher\nmetadata: {metadata}\nspec:\n  keys: ['{public}']\n")
}

fn refused(path: &Path, error: &PackageError) -> Failure {
    unusable(path, &error.to_string())
}

fn unusable(path: &Path, why: &str) -> Failure {
    let text = format!("{}: {why}", path.display());
    Failure::new("PV-PACKAGE-KEY", text, "make a key with `provost plugin keygen FILE`, readable for its owner alone")
}

/// Writes the key to a new file that only its owner can read.
fn write(path: &Path, key: &SigningKey) -> Result<(), Failure> {
    let der = key.to_pkcs8().map_err(|error| refused(path, &error))?;
    let text = Zeroizing::new(STANDARD.encode(der.as_ref()));
    let mut pem = Zeroizing::new(format!("{BEGIN}\n"));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(END);
    pem.push('\n');
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|cause| unusable(path, &format!("the key cannot be written: {cause}")))
}

/// Reads a key.
pub(super) fn read(path: &Path) -> Result<SigningKey, Failure> {
    let found = fs::metadata(path).map_err(|cause| unusable(path, &cause.to_string()))?;
    if found.permissions().mode() & OTHERS != 0 {
        return Err(unusable(path, "others than its owner can read the key: chmod 600"));
    }
    let text = Zeroizing::new(files::read_text(path, MAX_BYTES)?);
    let inner = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(inner, _)| inner);
    let inner = inner.ok_or_else(|| unusable(path, "this is no private key in PEM"))?;
    let digits = Zeroizing::new(inner.split_whitespace().collect::<String>());
    let der = STANDARD.decode(digits.as_bytes()).map_err(|_| unusable(path, "this is no private key in PEM"))?;
    let der = Zeroizing::new(der);
    SigningKey::from_pkcs8(&der).map_err(|error| refused(path, &error))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let key = SigningKey::generate().unwrap();
        write(&path, &key).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().public(), key.public());
        assert_eq!(write(&path, &key).unwrap_err().code, "PV-PACKAGE-KEY", "a key is never written over");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().message.contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        for (i, text) in ["", "hunter2", &format!("{BEGIN}\nhunter2!\n{END}"), &format!("{BEGIN}\nAAAA\n{END}")]
            .into_iter()
            .enumerate()
        {
            let path = dir.path().join(i.to_string());
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.code == "PV-PACKAGE-KEY" && !error.message.contains("hunter2"), "{error}");
        }
    }
}
