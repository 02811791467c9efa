//! Aliases of tools: which version a caller gets, and what is said of a name that goes out of use.
//!
//! Invariants: a caller keeps its version as long as the weights stay; a tool of a plugin is never hidden by
//! an alias of its name; rights, quotas and guards are those of the version.

use std::collections::{BTreeMap, HashMap};

use provost_data_pipeline::{Call, Execution, Intended, Operation, Rejection, RejectionKind, Reply, Route};
use provost_mcp::{RawJson, RawObject};
use provost_types::{Deprecation, Kind, Name, PrincipalRef, Snapshot, Spec, ToolAliasSpec};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The member of `_meta` that says what becomes of a name.
const META: &str = "io.provost/deprecated";

/// One alias, its times read.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    spec: ToolAliasSpec,
    since_ns: u64,
    until_ns: Option<u64>,
}

/// The aliases of all tenants.
#[derive(Clone, Debug, Default)]
pub(super) struct AliasIndex(HashMap<Name, BTreeMap<String, Alias>>);

impl AliasIndex {
    /// Those of a snapshot.
    pub(super) fn compile(snapshot: &Snapshot) -> Self {
        let mut index: HashMap<Name, BTreeMap<String, Alias>> = HashMap::new();
        for resource in snapshot.of_kind(Kind::ToolAlias) {
            if let (Some(tenant), Spec::ToolAlias(spec)) = (&resource.metadata.tenant, &resource.spec) {
                let name = resource.metadata.name.to_string();
                index.entry(tenant.clone()).or_default().insert(name, Alias::new(spec.clone()));
            }
        }
        Self(index)
    }

    /// An alias of a tenant.
    pub(super) fn find(&self, tenant: &Name, name: &str) -> Option<&Alias> {
        self.0.get(tenant)?.get(name)
    }

    /// All of a tenant, in order of name.
    pub(super) fn of(&self, tenant: &Name) -> impl Iterator<Item = (&str, &Alias)> {
        self.0.get(tenant).into_iter().flatten().map(|(name, alias)| (name.as_str(), alias))
    }
}

/// Nanoseconds since the Unix epoch; times were checked where documents are read.
fn time_ns(text: &str) -> Option<u64> {
    u64::try_from(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos()).ok()
}

impl Alias {
    fn new(spec: ToolAliasSpec) -> Self {
        let deprecated = spec.deprecated.as_ref();
        let since_ns = deprecated.and_then(|d| d.since.as_deref()).and_then(time_ns).unwrap_or(0);
        let until_ns = deprecated.and_then(|d| d.until.as_deref()).and_then(time_ns);
        Self { spec, since_ns, until_ns }
    }

    /// The version that a caller gets: always the same, a share of all callers as large as its weight.
    pub(super) fn target(&self, name: &str, principal: &PrincipalRef) -> &str {
        let total: u64 = self.spec.targets.iter().map(|target| u64::from(target.weight)).sum();
        let digest = blake3::hash(format!("{principal}\n{name}").as_bytes());
        let mut eight = [0; 8];
        eight.copy_from_slice(&digest.as_bytes()[..8]);
        let mut place = u64::from_le_bytes(eight) % total.max(1);
        for target in &self.spec.targets {
            match place.checked_sub(u64::from(target.weight)) {
                Some(rest) => place = rest,
                None => return &target.tool,
            }
        }
        // Documents without a weight above 0 are refused.
        self.spec.targets.first().map_or("", |target| &target.tool)
    }

    /// The versions, whoever gets them.
    pub(super) fn tools(&self) -> impl Iterator<Item = &str> {
        self.spec.targets.iter().map(|target| target.tool.as_str())
    }

    /// Whether the name cannot be used any more.
    pub(super) fn is_retired(&self, now_ns: u64) -> bool {
        self.until_ns.is_some_and(|until| now_ns >= until)
    }

    /// The refusal of a name that cannot be used any more.
    pub(super) fn retired(&self, name: &str) -> Rejection {
        let deprecated = self.spec.deprecated.clone().unwrap_or_default();
        let until = deprecated.until.unwrap_or_default();
        let text = format!("the tool {name} is out of use since {until}. {}", deprecated.message);
        Rejection::new(RejectionKind::Denied, "PV-TOOL-RETIRED", text.trim_end().to_owned())
    }

    /// What is said of the name now.
    fn deprecation(&self, now_ns: u64) -> Option<&Deprecation> {
        self.spec.deprecated.as_ref().filter(|_| now_ns >= self.since_ns)
    }

