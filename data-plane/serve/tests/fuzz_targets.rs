//! The functions of the fuzz targets as ordinary tests: any bytes, and seeds with damage.
//!
//! cargo-fuzz needs a nightly compiler; these run everywhere and for a bounded time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use proptest::prelude::*;

/// One valid example of each thing.
fn seeds() -> Vec<Vec<u8>> {
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a.b","arguments":{"x":"\u00e9"}}}"#;
    let schema = r#"{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"Region"}}}"#;
    [
        call.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32000,"message":"no"}}"#.to_owned(),
        "mcp-method: tools/call\nmcp-name: =?base64?YS5i?=\n\n{\"name\":\"a.b\"}".to_owned(),
        format!("x: y\n\n{schema}"),
        format!("{{\"authorization\":\"Bearer t\",\"endpoint\":\"/mcp/plugin\"}}\n{call}\n{call}"),
        "\n\n\n".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn run_all(data: &[u8]) {
    targets::envelope(data);
    targets::headers(data);
    targets::quic_stream(data);
}

#[test]
fn seeds_and_every_cut_of_them() {
    for seed in seeds() {
        for cut in 0..=seed.len() {
            run_all(&seed[..cut]);
            run_all(&seed[cut..]);
        }
    }
}

#[test]
fn seeds_with_any_byte_changed() {
    for seed in seeds() {
        for at in 0..seed.len() {
            for to in [0, b'\n', b'"', b'\\', b'{', b',', 0x80, 0xff] {
                let mut damaged = seed.clone();
                damaged[at] = to;
                run_all(&damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..2_048)) {
        run_all(&data);
    }

    #[test]
    fn two_seeds_put_together(a in 0..7usize, b in 0..7usize, cut in 0..300usize, from in 0..300usize) {
        let (a, b) = (&seeds()[a], &seeds()[b]);
        run_all(&[&a[..cut.min(a.len())], &b[from.min(b.len())..]].concat());
    }
}
