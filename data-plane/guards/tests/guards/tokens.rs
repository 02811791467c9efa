//! Tokens in place of values: what comes back, to whom, and what stays text.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use provost_data_guards::{
    Action, Guard, GuardStream, JsonInspection, Kind, Layout, MAX_HELD, Paths, Root, Rules, Vault, Verdict, Words,
};
use provost_mcp::{JsonLimits, RawJson};
use provost_types::ContentPath;
use serde_json::{Value, json};

use crate::corpus::{
    rng::Rng,
    rows::{clean, positive},
};

/// A vault that is no secret: a checksum over key, kinds and value, and the value.
#[derive(Debug)]
struct Open(u8);

impl Open {
    fn sum(&self, kinds: &str, value: &[u8]) -> [u8; 8] {
        let bytes = [&[self.0], kinds.as_bytes(), b"\0", value].concat();
        let sum =
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        sum.to_be_bytes()
    }
}

impl Vault for Open {
    fn seal(&self, kinds: &str, value: &[u8]) -> Option<Vec<u8>> {
        Some([&self.sum(kinds, value), value].concat())
    }

    fn open(&self, kinds: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (sum, value) = sealed.split_at_checked(8)?;
        (self.sum(kinds, value) == sum).then(|| value.to_vec())
    }
}

const VAULT: Open = Open(7);

fn guard(action: Action) -> Guard {
    Guard::new(Rules::all(action))
}

fn whole(guard: &Guard, text: &str, vault: &dyn Vault) -> String {
    match guard.inspect_with(text.as_bytes(), Some(vault)).verdict {
        Verdict::Pass => text.to_owned(),
        Verdict::Masked(out) => String::from_utf8(out).expect("text stays text"),
        Verdict::Blocked(blocked) => panic!("{blocked}"),
    }
}

fn chunked<'a>(guard: &Guard, chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let (mut stream, mut out) = (GuardStream::new(guard).with_vault(Some(Arc::new(VAULT))), Vec::new());
    for chunk in chunks {
        stream.push(chunk, &mut out).expect("nothing blocks");
        assert!(stream.held() <= MAX_HELD, "{} bytes held", stream.held());
    }
    stream.finish(&mut out).expect("nothing blocks");
    String::from_utf8(out).expect("text stays text")
}

fn raw(text: &str) -> RawJson {
    RawJson::check(Bytes::from(text.to_owned()), &JsonLimits::RESPONSE).expect("JSON")
}

fn kept(inspection: &JsonInspection, before: &str) -> String {
    inspection.rewritten.as_ref().map_or(before, |r| r.as_str()).to_owned()
}

fn sent(inspection: &JsonInspection, before: &str) -> String {
    inspection.sent.as_ref().map_or_else(|| kept(inspection, before), |r| r.as_str().to_owned())
}

fn json(guard: &Guard, text: &str) -> JsonInspection {
    guard.inspect_json_with(&raw(text), &Layout::PLAIN, Some(&VAULT))
}

fn tally(inspection: &JsonInspection) -> Vec<(Kind, Action, u32)> {
    inspection.tally.iter().collect()
}

#[test]
fn what_is_tokenised_comes_back_for_every_kind_cut_at_every_boundary() {
    let (tokenises, reveals) = (guard(Action::Tokenise), guard(Action::Reveal));
    let mut rng = Rng(31);
    for kind in Kind::ALL {
        for _ in 0..2 {
            let row = positive(*kind, &mut rng);
            let (_, start, end) = row.label.expect("a value");
            let text = format!("{}\n{}\n{}\n", clean(&mut rng).text, row.text, clean(&mut rng).text);
            let token = whole(&tokenises, &text, &VAULT);
            assert!(token.contains("[[pv:") && !token.contains(&row.text[start..end]), "{kind}: {token}");
            assert_eq!(whole(&tokenises, &token, &VAULT), token, "{kind}: what is a token stays one");
            assert_eq!(whole(&reveals, &token, &VAULT), text, "{kind}");
            assert_eq!(whole(&reveals, &text, &VAULT), text, "{kind}: a plain value stays");
            for cut in 0..=text.len() {
                let (a, b) = text.as_bytes().split_at(cut);
                assert_eq!(chunked(&tokenises, [a, b]), token, "{kind} cut at {cut}");
            }
            for cut in 0..=token.len() {
                let (a, b) = token.as_bytes().split_at(cut);
                assert_eq!(chunked(&reveals, [a, b]), text, "{kind} cut at {cut}: {token}");
            }
            for size in [1, 7, 64] {
                assert_eq!(chunked(&reveals, token.as_bytes().chunks(size)), text, "{kind} in chunks of {size}");
            }
        }
    }
}

