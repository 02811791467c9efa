//! C2SP tlog-policy: which logs are known, which witnesses, and how many of them are enough.
//!
//! Source: <https://c2sp.org/tlog-policy>. The same file serves the auditor (what counts as an
//! anchor), the witness (which logs it watches) and the log (whom to ask).

use std::collections::BTreeMap;

use crate::{
    cosignature::CosignerKey,
    note::{NoteError, NoteVerifier, SignedNote, VerifierKey},
};

/// The longest policy file that is read, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// Logs, witnesses and groups together.
const MAX_DEFINITIONS: usize = 1_024;

/// A log in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key; the name is the log's origin.
    pub key: VerifierKey,
    /// Where it is reached.
    pub url: Option<String>,
}

/// A witness in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWitness {
    /// What the policy calls it.
    pub name: String,
    /// Its key.
    pub key: CosignerKey,
    /// Its submission prefix.
    pub url: Option<String>,
}

/// A parsed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessPolicy {
    /// Known logs.
    pub logs: Vec<PolicyLog>,
    /// Known witnesses.
    pub witnesses: Vec<PolicyWitness>,
    rules: BTreeMap<String, Rule>,
    /// `None`: no cosignature is asked for.
    quorum: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Index into `witnesses`.
    Witness(usize),
    Group {
        least: usize,
        members: Vec<String>,
    },
}

/// A policy file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PolicyError {
    /// Counts from 1.
    pub line: usize,
    /// What is wrong, and what to write.
    pub what: String,
}

/// Who cosigned a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cosigned {
    /// The policy's names of witnesses with a valid cosignature, each once, with the time in
    /// seconds since the Unix epoch.
    pub by: Vec<(String, u64)>,
    /// Whether they are enough. With `quorum none` never: nobody from outside has spoken.
    pub enough: bool,
}

impl WitnessPolicy {
    /// Reads a policy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self { logs: Vec::new(), witnesses: Vec::new(), rules: BTreeMap::new(), quorum: None };
        let mut quorum = false;
        for (n, line) in text.split('\n').enumerate() {
            let wrong = |what: String| PolicyError { line: n + 1, what };
            if text.len() > MAX_POLICY_BYTES || policy.rules.len() + policy.logs.len() > MAX_DEFINITIONS {
                return Err(wrong("the policy is too large".to_owned()));
            }
            if line.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
                return Err(wrong("it holds a control character".to_owned()));
            }
            let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["log", key] => policy.log(key, None).map_err(wrong)?,
                ["log", key, url] => policy.log(key, Some(url)).map_err(wrong)?,
                ["witness", name, key] => policy.witness(name, key, None).map_err(wrong)?,
                ["witness", name, key, url] => policy.witness(name, key, Some(url)).map_err(wrong)?,
                ["group", name, least, members @ ..] => policy.group(name, least, members).map_err(wrong)?,
                ["quorum", _] if quorum => return Err(wrong("there is one quorum line, not two".to_owned())),
                ["quorum", "none"] => quorum = true,
                ["quorum", name] if policy.rules.contains_key(*name) => {
                    quorum = true;
                    policy.quorum = Some((*name).to_owned());
                }
                ["quorum", name] => return Err(wrong(format!("`{name}` is not defined above"))),
                _ => {
                    let forms = "write `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME N|any|all NAME...` or \
                                 `quorum NAME|none`";
                    return Err(wrong(forms.to_owned()));
                }
            }
        }
        let last = text.lines().count();
        if quorum { Ok(policy) } else { Err(PolicyError { line: last, what: "there is no `quorum` line".to_owned() }) }
    }

    /// The key of the log with this origin.
    pub fn log_key(&self, origin: &str) -> Option<&VerifierKey> {
        self.logs.iter().map(|log| &log.key).find(|key| key.name == origin)
    }

    /// Whether cosignatures are asked for at all.
    pub fn asks_for_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// Who cosigned the note; fails on a line that claims to be of a known witness and is not.
    pub fn cosigned(&self, note: &SignedNote<'_>, verifier: &dyn NoteVerifier) -> Result<Cosigned, NoteError> {
        let mut by = Vec::new();
        let mut spoke = vec![false; self.witnesses.len()];
        for (witness, spoke) in self.witnesses.iter().zip(&mut spoke) {
            if let Some(time_s) = witness.key.cosigned(note, verifier)? {
                by.push((witness.name.clone(), time_s));
                *spoke = true;
            }
        }
        let enough = self.quorum.as_deref().is_some_and(|name| self.holds(name, &spoke));
        Ok(Cosigned { by, enough })
    }

    /// Members are defined before their group, so this ends.
    fn holds(&self, name: &str, spoke: &[bool]) -> bool {
        match self.rules.get(name) {
            None => false,
            Some(Rule::Witness(at)) => spoke.get(*at).copied().unwrap_or_default(),
            Some(Rule::Group { least, members }) => {
                members.iter().filter(|member| self.holds(member, spoke)).count() >= *least
            }
        }
    }

    fn log(&mut self, key: &str, url: Option<&str>) -> Result<(), String> {
        let key = VerifierKey::parse(key).map_err(|e| e.to_string())?;
        if self.logs.iter().any(|log| log.key.public_key == key.public_key && log.key.name == key.name) {
            return Err("this log is there already".to_owned());
        }
        self.logs.push(PolicyLog { key, url: url.map(str::to_owned) });
        Ok(())
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<&str>) -> Result<(), String> {
        let key = CosignerKey::parse(key).map_err(|e| e.to_string())?;
        if self.witnesses.iter().any(|witness| witness.key.public_key == key.public_key) {
            // One key under two names would count twice.
            return Err("a witness with this key is there already".to_owned());
        }
        self.define(name, Rule::Witness(self.witnesses.len()))?;
        self.witnesses.push(PolicyWitness { name: name.to_owned(), key, url: url.map(str::to_owned) });
        Ok(())
    }

    fn group(&mut self, name: &str, least: &str, members: &[&str]) -> Result<(), String> {
        let mut taken: Vec<&str> = Vec::new();
        for member in members {
            if !self.rules.contains_key(*member) {
                return Err(format!("`{member}` is not defined above"));
            }
            let used = |rule: &Rule| matches!(rule, Rule::Group { members, .. } if members.iter().any(|m| m == member));
            if taken.contains(member) || self.rules.values().any(used) {
                return Err(format!("`{member}` is a member already: each counts in one way only"));
            }
            taken.push(member);
        }
        let least = match least {
            "any" => 1,
            "all" => members.len(),
            number => number.parse().map_err(|_| format!("`{number}` is neither a number nor `any` nor `all`"))?,
        };
        if least == 0 || least > members.len() {
            return Err(format!("{least} of {} cannot be", members.len()));
        }
        self.define(name, Rule::Group { least, members: members.iter().map(|m| (*m).to_owned()).collect() })
    }

    fn define(&mut self, name: &str, rule: Rule) -> Result<(), String> {
        if name == "none" || self.rules.contains_key(name) {
            return Err(format!("the name `{name}` is taken"));
        }
        self.rules.insert(name.to_owned(), rule);
        Ok(())
    }
}
