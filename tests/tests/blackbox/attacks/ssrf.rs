//! Documents that want the gateway to reach what it must not, and upstreams that send it on.

use serde_json::json;

use super::{
    apply,
    upstream::{Answers, Upstream},
    verdict,
};
use crate::harness::{Dev, call_tool, until, upstream_yaml};

fn plugin(name: &str, source: &str) -> String {
    format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: {name}, tenant: acme }}\n\
         spec: {{ source: {{ mcp-http: {{ {source} }} }} }}\n"
    )
}

#[test]
fn forbidden_addresses_are_refused_by_the_document_or_by_the_node() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    // What no document may say.
    for (url, field) in [
        ("http://example.com/mcp", "must be `https://"),
        ("http://10.0.0.1/mcp", "must be `https://"),
        ("http://169.254.169.254/latest/meta-data", "must be `https://"),
        ("https://user:pass@example.com/mcp", "user name or password"),
        ("ftp://example.com/", "must be `https://"),
        ("file:///etc/passwd", "must be `https://"),
        ("https://[fe80::1%25eth0]/mcp", "not a URL"),
    ] {
        let (taken, said) = apply(&dev, &plugin("bad", &format!("url: '{url}'")));
        verdict("ssrf", url, "refused by the document");
        assert!(!taken && said.contains(field), "{url}: {said}");
    }
    let opened = [
        ("allowPrivate: ['0.0.0.0/0']", "cannot be opened"),
        ("allowPrivate: ['169.254.169.254/32']", "cannot be opened"),
        ("allowPrivate: ['fe80::/10']", "cannot be opened"),
        ("allowPrivate: ['10.0.0.0/4']", "cannot be opened"),
        ("allowHosts: ['other.example']", "lacks `example.com`"),
        ("allowHosts: ['*']", "not a host name"),
    ];
    for (egress, why) in opened {
        let (taken, said) =
            apply(&dev, &plugin("bad", &format!("url: 'https://example.com/mcp', egress: {{ {egress} }}")));
        verdict("ssrf", egress, "refused by the document");
        assert!(!taken && said.contains(why), "{egress}: {said}");
    }
    // What a document may say, and the node does not do.
    let urls = [
        "https://10.0.0.1/mcp",
        "https://192.168.0.1/mcp",
        "https://169.254.169.254/latest/meta-data",
        "https://100.100.100.200/latest/meta-data",
        "https://168.63.129.16/",
        "https://0xa9fea9fe/",
        "https://2852039166/",
        "https://0251.0376.0251.0376/",
        "https://10.1/",
        "https://0.0.0.0/",
        "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1]/",
        "https://224.0.0.1/",
    ];
    let mut documents: Vec<String> =
        urls.iter().enumerate().map(|(i, url)| plugin(&format!("p{i}"), &format!("url: '{url}'"))).collect();
    // A document opens a range, and this node lets none be opened.
    documents.push(plugin("opened", "url: 'https://10.0.0.1/mcp', egress: { allowPrivate: ['10.0.0.0/8'] }"));
    let (taken, said) = apply(&dev, &documents.join("---\n"));
    assert!(taken, "{said}");
    let names = (0..urls.len()).map(|i| format!("p{i}")).chain(["opened".to_owned()]);
    for (name, url) in names.zip(urls.into_iter().chain(["https://10.0.0.1/mcp with allowPrivate"])) {
        let call = || call_tool(&dev, &format!("{name}.t"), json!({}));
        let answer = until(|| Some(call()).filter(|answer| answer["error"]["code"] != -32602));
        let code = answer["error"]["data"]["code"].as_str().unwrap_or("none").to_owned();
        verdict("ssrf", url, &code);
        assert_eq!(code, "PV-UPSTREAM-ADDRESS-REFUSED", "{url}: {answer}");
    }
}

#[test]
fn an_upstream_that_sends_the_gateway_on_is_not_followed() {
    let inside = Upstream::start(Answers::Echo);
    let ends: Vec<(u16, Upstream)> = [301, 302, 303, 307, 308]
        .into_iter()
        .map(|status| {
            let headers = vec![("location", inside.url.clone()), ("content-type", "text/plain".to_owned())];
            (status, Upstream::start(Answers::Raw(status, headers, Vec::new())))
        })
        .collect();
    let plugins: Vec<String> =
        ends.iter().map(|(status, up)| plugin(&format!("r{status}"), &format!("url: '{}'", up.url))).collect();
    let yaml = format!("{}---\n{}", upstream_yaml("http://127.0.0.1:9/mcp"), plugins.join("---\n"));
    let dev = Dev::start(Some(&yaml), &[]);
    for (status, up) in &ends {
        let answer = call_tool(&dev, &format!("r{status}.t"), json!({}));
        let code = answer["error"]["data"]["code"].as_str().unwrap_or("none").to_owned();
        verdict("redirect", &status.to_string(), &code);
        assert_eq!(code, "PV-UPSTREAM-HTTP", "{answer}");
        assert!(up.seen().iter().any(|said| said.contains("tools/call")), "the call never came there");
    }
    assert!(inside.seen().is_empty(), "it was followed: {:?}", inside.seen());
}
