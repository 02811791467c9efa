//! What can be found, and how often it was.

use std::fmt;

macro_rules! kinds {
    ($($kind:ident $name:literal $what:literal,)+) => {
        /// A kind of protected value.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $what] $kind,)+
            /// A word of a dictionary.
            Word,
            /// Whatever stands at a place in JSON.
            Path,
            /// Whatever an external guard found.
            External,
        }

        impl Kind {
            /// Every kind that detectors find, in the order of the enum.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)+];

            /// The stable name: what configuration, records and metrics say.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)+ Kind::Word => "word", Kind::Path => "path", Kind::External => "external" }
            }
        }
    };
}

kinds! {
    Card "card" "Payment card number: issuer range, length and Luhn digit.",
    Iban "iban" "IBAN: the length of its country, mod 97 (ISO 13616).",
    Email "email" "E-mail address.",
    Phone "phone" "Phone number: E.164, North American, or after a word such as `phone`.",
    UsSsn "us-ssn" "US social security number.",
    EsDni "es-dni" "Spanish DNI or NIE, with its letter.",
    NlBsn "nl-bsn" "Dutch BSN, after a word that says so.",
    ItFiscalCode "it-fiscal-code" "Italian codice fiscale, with its letter.",
    DeTaxId "de-tax-id" "German Steuer-Identifikationsnummer.",
    PrivateKey "private-key" "PEM or OpenPGP private key.",
    AwsKey "aws-key" "AWS access key id.",
    GithubToken "github-token" "GitHub token of any kind.",
    SlackToken "slack-token" "Slack token.",
    StripeKey "stripe-key" "Stripe secret or restricted key, or webhook secret.",
    GoogleKey "google-key" "Google API key.",
    Jwt "jwt" "JSON web token, signed or encrypted.",
    OpenAiKey "openai-key" "OpenAI key, and others of the form `sk-…`.",
    AnthropicKey "anthropic-key" "Anthropic key.",
    ServiceToken "service-token" "Token of GitLab, npm, Hugging Face or SendGrid.",
}

impl Kind {
    /// How many kinds detectors find.
    pub const COUNT: usize = Kind::ALL.len();
    /// How many kinds there are.
    pub(crate) const EVERY: usize = Kind::COUNT + 3;

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|k| k.name() == name)
    }

    /// Every kind there is.
    pub(crate) fn every() -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().chain([Kind::Word, Kind::Path, Kind::External])
    }

    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KindSet(u32);

impl KindSet {
    pub(crate) fn insert(&mut self, kind: Kind) {
        self.0 |= kind.bit();
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::every().filter(move |kind| self.has(*kind))
    }

    pub(crate) const fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    pub(crate) const fn has_any(self, mask: u32) -> bool {
        self.0 & mask != 0
    }
}

/// How many of each kind were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts([u32; Kind::EVERY]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Kind::EVERY])
    }
}

impl Counts {
    /// How many of this kind.
    pub fn of(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }

    /// The kinds that were found, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u32)> + '_ {
        Kind::every().map(|k| (k, self.of(k))).filter(|(_, n)| *n > 0)
    }

    /// Adds what another part of the same call held.
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    pub(crate) fn add(&mut self, kind: Kind) {
        let n = &mut self.0[kind as usize];
        *n = n.saturating_add(1);
    }
}