    /// A version's definition under the alias' name.
    pub(super) fn definition(&self, name: &str, raw: &RawJson, now_ns: u64) -> Option<RawJson> {
        let mut object = RawObject::parse(raw).ok()?;
        object.set_text("name", name);
        if let Some(deprecated) = self.deprecation(now_ns) {
            let until = deprecated.until.as_ref().map_or(String::new(), |until| format!(" until {until}"));
            let description = object.get_text("description").unwrap_or_default();
            let text = format!("[Deprecated{until}. {}] {description}", deprecated.message);
            object.set_text("description", text.trim_end());
            note(&mut object, deprecated);
        }
        Some(object.finish())
    }

    /// The result of a call with what is said of the name.
    fn warn(&self, execution: &mut Execution, now_ns: u64) {
        let Some(deprecated) = self.deprecation(now_ns) else { return };
        if let Reply::Result { body, .. } = &mut execution.reply
            && let Ok(mut object) = RawObject::parse(body)
        {
            note(&mut object, deprecated);
            *body = object.finish();
        }
    }
}

/// Puts it into `_meta`.
fn note(object: &mut RawObject, deprecated: &Deprecation) {
    let meta = object.get("_meta").and_then(|meta| RawObject::parse(&meta).ok());
    let mut meta = meta.unwrap_or_default();
    let mut value = json!({ "message": deprecated.message });
    for (member, time) in [("since", &deprecated.since), ("until", &deprecated.until)] {
        if let Some(time) = time {
            value[member] = time.as_str().into();
        }
    }
    meta.set(META, RawJson::from(value));
    object.set("_meta", meta.finish());
}

/// Says in the result of a call by an alias what becomes of that name.
pub(super) fn warn(index: &AliasIndex, call: &Call<Intended>, execution: &mut Execution, now_ns: u64) {
    let (request, target) = (call.request(), call.target());
    if let (Route::Merged, Operation::CallTool(written)) = (&request.route, &request.operation)
        && *written != target.full
        && let Some(alias) = index.find(&call.caller().principal.tenant, written)
    {
        alias.warn(execution, now_ns);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn alias(spec: serde_json::Value) -> Alias {
        Alias::new(serde_json::from_value(spec).unwrap())
    }

    fn principal(n: usize) -> PrincipalRef {
        PrincipalRef { tenant: Name::new("acme").unwrap(), name: Name::new(&format!("p{n}")).unwrap() }
    }

    #[test]
    fn a_caller_keeps_its_version_and_shares_follow_the_weights() {
        let weighed = |old: u32, new: u32| {
            alias(json!({"targets": [{"tool": "a.t", "weight": old}, {"tool": "b.t", "weight": new}]}))
        };
        let canary = weighed(90, 10);
        let new: Vec<usize> = (0..2_000).filter(|n| canary.target("t", &principal(*n)) == "b.t").collect();
        assert!((140..=260).contains(&new.len()), "{} of 2000 with a weight of a tenth", new.len());
        assert!(new.iter().all(|n| canary.target("t", &principal(*n)) == "b.t"));
        // Growing the share takes nobody's new version away: the order of the targets stays.
        let grown = weighed(50, 50);
        assert!(new.iter().all(|n| grown.target("t", &principal(*n)) == "b.t"));
        assert!((0..50).all(|n| weighed(1, 0).target("t", &principal(n)) == "a.t"));
        assert!((0..50).all(|n| weighed(0, 1).target("t", &principal(n)) == "b.t"));
    }

    #[test]
    fn a_name_goes_out_of_use_in_its_own_time() {
        let spec = json!({"targets": [{"tool": "a.t"}], "deprecated": {
            "since": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z", "message": "Use t2."}});
        let alias = alias(spec);
        let raw = RawJson::from(json!({"name": "x", "description": "Does it."}));
        for (time, said, retired) in [
            ("2025-12-31T23:59:59Z", false, false),
            ("2026-01-01T00:00:00Z", true, false),
            ("2026-12-31T23:59:59Z", true, false),
            ("2027-01-01T00:00:00Z", true, true),
        ] {
            let now = time_ns(time).unwrap();
            let shown = alias.definition("t", &raw, now).unwrap();
            assert_eq!(shown.as_str().contains("[Deprecated until 2027-01-01T00:00:00Z. Use t2.] Does it."), said);
            let mut execution = Execution::result(RawJson::from(json!({"content": [], "_meta": {"a": 1}})), false);
            alias.warn(&mut execution, now);
            let Reply::Result { body, .. } = &execution.reply else { panic!("no result") };
            let body: serde_json::Value = body.parse().unwrap();
            assert_eq!(body["_meta"][META]["message"] == "Use t2.", said, "{time}");
            assert_eq!(body["_meta"]["a"], 1);
            assert_eq!(alias.is_retired(now), retired, "{time}");
        }
        assert!(alias.retired("t").error.message.ends_with("Use t2."));
    }
}
