//! Who wants another's consent, or to have another end what they began.

use super::{Browser, asked, begin, call, consent, documents, said, ticket, token_of, world::World};
use crate::harness::Dev;

fn verdict(case: &str, became: &str) {
    println!("connect    | {case:58} | {became}");
}

/// The address with one parameter replaced; `None` leaves it out.
fn with(url: &str, key: &str, value: Option<&str>) -> String {
    let mut url = url::Url::parse(url).unwrap();
    let pairs: Vec<(String, String)> =
        url.query_pairs().filter(|(k, _)| k != key).map(|(k, v)| (k.into(), v.into())).collect();
    url.query_pairs_mut().clear().extend_pairs(pairs).extend_pairs(value.map(|value| (key, value)));
    url.into()
}

fn changed(text: &str) -> String {
    let at = text.len() / 2;
    let other = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

#[test]
fn an_address_is_for_the_principal_whose_call_named_it() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "eve"));
    let elsewhere = Dev::start(Some(&documents(&world)), &[]);
    // Eve would have bot consent for her: the address is of her call.
    let (url, _) = asked(&call(&dev, &eve, None));
    let (foreign, _) = asked(&call(&elsewhere, elsewhere.token(), None));
    let (own, start) = (ticket(&url), format!("{}/connect", dev.base()));
    let evil = "https://evil.example".to_owned();
    let table = [
        ("another principal's token", own.clone(), bot.clone(), dev.base(), 403, "PV-CONNECT-IDENTITY"),
        ("no token", own.clone(), String::new(), dev.base(), 403, "PV-CONNECT-IDENTITY"),
        ("a token that is none", own.clone(), "pv_nonsense".to_owned(), dev.base(), 403, "PV-CONNECT-IDENTITY"),
        ("from a page of another site", own.clone(), eve.clone(), evil, 403, "PV-HTTP-ORIGIN"),
        ("from nowhere", own.clone(), eve.clone(), "null".to_owned(), 403, "PV-HTTP-ORIGIN"),
        ("a changed ticket", changed(&own), eve.clone(), dev.base(), 400, "PV-CONNECT-TICKET"),
        ("another cluster's ticket", ticket(&foreign), bot.clone(), dev.base(), 400, "PV-CONNECT-TICKET"),
        ("no ticket", String::new(), eve.clone(), dev.base(), 400, "PV-CONNECT-TICKET"),
    ];
    for (case, ticket, token, origin, status, code) in table {
        let mut browser = Browser::default();
        let page = browser.post(&start, &[("ticket", &ticket), ("token", &token)], &[("origin", &origin)]);
        verdict(case, &format!("{} {code}", page.status));
        assert!(page.status == status && page.text.contains(code), "{case}: {page:?}");
        assert!(page.location.is_empty() && browser.cookies.is_empty(), "{case}: {page:?}");
    }
    assert!(world.asked().is_empty());
    // Her own account she may connect.
    let mut browser = Browser::default();
    let page = begin(&dev, &mut browser, &url, &eve);
    let back = consent(&mut browser, &page, "eve-account");
    assert_eq!(browser.get(&back).status, 200);
    // And the address leads nowhere any more.
    let again = browser.get(&url);
    assert!(again.status == 400 && again.text.contains("PV-CONNECT-TICKET"), "{again:?}");
}

#[test]
fn an_answer_counts_once_in_the_browser_that_began_it_and_of_the_server_that_was_asked() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "eve"));
    let (url, state) = asked(&call(&dev, &bot, None));
    let mut browser = Browser::default();
    let page = begin(&dev, &mut browser, &url, &bot);
    let back = consent(&mut browser, &page, "ann-account");
    // Eve has begun a flow of her own in her browser.
    let mut hers = Browser::default();
    let (her_url, _) = asked(&call(&dev, &eve, None));
    let her_page = begin(&dev, &mut hers, &her_url, &eve);
    let her_back = consent(&mut hers, &her_page, "eve-account");
    let param = |url: &str, key: &str| {
        url::Url::parse(url).unwrap().query_pairs().find(|(k, _)| k == key).unwrap().1.into_owned()
    };
    let (my_state, her_state) = (param(&back, "state"), param(&her_back, "state"));
    // Her cookie under the name of his flow, and the other way round.
    let mut mixed = Browser::default();
    let of = |browser: &Browser| browser.cookies.iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap();
    let ((my_name, my_value), (her_name, her_value)) = (of(&browser), of(&hers));
    mixed.cookies.insert(my_name.clone(), her_value.clone());
    let mut tampered = browser.clone();
    tampered.cookies.insert(my_name.clone(), changed(&my_value));
    let mut both = browser.clone();
    both.cookies.insert(her_name, her_value);
    let table = [
        ("in a browser that began nothing", Browser::default(), back.clone()),
        ("in the browser of another", hers.clone(), back.clone()),
        ("with another flow's cookie", mixed, back.clone()),
        ("with a changed cookie", tampered, back.clone()),
        ("with a changed state", browser.clone(), with(&back, "state", Some(&changed(&my_state)))),
        ("without a state", browser.clone(), with(&back, "state", None)),
        ("with two states", both.clone(), format!("{back}&state={her_state}")),
        ("from another authorization server", browser.clone(), with(&back, "iss", Some("https://evil.example"))),
        ("from one that does not say which", browser.clone(), with(&back, "iss", None)),
        ("for another plugin", browser.clone(), back.replace("/acme/up", "/acme/other")),
        ("for another tenant", browser.clone(), back.replace("/acme/up", "/blue/up")),
        ("without a code", browser.clone(), with(&back, "code", None)),
        (
            "with an error in its place",
            browser.clone(),
            with(&with(&back, "code", None), "error", Some("access_denied")),
        ),
    ];
    for (case, mut browser, url) in table {
        let page = browser.get(&url);
        let code =
            page.text.split("<code>").last().unwrap_or_default().split('<').next().unwrap_or_default().to_owned();
        verdict(case, &format!("{} {code}", page.status));
        assert!(page.status == 400 && code.starts_with("PV-CONNECT-"), "{case}: {page:?}");
        assert!(world.asked().is_empty(), "{case}: the code was sent on");
    }
    // A code of somebody else's: PKCE binds it to the flow that asked for it.
    let mut injected = browser.clone();
    let page = injected.get(&with(&back, "code", Some(&param(&her_back, "code"))));
    verdict("with the code of another's flow", &format!("{} PV-CONNECT-FAILED", page.status));
    assert!(page.status == 502 && page.text.contains("PV-CONNECT-FAILED"), "{page:?}");
    assert_eq!(world.asked().len(), 1);
    // The good one counts, and counts once.
    let mut replayed = browser.clone();
    assert_eq!(browser.get(&back).status, 200);
    let page = replayed.get(&back);
    verdict("again", &format!("{} PV-CONNECT-STATE", page.status));
    assert!(page.status == 400 && page.text.contains("PV-CONNECT-STATE"), "{page:?}");
    assert_eq!(world.asked().len(), 2, "the code was sent on twice");
    assert_eq!(said(&call(&dev, &bot, Some((&state, "accept")))), "for ann-account, Bearer [redacted]");
    // Eve still has nothing.
    asked(&call(&dev, &eve, None));
}
