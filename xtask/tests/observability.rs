//! What watches a cluster names what there is: metrics of the table in `docs/observability.md`, and a runbook for each alert.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_path_buf()
}

fn deployed(path: &str) -> String {
    let path = root().join("deploy/observability").join(path);
    fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// The dashboards, by the names of their files.
fn dashboards() -> Vec<(String, Value)> {
    let entries = fs::read_dir(root().join("deploy/observability/grafana/dashboards")).unwrap();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap())
    };
    let all: Vec<_> = entries.map(|entry| read(entry.unwrap().path())).collect();
    assert!(all.len() >= 4, "{} dashboards", all.len());
    all
}

/// The metrics of the table, with the series that Prometheus makes of a histogram in its place.
fn known() -> BTreeSet<String> {
    let docs = fs::read_to_string(root().join("docs/observability.md")).unwrap();
    let mut known = BTreeSet::new();
    for row in docs.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (name, kind) = (cells.next().unwrap().trim_matches('`'), cells.next().unwrap());
        match kind {
            "histogram" => known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))),
            "counter" | "gauge" => {
                known.insert(name.to_owned());
            }
            other => panic!("{name}: `{other}` is no type of a metric"),
        }
    }
    assert!(known.len() > 50, "only {} metrics are in the table", known.len());
    known
}

/// The names of ours in a query.
fn named(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("provost_") || word.starts_with("process_")).collect()
}

#[test]
fn dashboards_and_rules_name_metrics_of_the_table() {
    let known = known();
    let mut wrong = Vec::new();
    let mut check = |place: &str, query: &str| {
        wrong.extend(
            named(query).into_iter().filter(|name| !known.contains(*name)).map(|name| format!("{place}: {name}")),
        );
    };
    for (file, dashboard) in dashboards() {
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(!panels.is_empty(), "{file}");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{file}: {title} asks for nothing");
            for target in targets {
                check(&format!("{file}: {title}"), target["expr"].as_str().unwrap());
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            check(&format!("{file}: variable"), variable["query"]["query"].as_str().unwrap());
        }
    }
    let rules = deployed("prometheus/rules.yml");
    // `provost-calls` and the like are names of groups, which have no underscore.
    rules.lines().for_each(|line| check("rules.yml", line));
    assert!(wrong.is_empty(), "not in docs/observability.md:\n{}", wrong.join("\n"));
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let rules = deployed("prometheus/rules.yml");
    let table = fs::read_to_string(root().join("docs/runbooks/README.md")).unwrap();
    let (mut alerts, mut pages) = (Vec::new(), BTreeSet::from(["README.md".to_owned()]));
    for line in rules.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            alerts.push(alert.to_owned());
        }
        if let Some(page) = line.strip_prefix("runbook: ") {
            let alert = alerts.last().expect("a runbook stands below its alert");
            let text = fs::read_to_string(root().join(page)).unwrap_or_else(|cause| panic!("{page}: {cause}"));
            assert!(text.starts_with(&format!("# {alert}\n")), "{page} is not the page of {alert}");
            let file = page.strip_prefix("docs/runbooks/").expect("runbooks are in docs/runbooks");
            assert!(table.contains(&format!("[{alert}]({file})")), "{alert} is not in docs/runbooks/README.md");
            pages.insert(file.to_owned());
        }
    }
    assert_eq!(pages.len(), alerts.len() + 1, "an alert without a runbook");
    let there = fs::read_dir(root().join("docs/runbooks")).unwrap();
    let there: BTreeSet<String> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, pages);
}
