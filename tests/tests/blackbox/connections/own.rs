//! A principal ends what a plugin may do in their name; nobody else does.

use super::{Browser, asked, call, connect, documents, said, ticket, token_of, world::World};
use crate::harness::{Dev, text, until};

/// What ends each connection that the page shows.
fn endings(page: &str) -> Vec<String> {
    let found = page.split("name=\"end\" value=\"").skip(1);
    found.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn a_principal_ends_their_own_connection_and_the_authorization_server_is_told() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "eve"));
    let (url, _) = asked(&call(&dev, &bot, None));
    connect(&dev, &bot, "ann-account");
    connect(&dev, &eve, "eve-account");
    let (at, own) = (format!("{}/connections", dev.base()), dev.base());
    let mut browser = Browser::default();
    let asks = browser.get(&at);
    assert!(asks.status == 200 && asks.text.contains("name=\"token\"") && !asks.text.contains("<code>"), "{asks:?}");
    let shown = browser.post(&at, &[("token", &bot)], &[("origin", &own)]);
    assert!(shown.status == 200 && shown.text.contains("<code>bot</code>"), "{shown:?}");
    assert!(shown.text.contains("mail:read") && !shown.text.contains("eve"), "{shown:?}");
    let ends = endings(&shown.text);
    assert_eq!(ends.len(), 1, "{shown:?}");
    let end = &ends[0];

    let evil = "https://evil.example".to_owned();
    let middle = end.len() / 2;
    let other = if end.as_bytes()[middle] == b'a' { "b" } else { "a" };
    let changed = format!("{}{other}{}", &end[..middle], &end[middle + 1..]);
    let table = [
        ("a list without a token", "token", String::new(), &own, 403, "PV-CONNECT-IDENTITY"),
        ("a list with a token that is none", "token", "pv_nonsense".to_owned(), &own, 403, "PV-CONNECT-IDENTITY"),
        ("a list for a page of another site", "token", bot.clone(), &evil, 403, "PV-HTTP-ORIGIN"),
        ("an end from a page of another site", "end", end.clone(), &evil, 403, "PV-HTTP-ORIGIN"),
        ("an end with a changed text", "end", changed, &own, 400, "PV-CONNECT-TICKET"),
        ("an end with the address of a consent", "end", ticket(&url), &own, 400, "PV-CONNECT-TICKET"),
        ("an end with a token in its place", "end", bot.clone(), &own, 400, "PV-CONNECT-TICKET"),
    ];
    for (case, field, value, origin, status, code) in table {
        let page = Browser::default().post(&at, &[(field, &value)], &[("origin", origin)]);
        println!("own        | {case:58} | {} {code}", page.status);
        assert!(page.status == status && page.text.contains(code), "{case}: {page:?}");
        assert!(endings(&page.text).is_empty(), "{case}: {page:?}");
    }
    // Another principal is shown their own.
    let hers = Browser::default().post(&at, &[("token", &eve)], &[("origin", &own)]);
    assert!(hers.text.contains("<code>eve</code>") && !hers.text.contains("bot"), "{hers:?}");
    assert!(world.taken_back().is_empty());
    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");

    let ended = browser.post(&at, &[("end", end)], &[("origin", &own)]);
    assert!(ended.status == 200 && ended.text.contains("took its tokens back"), "{ended:?}");
    let told = world.taken_back();
    let kinds: Vec<_> =
        told.iter().map(|form| (form["token_type_hint"].as_str(), form["client_id"].as_str())).collect();
    assert_eq!(kinds, [("refresh_token", "gateway"), ("access_token", "gateway")]);
    until(|| (call(&dev, &bot, None)["result"]["resultType"] == "input_required").then_some(()));
    assert_eq!(said(&call(&dev, &eve, None)), "for eve-account, Bearer [redacted]");
    // It ends that consent only, once: not a later one.
    connect(&dev, &bot, "ann-account");
    let again = browser.post(&at, &[("end", end)], &[("origin", &own)]);
    assert!(again.status == 200 && again.text.contains("did not act"), "{again:?}");
    assert_eq!(said(&call(&dev, &bot, None)), "for ann-account, Bearer [redacted]");

    let events = text(&dev.cli(&["audit", "query", "--json"]));
    assert!(events.contains("ended by the principal; the authorization server took its tokens back"), "{events}");
    let pages = [asks, shown, ended, again].map(|page| page.text).concat();
    for secret in world.given() {
        assert!(!events.contains(&secret) && !pages.contains(&secret), "a token is shown");
    }
}

#[test]
fn a_connection_ends_here_though_the_authorization_server_cannot_be_told() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let bot = dev.token().to_owned();
    connect(&dev, &bot, "ann-account");
    world.refuse_revocation();
    let (at, own) = (format!("{}/connections", dev.base()), dev.base());
    let mut browser = Browser::default();
    let shown = browser.post(&at, &[("token", &bot)], &[("origin", &own)]);
    let ended = browser.post(&at, &[("end", &endings(&shown.text)[0])], &[("origin", &own)]);
    assert!(ended.status == 200 && ended.text.contains("could not be told"), "{ended:?}");
    until(|| (call(&dev, &bot, None)["result"]["resultType"] == "input_required").then_some(()));
    let events = text(&dev.cli(&["audit", "query", "--json"]));
    assert!(events.contains("could not be told") && events.contains("HTTP 503"), "{events}");
    for secret in world.given() {
        assert!(!events.contains(&secret) && !ended.text.contains(&secret), "a token is shown");
    }
}
