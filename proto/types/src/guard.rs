//! The spec of a guard: what may not leave in calls, and what is done about it.
//!
//! Doc comments here are what `provost explain Guard` prints. What the kinds mean, and how values are
//! found, is said in `docs/guards.md`.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ContentPath, EgressSpec, Name, SecretRef};

/// A kind of value that detectors find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuardKind {
    /// All keys and tokens: `private-key` to `service-token`.
    Secrets,
    /// All about persons: `card` to `de-tax-id`.
    PersonalData,
    /// Payment card number.
    Card,
    /// IBAN.
    Iban,
    /// E-mail address.
    Email,
    /// Phone number.
    Phone,
    /// US social security number.
    UsSsn,
    /// Spanish DNI or NIE.
    EsDni,
    /// Dutch BSN.
    NlBsn,
    /// Italian codice fiscale.
    ItFiscalCode,
    /// German Steuer-Identifikationsnummer.
    DeTaxId,
    /// PEM or OpenPGP private key.
    PrivateKey,
    /// AWS access key id.
    AwsKey,
    /// GitHub token.
    GithubToken,
    /// Slack token.
    SlackToken,
    /// Stripe secret or restricted key, or webhook secret.
    StripeKey,
    /// Google API key.
    GoogleKey,
    /// JSON web token.
    Jwt,
    /// OpenAI key, and others of the form `sk-…`.
    #[serde(rename = "openai-key")]
    OpenAiKey,
    /// Anthropic key.
    AnthropicKey,
    /// Token of GitLab, npm, Hugging Face, SendGrid or Provost.
    ServiceToken,
}

impl GuardKind {
    /// Every kind, groups first.
    pub const ALL: [GuardKind; 21] = [
        GuardKind::Secrets,
        GuardKind::PersonalData,
        GuardKind::Card,
        GuardKind::Iban,
        GuardKind::Email,
        GuardKind::Phone,
        GuardKind::UsSsn,
        GuardKind::EsDni,
        GuardKind::NlBsn,
        GuardKind::ItFiscalCode,
        GuardKind::DeTaxId,
        GuardKind::PrivateKey,
        GuardKind::AwsKey,
        GuardKind::GithubToken,
        GuardKind::SlackToken,
        GuardKind::StripeKey,
        GuardKind::GoogleKey,
        GuardKind::Jwt,
        GuardKind::OpenAiKey,
        GuardKind::AnthropicKey,
        GuardKind::ServiceToken,
    ];

    /// The name as in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            GuardKind::Secrets => "secrets",
            GuardKind::PersonalData => "personal-data",
            GuardKind::Card => "card",
            GuardKind::Iban => "iban",
            GuardKind::Email => "email",
            GuardKind::Phone => "phone",
            GuardKind::UsSsn => "us-ssn",
            GuardKind::EsDni => "es-dni",
            GuardKind::NlBsn => "nl-bsn",
            GuardKind::ItFiscalCode => "it-fiscal-code",
            GuardKind::DeTaxId => "de-tax-id",
            GuardKind::PrivateKey => "private-key",
            GuardKind::AwsKey => "aws-key",
            GuardKind::GithubToken => "github-token",
            GuardKind::SlackToken => "slack-token",
            GuardKind::StripeKey => "stripe-key",
            GuardKind::GoogleKey => "google-key",
            GuardKind::Jwt => "jwt",
            GuardKind::OpenAiKey => "openai-key",
            GuardKind::AnthropicKey => "anthropic-key",
            GuardKind::ServiceToken => "service-token",
        }
    }

    /// Whether it stands for several kinds.
    pub fn is_group(self) -> bool {
        matches!(self, GuardKind::Secrets | GuardKind::PersonalData)
    }

    /// The kinds that it stands for: those of a group, or itself.
    pub fn members(self) -> &'static [GuardKind] {
        let first_secret = 11;
        match self {
            GuardKind::PersonalData => &Self::ALL[2..first_secret],
            GuardKind::Secrets => &Self::ALL[first_secret..],
            _ => {
                let at = Self::ALL.iter().position(|k| *k == self).unwrap_or_default();
                &Self::ALL[at..=at]
            }
        }
    }
}

impl fmt::Display for GuardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is done about a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuardAction {
    /// Count it.
    Report,
    /// Count it and put a token in its place, out of which those that `reveal` names get it back.
    Tokenise,
    /// Count it and write over it.
    Mask,
    /// Count it and refuse the call.
    Block,
}

/// Whether a guard acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuardMode {
    /// Each rule does what its action says.
    #[default]
    Enforce,
    /// Everything is counted and nothing is changed: how a guard is tried.
    Report,
}

/// Which way a guard looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuardDirection {
    /// What callers send: arguments of tools and prompts, URIs, messages to models, answers to questions.
    Arguments,
    /// What comes back: results, errors, progress and log messages, questions, streamed texts.
    Results,
}

/// What is done about some kinds of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GuardRule {
    /// The kinds. `secrets` and `personal-data` stand for all of theirs.
    pub kinds: BTreeSet<GuardKind>,
    /// What is done.
    pub action: GuardAction,
}

/// Words of a tenant's own, such as names of projects or customers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GuardDictionary {
    /// What the list is called.
    pub name: Name,
    /// Words or phrases of 2 to 128 bytes, found as whole words; the case of A to Z does not matter.
    /// At most 2,000 in one guard.
    pub words: BTreeSet<String>,
    /// What is done.
    pub action: GuardAction,
}

