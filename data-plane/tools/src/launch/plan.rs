//! What a node tells its launcher, and what it hears of it.

use std::{collections::BTreeMap, path::PathBuf};

use provost_types::{IsolatedNetwork, IsolationSpec};
use serde::{Deserialize, Serialize};

/// The word after the program's name that asks for the launcher.
pub(crate) const ASKED: &str = "__stdio-launch";
/// As what lists of processes show the launcher, whose file has no telling name.
pub(crate) const LAUNCHER_NAME: &str = "provost";
/// The variable that holds the plan; it has no secrets.
pub(crate) const PLAN_VARIABLE: &str = "PROVOST_STDIO_PLAN";
/// What stands before the names of the variables that the plugin's process gets.
pub(crate) const TARGET_PREFIX: &str = "PROVOST_STDIO_ENV_";
/// The exit status of a launcher that did not start the process.
pub(super) const FAULT: u8 = 125;

/// Which of the launcher's two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Outside of the walls.
    Outer,
    /// The first one within.
    Inner,
    /// One that tries whether there may be a user namespace, and ends.
    Probe,
}

impl Stage {
    /// As the command line names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Outer => "outer",
            Self::Inner => "inner",
            Self::Probe => "probe",
        }
    }
}

/// How the launcher came into the namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Space {
    /// It did not.
    #[default]
    None,
    /// With the rights of root.
    AsRoot,
    /// By a user namespace.
    AsUser,
}

/// What to build around the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Begins each line that the launcher writes to stderr. The process within does not know it.
    pub(crate) nonce: String,
    pub(crate) isolation: IsolationSpec,
    pub(crate) cwd: Option<String>,
    /// Folders that nobody within sees: the node's data.
    pub(crate) hidden: Vec<PathBuf>,
    /// Set by the outer stage for the inner one.
    #[serde(default)]
    pub(crate) space: Space,
    /// Why there are no namespaces, if there are none.
    #[serde(default)]
    pub(crate) no_space: String,
}

/// One wall around a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wall {
    /// It reaches nothing over a network.
    Network,
    /// It sees and signals no process but its own, and all of them end with it.
    Processes,
    /// It writes where it may, and does not see the node's data.
    Files,
    /// It has no rights: no capabilities, and another user than root.
    User,
    /// Memory, processor time, processes and files are bounded for all of it together.
    Limits,
    /// It makes no calls of the kernel that no server needs.
    Calls,
}

impl Wall {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Network, Self::Processes, Self::Files, Self::User, Self::Limits, Self::Calls];

    /// The name in metrics and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Processes => "processes",
            Self::Files => "files",
            Self::User => "user",
            Self::Limits => "limits",
            Self::Calls => "calls",
        }
    }
}

/// Which walls stand around a plugin's process. One that its document does not ask for counts as standing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Those that do not, and why.
    pub missing: BTreeMap<Wall, String>,
}

impl Walls {
    /// Whether a wall stands.
    pub fn stands(&self, wall: Wall) -> bool {
        !self.missing.contains_key(&wall)
    }

    /// None of them: for `cause`.
    pub(crate) fn none(isolation: &IsolationSpec, cause: &str) -> Self {
        let wanted = Wall::ALL.into_iter().filter(|wall| is_wanted(isolation, *wall));
        Self { missing: wanted.map(|wall| (wall, cause.to_owned())).collect() }
    }

    /// The first that is demanded and does not stand, as a sentence.
    pub(crate) fn refusal(&self, isolation: &IsolationSpec) -> Option<String> {
        let missing = |wall: &Wall| Some((*wall, self.missing.get(wall)?));
        let (wall, cause) = demanded(isolation).iter().find_map(missing)?;
        Some(format!("there is no wall `{}` here: {cause}", wall.as_str()))
    }

    /// What is missing, as a line for people.
    pub(crate) fn told(&self) -> String {
        let each = self.missing.iter().map(|(wall, cause)| format!("{}: {cause}", wall.as_str()));
        each.collect::<Vec<_>>().join("; ")
    }
}

fn is_wanted(isolation: &IsolationSpec, wall: Wall) -> bool {
    wall != Wall::Network || isolation.network == IsolatedNetwork::None
}

/// The walls without which a process must not start.
pub(crate) fn demanded(isolation: &IsolationSpec) -> &'static [Wall] {
    match (isolation.required, isolation.network) {
        (Some(true), _) => &Wall::ALL,
        (None, IsolatedNetwork::None) => &[Wall::Network],
        (None, IsolatedNetwork::Host) | (Some(false), _) => &[],
    }
}

/// What a launcher says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Note {
    /// The process is about to start, within these.
    Walls(Walls),
    /// It does not start: a wall that is demanded cannot be built.
    Refused(String),
    /// It does not start for another reason.
    NotRun(String),
    /// It was ended for what it used.
    Ended(String),
}

impl Note {
    /// The line, with its end.
    pub(crate) fn line(&self, nonce: &str) -> String {
        // Plain data with text keys, which always serialises.
        format!("{nonce} {}\n", serde_json::to_string(self).unwrap_or_default())
    }

    /// The note in a line of stderr, if the launcher wrote it.
    pub(crate) fn of_line(line: &[u8], nonce: &str) -> Option<Self> {
        serde_json::from_slice(line.strip_prefix(nonce.as_bytes())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isolation(network: IsolatedNetwork, required: Option<bool>) -> IsolationSpec {
        IsolationSpec { network, required, ..IsolationSpec::default() }
    }

    #[test]
    fn without_network_means_none_unless_the_document_does_without_walls() {
        use IsolatedNetwork::{Host, None as Nothing};
        for (network, required, refused) in [
            (Nothing, None, true),
            (Nothing, Some(true), true),
            (Nothing, Some(false), false),
            (Host, None, false),
            (Host, Some(true), true),
            (Host, Some(false), false),
        ] {
            let isolation = isolation(network, required);
            let walls = Walls::none(&isolation, "not here");
            assert_eq!(walls.refusal(&isolation).is_some(), refused, "{network:?} {required:?}");
            assert_eq!(Walls::default().refusal(&isolation), None, "{network:?} {required:?}");
            assert_eq!(walls.stands(Wall::Network), network == Host);
        }
    }

    #[test]
    fn only_the_launcher_writes_notes() {
        let note = Note::Walls(Walls::none(&isolation(IsolatedNetwork::None, None), "no \"namespaces\"\nhere"));
        let line = note.line("0123");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(Note::of_line(line.trim_end().as_bytes(), "0123"), Some(note));
        for line in ["{\"ended\":\"a\"}", "4567 {\"ended\":\"a\"}", "0123 what", ""] {
            assert_eq!(Note::of_line(line.as_bytes(), "0123"), None, "{line}");
        }
    }
}
