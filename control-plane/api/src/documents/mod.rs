//! Documents as people write them, into drafts; every problem of every file at once.
//!
//! A text is read into a tree with places, each document is checked by hand at its top level and
//! by serde below. serde stops at the first problem, so what was wrong is taken out of the tree
//! and the rest is tried again until nothing new is found.

mod collect;
mod origin;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use provost_control_state::Draft;
use provost_types::{
    ApiKeySpec, ConnectionSpec, GuardSpec, IdentityProviderSpec, KillSwitchSpec, Kind, Metadata, ModelSpec, Name,
    NodeGroupSpec, PluginSpec, PolicySpec, PriceSpec, PrincipalSpec, PublisherSpec, QuotaSpec, ResourceKey,
    RoleBindingSpec, RoleSpec, SecretSpec, Spec, TenantSpec, ToolAliasSpec, ToolPinsSpec,
};
use provost_wire::admin::Problem;

use collect::collect;
pub(crate) use origin::Origin;
use tree::{Node, Value};

/// The only version of the format.
pub(crate) const API_VERSION: &str = "provost/v1";
/// Bytes of all texts of one request.
const MAX_TOTAL_BYTES: usize = 8 << 20;
/// Documents of one request.
const MAX_DOCUMENTS: usize = 10_000;
/// What to do about too many or too large ones.
const APPLY_IN_PARTS: &str = "apply them in parts: several files, and one `provost apply` for some of them";
/// Stack for reading them. Readers descend with the nesting, of which YAML's allows 64 levels; with places a level
/// takes tens of kilobytes without optimisation, and a task's stack has two megabytes.
const STACK_BYTES: usize = 16 << 20;

/// A text with one or more documents, and where it comes from (for messages only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path as the user gave it.
    pub path: String,
    /// YAML or JSON; several YAML documents are parted by `---`.
    pub text: String,
}

/// A draft and where it was written.
struct ParsedDraft {
    draft: Draft,
    /// Its place and those of its fields; empty where places are not asked for.
    origin: Origin,
}

/// All documents of all files: those that could be read, and what was wrong with the others.
#[derive(Debug, Default)]
pub struct Documents {
    /// What could be read, in the order written.
    pub drafts: Vec<Draft>,
    /// What could not; empty when all is well.
    pub unread: Unread,
}

/// The documents that could not be read.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    /// Every problem, in order of file and place.
    pub problems: Vec<Problem>,
    /// The resources that they would have been, as far as they could be named.
    named: BTreeSet<ResourceKey>,
    /// Whether there is one that could not be named: it may be any resource.
    unnamed: bool,
}

impl Unread {
    /// Whether one of them may be this resource.
    pub fn may_hold(&self, key: &ResourceKey) -> bool {
        self.unnamed || self.named.contains(key)
    }

    fn note(&mut self, key: Option<ResourceKey>) {
        match key {
            Some(key) => drop(self.named.insert(key)),
            None => self.unnamed = true,
        }
    }
}

/// Reads all documents of all files. Places are looked for only if there is a problem to place.
pub fn read(files: &[SourceFile]) -> Documents {
    // Most of what programs send is flat: it needs no stack of its own, which would cost three calls of the kernel's.
    let flat: Option<Vec<tree::Read>> = files.iter().map(|file| tree::read_flat(&file.text)).collect();
    let (mut drafts, mut unread) = match flat {
        Some(trees) => drafts_of::<false>(files, trees),
        None => read_all::<false>(files),
    };
    if !unread.problems.is_empty() {
        (drafts, unread) = read_all::<true>(files);
    }
    Documents { drafts: drafts.into_iter().map(|p| p.draft).collect(), unread }
}

/// Where each resource that can be read was written.
pub(crate) fn origins(files: &[SourceFile]) -> BTreeMap<ResourceKey, Origin> {
    read_all::<true>(files).0.into_iter().map(|p| (p.draft.key(), p.origin)).collect()
}

fn read_all<const PLACED: bool>(files: &[SourceFile]) -> (Vec<ParsedDraft>, Unread) {
    stacker::grow(STACK_BYTES, || drafts_of::<PLACED>(files, files.iter().map(|f| tree::read::<PLACED>(&f.text))))
}

