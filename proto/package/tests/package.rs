//! What a package is, and that a changed one is not one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use provost_package::{MAX_PACKAGE_BYTES, Manifest, Package, PackageError, SigningKey, Source};
use provost_types::Name;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::new(name("text"), "1.2.0".parse().unwrap(), name("acme-tools"));
    manifest.description = "Counts words.".into();
    manifest.wants.hosts = ["*.example.com".to_owned()].into();
    manifest
}

fn sources() -> Vec<Source> {
    let source =
        |name: &str, content: &'static [u8]| Source { name: name.into(), content: Bytes::from_static(content) };
    vec![source("component.wasm", b"\0asm and more"), source("README.md", b"# Text\n"), source("empty", b"")]
}

fn package(key: Option<&SigningKey>) -> Package {
    Package::make(manifest(), &sources(), key).unwrap()
}

#[test]
fn what_was_put_in_comes_out() {
    let key = SigningKey::generate().unwrap();
    let made = package(Some(&key));
    let read = Package::read(made.bytes().clone()).unwrap();
    assert_eq!(read, made);
    for source in sources() {
        assert_eq!(read.part(&source.name).unwrap(), source.content);
    }
    assert_eq!(read.part("absent"), None);
    assert_eq!(read.manifest().title(), "text 1.2.0");
    assert_eq!(package(Some(&key)).bytes(), made.bytes(), "the same content makes the same file");
    let again = SigningKey::from_pkcs8(key.to_pkcs8().unwrap().as_ref()).unwrap();
    assert_eq!(again.public(), key.public());
}

#[test]
fn who_signed_is_who_is_trusted() {
    let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let unsigned = package(None);
    let code = |package: &Package, trusted: &SigningKey| {
        package.check_signature(&[trusted.public()]).map_err(|error| error.code())
    };
    assert_eq!(code(&unsigned, &key), Err("PV-PACKAGE-SIGNATURE"));
    let signed = unsigned.signed(&key).unwrap();
    assert_ne!(signed.digest(), unsigned.digest());
    assert_eq!(code(&signed, &key), Ok(()));
    assert_eq!(code(&signed, &other), Err("PV-PACKAGE-PUBLISHER"));
    assert_eq!(signed.check_signature(&[]).unwrap_err().code(), "PV-PACKAGE-PUBLISHER");
    assert_eq!(signed.signed(&other).unwrap().bytes(), package(Some(&other)).bytes(), "one signature at a time");
}

/// The signature of one package under the manifest of another, with everything else in order.
#[test]
fn a_signature_is_of_one_manifest() {
    let key = SigningKey::generate().unwrap();
    let signed = package(Some(&key));
    let mut later = manifest();
    later.version = "1.2.1".parse().unwrap();
    let later = Package::make(later, &sources(), Some(&key)).unwrap();
    let bytes = |package: &Package| package.bytes().to_vec();
    let signature = |package: &Package| serde_json::to_string_pretty(package.signature().unwrap()).unwrap();
    let (from, to) = (signature(&later), signature(&signed));
    assert_eq!(from.len(), to.len());
    let mut forged = bytes(&later);
    let at = forged.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    forged[at..at + to.len()].copy_from_slice(to.as_bytes());
    let forged = Package::read(forged.into()).unwrap();
    let error = forged.check_signature(&[key.public()]).unwrap_err();
    assert!(matches!(error, PackageError::BadSignature { .. }), "{error}");
}

