//! The rules that the document of a WebAssembly plugin keeps.
//!
//! Invariants: it has a package or a file; its file is a name and no path; it reaches the hosts that the document names and no others; a
//! credential goes to hosts that are named with it; the tools that it may call are named or begin alike.
//! Left out: whether the package is there (`packages`), and whether it or the file is a plugin (the nodes).

use provost_types::{HostPattern, WasmCredential, WasmPlugin};

use crate::{
    fields::{Check, header_name},
    upstreams::egress_entries,
};

pub(crate) const BASE: &str = "spec.source.wasm";
/// Bytes of a file's name.
const MAX_FILE_NAME: usize = 128;
/// Bytes of a configuration as JSON.
const MAX_CONFIG_BYTES: usize = 256 << 10;
/// Credentials of one plugin, and hosts of one credential.
const MAX_CREDENTIALS: usize = 32;
/// Patterns of the tools that one plugin may call.
const MAX_TOOLS: usize = 64;
/// MiB of one call.
const MAX_MEMORY_MIB: u32 = 1_024;
/// Milliseconds that one call computes: as long as the longest deadline.
const MAX_COMPUTE_MS: u32 = 3_600_000;

pub(crate) fn check(check: &mut Check<'_>, wasm: &WasmPlugin) {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if let Some(name) = &wasm.file {
        let is_name = (1..=MAX_FILE_NAME).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.');
        check.require(is_name, &format!("{BASE}.file"), || {
            format!("`{name}` is not the name of a file: letters, digits, `_`, `-` and `.`, and no folder")
        });
    }
    check.require(wasm.source().is_some(), BASE, || "names either a `package`, or a `file` with its `digest`".into());
    let config = serde_json::to_vec(&wasm.config).map_or(usize::MAX, |json| json.len());
    check.require(config <= MAX_CONFIG_BYTES, &format!("{BASE}.config"), || {
        format!("is larger than {MAX_CONFIG_BYTES} bytes")
    });
    check.require(wasm.tools.len() <= MAX_TOOLS, &format!("{BASE}.tools"), || {
        format!("has more than {MAX_TOOLS} entries")
    });
    check.patterns(&format!("{BASE}.tools"), &wasm.tools);
    check.require(wasm.memory_mib <= MAX_MEMORY_MIB, &format!("{BASE}.memoryMib"), || {
        format!("is more than {MAX_MEMORY_MIB}")
    });
    check.require(wasm.compute_ms <= MAX_COMPUTE_MS, &format!("{BASE}.computeMs"), || {
        format!("is more than {MAX_COMPUTE_MS}")
    });
    if let Some(egress) = &wasm.egress {
        let base = format!("{BASE}.egress");
        let _ = egress_entries(check, &base, egress);
        check.require(!egress.allow_hosts.is_empty(), &format!("{base}.allowHosts"), || {
            "names no host; without `egress` the plugin sends nothing".into()
        });
    }
    check.require(wasm.credentials.len() <= MAX_CREDENTIALS, &format!("{BASE}.credentials"), || {
        format!("has more than {MAX_CREDENTIALS} entries")
    });
    check.require(wasm.credentials.is_empty() || wasm.egress.is_some(), &format!("{BASE}.credentials"), || {
        "are for requests, which the plugin may not send: name its hosts in `egress.allowHosts`".into()
    });
    for (alias, credential) in &wasm.credentials {
        check_credential(check, alias, credential);
    }
}

fn check_credential(check: &mut Check<'_>, alias: &str, credential: &WasmCredential) {
    let base = format!("{BASE}.credentials.{alias}");
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    check.require((1..=64).contains(&alias.len()) && alias.bytes().all(is_plain), &base, || {
        "needs a name of letters, digits, `_` and `-`".into()
    });
    header_name(check, &format!("{base}.header"), &credential.header);
    let count = credential.hosts.len();
    check.require((1..=MAX_CREDENTIALS).contains(&count), &format!("{base}.hosts"), || {
        format!("has {count} entries; 1 to {MAX_CREDENTIALS} hosts get it")
    });
    for host in &credential.hosts {
        if let Err(cause) = host.parse::<HostPattern>() {
            check.require(false, &format!("{base}.hosts"), || cause.to_string());
        }
    }
}
