//! The endpoints of one upstream: where a call goes, and which endpoint may take any.
//!
//! Purpose: several equal endpoints (`moreUrls`) behind one plugin. With one there is nothing to decide.
//! Invariants: an endpoint that shows other tools than the plugin does gets no calls; what the plugin shows changes
//! only when no endpoint that answers shows it any more, and is then subject to pins as everything new is; each call
//! counts once for the endpoint that it ended at.
//! Left out: the decisions (`resilience::outliers`), how endpoints are looked at (`mcp::looks`).

use std::time::Instant;

use parking_lot::Mutex;
use provost_types::{Name, OutlierSpec};
use sha2::{Digest, Sha256};

use super::http::HttpTarget;
use crate::{
    Definition,
    resilience::{
        Tries, Verdict,
        outliers::{Moved, Outliers, Standing},
    },
};

/// All of them.
pub(crate) struct Endpoints {
    tenant: Name,
    plugin: Name,
    targets: Vec<HttpTarget>,
    /// As they stand in the document, for people.
    urls: Vec<String>,
    machine: Mutex<Outliers>,
    /// What the plugin shows, as `digest` of its tools.
    shown: Mutex<Option<String>>,
    made: Instant,
}

/// One endpoint, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Its URL without query.
    pub url: String,
    /// Calls of this node that run there.
    pub running: u32,
    /// It failed and gets no calls.
    pub is_ejected: bool,
    /// It shows other tools than the plugin and gets no calls.
    pub differs: bool,
}

impl Endpoints {
    /// The targets with their URLs, numbered in this order.
    pub(crate) fn new(tenant: Name, plugin: Name, targets: Vec<(String, HttpTarget)>, spec: OutlierSpec) -> Self {
        let (urls, targets): (Vec<_>, Vec<_>) = targets.into_iter().unzip();
        let machine = Mutex::new(Outliers::new(spec, targets.len()));
        Self { tenant, plugin, targets, urls, machine, shown: Mutex::new(None), made: Instant::now() }
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is a choice.
    pub(super) fn are_several(&self) -> bool {
        self.targets.len() > 1
    }

    /// The endpoint of this number; the first one if there is none.
    pub(super) fn target(&self, number: usize) -> &HttpTarget {
        // A plugin has at least one; a number of another node's is of the same document.
        self.targets.get(number).unwrap_or(&self.targets[0])
    }

    /// A call's way to one of them.
    pub(super) fn turn<'a>(&'a self, tries: &'a Tries) -> Turn<'a> {
        Turn { endpoints: Some(self), tries, at: None }
    }

    /// One for something that is no call.
    pub(super) fn choose(&self, tries: &Tries) -> usize {
        let at = match self.are_several() {
            true => self.machine.lock().choose(tries.mask(), rand::random()),
            false => 0,
        };
        tries.add(at);
        at
    }

    /// Whether it gets no new calls.
    pub(super) fn is_out(&self, at: usize) -> bool {
        self.machine.lock().standing(at) != Standing::In
    }

    /// Whether it shows other tools than the plugin.
    pub(super) fn differs(&self, at: usize) -> bool {
        self.machine.lock().standing(at) == Standing::Differs
    }

    /// Whether one in good standing is left for a call that was at some.
    pub(super) fn has_other(&self, tries: &Tries) -> bool {
        self.are_several() && self.machine.lock().has_other(tries.mask())
    }

    /// The ones to be looked at with the plugin's own lists: all that are not ejected.
    pub(super) fn to_look_at(&self) -> Vec<usize> {
        let machine = self.machine.lock();
        let is_up = |at: &usize| !matches!(machine.standing(*at), Standing::Ejected { .. });
        let up: Vec<usize> = (0..self.targets.len()).filter(is_up).collect();
        if up.iter().any(|at| machine.standing(*at) == Standing::In) { up } else { (0..self.targets.len()).collect() }
    }

    /// The ejected ones that are to be looked at now, once each.
    pub(super) fn due(&self) -> Vec<usize> {
        self.machine.lock().due(self.now_ms())
    }

    /// How a look at one ended, with the tools that it showed.
    pub(super) fn looked(&self, at: usize, tools: Option<&[Definition]>) {
        let shows = tools.map(|tools| {
            let seen = digest(tools);
            *self.shown.lock().get_or_insert_with(|| seen.clone()) == seen
        });
        let moved = self.machine.lock().looked(at, shows, self.now_ms());
        self.tell(at, moved);
    }

    /// What the plugin shows after these were seen; the place in `seen` of one that shows it.
    pub(super) fn agree(&self, seen: &[(usize, &[Definition])]) -> Option<usize> {
        let digests: Vec<String> = seen.iter().map(|(_, tools)| digest(tools)).collect();
        let place = {
            let mut shown = self.shown.lock();
            let place = agreed(shown.as_deref(), &digests)?;
            *shown = Some(digests[place].clone());
            place
        };
        for (at, tools) in seen {
            self.looked(*at, Some(tools));
        }
        Some(place)
    }

    /// How they stand.
    pub(crate) fn view(&self) -> Vec<EndpointView> {
        let machine = self.machine.lock();
        let views = self.urls.iter().zip(machine.view());
        views
            .map(|(url, (running, standing))| EndpointView {
                url: url.split(['?', '#']).next().unwrap_or_default().to_owned(),
                running,
                is_ejected: matches!(standing, Standing::Ejected { .. }),
                differs: standing == Standing::Differs,
            })
            .collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, at: usize, moved: Option<Moved>) {
        let (tenant, plugin) = (&self.tenant, &self.plugin);
        let url = self.urls.get(at).and_then(|url| url.split(['?', '#']).next()).unwrap_or_default();
        match moved {
            None => {}
            Some(Moved::Ejected { for_ms }) => tracing::warn!(
                %tenant, %plugin, url, for_ms,
                "an endpoint fails and gets no calls until a look at it succeeds"
            ),
            Some(Moved::Readmitted) => {
                tracing::info!(%tenant, %plugin, url, "an endpoint answers as it should and gets calls again");
            }
            Some(Moved::SetAside) => tracing::warn!(
                code = "PV-UPSTREAM-DIFFERS",
                %tenant, %plugin, url,
                "an endpoint shows other tools than the plugin's other endpoints and gets no calls"
            ),
        }
    }
}

/// Which of the digests the plugin shows: what it showed, while somebody does, else what most show, of equally many
/// the first.
fn agreed(shown: Option<&str>, digests: &[String]) -> Option<usize> {
    let same = shown.and_then(|shown| digests.iter().position(|digest| digest == shown));
    same.or_else(|| {
        let count = |place: usize| digests.iter().filter(|other| **other == digests[place]).count();
        // `max_by_key` takes the last of equals.
        (0..digests.len()).rev().max_by_key(|place| count(*place))
    })
}

/// What tells two lists of tools apart: the pinned part of each, in whatever order.
fn digest(tools: &[Definition]) -> String {
    let mut forms: Vec<String> = tools.iter().map(Definition::canonical).collect();
    forms.sort_unstable();
    let mut hash = Sha256::new();
    for form in forms {
        hash.update((form.len() as u64).to_be_bytes());
        hash.update(form);
    }
    hex::encode(hash.finalize())
}

/// A call's way to an endpoint: where it is counted until it ends.
pub(super) struct Turn<'a> {
    /// `None`: there is but one place.
    endpoints: Option<&'a Endpoints>,
    tries: &'a Tries,
    at: Option<usize>,
}