#[test]
fn a_token_is_one_word_that_says_its_kind_and_equal_values_have_equal_ones() {
    let guard = guard(Action::Tokenise);
    let text = "pay 4111 1111 1111 1111 and 4111 1111 1111 1111, not 5555 5555 5555 4444";
    let after = whole(&guard, text, &VAULT);
    let tokens: Vec<&str> =
        after.split(' ').filter(|word| word.starts_with("[[")).map(|t| t.trim_end_matches(',')).collect();
    assert_eq!((tokens.len(), tokens[0]), (3, tokens[1]));
    assert_ne!(tokens[0], tokens[2]);
    assert!(tokens.iter().all(|t| t.starts_with("[[pv:card:") && t.ends_with("]]")), "{after}");
    let body = |t: &str| t[10..t.len() - 2].bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
    assert!(tokens.iter().all(|t| body(t)), "{after}");
    assert_ne!(whole(&guard, text, &Open(8)), after, "another tenant's are others");
    // No detector takes a token for anything, with or without the vault.
    let plain = Guard::new(Rules::all(Action::Mask));
    assert!(plain.inspect(after.as_bytes()).counts.is_empty(), "{after}");
}

#[test]
fn what_opens_for_nobody_stays_text() {
    let reveals = guard(Action::Reveal);
    let token = whole(&guard(Action::Tokenise), "4111 1111 1111 1111", &VAULT);
    assert_eq!(whole(&reveals, &token, &VAULT), "4111 1111 1111 1111");
    let foreign = whole(&guard(Action::Tokenise), "4111 1111 1111 1111", &Open(8));
    let mut others = vec![foreign, token.replace("card", "phone"), token.replace("card", "card+phone")];
    others.extend((0..token.len()).map(|at| format!("{}{}", &token[..at], &token[at + 1..])));
    others.extend(
        ["[[pv:card:]]", "[[pv:nothing:aaaa]]", "[[pv:", "[[pv:card", "[[pv:card#", "[[pv:card:aa", "[[pv:card:aa]"]
            .map(str::to_owned),
    );
    for other in others {
        assert_eq!(whole(&reveals, &other, &VAULT), other);
        assert_eq!(chunked(&reveals, other.as_bytes().chunks(1)), other);
    }
    // Who may have it, and that it is one, are two questions; without the right rule the answer is the token.
    for action in [Action::Report, Action::Tokenise, Action::Mask] {
        let only = Guard::new(Rules::all(Action::Reveal).without(Kind::Card).at_least(Kind::Card, action));
        assert_eq!(whole(&only, &token, &VAULT), token, "{action:?}");
    }
    // A token that was made for one kind and holds another as well opens only for who may have both.
    let words = Words::new([("4111 1111 1111 1111", Action::Mask)]).expect("small").map(Arc::new);
    let also = guard(Action::Reveal).with(words.into_iter().collect(), Paths::default());
    assert_eq!(whole(&also, &token, &VAULT), token);
    // Values that cannot be sealed, or are too long, are masked.
    assert_eq!(whole(&guard(Action::Mask), "4111 1111 1111 1111", &VAULT), "**** **** **** 1111");
    let without = guard(Action::Tokenise).inspect(b"4111 1111 1111 1111").verdict;
    assert!(matches!(without, Verdict::Masked(m) if m == b"**** **** **** 1111"));
    let long = format!("a ghp_{} z", Rng(3).alnum(5_000));
    let after = whole(&guard(Action::Tokenise), &long, &VAULT);
    assert!(after.contains("****") && !after.contains("[[pv:"), "{after}");
}

