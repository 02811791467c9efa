//! Checkpoints changed, forged, stripped or taken from elsewhere.

use std::fs;

use provost_audit_core::{NoteSigner, VerifierKey};

use crate::{
    case::{found, try_all},
    scene::{Scene, head_of, leaves, replace, scene},
};

const LATEST: &str = "tenants/acme/checkpoint";
const HISTORY: &str = "tenants/acme/checkpoints";

fn at(file: &str, index: u64, offset: u64) -> (u64, String, u64) {
    (index, file.to_owned(), offset)
}

/// Flips a bit in the latest note at the byte that `place` finds.
fn flip_in(d: &std::path::Path, place: impl Fn(&str) -> usize) {
    let path = d.join(LATEST);
    let text = fs::read_to_string(&path).unwrap();
    let at = place(&text);
    let mut bytes = text.into_bytes();
    // From one letter of base64 (or digit) to another.
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    fs::write(&path, bytes).unwrap();
}

#[test]
fn every_field_of_a_checkpoint() {
    let scene = scene();
    let s = &scene;
    let line = |n: usize| move |text: &str| text.lines().take(n).map(|l| l.len() + 1).sum::<usize>();
    let signature = |text: &str| text.find("\u{2014} ").unwrap() + "\u{2014} provost/acme ".len();
    let bad = |name, attack: Box<dyn Fn(&std::path::Path)>| found(name, "AUTHENTICITY", at(LATEST, 680, 0), attack);
    try_all(
        s,
        &[
            bad(
                "checkpoint field: origin",
                Box::new(move |d| replace(&d.join(LATEST), "provost/acme\n", "provost/beta\n")),
            ),
            bad("checkpoint field: size", Box::new(|d| replace(&d.join(LATEST), "\n680\n", "\n681\n"))),
            bad("checkpoint field: root", Box::new(move |d| flip_in(d, move |t| line(2)(t) + 5))),
            bad("checkpoint field: chain", Box::new(move |d| flip_in(d, move |t| line(3)(t) + 9))),
            bad("checkpoint field: time", Box::new(|d| replace(&d.join(LATEST), "time 1", "time 2"))),
            bad(
                "checkpoint field: key name",
                Box::new(|d| replace(&d.join(LATEST), "\u{2014} provost/acme", "\u{2014} provost/acmf")),
            ),
            bad("checkpoint field: key id", Box::new(move |d| flip_in(d, signature))),
            bad("checkpoint field: signature", Box::new(move |d| flip_in(d, move |t| signature(t) + 20))),
            bad(
                "checkpoint: size too large for a number",
                Box::new(|d| {
                    replace(&d.join(LATEST), "\n680\n", "\n18446744073709551616\n");
                }),
            ),
            bad(
                "signature stripped",
                Box::new(|d| {
                    let text = fs::read_to_string(d.join(LATEST)).unwrap();
                    fs::write(d.join(LATEST), text.split("\n\n").next().unwrap().to_owned() + "\n\n").unwrap();
                }),
            ),
            bad(
                "checkpoint of another log",
                Box::new(|d| assert!(fs::copy(d.join("tenants/beta/checkpoint"), d.join(LATEST)).is_ok())),
            ),
            found("history: forged entry", "AUTHENTICITY", at(HISTORY, 680, 0), |d| {
                replace(&d.join(HISTORY), "\n300\n", "\n302\n");
            }),
        ],
    );
}

/// A key that is not the log's, and signatures of the log's key over other things.
#[test]
fn foreign_signatures() {
    let scene = scene();
    let others = crate::scene::scene();
    let s: &Scene = &scene;
    let all = leaves(&s.audit());
    let (head, time_ns) = (&all[..680], 1_763_000_000_000_000_000);
    let name = "provost/acme";
    let forged = head_of(head, time_ns).sign(&others.key);
    // The key id of the log's key in front of a signature of another.
    let own_id = VerifierKey { name: name.to_owned(), public_key: s.key.public_key() }.id();
    let collided = with_blob(&forged, |blob| blob[..4].copy_from_slice(&own_id));
    // The log's key has signed something else: not the text of a checkpoint.
    let cross = {
        let honest = head_of(head, time_ns).sign(&s.key);
        let other =
            s.key.sign(format!("cosignature/v1\ntime 1763000000\n{}", head_of(head, time_ns).to_text()).as_bytes());
        with_blob(&honest, |blob| blob[4..].copy_from_slice(&other))
    };
    let write = |note: String| move |d: &std::path::Path| fs::write(d.join(LATEST), &note).unwrap();
    try_all(
        s,
        &[
            found("forged checkpoint: signed by another key", "AUTHENTICITY", at(LATEST, 680, 0), write(forged)),
            found("key-id collision", "AUTHENTICITY", at(LATEST, 680, 0), write(collided)),
            found("cross-protocol signature", "AUTHENTICITY", at(LATEST, 680, 0), write(cross)),
        ],
    );
}

/// Decodes the note's signature, lets `edit` change it, and puts it back.
fn with_blob(note: &str, edit: impl Fn(&mut [u8])) -> String {
    let (head, blob) = note.trim_end().rsplit_once(' ').unwrap();
    let mut bytes = decode(blob);
    edit(&mut bytes);
    format!("{head} {}\n", encode(&bytes))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn decode(text: &str) -> Vec<u8> {
    let bits = text.bytes().filter(|b| *b != b'=').map(|b| ALPHABET.iter().position(|a| *a == b).unwrap() as u32);
    let (mut out, mut word, mut have) = (Vec::new(), 0u32, 0);
    for six in bits {
        word = word << 6 | six;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((word >> have) as u8);
        }
    }
    out
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for n in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * n) & 63) as usize] as char;
            out.push(if n <= group.len() { letter } else { '=' });
        }
    }
    out
}
