//! Single cases: what is one and what is not, where the line is close.

use provost_data_guards::{Detectors, Kind};

fn check(text: &str, expect: &[(Kind, &str)]) {
    let detectors = Detectors::new(Kind::ALL.iter().copied());
    let found = detectors.scan(text.as_bytes());
    let found: Vec<(Kind, &str)> = found.iter().map(|f| (f.kind, &text[f.range()])).collect();
    assert_eq!(found, expect, "in {text}");
}

#[test]
fn cards() {
    check("4111111111111111", &[(Kind::Card, "4111111111111111")]);
    check("1234 4111 1111 1111 1111 12/27", &[(Kind::Card, "4111 1111 1111 1111")]);
    check(r"x\n4111111111111111\n", &[(Kind::Card, "4111111111111111")]);
    check(r"\u00a04111111111111111\u00a0", &[(Kind::Card, "4111111111111111")]);
    for card in [
        "4111.1111.1111.1111",
        "4111/1111/1111/1111",
        "4111  1111  1111  1111",
        "4111 - 1111 - 1111 - 1111",
        "4111\u{a0}1111\u{a0}1111\u{a0}1111",
        "4111\u{202f}1111 1111\u{2009}1111",
        "4111\u{2011}1111\u{2011}1111\u{2011}1111",
        "4111 \u{2013} 1111 \u{2013} 1111 \u{2013} 1111",
        "3782\u{a0}822463\u{a0}10005",
        "6212\u{a0}3456\u{a0}7890\u{a0}0000\u{a0}003",
    ] {
        check(card, &[(Kind::Card, card)]);
        check(&format!("a card, {card}, and more"), &[(Kind::Card, card)]);
    }
    let card = "4111\u{a0}1111\u{a0}1111\u{a0}1111";
    check(&format!("1234\u{a0}{card}\u{a0}12/27"), &[(Kind::Card, card)]);
    for none in [
        "4111  1111  1111  1111  1111",
        "1234  4111  1111  1111  1111",
        "4111    1111    1111    1111",
        "4111  1111   1111  1111",
        "4111\u{a0}1111\u{2011}1111\u{a0}1111",
        "4111 -1111 -1111 -1111",
        "4111--1111--1111--1111",
        "4111.1111.1111.1111.25",
        "4111\u{a0}1111\u{a0}1111\u{a0}1111x",
        "4111111111111112",
        "0.4111111111111111",
        "4111111111111111.25",
        "41111111111111111111",
        "a4111111111111111",
        "4111 1111-1111 1111",
        "1234-4111-1111-1111-1111",
        "41 11 11 11 11 11 11 11",
    ] {
        check(none, &[]);
    }
}

#[test]
fn numbers_that_need_a_word() {
    check("bsn 111222333", &[(Kind::NlBsn, "111222333")]);
    check("order 111222333", &[]);
    check(r#"{"bsn":"","order":"111222333"}"#, &[]);
    check("SSN: 123456789", &[(Kind::UsSsn, "123456789")]);
    check("passport: 123456789", &[]);
    check("hotel 5551234567", &[]);
    check("tel 5551234567", &[(Kind::Phone, "5551234567")]);
    check("phone updated 2026-11-21", &[]);
    for unassigned in ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000"] {
        check(unassigned, &[]);
    }
}

#[test]
fn addresses() {
    check("mail <ana@example.com>", &[(Kind::Email, "ana@example.com")]);
    check(r#""a\nana@example.com""#, &[(Kind::Email, "ana@example.com")]);
    check(
        "https://ghp_0123456789abcdefghijABCDEFGHIJ012345@example.com/",
        &[
            (Kind::GithubToken, "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
            (Kind::Email, "ghp_0123456789abcdefghijABCDEFGHIJ012345@example.com"),
        ],
    );
    for none in
        ["a@b", "@example.com", "a@.com", "a@-b.com", "a@b..com", "logo@2x.png", "x@1.2.3", "git@github.com:a/b"]
    {
        check(none, &[]);
    }
}

#[test]
fn national_numbers() {
    check("DNI 12345678Z", &[(Kind::EsDni, "12345678Z")]);
    check("NIE X1234567L", &[(Kind::EsDni, "X1234567L")]);
    check("RSSMRA85T10A562S", &[(Kind::ItFiscalCode, "RSSMRA85T10A562S")]);
    check("86 095 742 719", &[(Kind::DeTaxId, "86 095 742 719")]);
    check("GB82 WEST 1234 5698 7654 32", &[(Kind::Iban, "GB82 WEST 1234 5698 7654 32")]);
    for none in [
        "12345678A",
        "12345678z",
        "X1234567A",
        "RSSMRA85T10A562T",
        "86095742719",
        "GB82 WEST 1234 5698 7654 33",
        "GB82WEST1234569876543",
    ] {
        check(none, &[]);
    }
}