#[test]
fn json_keeps_its_numbers_texts_and_depth() {
    let (tokenises, reveals) = (guard(Action::Tokenise), guard(Action::Reveal));
    let key =
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n-----END PRIVATE KEY-----\n";
    let inner =
        json!({ "n": 4_111_111_111_111_111_u64, "t": "4111 1111 1111 1111", "l": [1, 4_111_111_111_111_111_u64, 2] });
    for value in [
        json!({ "a": "x 4111 1111 1111 1111 y", "b": [4_111_111_111_111_111_u64, "ana@example.com"], "é": "ü 4111111111111111" }),
        json!({ "text": inner.to_string() }),
        json!({ "text": json!({ "text": inner.to_string() }).to_string() }),
        json!({ "key": key, "text": format!("see {key} there") }),
    ] {
        let before = value.to_string();
        let inspection = json(&tokenises, &before);
        assert!(inspection.sent.is_none(), "who reveals nothing has one form");
        let token = kept(&inspection, &before);
        assert!(!token.contains("4111 1111") && !token.contains("MIIE"), "{token}");
        let parsed: Value = serde_json::from_str(&token).unwrap_or_else(|e| panic!("{e}: {token}"));
        if let Some(text) = parsed["text"].as_str().filter(|t| t.starts_with('{')) {
            serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        }
        assert_eq!(kept(&json(&tokenises, &token), &token), token, "once is enough");
        let back = json(&reveals, &token);
        assert_eq!(kept(&back, &token), token, "the log keeps the tokens");
        assert_eq!(sent(&back, &token), before);
        assert!(tally(&back).iter().all(|(_, action, _)| *action == Action::Reveal), "{:?}", tally(&back));
        // A plain value is kept as its token and goes on as it is.
        let plain = json(&reveals, &before);
        assert_eq!((kept(&plain, &before), sent(&plain, &before)), (token, before.clone()));
    }
    // Written as a number in the text: a number again.
    let number = kept(&json(&tokenises, r#"{"n":4111111111111111}"#), "");
    assert!(number.starts_with(r#"{"n":"[[pv:card#:"#) && number.ends_with(r#"]]"}"#), "{number}");
    // The mark is not sealed: where the value is no number, it does nothing.
    let forged = kept(&json(&tokenises, r#"["4111 1111 1111 1111"]"#), "").replace("card:", "card#:");
    assert_eq!(sent(&json(&reveals, &forged), ""), r#"["4111 1111 1111 1111"]"#);
    // A value with line ends in a text that is JSON itself.
    let token = kept(&json(&tokenises, &json!([key]).to_string()), "");
    let token: Value = serde_json::from_str(&token).expect("JSON");
    let text = json!({ "text": json!({ "key": token[0] }).to_string() }).to_string();
    let back: Value = serde_json::from_str(&sent(&json(&reveals, &text), &text)).expect("JSON");
    let inner: Value = serde_json::from_str(back["text"].as_str().expect("text")).expect("still JSON");
    assert_eq!(inner["key"].as_str().map(str::trim_end), Some(key.trim_end()));
}

#[test]
fn escapes_places_words_and_what_cannot_be_changed() {
    let tokenises = guard(Action::Tokenise);
    let plain = kept(&json(&tokenises, r#"["4111111111111111"]"#), "");
    assert_eq!(
        kept(&json(&tokenises, r#"["\u0034111111111111111"]"#), ""),
        plain,
        "escaped digits are the same digits"
    );

    let at = |action| {
        let path = |p| (ContentPath::new(p).expect("a path"), action);
        let words = Words::new([("Bluebird", action)]).expect("small").map(Arc::new);
        Guard::new(Rules::default()).with(words.into_iter().collect(), Paths::new([path("$.pin"), path("$..name")]))
    };
    let before = r#"{"pin":77,"x":{"name":"Ana \"A\" é","y":"the BlueBird project"},"n":null}"#;
    let token = kept(&json(&at(Action::Tokenise), before), "");
    for part in [r#""pin":"[[pv:path#:"#, r#""name":"[[pv:path:"#, r#"the [[pv:word:"#, r#""n":null"#] {
        assert!(token.contains(part), "{token}");
    }
    assert_eq!(kept(&json(&at(Action::Tokenise), &token), &token), token);
    let back = json(&at(Action::Reveal), &token);
    assert_eq!((sent(&back, &token), kept(&back, &token)), (before.to_owned(), token));
    // Of an object or list no token is made.
    let masked = json(&at(Action::Tokenise), r#"{"pin":[1,2]}"#);
    assert_eq!(
        (kept(&masked, ""), tally(&masked)),
        (r#"{"pin":"[masked]"}"#.to_owned(), vec![(Kind::Path, Action::Mask, 1)])
    );

    let layout =
        Layout { skipped: &["state"], fixed: &["uri"], meta_skipped: &[], json_texts: &[], root: Root::Nowhere };
    let token = plain.trim_matches(['[', ']', '"']);
    let token = format!("[[{token}]]");
    for text in [r#"{"uri":"x://4111111111111111"}"#, r#"{"a":{"4111111111111111":1}}"#] {
        let judged = tokenises.inspect_json_with(&raw(text), &layout, Some(&VAULT));
        assert_eq!(judged.blocked.map(|b| b.kind), Some(Kind::Card), "{text}");
        assert!(!kept(&judged, text).contains("4111"));
        // For whom it is opened it passes, and the record has the token.
        let judged = guard(Action::Reveal).inspect_json_with(&raw(text), &layout, Some(&VAULT));
        assert!(judged.blocked.is_none() && sent(&judged, text) == text, "{text}");
        assert!(!kept(&judged, text).contains("4111"), "{text}");
    }
    let text = format!(r#"{{"uri":"{token}","state":"{token}","{token}":1,"a":"{token}"}}"#);
    let judged = guard(Action::Reveal).inspect_json_with(&raw(&text), &layout, Some(&VAULT));
    let expected = format!(r#"{{"uri":"{token}","state":"{token}","{token}":1,"a":"4111111111111111"}}"#);
    assert_eq!(sent(&judged, &text), expected, "names, and what is called, are never changed");
}

#[test]
fn of_what_overlaps_the_stricter_holds() {
    let words = Words::new([("1111 and more", Action::Mask)]).expect("small").map(Arc::new);
    let both = guard(Action::Tokenise).with(words.into_iter().collect(), Paths::default());
    let after = whole(&both, "pay 4111 1111 1111 1111 and more", &VAULT);
    assert!(!after.contains("[[pv:") && !after.contains("4111"), "{after}");
    let words = Words::new([("1111 and more", Action::Tokenise)]).expect("small").map(Arc::new);
    let both = guard(Action::Tokenise).with(words.into_iter().collect(), Paths::default());
    let after = whole(&both, "pay 4111 1111 1111 1111 and more", &VAULT);
    assert!(after.starts_with("pay [[pv:card+word:") && after.ends_with("]]"), "{after}");
}

/// Cut off in its backslashes it would be another quote, and the text no JSON.
#[test]
fn the_quote_before_a_number_is_the_same_however_far_away_it_is() {
    let (tokenises, reveals) = (guard(Action::Tokenise), guard(Action::Reveal));
    for (quote, distance) in ["\"", "\\\""].into_iter().flat_map(|quote| (0..140).map(move |n| (quote, n))) {
        let text = format!("{quote}{}[4111111111111111]", "-".repeat(distance));
        let token = whole(&tokenises, &text, &VAULT);
        assert_eq!(whole(&reveals, &token, &VAULT), text);
        assert_eq!(chunked(&tokenises, text.as_bytes().chunks(1)), token);

        let value = json!({ "text": text, "in": json!({ "t": text }).to_string() });
        let before = value.to_string();
        let token = kept(&json(&tokenises, &before), &before);
        let outer: Value = serde_json::from_str(&token).expect("JSON");
        let inner: Value = outer["in"].as_str().expect("a text").parse().expect("JSON in JSON");
        assert!(inner["t"].as_str().is_some_and(|t| t.contains("[[pv:card#:")), "{distance}: {token}");
        let back: Value = serde_json::from_str(&sent(&json(&reveals, &token), &token)).expect("JSON");
        assert_eq!(back, value, "{distance}: {token}");
    }
}

/// Pieces of tokens, values and what stands around them.
const SHARDS: [&str; 20] = [
    "[[pv:",
    "card",
    "card#",
    "+",
    "phone",
    ":",
    "aaaa",
    "]]",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    "4111111111111111",
    "4111 1111 1111 1111",
    " ",
    "ana@example.com",
    "{\"n\":",
    "}",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn detokenise_undoes_tokenise(
        shards in prop::collection::vec(prop::sample::select(SHARDS.to_vec()), 0..40),
        size in 1usize..90,
    ) {
        let text = shards.concat();
        let (tokenises, reveals) = (guard(Action::Tokenise), guard(Action::Reveal));
        let token = whole(&tokenises, &text, &VAULT);
        prop_assert_eq!(&whole(&reveals, &token, &VAULT), &text);
        prop_assert_eq!(&chunked(&tokenises, text.as_bytes().chunks(size)), &token);
        prop_assert_eq!(&chunked(&reveals, token.as_bytes().chunks(size)), &text);

        let value = json!({ "text": text, "in": json!({ "t": text, "n": [4_111_111_111_111_111_u64] }).to_string() });
        let before = value.to_string();
        let token = kept(&json(&tokenises, &before), &before);
        let back: Value = serde_json::from_str(&sent(&json(&reveals, &token), &token)).expect("JSON");
        prop_assert_eq!(back, value, "{}", token);
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..600), size in 1usize..100) {
        let guard = guard(Action::Tokenise);
        let vault: Arc<dyn Vault> = Arc::new(VAULT);
        let (mut stream, mut out) = (GuardStream::new(&guard).with_vault(Some(vault.clone())), Vec::new());
        bytes.chunks(size).try_for_each(|chunk| stream.push(chunk, &mut out)).expect("nothing blocks");
        stream.finish(&mut out).expect("nothing blocks");
        let expected = match guard.inspect_with(&bytes, Some(&*vault)).verdict {
            Verdict::Masked(out) => out,
            _ => bytes,
        };
        prop_assert!(out == expected);
    }
}
