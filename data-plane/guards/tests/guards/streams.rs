//! A stream says and releases what the whole text would, however it is cut.

use proptest::prelude::*;
use provost_data_guards::{Action, Counts, Guard, Kind, MAX_HELD, Rules, Verdict};

use crate::corpus::{
    rng::Rng,
    rows::{clean, positive},
};

fn guard(rules: Rules) -> Guard {
    Guard::new(rules)
}

fn whole(guard: &Guard, text: &[u8]) -> (Vec<u8>, Counts) {
    let inspection = guard.inspect(text);
    match inspection.verdict {
        Verdict::Pass => (text.to_vec(), inspection.counts),
        Verdict::Masked(masked) => (masked, inspection.counts),
        Verdict::Blocked(blocked) => panic!("{blocked}"),
    }
}

fn chunked<'a>(guard: &Guard, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Counts) {
    let (mut stream, mut out) = (guard.stream(), Vec::new());
    for chunk in chunks {
        stream.push(chunk, &mut out).expect("nothing blocks");
        assert!(stream.held() <= MAX_HELD, "{} bytes held", stream.held());
    }
    stream.finish(&mut out).expect("nothing blocks");
    (out, stream.counts())
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_value_cut_at_every_boundary_is_caught() {
    let guard = guard(Rules::all(Action::Mask));
    let mut rng = Rng(7);
    for kind in Kind::ALL {
        for _ in 0..6 {
            let row = positive(*kind, &mut rng);
            let text = format!("{}\n{}\n{}\n", clean(&mut rng).text, row.text, clean(&mut rng).text);
            let text = text.as_bytes();
            let expected = whole(&guard, text);
            assert!(expected.1.of(*kind) > 0);
            for cut in 0..=text.len() {
                let got = chunked(&guard, [&text[..cut], &text[cut..]]);
                assert!(got == expected, "{kind} cut at {cut}: {}", show(&got.0));
            }
            for size in [1, 2, 3, 7, 16, 61, 64, 65] {
                assert!(chunked(&guard, text.chunks(size)) == expected, "{kind} in chunks of {size}");
            }
        }
    }
}

#[test]
fn what_is_longer_than_a_piece_is_masked_to_its_end() {
    let guard = guard(Rules::all(Action::Mask));
    let mut rng = Rng(8);
    let lines = |rng: &mut Rng, end: &str| (0..700).map(|_| rng.base64(64)).collect::<Vec<_>>().join(end);
    let texts = [
        (Kind::Jwt, format!("a eyJhbGciOiJIUzI1NiJ9.eyJz{}.{} z", rng.base64url(30_000), rng.base64url(43))),
        (Kind::GithubToken, format!("a ghp_{} z", rng.alnum(40_000))),
        (
            Kind::PrivateKey,
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY----- z", lines(&mut rng, "\n")),
        ),
        (Kind::PrivateKey, format!(r#"{{"k":"-----BEGIN PRIVATE KEY-----\n{}"}}"#, lines(&mut rng, "\\n"))),
    ];
    for (kind, text) in texts {
        let expected = whole(&guard, text.as_bytes());
        assert_eq!(expected.1.iter().collect::<Vec<_>>(), [(kind, 1)], "one value, counted once");
        let stars = expected.0.iter().filter(|b| **b == b'*').count();
        assert!(stars > text.len() * 9 / 10, "{kind}: {stars} of {} bytes are hidden", text.len());
        for size in [1, 100, 4096, 8191, 8192, 8193, 16_384, 20_000] {
            let got = chunked(&guard, text.as_bytes().chunks(size));
            assert!(got == expected, "{kind} in chunks of {size}");
        }
    }
}

#[test]
fn nothing_of_a_blocked_value_is_released() {
    let guard = guard(Rules::all(Action::Report).with(Kind::GithubToken, Action::Block));
    let secret = format!("ghp_{}", Rng(9).alnum(36));
    let text = format!("{} before {secret} after {}", "x".repeat(300), "y".repeat(300));
    for size in 1..80 {
        let (mut stream, mut out) = (guard.stream(), Vec::new());
        let mut ended = text.as_bytes().chunks(size).try_for_each(|chunk| stream.push(chunk, &mut out));
        if ended.is_ok() {
            ended = stream.finish(&mut out);
        }
        assert_eq!(ended.expect_err("the token blocks").kind, Kind::GithubToken);
        assert!(text.as_bytes().starts_with(&out) && out.len() <= text.find("ghp_").expect("the token"));
        let released = out.len();
        assert!(stream.push(b"more", &mut out).is_err() && stream.finish(&mut out).is_err());
        assert_eq!(out.len(), released);
    }
}

/// Pieces of values and of what surrounds them, so that random texts come close to being values.
const SHARDS: [&str; 46] = [
    "4111",
    " 1111",
    "1111",
    "-",
    " ",
    "@",
    "example.com",
    "a.b",
    "ghp_",
    "AKIA",
    "ABCDEFGH23456789",
    "abcdefABCDEF0123456789",
    "sk-",
    "eyJ",
    "eyJhbGciOiJIUzI1NiJ9",
    ".",
    "_",
    "+",
    "(",
    ") ",
    "555",
    "-0132",
    "\\n",
    "\\u00a0",
    "\"",
    ":",
    ",",
    "\n",
    "phone",
    "bsn ",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ",
    "RSA PRIVATE KEY-----",
    "-----END ",
    "DE89",
    " 3704",
    "0440 5320 1300",
    "X1234567L",
    "12345678Z",
    "é",
    "{",
    "ssn",
    "123-45-6789",
    "AIza",
    "git@",
];

#[test]
fn an_end_marker_without_a_label_ends_no_key() {
    let guard = guard(Rules::all(Action::Mask));
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ";
    for tail in [
        "-----END \"-----BEGIN x",
        "-----END \"",
        "-----END ",
        "-----END x-----",
        "-----END x----",
        "\"-----END x-----",
    ] {
        let text = format!("-----BEGIN PRIVATE KEY-----{line}.{line}{tail} and more");
        let expected = whole(&guard, text.as_bytes());
        assert_eq!(expected.1.of(Kind::PrivateKey), 1);
        for cut in 0..=text.len() {
            assert!(
                chunked(&guard, [&text.as_bytes()[..cut], &text.as_bytes()[cut..]]) == expected,
                "{tail} cut at {cut}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn chunks_equal_the_whole(
        shards in prop::collection::vec(prop::sample::select(SHARDS.to_vec()), 0..60),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let text = shards.concat();
        let text = text.as_bytes();
        let guard = guard(Rules::all(Action::Mask));
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let expected = whole(&guard, text);
        prop_assert_eq!(expected.0.len(), text.len());
        let got = chunked(&guard, cuts.windows(2).map(|w| &text[w[0]..w[1]]));
        prop_assert_eq!((show(&got.0), got.1), (show(&expected.0), expected.1));
        let bytes = chunked(&guard, text.chunks(1));
        prop_assert_eq!((show(&bytes.0), bytes.1), (show(&expected.0), expected.1));
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..2_000), size in 1usize..300) {
        let guard = guard(Rules::all(Action::Mask));
        prop_assert!(chunked(&guard, bytes.chunks(size)) == whole(&guard, &bytes));
    }
}