/// The drafts of trees, which are those of the files in their order.
fn drafts_of<const PLACED: bool>(
    files: &[SourceFile],
    trees: impl IntoIterator<Item = tree::Read>,
) -> (Vec<ParsedDraft>, Unread) {
    let mut drafts = Vec::new();
    let mut unread = Unread::default();
    let total: usize = files.iter().map(|f| f.text.len()).sum();
    if total > MAX_TOTAL_BYTES {
        let text = format!("the documents have {total} bytes; at most {MAX_TOTAL_BYTES} at once");
        let largest = files.iter().max_by_key(|f| f.text.len()).map_or("", |f| f.path.as_str());
        unread.problems.push(origin::problem(largest, (0, 0), tree::SIZE, text, APPLY_IN_PARTS));
        unread.note(None);
        return (drafts, unread);
    }
    for (file, tree) in files.iter().zip(trees) {
        match tree {
            Ok(documents) => {
                for document in documents {
                    let origin = if PLACED { Origin::of(&file.path, &document) } else { Origin::default() };
                    drafts.extend(draft(origin, document, &mut unread));
                }
            }
            Err((place, code, message)) => {
                let hint = match code {
                    tree::SIZE => APPLY_IN_PARTS,
                    _ => "mend the syntax; the rest of this file was not read",
                };
                unread.problems.push(origin::problem(&file.path, place, code, message, hint));
                unread.note(None);
            }
        }
    }
    if drafts.is_empty() && unread.problems.is_empty() {
        let hint = "a document has apiVersion, kind, metadata and spec; `provost explain` shows each kind";
        unread.problems.push(origin::problem("", (0, 0), "PV-DOC-EMPTY", "there is no document in it", hint));
    }
    if drafts.len() > MAX_DOCUMENTS {
        let text = format!("there are {} documents; at most {MAX_DOCUMENTS} at once", drafts.len());
        unread.problems.push(origin::problem("", (0, 0), tree::SIZE, text, APPLY_IN_PARTS));
    }
    leave_out_duplicates(&mut drafts, &mut unread.problems);
    let order: BTreeMap<&str, usize> = files.iter().enumerate().map(|(i, f)| (f.path.as_str(), i)).collect();
    unread.problems.sort_by_key(|p| (order.get(p.file.as_str()).copied(), p.line, p.column));
    (drafts, unread)
}

/// Keeps the first of each resource.
fn leave_out_duplicates(drafts: &mut Vec<ParsedDraft>, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<ResourceKey, String> = BTreeMap::new();
    drafts.retain(|parsed| {
        let key = parsed.draft.key();
        let Some(place) = first.get(&key) else {
            first.insert(key, format!("{}:{}", parsed.origin.file, parsed.origin.place.0));
            return true;
        };
        let text = format!("is in {place} already");
        problems.push(parsed.origin.problem(&key, "", "PV-DOC-DUPLICATE", text, "keep one of them"));
        false
    });
}

/// One document. What is wrong goes to `unread`, and then there is no draft.
fn draft(origin: Origin, document: Node, unread: &mut Unread) -> Option<ParsedDraft> {
    let key = key_of(&document);
    let read = typed(origin, document, &mut unread.problems);
    if read.is_none() {
        unread.note(key);
    }
    read
}

/// The resource that a document is about, whatever else is wrong with it.
fn key_of(document: &Node) -> Option<ResourceKey> {
    let text = |node: &Node| match &node.value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let kind = text(document.field("kind")?)?;
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind)?;
    let metadata = document.field("metadata")?;
    let name = |field: &str| text(metadata.field(field)?)?.parse::<Name>().ok();
    Some(ResourceKey {
        kind,
        tenant: name("tenant").filter(|_| kind.is_tenanted() || kind.may_be_tenanted()),
        name: name("name")?,
    })
}

fn typed(origin: Origin, document: Node, problems: &mut Vec<Problem>) -> Option<ParsedDraft> {
    let before = problems.len();
    let file = origin.file.as_str();
    let Value::Map(fields) = document.value else {
        let text = "a document is a map with apiVersion, kind, metadata and spec";
        problems.push(origin::problem(file, document.place, "PV-DOC-SHAPE", text, ""));
        return None;
    };
    let mut parts: BTreeMap<&str, Node> = BTreeMap::new();
    for (key, node) in fields {
        match key.text.as_str() {
            "apiVersion" => parts.insert("apiVersion", node),
            "kind" => parts.insert("kind", node),
            "metadata" => parts.insert("metadata", node),
            "spec" => parts.insert("spec", node),
            other => {
                let text = format!("unknown field `{other}`");
                let hint = "a document has apiVersion, kind, metadata and spec";
                let mut problem = origin::problem(file, key.place, "PV-DOC-UNKNOWN", text, hint);
                problem.field = other.to_owned();
                problems.push(problem);
                None
            }
        };
    }
    let place = document.place;
    check_version(file, place, parts.get("apiVersion"), problems);
    let kind = read_kind(file, place, parts.get("kind"), problems);
    let missing = |what: &str| {
        let text = format!("has no `{what}`");
        let mut problem = origin::problem(file, place, "PV-DOC-MISSING", text, "");
        problem.field = what.to_owned();
        problem
    };
    let mut metadata: Option<Metadata> = None;
    match parts.remove("metadata") {
        Some(node) => metadata = collect(&origin, "metadata", node, problems),
        None => problems.push(missing("metadata")),
    }
    let spec_node = parts.remove("spec").unwrap_or(Node::empty_map(place));
    let spec = kind.and_then(|kind| read_spec(&origin, kind, spec_node, problems));
    if let (Some(kind), Some(metadata)) = (kind, &metadata) {
        check_tenant(&origin, kind, metadata, problems);
    }
    let (Some(metadata), Some(spec)) = (metadata, spec) else { return None };
    let draft = Draft { metadata, spec };
    for problem in &mut problems[before..] {
        problem.resource = draft.key().to_string();
    }
    (problems.len() == before).then_some(ParsedDraft { draft, origin })
}

