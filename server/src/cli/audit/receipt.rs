//! Receipts as callers keep them: `{"log":…,"index":…,"leafHash":…}`, or the result or error that carries it.

use std::{io::Read, path::PathBuf};

use anyhow::Context;
use provost_audit_core::Hash;
use provost_audit_verify::Receipt;
use serde_json::Value;

use crate::failure::Failure;

/// Where a result carries it.
const META_KEY: &str = "io.provost/audit";
/// The largest file that is read as a receipt: a result can be long.
const MAX_RECEIPT_BYTES: u64 = 64 << 20;

/// Reads every file; `-` is stdin.
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Receipt>> {
    paths.iter().map(read).collect()
}

fn read(path: &PathBuf) -> anyhow::Result<Receipt> {
    let name = path.display();
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_RECEIPT_BYTES).read_to_string(&mut text).context("PV-CLI-FILE: stdin")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("PV-CLI-FILE: {name} cannot be read"))?;
        file.take(MAX_RECEIPT_BYTES).read_to_string(&mut text).with_context(|| format!("PV-CLI-FILE: {name}"))?;
    }
    parse(&text).ok_or_else(|| {
        let text = format!("{name} holds no receipt");
        let hint = "give what `provost call --show-meta` printed, its `_meta[\"io.provost/audit\"]`, or the answer to a request";
        Failure::new("PV-AUDIT-USAGE", text, hint).into()
    })
}

fn parse(text: &str) -> Option<Receipt> {
    let value: Value = serde_json::from_str(text).ok()?;
    // A refusal has it in the error's data.
    let places = [
        &value["_meta"][META_KEY],
        &value["result"]["_meta"][META_KEY],
        &value["error"]["data"]["audit"],
        &value[META_KEY],
        &value,
    ];
    let receipt = places.into_iter().find(|place| place["leafHash"].is_string())?;
    Some(Receipt {
        log: receipt["log"].as_str()?.to_owned(),
        index: receipt["index"].as_u64()?,
        leaf_hash: Hash::parse(receipt["leafHash"].as_str()?.as_bytes()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_found_where_it_stands() {
        let receipt = format!(r#"{{"log":"provost/acme","index":7,"leafHash":"{}"}}"#, "ab".repeat(32));
        for text in [
            receipt.clone(),
            format!(r#"{{"_meta":{{"io.provost/audit":{receipt}}},"content":[]}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"_meta":{{"io.provost/audit":{receipt}}}}}}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":4031,"data":{{"audit":{receipt}}}}}}}"#),
            format!(r#"{{"io.provost/audit":{receipt}}}"#),
        ] {
            let found = parse(&text);
            assert_eq!(found.map(|r| (r.log, r.index)), Some(("provost/acme".to_owned(), 7)), "{text}");
        }
        for text in ["", "{}", r#"{"log":"a","index":-1,"leafHash":"00"}"#, &receipt.replace('7', "\"7\"")] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