impl<'a> Turn<'a> {
    /// For a process.
    pub(super) fn nowhere(tries: &'a Tries) -> Self {
        Self { endpoints: None, tries, at: None }
    }

    /// Where it goes; chosen the first time.
    pub(super) fn at(&mut self) -> usize {
        let Some(endpoints) = self.endpoints else { return 0 };
        match self.at {
            Some(at) => at,
            None => {
                let at = endpoints.choose(self.tries);
                self.go(at);
                at
            }
        }
    }

    /// It goes there, because what it is about lives there.
    pub(super) fn go(&mut self, at: usize) {
        let Some(endpoints) = self.endpoints else { return };
        if self.at == Some(at) {
            return;
        }
        self.leave(Verdict::Neither);
        endpoints.machine.lock().begin(at);
        self.tries.add(at);
        self.at = Some(at);
    }

    /// It ended like this.
    pub(super) fn settle(mut self, verdict: Verdict) {
        self.leave(verdict);
    }

    fn leave(&mut self, verdict: Verdict) {
        let (Some(endpoints), Some(at)) = (self.endpoints, self.at.take()) else { return };
        let moved = endpoints.machine.lock().end(at, verdict, endpoints.now_ms());
        endpoints.tell(at, moved);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.leave(Verdict::Neither);
    }
}

#[cfg(test)]
mod tests {
    use provost_mcp::RawJson;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_shown_stays_while_somebody_shows_it() {
        type Case<'a> = (Option<&'a str>, &'a [&'a str], Option<usize>);
        let table: [Case<'_>; 8] = [
            (None, &[], None),
            (Some("a"), &[], None),
            (None, &["a"], Some(0)),
            (None, &["a", "b"], Some(0)),
            (None, &["a", "b", "b"], Some(1)),
            (Some("a"), &["b", "b", "a"], Some(2)),
            (Some("a"), &["c", "b", "b"], Some(1)),
            (Some("a"), &["b", "c"], Some(0)),
        ];
        for (shown, digests, expect) in table {
            let digests: Vec<String> = digests.iter().map(|&d| d.to_owned()).collect();
            assert_eq!(agreed(shown, &digests), expect, "{shown:?} {digests:?}");
        }
    }

    #[test]
    fn lists_are_told_apart_by_what_is_pinned_of_them() {
        let tool = |name: &str, more: serde_json::Value| {
            let mut raw = json!({"name": name, "inputSchema": {"type": "object"}});
            raw.as_object_mut().into_iter().for_each(|o| o.extend(more.as_object().cloned().unwrap_or_default()));
            Definition { name: name.to_owned(), raw: RawJson::from(raw) }
        };
        let (a, b) = (tool("a", json!({})), tool("b", json!({})));
        let same = [a.clone(), b.clone()];
        assert_eq!(digest(&same), digest(&[b.clone(), tool("a", json!({"_meta": {"x": 1}}))]));
        for other in [vec![a.clone()], vec![a.clone(), a.clone()], vec![tool("a", json!({"description": "evil"})), b]] {
            assert_ne!(digest(&same), digest(&other), "{other:?}");
        }
    }
}
