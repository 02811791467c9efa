//! Tokens that must not be taken, each but for one thing a good one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};

use crate::{
    harness::{Dev, modern, text},
    identity::{AUDIENCE, call, code, provider, resources, send},
    idp::{Idp, Key, now_s},
};

/// HMAC-SHA256 of a token under a "secret" that everybody knows: the public key.
fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let mark = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", B64.encode(mark))
}

#[test]
fn what_is_not_quite_good_is_refused() {
    let (rsa, ec, ed, stranger) = (Key::rsa(), Key::p256(), Key::ed25519(), Key::rsa());
    let idp = Idp::openid(vec![
        rsa.jwk("rsa"),
        ec.jwk("ec"),
        ed.jwk("ed"),
        json!({ "kty": "oct", "k": "AAAA", "kid": "oct" }),
    ]);
    let other = Idp::openid(vec![stranger.jwk("rsa")]);
    let dev = Dev::start(Some(&resources(&provider(&idp, json!({ "leewaySeconds": 60 })))), &[]);
    let good = idp.claims("ann", AUDIENCE, json!({}));
    let with = |more: Value| idp.claims("ann", AUDIENCE, more);
    let header = |more: Value| {
        let mut header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": "rsa" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header.to_string()
    };
    let body = good.to_string();
    // Good ones first: the table below would pass on a node that takes nothing.
    for token in [
        rsa.token("rsa", &good),
        ec.token("ec", &good),
        ed.token("ed", &good),
        rsa.token_of(&header(json!({ "typ": "JWT" })), &body),
        rsa.token_of(&json!({ "alg": "RS256", "kid": "rsa" }).to_string(), &body),
        rsa.token("rsa", &with(json!({ "aud": ["https://other.example", AUDIENCE], "nbf": now_s() - 10 }))),
        rsa.token("rsa", &with(json!({ "exp": now_s() - 1 }))),
    ] {
        let (status, _, answer) = call(&dev, &token, "echo.echo");
        assert_eq!(status, 200, "{answer}");
    }

    let modulus = rsa.jwk("rsa")["n"].as_str().unwrap().to_owned();
    let public = [B64.decode(&modulus).unwrap(), modulus.clone().into_bytes(), rsa.jwk("rsa").to_string().into_bytes()];
    let token = rsa.token("rsa", &good);
    let (head, rest) = token.split_once('.').unwrap();
    let (claims, mark) = rest.split_once('.').unwrap();
    let admin = B64.encode(idp.claims("gone", AUDIENCE, json!({})).to_string());
    let embedded = stranger.jwk("rsa");
    let mut bad = vec![
        ("the claims of another", format!("{head}.{admin}.{mark}"), "PV-AUTH-TOKEN"),
        ("no signature", format!("{head}.{claims}."), "PV-AUTH-TOKEN"),
        ("a cut signature", format!("{head}.{claims}.{}", &mark[..mark.len() - 4]), "PV-AUTH-TOKEN"),
        ("padding", format!("{head}.{claims}.{mark}=="), "PV-AUTH-TOKEN"),
        ("none", rsa.token_of(&header(json!({ "alg": "none" })), &body), "PV-AUTH-TOKEN"),
        ("none, unsigned", format!("{}.{claims}.", B64.encode(header(json!({ "alg": "none" })))), "PV-AUTH-TOKEN"),
        ("None", rsa.token_of(&header(json!({ "alg": "nOnE" })), &body), "PV-AUTH-TOKEN"),
        ("an algorithm that is not pinned", rsa.token_of(&header(json!({ "alg": "PS512" })), &body), "PV-AUTH-TOKEN"),
        ("a key of another kind", rsa.token_of(&header(json!({ "alg": "ES256" })), &body), "PV-AUTH-ISSUER-KEYS"),
        ("the kid of another key", rsa.token_of(&header(json!({ "kid": "ec" })), &body), "PV-AUTH-ISSUER-KEYS"),
        (
            "a kid that is a path",
            rsa.token_of(&header(json!({ "kid": "../../dev/null" })), &body),
            "PV-AUTH-ISSUER-KEYS",
        ),
        (
            "a kid that is SQL",
            rsa.token_of(&header(json!({ "kid": "x' UNION SELECT 'k" })), &body),
            "PV-AUTH-ISSUER-KEYS",
        ),
        ("a stranger's key under a known kid", stranger.token("rsa", &good), "PV-AUTH-TOKEN"),
        (
            "a key in the header",
            stranger.token_of(&header(json!({ "jwk": embedded, "kid": "rsa" })), &body),
            "PV-AUTH-TOKEN",
        ),
        (
            "a key elsewhere",
            stranger.token_of(&header(json!({ "jku": format!("{}/keys", other.issuer()) })), &body),
            "PV-AUTH-TOKEN",
        ),
        (
            "a critical extension",
            rsa.token_of(&header(json!({ "crit": ["b64"], "b64": false })), &body),
            "PV-AUTH-TOKEN",
        ),
        ("an ID-JAG", rsa.token_of(&header(json!({ "typ": "oauth-id-jag+jwt" })), &body), "PV-AUTH-TOKEN"),
        ("a logout token", rsa.token_of(&header(json!({ "typ": "logout+jwt" })), &body), "PV-AUTH-TOKEN"),
        ("an ID token", rsa.token("rsa", &with(json!({ "nonce": "n" }))), "PV-AUTH-TOKEN"),
        ("a token bound to a key", rsa.token("rsa", &with(json!({ "cnf": { "jkt": "x" } }))), "PV-AUTH-TOKEN"),
        ("another audience", rsa.token("rsa", &with(json!({ "aud": "https://mcp.example.com" }))), "PV-AUTH-AUDIENCE"),
        ("no audience", rsa.token("rsa", &with(json!({ "aud": null }))), "PV-AUTH-AUDIENCE"),
        (
            "an audience that only begins so",
            rsa.token("rsa", &with(json!({ "aud": format!("{AUDIENCE}x") }))),
            "PV-AUTH-AUDIENCE",
        ),
        ("over", rsa.token("rsa", &with(json!({ "exp": now_s() - 600 }))), "PV-AUTH-EXPIRED-TOKEN"),
        ("not yet", rsa.token("rsa", &with(json!({ "nbf": now_s() + 600 }))), "PV-AUTH-EXPIRED-TOKEN"),
        ("without end", rsa.token("rsa", &with(json!({ "exp": null }))), "PV-AUTH-TOKEN"),
        ("an end that is text", rsa.token("rsa", &with(json!({ "exp": "9999999999" }))), "PV-AUTH-TOKEN"),
        ("another issuer", rsa.token("rsa", &with(json!({ "iss": other.issuer() }))), "PV-AUTH-ISSUER"),
        (
            "an issuer with a slash",
            rsa.token("rsa", &with(json!({ "iss": format!("{}/", idp.issuer()) }))),
            "PV-AUTH-ISSUER",
        ),
        ("no issuer", rsa.token("rsa", &with(json!({ "iss": null }))), "PV-AUTH-TOKEN"),
        ("a disabled principal", rsa.token("rsa", &with(json!({ "sub": "gone" }))), "PV-AUTH-DISABLED"),
        ("no principal", rsa.token("rsa", &with(json!({ "sub": "eve" }))), "PV-AUTH-NO-PRINCIPAL"),
        ("another case", rsa.token("rsa", &with(json!({ "sub": "Ann" }))), "PV-AUTH-NO-PRINCIPAL"),
        ("no subject", rsa.token("rsa", &with(json!({ "sub": null }))), "PV-AUTH-NO-PRINCIPAL"),
    ];
    for twice in [r#""sub":"ann","sub":"gone""#, r#""sub":"gone","s\u0075b":"ann""#, r#""aud":"x","a\u0075d":"y""#] {
        let doubled = format!("{{{twice},{}", &body[1..]);
        bad.push(("a claim twice", rsa.token_of(&header(json!({})), &doubled), "PV-AUTH-TOKEN"));
    }
    let doubled = format!("{{\"alg\":\"RS256\",{}", &header(json!({ "alg": "none" }))[1..]);
    bad.push(("two algorithms", rsa.token_of(&doubled, &body), "PV-AUTH-TOKEN"));
    for secret in &public {
        let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": "rsa" });
        bad.push(("the public key as a secret", hs256(&header, &good, secret), "PV-AUTH-TOKEN"));
    }
    let shared = json!({ "alg": "HS256", "kid": "oct" });
    bad.push(("a published secret", hs256(&shared, &good, &[0, 0, 0]), "PV-AUTH-TOKEN"));

    println!("identity: {} tokens that are not quite good", bad.len());
    for (what, token, expect) in bad {
        let (status, challenge, answer) = call(&dev, &token, "echo.echo");
        assert_eq!((status, code(&answer)), (401, expect), "{what}: {answer}");
        assert!(challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
        assert!(!answer.to_string().contains(token.rsplit('.').next().unwrap()) || token.ends_with('.'), "{what}");
    }
    assert_eq!(other.asked_for_anything(), 0, "nothing is fetched for a header or an unknown issuer");
}

#[test]
fn a_token_is_good_for_one_tenant_and_never_in_a_url() {
    let (ours, theirs) = (Key::p256(), Key::p256());
    let (acme, globex) = (Idp::openid(vec![ours.jwk("1")]), Idp::openid(vec![theirs.jwk("1")]));
    let mut yaml = resources(&provider(&acme, json!({})));
    yaml += "---\napiVersion: provost/v1\nkind: Tenant\nmetadata: { name: globex }\nspec: {}\n";
    for (kind, name, spec) in [
        ("Principal", "ann", "{}".to_owned()),
        ("Plugin", "gx", "{ source: { builtin: { name: echo } } }".to_owned()),
        ("Role", "user", "{ rules: [ { tools: ['*'] } ] }".to_owned()),
        ("RoleBinding", "users", "{ role: user, principals: [ann] }".to_owned()),
        ("IdentityProvider", "id", provider(&globex, json!({})).to_string()),
    ] {
        yaml += &format!(
            "---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: globex }}\nspec: {spec}\n"
        );
    }
    let dev = Dev::start(Some(&yaml), &[]);
    let mine = ours.token("1", &acme.claims("ann", AUDIENCE, json!({})));
    let their = theirs.token("1", &globex.claims("ann", AUDIENCE, json!({})));
    assert_eq!(call(&dev, &mine, "echo.echo").0, 200);
    assert_eq!(call(&dev, &their, "gx.echo").2["result"]["content"][0]["text"], "hi");
    // The same name in another tenant is somebody else.
    assert_ne!(call(&dev, &mine, "gx.echo").2["error"], Value::Null);
    assert_ne!(call(&dev, &their, "echo.echo").2["error"], Value::Null);
    // An issuer's key does not sign for another issuer.
    let forged = ours.token("1", &globex.claims("ann", AUDIENCE, json!({})));
    assert_eq!(code(&call(&dev, &forged, "gx.echo").2), "PV-AUTH-TOKEN");

    for query in [format!("access_token={mine}"), format!("x=1&access_token={mine}"), format!("access%5Ftoken={mine}")]
    {
        let body = modern("tools/list", json!({}));
        for token in ["", mine.as_str()] {
            let (status, challenge, answer) = send(&format!("{}?{query}", dev.mcp()), token, &body);
            assert_eq!((status, code(&answer)), (400, "PV-AUTH-QUERY"), "{answer}");
            assert!(challenge.contains("error=\"invalid_request\""), "{challenge}");
        }
    }

    // One issuer has one owner.
    let dir = tempfile::tempdir().unwrap();
    let again = format!(
        "apiVersion: provost/v1\nkind: IdentityProvider\nmetadata: {{ name: again, tenant: globex }}\nspec: {}\n",
        provider(&acme, json!({}))
    );
    std::fs::write(dir.path().join("again.yaml"), again).unwrap();
    let output = dev.cli(&["apply", "-f", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("another tenant") && text(&output).contains("spec.issuer"), "{}", text(&output));
}