#[test]
fn what_is_not_in_its_form_is_refused() {
    let whole = package(None).bytes().to_vec();
    let mut longer = whole.clone();
    longer.extend([0; 512]);
    let behind = [whole.as_slice(), b"something"].concat();
    let archive = |entries: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let later = br#"{"format": 2, "everything": "new"}"#.as_slice();
    let spaced = serde_json::to_vec(package(None).manifest()).unwrap();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("nothing", Vec::new(), "does not begin with manifest.json"),
        ("text", vec![b'x'; 2048], "not a readable archive"),
        ("cut", whole[..700].to_vec(), ""),
        ("longer", longer, "not in the form"),
        ("behind the end", behind, "not in the form"),
        ("parts first", archive(&[("component.wasm", b""), ("manifest.json", b"{}")]), "does not begin"),
        ("later", archive(&[("manifest.json", later)]), "format 2, and this release reads 1"),
        ("no part", archive(&[("manifest.json", &spaced)]), "the part `component.wasm` is missing"),
        (
            "another writer",
            archive(&[
                ("manifest.json", &spaced),
                ("component.wasm", b"\0asm and more"),
                ("README.md", b"# Text\n"),
                ("empty", b""),
            ]),
            "not in the form",
        ),
    ];
    for (what, bytes, says) in cases {
        let error = Package::read(bytes.into()).expect_err(what);
        assert!(error.code() == "PV-PACKAGE-FORMAT" && error.to_string().contains(says), "{what}: {error}");
    }
    // What the file says of itself is repeated without what steers a terminal.
    let steering = serde_json::to_string(package(None).manifest()).unwrap().replacen('{', "{\"\\u001b[2K\":1,", 1);
    let said = Package::read(archive(&[("manifest.json", steering.as_bytes())]).into()).unwrap_err().to_string();
    assert!(said.contains("[2K") && !said.contains('\u{1b}'), "{said:?}");
    let large = Package::read(vec![0; MAX_PACKAGE_BYTES as usize + 1].into()).unwrap_err();
    assert_eq!(large.code(), "PV-PACKAGE-SIZE");
}

#[test]
fn names_and_lists_have_bounds() {
    let source = |name: &str| Source { name: name.into(), content: Bytes::new() };
    let made = |sources: &[Source]| Package::make(manifest(), sources, None).map(drop).map_err(|e| e.to_string());
    for (names, says) in [
        (vec![], "has 0 entries"),
        (vec!["a", "a"], "`a` is there twice"),
        (vec!["manifest.json"], "cannot be the name of a part"),
        (vec!["../up"], "cannot be the name of a part"),
        (vec![".hidden"], "cannot be the name of a part"),
        (vec![""], "cannot be the name of a part"),
    ] {
        let sources: Vec<_> = names.iter().map(|name| source(name)).collect();
        let error = made(&sources).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
    let many: Vec<_> = (0..33).map(|n| source(&format!("p{n}"))).collect();
    assert!(made(&many).unwrap_err().contains("1 to 32") && made(&many[..32]).is_ok());
    let mut long = manifest();
    long.version = format!("1.0.0+{}", "a".repeat(200)).parse().unwrap();
    assert!(Package::make(long, &sources(), None).unwrap_err().to_string().contains("`version` is longer than 128"));
    for tool in ["t".repeat(257), "crm.read\u{1b}[2K".to_owned()] {
        let mut wants = manifest();
        wants.wants.tools = [tool].into();
        assert!(Package::make(wants, &sources(), None).unwrap_err().to_string().contains("wants.tools"));
    }
    let mut wants = manifest();
    wants.wants.hosts = ["ex*mple.com".to_owned()].into();
    assert!(Package::make(wants, &sources(), None).unwrap_err().to_string().contains("wants.hosts"));
}

proptest! {
    /// No byte of a signed package can be changed: it is no package any more, or not signed by whom it says.
    #[test]
    fn any_change_is_noticed(at in 0usize..6_000, bit in 0u8..8) {
        let key = SigningKey::from_pkcs8(&fixed_key()).unwrap();
        let mut bytes = package(Some(&key)).bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let kept = Package::read(bytes.into()).and_then(|read| read.check_signature(&[key.public()]));
        prop_assert!(kept.is_err());
    }
}

/// A key that is the same in each case: PKCS#8 with the seed 1, 2, 3, …
fn fixed_key() -> Vec<u8> {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(1..=32);
    der
}
