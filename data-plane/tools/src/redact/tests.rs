//! What upstreams say back, in every form that we could think of.
#![allow(clippy::unwrap_used)]

use base64::{Engine, prelude::*};
use serde_json::{Value, json};

use super::*;

const PLAIN: &str = "sk-live_4f9Qz7Lk2Vb8";
const ODD: &str = "p\"ss w/ö&rd<1>\\x";

fn message(redactor: &Redactor, text: String) -> String {
    String::from_utf8(redactor.message(Bytes::from(text)).to_vec()).unwrap()
}

#[test]
#[allow(clippy::print_stdout)]
fn a_value_is_found_in_every_common_form() {
    for secret in [PLAIN, ODD] {
        let redactor = Redactor::new([secret]);
        let percent = |upper: bool| {
            let hex = |b: &u8| if upper { format!("%{b:02X}") } else { format!("%{b:02x}") };
            secret.as_bytes().iter().map(hex).collect::<String>()
        };
        let all_escaped: String = secret.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
        let form = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        let table: Vec<(&str, String)> = vec![
            ("as it is", json!({"text": format!("token is {secret}, ok")}).to_string()),
            ("as a key", json!({secret: 1}).to_string()),
            ("JSON in a text", json!({"text": json!({"key": secret}).to_string()}).to_string()),
            (
                "JSON in JSON in a text",
                json!({"t": json!({"t": json!({"k": secret}).to_string()}).to_string()}).to_string(),
            ),
            ("every character escaped", format!("{{\"text\":\"a {all_escaped} b\"}}")),
            ("escaped, in a text", json!({"text": format!("{{\"k\":\"{all_escaped}\"}}")}).to_string()),
            ("escaped slashes", json!({"text": secret}).to_string().replace('/', "\\/")),
            ("Base64", json!({"text": BASE64_STANDARD.encode(secret)}).to_string()),
            ("Base64 for URLs", json!({"text": BASE64_URL_SAFE_NO_PAD.encode(secret)}).to_string()),
            (
                "Basic, one before",
                json!({"text": format!("Basic {}", BASE64_STANDARD.encode(format!("u{secret}")))}).to_string(),
            ),
            (
                "Basic, two before",
                json!({"text": format!("Basic {}", BASE64_STANDARD.encode(format!("u:{secret}")))}).to_string(),
            ),
            ("Base64, more after", json!({"text": BASE64_STANDARD.encode(format!("user:{secret}:more"))}).to_string()),
            ("percent, all", json!({"text": percent(true)}).to_string()),
            ("percent, small digits", json!({"text": percent(false)}).to_string()),
            ("percent, as forms do", json!({"text": format!("?key={form}&x=1")}).to_string()),
            ("hexadecimal", json!({"text": hex::encode(secret)}).to_string()),
        ];
        for (what, said) in table {
            let shown = message(&redactor, said.clone());
            println!("{what:28} {shown}");
            assert!(shown.contains(MARK), "{what}: {said}");
            let parsed: Value = serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{what}: {e}: {shown}"));
            // Nothing is left that leads back to it.
            assert!(!redactor.finds(parsed.to_string().as_bytes()), "{what}: {shown}");
            assert_eq!(message(&redactor, shown.clone()), shown, "{what}: redacting again changes nothing");
        }
    }
}

#[test]
fn what_surrounds_a_value_stays() {
    let redactor = Redactor::new([PLAIN]);
    let said = format!("{{\"z\": [1, {{\"a\":\"x {PLAIN} y {PLAIN}\"}}],\t\"b\" : \"caf\\u00e9 \\\"q\\\"\"}}");
    let expected = "{\"z\": [1, {\"a\":\"x [redacted] y [redacted]\"}],\t\"b\" : \"caf\\u00e9 \\\"q\\\"\"}";
    assert_eq!(message(&redactor, said), expected);
    for untouched in [r#"{"a":"sk-live_4f9Qz7Lk2Vb"}"#, r#"{"a":"50% \"more\" \ud800"}"#, "{}", "", "\"", "\"\\"] {
        assert_eq!(message(&redactor, untouched.to_owned()), untouched);
    }
}

#[test]
fn a_number_stays_a_number() {
    let redactor = Redactor::new(["1234567890"]);
    let shown = message(&redactor, r#"{"pin":1234567890,"s":"1234567890"}"#.to_owned());
    assert_eq!(shown, r#"{"pin":1111111111,"s":"[redacted]"}"#);
}

#[test]
fn texts_and_lines_of_keys_are_covered() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49\nAwEHBG0wawIBAQQgX3b1\n-----END PRIVATE KEY-----\n";
    let redactor = Redactor::new([pem, PLAIN]);
    assert_eq!(redactor.text("cannot read MIGHAgEAMBMGByqGSM49AgEGCCqGSM49"), "cannot read [redacted]");
    assert_eq!(redactor.text(&format!("401 for Bearer {PLAIN}")), "401 for Bearer [redacted]");
    assert_eq!(redactor.text("nothing here"), "nothing here");
    assert_eq!(Redactor::new(["abc"]).text("abc is too short to be looked for"), "abc is too short to be looked for");
    let with_token = redactor.and("ey.token.value");
    assert_eq!(with_token.text(&format!("{PLAIN} ey.token.value")), "[redacted] [redacted]");
    assert_eq!(format!("{with_token:?}"), "Redactor(…)");
}

#[test]
fn values_of_many_shapes_are_found_wherever_they_lie() {
    // Every length and offset of Base64, with and without neighbours.
    for length in 6..40 {
        let secret: String = (0..length).map(|i| char::from(b'!' + ((i * 37 + length * 11) % 90) as u8)).collect();
        let redactor = Redactor::new([secret.as_str()]);
        for before in 0..4 {
            for after in 0..4 {
                let whole = format!("{}{secret}{}", "b".repeat(before), "a".repeat(after));
                for said in
                    [whole.clone(), BASE64_STANDARD.encode(&whole), BASE64_URL_SAFE.encode(&whole), hex::encode(&whole)]
                {
                    let shown = message(&redactor, json!({"t": [said]}).to_string());
                    assert!(shown.contains(MARK), "{secret:?} {before} {after}: {shown}");
                    assert!(serde_json::from_str::<Value>(&shown).is_ok());
                }
            }
        }
    }
}
