//! What each issuer's tokens look like, from their documentation.

use super::jwt;
use crate::{
    bytes::{ALNUM, BASE64_URL, DOTTED, UPPER_ALNUM},
    kind::Kind,
};

/// One form of token.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) literal: &'static str,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// How much of the token (fixed text included) is one; `None` if it is none.
    pub(crate) check: fn(&[u8]) -> Option<usize>,
}

/// What follows the fixed text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Bytes of a class.
    Run(u8, Length),
    /// An armoured key up to its end marker.
    Armour,
}

/// How many bytes follow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Exactly(usize),
    AtLeast(usize),
}

use Length::{AtLeast, Exactly};

const fn run(kind: Kind, literal: &'static str, class: u8, length: Length, check: fn(&[u8]) -> Option<usize>) -> Rule {
    Rule { literal, kind, shape: Shape::Run(class, length), check }
}

/// Where one fixed text begins with another, the longer one comes first.
pub(crate) static RULES: [Rule; 38] = [
    Rule { literal: "-----BEGIN ", kind: Kind::PrivateKey, shape: Shape::Armour, check: whole },
    run(Kind::AwsKey, "AKIA", UPPER_ALNUM, Exactly(16), whole),
    run(Kind::AwsKey, "ASIA", UPPER_ALNUM, Exactly(16), whole),
    run(Kind::GithubToken, "ghp_", ALNUM, AtLeast(36), whole),
    run(Kind::GithubToken, "gho_", ALNUM, AtLeast(36), whole),
    run(Kind::GithubToken, "ghu_", ALNUM, AtLeast(36), whole),
    run(Kind::GithubToken, "ghs_", DOTTED, AtLeast(36), sentence),
    run(Kind::GithubToken, "ghr_", ALNUM, AtLeast(36), whole),
    run(Kind::GithubToken, "github_pat_", BASE64_URL, AtLeast(60), mixed),
    run(Kind::SlackToken, "xoxb-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xoxp-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xoxa-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xoxr-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xoxs-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xoxe-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xoxe.xox", DOTTED, AtLeast(24), has_digit),
    run(Kind::SlackToken, "xapp-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::StripeKey, "sk_live_", ALNUM, AtLeast(16), has_digit),
    run(Kind::StripeKey, "sk_test_", ALNUM, AtLeast(16), has_digit),
    run(Kind::StripeKey, "rk_live_", ALNUM, AtLeast(16), has_digit),
    run(Kind::StripeKey, "rk_test_", ALNUM, AtLeast(16), has_digit),
    run(Kind::StripeKey, "whsec_", ALNUM, AtLeast(32), has_digit),
    run(Kind::GoogleKey, "AIza", BASE64_URL, Exactly(35), whole),
    run(Kind::Jwt, "eyJ", DOTTED, AtLeast(20), jwt::check),
    run(Kind::AnthropicKey, "sk-ant-", BASE64_URL, AtLeast(24), has_digit),
    run(Kind::OpenAiKey, "sk-proj-", BASE64_URL, AtLeast(24), mixed),
    run(Kind::OpenAiKey, "sk-svcacct-", BASE64_URL, AtLeast(24), mixed),
    run(Kind::OpenAiKey, "sk-admin-", BASE64_URL, AtLeast(24), mixed),
    run(Kind::OpenAiKey, "sk-", BASE64_URL, AtLeast(32), mixed),
    run(Kind::ServiceToken, "glpat-", DOTTED, AtLeast(20), sentence),
    run(Kind::ServiceToken, "glrt-", DOTTED, AtLeast(20), sentence),
    run(Kind::ServiceToken, "gldt-", BASE64_URL, AtLeast(20), mixed),
    run(Kind::ServiceToken, "glcbt-", BASE64_URL, AtLeast(20), mixed),
    run(Kind::ServiceToken, "npm_", ALNUM, Exactly(36), mixed),
    run(Kind::ServiceToken, "hf_", ALNUM, Exactly(34), two_cases),
    run(Kind::ServiceToken, "SG.", DOTTED, AtLeast(66), send_grid),
    // Our own: an id and 43 characters of base64url.
    run(Kind::ServiceToken, "pv_", BASE64_URL, AtLeast(44), mixed),
    run(Kind::ServiceToken, "pva_", BASE64_URL, AtLeast(40), mixed),
];

fn whole(token: &[u8]) -> Option<usize> {
    Some(token.len())
}

/// How much of a token is looked at: enough to be sure, and no more for each of many.
const CHECKED_MAX: usize = 96;

/// The full stop of a sentence, or three, are not part of the token.
pub(super) fn without_full_stop(token: &[u8]) -> &[u8] {
    (0..3).fold(token, |token, _| token.strip_suffix(b".").unwrap_or(token))
}

fn sentence(token: &[u8]) -> Option<usize> {
    mixed(without_full_stop(token))
}

/// Whether one of the bytes that are looked at is of a kind. No early end: so it is done with SIMD.
fn any(token: &[u8], is: impl Fn(&u8) -> bool) -> bool {
    token[..token.len().min(CHECKED_MAX)].iter().fold(false, |any, b| any | is(b))
}

fn has_digit(token: &[u8]) -> Option<usize> {
    any(token, u8::is_ascii_digit).then_some(token.len())
}

fn two_cases(token: &[u8]) -> Option<usize> {
    (any(token, u8::is_ascii_uppercase) && any(token, u8::is_ascii_lowercase)).then_some(token.len())
}

/// Names in code are rarely of both cases and digits; random texts of this length always are.
fn mixed(token: &[u8]) -> Option<usize> {
    has_digit(token).and(two_cases(token))
}

/// 22 characters, a dot, 43 characters.
fn send_grid(token: &[u8]) -> Option<usize> {
    const LEN: usize = "SG.".len() + 22 + 1 + 43;
    let parts = token.get(..LEN)?.split(|b| *b == b'.').map(<[u8]>::len);
    let alone = token.len() == LEN || token[LEN] == b'.';
    (alone && parts.eq([2, 22, 43])).then_some(LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_fixed_text_comes_before_its_beginning() {
        for (i, rule) in RULES.iter().enumerate() {
            let hidden = RULES[..i].iter().find(|earlier| rule.literal.starts_with(earlier.literal));
            assert!(hidden.is_none(), "{} is hidden by {:?}", rule.literal, hidden.map(|r| r.literal));
        }
    }
}
