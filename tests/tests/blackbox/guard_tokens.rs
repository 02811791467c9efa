//! Tokens in place of values, end to end: who gets a value back, where, and what the log keeps.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    files::holding,
    guards::{CARD, body, chat, document, guard, phrase, record, said, start},
    harness::{Dev, call_tool, modern, post, text, until},
    inference::models_dir,
};

/// A token for a principal of the tenant.
fn token_of(dev: &Dev, principal: &str) -> String {
    let output = dev.cli(&["token", "create", "--principal", principal, "--tenant", "acme", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

fn echo_as(dev: &Dev, token: &str, plugin: &str, text: &str) -> Value {
    let call = modern("tools/call", json!({ "name": format!("{plugin}.echo"), "arguments": { "text": text } }));
    post(dev.mcp(), token, &call).1
}

/// Principals beside `bot`: `bill` by name, `carl` by a role, `eve` by nothing.
fn people() -> String {
    let mut yaml = String::new();
    for name in ["bill", "carl", "eve"] {
        yaml += &document("Principal", name, "{ type: user }");
        yaml += &document("RoleBinding", &format!("{name}-all"), &format!("{{ role: all, principals: [{name}] }}"));
    }
    yaml += &document("Role", "billing", "{ rules: [] }");
    yaml + &document("RoleBinding", "billing", "{ role: billing, principals: [carl] }")
}

#[test]
fn who_may_gets_the_value_back_and_the_log_has_tokens() {
    let guards = [
        // What a database returns: tokens, but for billing.
        guard(
            "rows",
            "{ directions: [results], tools: ['sql.*'], rules: [ { kinds: [card], action: tokenise } ], reveal: { principals: [bill], roles: [billing] } }",
        ),
        // Where values go: only billing's tokens are opened, and nobody else sends a plain one.
        guard(
            "payments",
            "{ directions: [arguments], tools: ['pay.*'], rules: [ { kinds: [card], action: tokenise } ], reveal: { roles: [billing], directions: [arguments] } }",
        ),
        guard("strict", "{ tools: ['strict.*'], rules: [ { kinds: [card], action: tokenise } ] }"),
    ];
    let (_dir, mut dev) = start(&["pay", "strict", "free"], &(people() + &guards.concat()), &[]);
    let [bill, carl, eve] = ["bill", "carl", "eve"].map(|name| token_of(&dev, name));

    let query = json!({ "sql": "SELECT '4111 1111 ' || '1111 1111' AS text, 4111111111111110 + 1 AS number" });
    let rows = |token: &str| {
        let call = modern("tools/call", json!({ "name": "sql.query", "arguments": query.clone() }));
        let answer = post(dev.mcp(), token, &call).1;
        let row = answer["result"]["structuredContent"]["rows"][0].clone();
        let text: Value = serde_json::from_str(said(&answer)).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!(text["rows"][0], row, "the text says the same as the structure");
        row
    };
    let row = rows(&eve);
    let (card, number) = (row[0].as_str().unwrap().to_owned(), row[1].as_str().unwrap().to_owned());
    assert!(card.starts_with("[[pv:card:") && number.starts_with("[[pv:card#:"), "{row}");
    assert_eq!(rows(dev.token()), row, "equal values have equal tokens, whoever asks");
    let outcome = record(&dev, "sql.query", "outcome");
    assert_eq!(outcome["record"]["guards"], json!(["card:tokenise=4"]), "{outcome}");

    for token in [&bill, &carl] {
        assert_eq!(rows(token), json!([CARD, 4_111_111_111_111_111_u64]));
        let outcome = record(&dev, "sql.query", "outcome");
        assert_eq!(outcome["record"]["guards"], json!(["card:reveal=4"]), "{outcome}");
        let kept = body(&dev, &outcome);
        assert!(kept.contains("[[pv:card:") && !kept.contains("4111"), "{kept}");
    }

    // To the tool goes the value, for whom the guard says so; the log has the token.
    let pay = format!("pay {card} now");
    assert_eq!(said(&echo_as(&dev, &carl, "pay", &pay)), format!("pay {CARD} now"));
    let intent = record(&dev, "pay.echo", "intent");
    assert_eq!(intent["record"]["guards"], json!(["card:reveal=1"]), "{intent}");
    assert!(body(&dev, &intent).contains(&card), "{}", body(&dev, &intent));
    assert_eq!(said(&echo_as(&dev, &carl, "pay", CARD)), CARD, "a plain value goes as it is");
    assert!(body(&dev, &record(&dev, "pay.echo", "intent")).contains(&card), "and is kept as its token");
    for token in [&eve, &bill] {
        assert_eq!(said(&echo_as(&dev, token, "pay", &pay)), pay, "for results only, or not at all");
        assert_eq!(said(&echo_as(&dev, token, "pay", &format!("pay {CARD} now"))), pay);
    }

    // Where no guard opens it, or it is not one, it is a text like any other.
    let changed = card.replacen("[[pv:card:", "[[pv:iban:", 1);
    let cut = format!("{}{}", &card[..card.len() - 3], "]]");
    for odd in [changed, cut, "[[pv:card:aaaa]]".to_owned(), "[[pv:".to_owned()] {
        assert_eq!(said(&echo_as(&dev, &carl, "pay", &odd)), odd);
    }
    assert_eq!(said(&echo_as(&dev, &carl, "strict", &card)), card);
    assert_eq!(said(&echo_as(&dev, &carl, "free", &card)), card);

    // The keys are kept: after a restart the same tokens open.
    let data = dev.data.clone();
    assert!(dev.terminate().1, "{}", dev.stderr());
    assert_eq!(holding(&data.join("audit"), CARD), Vec::<PathBuf>::new(), "no value is in any file of the log");
}

#[test]
fn a_restart_opens_what_was_sealed_before() {
    let spec = "{ directions: [arguments], tools: ['a.*'], rules: [ { kinds: [email], action: tokenise } ] }";
    let opens = "{ directions: [results], tools: ['b.*'], rules: [ { kinds: [email], action: tokenise } ], reveal: { principals: [bot] } }";
    let (dir, mut dev) = start(&["a", "b"], &(guard("a", spec) + &guard("b", opens)), &[]);
    let call = |dev: &Dev, plugin: &str, text: &str| {
        said(&call_tool(dev, &format!("{plugin}.echo"), json!({ "text": text }))).to_owned()
    };
    let token = call(&dev, "a", "to ana@example.com.");
    assert!(token.starts_with("to [[pv:email:"), "{token}");
    assert_eq!(call(&dev, "b", &token), "to ana@example.com.");
    let data = dev.data.clone();
    assert!(dev.terminate().1, "{}", dev.stderr());
    let again = Dev::start_in(&data, None, &[]);
    let bot = token_of(&again, "bot");
    let answer = echo_as(&again, &bot, "b", &token);
    assert_eq!(said(&answer), "to ana@example.com.", "{answer}");
    drop(dir);
}

#[test]
fn a_model_sees_tokens_and_what_it_streams_is_opened_over_the_borders_of_its_pieces() {
    let models = models_dir();
    let (_dir, dev) = start(&[], "", &["--models", models.path().to_str().unwrap()]);
    // The model has learnt nothing; with one of these seeds it says something that a dictionary can hold.
    let ask = |seed: u64| {
        json!({ "model": "tiny-chat", "max_tokens": 48, "temperature": 1, "seed": seed, "stream": true,
                "messages": [{ "role": "user", "content": "hello" }] })
    };
    let found = (1..40).find_map(|seed| {
        let pieces = chat(&dev, &ask(seed));
        let plain = pieces.concat();
        let word = phrase(&plain, &pieces).filter(|word| word.len() >= 4)?;
        Some((ask(seed), plain, word))
    });
    let (ask, plain, word) = found.expect("no phrase over a border");
    let spec = |reveal: Value| {
        let words = json!([{ "name": "said", "words": [word], "action": "tokenise" }]);
        let mut spec = json!({ "tools": ["tiny-chat"], "directions": ["results"], "dictionaries": words });
        if !reveal.is_null() {
            spec["reveal"] = reveal;
        }
        guard("said", &spec.to_string())
    };
    let apply = |reveal: Value| {
        let file = dev.data.join("guard.yaml");
        std::fs::write(&file, spec(reveal)).unwrap();
        let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
        assert!(applied.status.success(), "{}", text(&applied));
    };
    apply(Value::Null);
    let token = until(|| {
        let said = chat(&dev, &ask).concat();
        (said != plain).then_some(said)
    });
    assert!(token.contains("[[pv:word:") && !token.to_lowercase().contains(&word.to_lowercase()), "{token}");
    apply(json!({ "principals": ["bot"] }));
    let back = until(|| {
        let said = chat(&dev, &ask).concat();
        (said != token).then_some(said)
    });
    assert_eq!(back, plain, "for whom it is opened the answer is as the model said it");
}

#[test]
fn what_gives_nothing_back_is_refused_with_its_place() {
    let (_dir, dev) = start(&["echo"], "", &[]);
    let file = dev.data.join("guard.yaml");
    let tokenise = "rules: [ { kinds: [card], action: tokenise } ]";
    for (spec, said) in [
        (
            "{ rules: [ { kinds: [card], action: mask } ], reveal: { principals: [bot] } }".to_owned(),
            "nothing tokenises",
        ),
        (format!("{{ {tokenise}, reveal: {{}} }}"), "names nobody"),
        (format!("{{ {tokenise}, reveal: {{ principals: [nobody] }} }}"), "spec.reveal.principals[0]"),
        (format!("{{ {tokenise}, reveal: {{ roles: [nobody] }} }}"), "spec.reveal.roles[0]"),
        (format!("{{ {tokenise}, reveal: {{ principals: [bot], directions: [] }} }}"), "spec.reveal.directions"),
    ] {
        std::fs::write(&file, guard("g", &spec)).unwrap();
        let refused = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1), "{spec} was taken");
        assert!(text(&refused).contains(said), "{spec}: {}", text(&refused));
    }
}
