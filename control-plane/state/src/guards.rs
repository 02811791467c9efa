//! The rules that guards keep, each by itself and those of a tenant together.
//!
//! Invariants: what a node compiles for one call is bounded, whatever is applied: the words and paths of
//! one guard, and the guards of a tenant. Kinds, actions and paths are checked where documents are read.

use std::collections::{BTreeMap, BTreeSet};

use provost_types::{GuardDictionary, GuardExternal, GuardSpec, Kind, Name, ResourceKey, Spec};

use crate::{Problem, Resources, fields::Check};

const CODE: &str = "PV-RES-FIELD";
/// Guards of one tenant.
const MAX_GUARDS: usize = 64;
/// External guards of one tenant: a call may wait for each.
const MAX_EXTERNAL: usize = 4;
/// Longest wait for one.
const MAX_TIMEOUT_MS: u64 = 30_000;
/// Rules of one guard.
const MAX_RULES: usize = 32;
/// Dictionaries of one guard.
const MAX_DICTIONARIES: usize = 16;
/// Words of one guard, over all its dictionaries.
const MAX_WORDS: usize = 2_000;
/// Paths of one guard.
const MAX_PATHS: usize = 64;
/// Bytes of the shortest word: a single letter is in every text.
const MIN_WORD_BYTES: usize = 2;
/// Bytes of the longest word. A stream holds back as much.
const MAX_WORD_BYTES: usize = 128;

/// Checks one guard by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &GuardSpec) {
    let rules = !spec.rules.is_empty() || !spec.dictionaries.is_empty() || !spec.paths.is_empty();
    let does_something = rules || spec.external.is_some();
    check.require(does_something, "spec", || {
        "protects nothing: give `rules`, `dictionaries`, `paths` or `external`; `provost explain Guard` lists the kinds".into()
    });
    check.require(!spec.directions.is_empty(), "spec.directions", || {
        "looks no way: `arguments`, `results`, or leave it out for both".into()
    });
    check.patterns("spec.tools", &spec.tools);
    at_most(check, "spec.rules", spec.rules.len(), MAX_RULES);
    at_most(check, "spec.dictionaries", spec.dictionaries.len(), MAX_DICTIONARIES);
    at_most(check, "spec.paths", spec.paths.len(), MAX_PATHS);
    let words = spec.dictionaries.iter().map(|d| d.words.len()).sum();
    at_most(check, "spec.dictionaries", words, MAX_WORDS);
    if let Some(reveal) = &spec.reveal {
        check.require(spec.tokenises(), "spec.reveal", || {
            "gives back what nothing tokenises: give a rule, dictionary or path the action `tokenise`".into()
        });
        check.require(!reveal.principals.is_empty() || !reveal.roles.is_empty(), "spec.reveal", || {
            "names nobody: give `principals` or `roles`, or leave `reveal` out".into()
        });
        check.require(!reveal.directions.is_empty(), "spec.reveal.directions", || {
            "looks no way: `arguments`, `results`, or leave it out for results".into()
        });
    }
    if let Some(external) = &spec.external {
        check_external(check, external);
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        check.require(!rule.kinds.is_empty(), &format!("spec.rules[{i}].kinds"), || "names no kind".into());
    }
    let mut names = BTreeSet::new();
    for (i, dictionary) in spec.dictionaries.iter().enumerate() {
        check.require(names.insert(&dictionary.name), &format!("spec.dictionaries[{i}].name"), || {
            format!("`{}` is the name of a dictionary before; put the words into one", dictionary.name)
        });
        words_of(check, &format!("spec.dictionaries[{i}].words"), dictionary);
    }
}

fn check_external(check: &mut Check<'_>, external: &GuardExternal) {
    crate::upstreams::endpoint(check, "spec.external.url", &external.url);
    check.require((1..=MAX_TIMEOUT_MS).contains(&external.timeout_ms), "spec.external.timeoutMs", || {
        format!("is {}; it can be 1 to {MAX_TIMEOUT_MS}", external.timeout_ms)
    });
    if let Some(auth) = &external.auth {
        check.require(auth.secrets().next().is_some(), "spec.external.auth", || {
            "shows nothing: give `bearer`, `certificate`, or both, or leave it out".into()
        });
        let is_tls = external.url.starts_with("https://");
        check.require(auth.certificate.is_none() || is_tls, "spec.external.auth.certificate", || {
            "is for TLS: give a `url` with https://".into()
        });
    }
    if let Some(egress) = &external.egress {
        let hosts = crate::upstreams::egress_entries(check, "spec.external.egress", egress);
        crate::upstreams::names_own_host(check, "spec.external.egress", &hosts, &external.url);
    }
}

fn at_most(check: &mut Check<'_>, field: &str, given: usize, most: usize) {
    check.require(given <= most, field, || format!("{given} are given; at most {most} can be"));
}

fn words_of(check: &mut Check<'_>, field: &str, dictionary: &GuardDictionary) {
    check.require(!dictionary.words.is_empty(), field, || "holds no word".into());
    for word in &dictionary.words {
        // A word is protected: a problem shows no more of it than is needed to find it.
        let begin: String = word.chars().take(2).collect();
        check.require((MIN_WORD_BYTES..=MAX_WORD_BYTES).contains(&word.len()), field, || {
            format!("`{begin}…` has {} bytes; a word has {MIN_WORD_BYTES} to {MAX_WORD_BYTES}", word.len())
        });
        let plain = !word.chars().any(|c| c.is_control() || matches!(c, '"' | '\\'));
        check.require(plain, field, || format!("`{begin}…` has a quote, a backslash or a control character"));
        check.require(word.trim() == word && word.chars().any(char::is_alphanumeric), field, || {
            format!("`{begin}…` begins or ends with a blank, or has neither letter nor digit")
        });
    }
}

/// Checks that no tenant has more guards than a call may have to be looked at with.
pub(crate) fn check_together(all: &Resources, problems: &mut Vec<Problem>) {
    let mut of_tenant: BTreeMap<Option<&Name>, usize> = BTreeMap::new();
    let mut external: BTreeMap<Option<&Name>, usize> = BTreeMap::new();
    for (key, resource) in all.iter().filter(|(key, _)| key.kind == Kind::Guard) {
        let count = of_tenant.entry(key.tenant.as_ref()).or_default();
        *count += 1;
        if *count == MAX_GUARDS + 1 {
            problems.push(too_many(key));
        }
        if matches!(&resource.spec, Spec::Guard(spec) if spec.external.is_some()) {
            let count = external.entry(key.tenant.as_ref()).or_default();
            *count += 1;
            if *count == MAX_EXTERNAL + 1 {
                let text =
                    format!("the tenant has {MAX_EXTERNAL} external guards already; a call asks one after the other");
                problems.push(Problem::of_field(key, "spec.external", CODE, text));
            }
        }
    }
}

fn too_many(key: &ResourceKey) -> Problem {
    let text = format!("the tenant has {MAX_GUARDS} guards already; put rules into one of them");
    Problem::of_field(key, "metadata.name", CODE, text)
}