fn check_version(file: &str, place: (u32, u32), node: Option<&Node>, problems: &mut Vec<Problem>) {
    let (place, text) = match node {
        Some(Node { value: Value::String(version), .. }) if version == API_VERSION => return,
        Some(node) => (node.place, format!("is not `{API_VERSION}`")),
        None => (place, "is missing".to_owned()),
    };
    let hint = format!("write `apiVersion: {API_VERSION}`");
    let mut problem = origin::problem(file, place, "PV-DOC-VERSION", text, hint);
    problem.field = "apiVersion".to_owned();
    problems.push(problem);
}

fn read_kind(file: &str, place: (u32, u32), node: Option<&Node>, problems: &mut Vec<Problem>) -> Option<Kind> {
    let (place, text) = match node {
        Some(Node { value: Value::String(text), place, .. }) => {
            match Kind::ALL.into_iter().find(|k| k.as_str() == text) {
                Some(kind) => return Some(kind),
                None => (*place, format!("`{text}` is not a kind")),
            }
        }
        Some(node) => (node.place, "is not a text".to_owned()),
        None => (place, "is missing".to_owned()),
    };
    let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
    let hint = format!("use one of {}", kinds.join(", "));
    let mut problem = origin::problem(file, place, "PV-DOC-KIND", text, hint);
    problem.field = "kind".to_owned();
    problems.push(problem);
    None
}

fn check_tenant(origin: &Origin, kind: Kind, metadata: &Metadata, problems: &mut Vec<Problem>) {
    let text = match (kind.is_tenanted(), &metadata.tenant) {
        (true, None) => format!("is missing: a {kind} belongs to a tenant"),
        (false, Some(_)) if !kind.may_be_tenanted() => format!("does not belong here: a {kind} belongs to no tenant"),
        _ => return,
    };
    problems.push(origin.field_problem("metadata.tenant", "PV-DOC-TENANT", text, ""));
}

fn read_spec(origin: &Origin, kind: Kind, node: Node, problems: &mut Vec<Problem>) -> Option<Spec> {
    macro_rules! spec {
        ($variant:ident, $type:ty) => {
            collect::<$type>(origin, "spec", node, problems).map(Spec::$variant)
        };
    }
    let spec = match kind {
        Kind::Tenant => spec!(Tenant, TenantSpec),
        Kind::Principal => spec!(Principal, PrincipalSpec),
        Kind::ApiKey => spec!(ApiKey, ApiKeySpec),
        Kind::Role => spec!(Role, RoleSpec),
        Kind::RoleBinding => spec!(RoleBinding, RoleBindingSpec),
        Kind::Policy => spec!(Policy, PolicySpec),
        Kind::Plugin => spec!(Plugin, PluginSpec),
        Kind::Secret => spec!(Secret, SecretSpec),
        Kind::Quota => spec!(Quota, QuotaSpec),
        Kind::NodeGroup => spec!(NodeGroup, NodeGroupSpec),
        Kind::Price => spec!(Price, PriceSpec),
        Kind::Guard => spec!(Guard, GuardSpec),
        Kind::KillSwitch => spec!(KillSwitch, KillSwitchSpec),
        Kind::IdentityProvider => spec!(IdentityProvider, IdentityProviderSpec),
        Kind::ToolPins => spec!(ToolPins, ToolPinsSpec),
        Kind::ToolAlias => spec!(ToolAlias, ToolAliasSpec),
        Kind::Connection => spec!(Connection, ConnectionSpec),
        Kind::Publisher => spec!(Publisher, PublisherSpec),
        Kind::Model => spec!(Model, ModelSpec),
    };
    if kind.is_governance() {
        let text = format!("a {kind} is made by a command and not by a document");
        problems.push(origin.field_problem(
            "kind",
            "PV-DOC-GOVERNANCE",
            text,
            "use `provost kill-switch`, `provost plugin` or `provost connections`",
        ));
        return None;
    }
    if let Some(Spec::Secret(SecretSpec { sealed: Some(_), .. })) = &spec {
        let text = "a sealed value is not written by hand";
        let hint = "remove it and use `provost secret set`";
        problems.push(origin.field_problem("spec.sealed", "PV-DOC-SEALED", text, hint));
        return None;
    }
    spec
}
