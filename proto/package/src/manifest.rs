//! What a package says of itself.

use std::collections::BTreeSet;

use provost_types::{FileDigest, HostPattern, Name};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{PackageError, archive, package::MAX_PARTS};

/// The part that is a WebAssembly component.
pub const COMPONENT: &str = "component.wasm";
/// The part that people read.
pub const DOCS: &str = "README.md";
/// The form that this build writes, and the only one so far.
const FORMAT: u32 = 1;
/// Bytes of a description.
const MAX_DESCRIPTION_BYTES: usize = 4_096;
/// Bytes of a version, with what follows `-` and `+`: the control plane keeps and lists it.
const MAX_VERSION_BYTES: usize = 128;
/// Entries of each list of wants.
const MAX_WANTS: usize = 64;
/// Bytes of a tool that is wanted: a plugin's name and a tool's.
const MAX_TOOL_BYTES: usize = 256;
/// Bytes of a part's name.
const MAX_PART_NAME_BYTES: usize = 64;

/// A package's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The plugin's name where its publisher gave it one; who installs it may give it another.
    pub name: Name,
    /// Semantic version (2.0.0).
    pub version: Version,
    /// Who made it: the name of a `Publisher`.
    pub publisher: Name,
    /// One paragraph for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it asks for. What it gets is for the `Plugin` to say.
    #[serde(default, skip_serializing_if = "Wants::is_empty")]
    pub wants: Wants,
    /// What else is in the package, in the order in which it is there.
    pub parts: Vec<Part>,
}

/// What a plugin needs to be useful.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wants {
    /// Hosts that it sends requests to; `*.example.com` for all below one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
    /// Names by which it asks for credentials. It never sees one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub credentials: BTreeSet<Name>,
    /// Tools that it calls, under the rights of its caller; `crm.*` for all of a plugin.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
}

impl Wants {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Its name: lower-case letters, digits, `-`, `_`, `.`, and capitals as in `README.md`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub digest: FileDigest,
}

impl Manifest {
    /// The manifest of a package without parts yet.
    pub fn new(name: Name, version: Version, publisher: Name) -> Self {
        let (description, wants, parts) = Default::default();
        Self { format: FORMAT, name, version, publisher, description, wants, parts }
    }

    /// `NAME VERSION`.
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let unread = |e: serde_json::Error| PackageError::Format(format!("{}: {e}", archive::MANIFEST));
        // A later form may have what this build does not know: say that, and not which field is unknown.
        let Form { format } = serde_json::from_slice(bytes).map_err(unread)?;
        if format != FORMAT {
            let text = format!("{} has the format {format}, and this release reads {FORMAT}", archive::MANIFEST);
            return Err(PackageError::Format(text));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unread)?;
        manifest.check()?;
        Ok(manifest)
    }

    pub(crate) fn check(&self) -> Result<(), PackageError> {
        let wrong = |text: String| Err(PackageError::Format(format!("{}: {text}", archive::MANIFEST)));
        if self.description.len() > MAX_DESCRIPTION_BYTES {
            return wrong(format!("`description` is longer than {MAX_DESCRIPTION_BYTES} bytes"));
        }
        if self.version.to_string().len() > MAX_VERSION_BYTES {
            return wrong(format!("`version` is longer than {MAX_VERSION_BYTES} bytes"));
        }
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return wrong(format!("`parts` has {} entries; a package has 1 to {MAX_PARTS}", self.parts.len()));
        }
        let mut names = BTreeSet::new();
        for Part { name, .. } in &self.parts {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            let plain = !name.is_empty() && name.len() <= MAX_PART_NAME_BYTES && name.bytes().all(fits);
            if !plain || name.starts_with('.') || archive::RESERVED.contains(&name.as_str()) {
                return wrong(format!("`{name}` cannot be the name of a part"));
            }
            if !names.insert(name) {
                return wrong(format!("the part `{name}` is there twice"));
            }
        }
        let Wants { hosts, credentials, tools } = &self.wants;
        if [hosts.len(), credentials.len(), tools.len()].into_iter().any(|count| count > MAX_WANTS) {
            return wrong(format!("a list in `wants` has more than {MAX_WANTS} entries"));
        }
        // They are shown to who decides on them: no line of a terminal is theirs to write.
        if tools.iter().any(|tool| tool.len() > MAX_TOOL_BYTES || tool.chars().any(char::is_control)) {
            return wrong(format!("a tool of `wants.tools` is longer than {MAX_TOOL_BYTES} bytes, or no line of text"));
        }
        if let Some(cause) = hosts.iter().find_map(|host| host.parse::<HostPattern>().err()) {
            return wrong(format!("`wants.hosts`: {cause}"));
        }
        Ok(())
    }
}
