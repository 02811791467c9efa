//! Numbers beyond their bounds, and bodies that are larger than they say.

use std::{fs, path::Path};

use provost_audit_core::BLOCK_HEADER_LEN;
use provost_types::Phase;

use crate::{
    case::{found, try_all},
    common::{Lab, START_NS, event, matrix, tenant, verify_both},
    scene::{FIRST_BLOCK, acme, overwrite, rewrite_tail, scene},
};

#[test]
fn absurd_numbers() {
    let scene = scene();
    let s = &scene;
    let two = s.block_two;
    let seg = |at: u64, with: Vec<u8>| move |d: &Path| overwrite(&acme(d).segment(0), at, &with);
    let here = || s.seg(256, two);
    let huge = |from: &'static str, to: &'static str| {
        move |d: &Path| {
            rewrite_tail(d, |l| {
                let text = String::from_utf8(l[690].clone()).unwrap();
                assert!(text.contains(from));
                l[690] = text.replacen(from, to, 1).into_bytes();
            });
        }
    };
    try_all(
        s,
        &[
            found("integer overflow: body length", "INTEGRITY", here(), seg(two + 16, vec![0xff; 4])),
            found("integer overflow: stored length", "INTEGRITY", here(), seg(two + 20, vec![0xff; 4])),
            found("integer overflow: first index", "INTEGRITY", here(), seg(two + 8, vec![0xff; 8])),
            found("integer overflow: segment's first index", "INTEGRITY", s.seg(0, 0), seg(8, vec![0xff; 8])),
            found("integer overflow: seq", "INTEGRITY", s.tail(690), huge("\"seq\":", "\"seq\":18446744073709551616")),
            found(
                "integer overflow: time",
                "INTEGRITY",
                s.tail(690),
                huge("\"time_ns\":\"", "\"time_ns\":\"99999999999"),
            ),
            found("decompression bomb", "INTEGRITY", s.seg(0, FIRST_BLOCK), |d| {
                // 64 MiB of zeros in the place of the first block's body.
                let bomb = zstd_of_zeros();
                let path = acme(d).segment(0);
                let mut bytes = fs::read(&path).unwrap();
                let at = FIRST_BLOCK as usize;
                bytes[at + 20..at + 24].copy_from_slice(&(bomb.len() as u32).to_le_bytes());
                bytes.splice(at + BLOCK_HEADER_LEN..two as usize, bomb);
                fs::write(&path, bytes).unwrap();
            }),
        ],
    );
}

/// One zstd frame of 512 blocks of 128 KiB, each one zero repeated (RFC 8878, section 3.1.1).
fn zstd_of_zeros() -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend_from_slice(&(512u32 * 131_072).to_le_bytes());
    for n in 0..512u32 {
        let header = u32::from(n == 511) | 1 << 1 | 131_072 << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Whatever an upstream answers, the record stays one canonical line of bounded length.
#[test]
fn a_hostile_tool_response() {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme_log = tenant("acme");
    let hostile = [
        "\"},\"phase\":\"event\"",
        "\u{0}\u{1}\u{1f}\r\n\t\\",
        "\u{2028}\u{202e}evil\u{feff}",
        "\u{1f980}\u{10ffff}",
        "\n\n\u{2014} provost/acme AAAA\n",
    ];
    for (n, text) in hostile.into_iter().enumerate() {
        let mut intent = event(&acme_log, Phase::Intent, n as u128, START_NS);
        intent.what.target = Some(text.repeat(2_000));
        let mut outcome = event(&acme_log, Phase::Outcome, n as u128, START_NS);
        outcome.reason = Some(text.repeat(50_000));
        outcome.error = Some(text.to_owned());
        let entry = lab.writer.entry(&[intent, outcome]);
        lab.apply(entry);
    }
    let report = verify_both(&dir.path().join("audit"), None);
    assert_eq!((report.exit_code(), report.logs[0].records), (2, 10), "{report}");
    matrix::row("hostile tool response", "holds within itself", "2", "-");
}
