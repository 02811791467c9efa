//! What a mask leaves: the length and form of a text, and never the value.

use provost_data_guards::{Action, Guard, Kind, Rules, Verdict};

use crate::corpus::{rng::Rng, rows::positive};

fn masked(guard: &Guard, text: &str) -> String {
    match guard.inspect(text.as_bytes()).verdict {
        Verdict::Masked(masked) => String::from_utf8(masked).expect("text stays text"),
        Verdict::Pass => text.to_owned(),
        Verdict::Blocked(blocked) => panic!("{blocked}"),
    }
}

#[test]
fn no_value_is_left() {
    let guard = Guard::new(Rules::all(Action::Mask));
    let mut rng = Rng(11);
    for kind in Kind::ALL {
        for _ in 0..200 {
            let row = positive(*kind, &mut rng);
            let (_, start, end) = row.label.expect("a value");
            let after = masked(&guard, &row.text);
            assert_eq!(after.len(), row.text.len());
            assert_eq!(
                (&after[..start], &after[end..]),
                (&row.text[..start], &row.text[end..]),
                "only the value changes"
            );
            assert!(!after.contains(&row.text[start..end]), "{kind} is left in {after}");
            let hidden = after[start..end].bytes().filter(|b| matches!(b, b'*' | b'9')).count();
            assert!(hidden >= 5.min(end - start - 3), "{kind}: {}", &after[start..end]);
            // Nines in place of a bare number are a number again; nothing else may look like a value.
            let nines = after[start..end].bytes().all(|b| b == b'9');
            assert!(nines || guard.inspect(after.as_bytes()).counts.of(*kind) == 0, "{kind} is found again in {after}");
        }
    }
}

#[test]
fn json_stays_json() {
    let guard = Guard::new(Rules::all(Action::Mask));
    let mut rng = Rng(12);
    let mut seen = 0;
    for kind in Kind::ALL {
        for _ in 0..200 {
            let row = positive(*kind, &mut rng);
            if serde_json::from_str::<serde_json::Value>(&row.text).is_ok() {
                seen += 1;
                let after = masked(&guard, &row.text);
                assert!(serde_json::from_str::<serde_json::Value>(&after).is_ok(), "{after}");
            }
        }
    }
    assert!(seen > 1_000, "the corpus has JSON");
}

#[test]
fn masks_keep_the_form() {
    let guard = Guard::new(Rules::all(Action::Mask));
    for (text, expect) in [
        ("card 4111 1111 1111 1111 ok", "card **** **** **** 1111 ok"),
        ("to ana.b+x@mail.example.com.", "to ***.***@****.*******.***."),
        ("iban DE89 3704 0044 0532 0130 00", "iban DE** **** **** **** **** **"),
        ("call +1 (415) 555-0132 now", "call +* (***) ***-**32 now"),
        ("ssn 123-45-6789", "ssn ***-**-****"),
        (r#"{"card":4111111111111111,"n":1}"#, r#"{"card":9999999999991111,"n":1}"#),
        (r#"{"bsn": 111222333}"#, r#"{"bsn": 999999999}"#),
        ("key AKIAIOSFODNN7EXAMPLE.", "key ********************."),
    ] {
        assert_eq!(masked(&guard, text), expect);
    }
}

#[test]
fn only_what_the_rules_name_is_touched() {
    let text = "ana@example.com 4111111111111111";
    let guard = |rules| Guard::new(rules);
    let report = guard(Rules::all(Action::Block).report_only()).inspect(text.as_bytes());
    assert!(matches!(report.verdict, Verdict::Pass));
    assert_eq!(report.counts.iter().collect::<Vec<_>>(), [(Kind::Card, 1), (Kind::Email, 1)]);
    assert_eq!(
        masked(&guard(Rules::default().with(Kind::Card, Action::Mask)), text),
        "ana@example.com ************1111"
    );
    let block = guard(Rules::all(Action::Mask).with(Kind::Email, Action::Block)).inspect(text.as_bytes());
    match block.verdict {
        Verdict::Blocked(blocked) => {
            assert!(blocked.to_string().contains("email") && !blocked.to_string().contains("ana"))
        }
        _ => panic!("an address passed"),
    }
}