/// A place in JSON whose value is protected whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GuardPathRule {
    /// The place: `$`, then `.name` or `['name']` for a member, `[*]` for every member or item, and
    /// `..name` for members of that name at any depth. `$` is the arguments; in results the structured
    /// content, and each text that is itself a JSON object or array.
    pub path: ContentPath,
    /// What is done.
    pub action: GuardAction,
}

/// For whom tokens are opened. Nobody else gets a value back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GuardReveal {
    /// These principals.
    pub principals: BTreeSet<Name>,
    /// Whoever holds one of these roles, by a binding or by their token.
    pub roles: BTreeSet<Name>,
    /// `results`: in what they get back tokens are opened and values stay plain. `arguments`: so it is in
    /// what their calls send to the tool. Only results if not given.
    pub directions: BTreeSet<GuardDirection>,
}

impl Default for GuardReveal {
    fn default() -> Self {
        Self { principals: BTreeSet::new(), roles: BTreeSet::new(), directions: [GuardDirection::Results].into() }
    }
}

/// What is done with a part of a call about which an external guard gives no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExternalFailure {
    /// It does not pass.
    #[default]
    Deny,
    /// It passes, and is counted.
    Allow,
}

/// A program of your own that is asked by gRPC what may pass (`provost.guard.v1.Guard`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GuardExternal {
    /// Where it is: `https://host:port`, or `http://` on this machine.
    pub url: String,
    /// Longest time for one answer, in milliseconds: 1 to 30,000. 1,000 if not given.
    #[serde(default = "external_timeout_ms")]
    pub timeout_ms: u64,
    /// What is done where it does not answer: `deny`, or `allow`.
    #[serde(default)]
    pub on_failure: ExternalFailure,
    /// Where nodes may connect to for it, beside public addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressSpec>,
    /// How nodes show who they are; not at all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<GuardAuth>,
}

/// How a node shows an external guard who it is: a token, a certificate, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GuardAuth {
    /// Sent with each question as `authorization: Bearer VALUE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretRef>,
    /// A client certificate for TLS: PEM, the chain and its private key (PKCS #8, SEC 1 or PKCS #1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretRef>,
}

impl GuardAuth {
    /// The secrets that it names, by field.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &SecretRef)> {
        let bearer = self.bearer.iter().map(|secret| ("bearer", secret));
        bearer.chain(self.certificate.iter().map(|secret| ("certificate", secret)))
    }
}

fn external_timeout_ms() -> u64 {
    1_000
}

/// Protects values in calls: finds them by kind, by words or by place, and counts, tokenises, masks or
/// blocks them, in arguments and in results. Of all guards that cover a call the strictest action for a
/// value holds: `block`, then `mask`, then `tokenise`, then `report`. The audit log keeps the guarded form and
/// how many values of each kind there were, never a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GuardSpec {
    /// What the guard is for.
    pub description: String,
    /// `enforce` acts; `report` only counts.
    pub mode: GuardMode,
    /// Which way it looks; both if not given.
    pub directions: BTreeSet<GuardDirection>,
    /// Only calls by these principals; empty: all.
    pub principals: BTreeSet<Name>,
    /// Only calls of these tools or models (`*` ends a prefix); empty: all, and prompts and resources
    /// too.
    pub tools: BTreeSet<String>,
    /// Kinds of values, and what is done about each.
    pub rules: Vec<GuardRule>,
    /// Words of the tenant's own. At most 16 lists.
    pub dictionaries: Vec<GuardDictionary>,
    /// Places in JSON. At most 64.
    pub paths: Vec<GuardPathRule>,
    /// For whom what this guard tokenises is given back; nobody if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reveal: Option<GuardReveal>,
    /// A program that is asked too, after all rules of all guards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<GuardExternal>,
}

impl GuardSpec {
    /// Every action that it names.
    pub fn actions(&self) -> impl Iterator<Item = GuardAction> + '_ {
        let rules = self.rules.iter().map(|rule| rule.action);
        let words = self.dictionaries.iter().map(|words| words.action);
        rules.chain(words).chain(self.paths.iter().map(|path| path.action))
    }

    /// Whether it puts tokens in place of values.
    pub fn tokenises(&self) -> bool {
        self.actions().any(|action| action == GuardAction::Tokenise)
    }
}

impl Default for GuardSpec {
    fn default() -> Self {
        Self {
            description: String::new(),
            mode: GuardMode::Enforce,
            directions: [GuardDirection::Arguments, GuardDirection::Results].into(),
            principals: BTreeSet::new(),
            tools: BTreeSet::new(),
            rules: Vec::new(),
            dictionaries: Vec::new(),
            paths: Vec::new(),
            reveal: None,
            external: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_documents_and_groups_hold_every_kind_once() {
        let mut members = BTreeSet::new();
        for kind in GuardKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            let expect = if kind.is_group() { 9..=10 } else { 1..=1 };
            assert!(expect.contains(&kind.members().len()), "{kind} has {}", kind.members().len());
            if kind.is_group() {
                assert!(kind.members().iter().all(|k| !k.is_group() && members.insert(*k)), "{kind}");
            }
        }
        assert_eq!(members.len(), GuardKind::ALL.len() - 2);
        assert!(GuardKind::Secrets.members().starts_with(&[GuardKind::PrivateKey]));
    }
}
