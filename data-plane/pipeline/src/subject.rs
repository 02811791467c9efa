//! The token that a caller came with, for whoever may exchange it.

use std::{fmt, sync::Arc};

/// A caller's own token, verified. It is exchanged for one of an upstream's (RFC 8693), never sent to one, and
/// never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectToken(Arc<str>);

impl SubjectToken {
    /// A token that authentication has verified.
    pub fn verified(token: &str) -> Self {
        Self(token.into())
    }

    /// The token itself: for a token endpoint, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token = SubjectToken::verified("ey.very.secret");
        assert_eq!(format!("{token:?} {:?}", Some(&token)), "SubjectToken(…) Some(SubjectToken(…))");
        assert_eq!(token.expose(), "ey.very.secret");
    }
}
