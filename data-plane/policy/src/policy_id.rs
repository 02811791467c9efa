//! Which policy of a text a place is in, by its `@id`: also of a text that Cedar cannot parse.
//!
//! Only what stands before a policy's scope is read, so that a fault anywhere else hides no name.

/// The `@id` of the policy that holds a byte offset, if it has one.
pub(crate) fn id_at(text: &str, offset: usize) -> Option<&str> {
    id_of(policy_at(text, offset)).filter(|id| !id.is_empty())
}

/// The policy that holds the offset, up to its `;`.
fn policy_at(text: &str, offset: usize) -> &str {
    let bytes = text.as_bytes();
    let (mut start, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += 1 + literal_end(&bytes[at + 1..]),
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at);
            }
            b';' if at >= offset => return &text[start..at],
            b';' => start = at + 1,
            _ => {}
        }
        at += 1;
    }
    &text[start..]
}

/// Bytes up to the quote that ends a literal, or all of them.
fn literal_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// The value of `@id` among a policy's annotations.
fn id_of(policy: &str) -> Option<&str> {
    let mut rest = without_blanks(policy);
    while let Some(annotation) = rest.strip_prefix('@') {
        let end = annotation.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(annotation.len());
        let (name, tail) = annotation.split_at(end);
        let tail = without_blanks(tail);
        let Some(value) = tail.strip_prefix('(') else {
            rest = tail;
            continue;
        };
        let value = without_blanks(value).strip_prefix('"')?;
        let end = literal_end(value.as_bytes());
        if name == "id" {
            return value.get(..end);
        }
        rest = without_blanks(without_blanks(value.get(end + 1..)?).strip_prefix(')')?);
    }
    None
}

/// Without blanks and comments at the beginning.
fn without_blanks(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix("//") {
            Some(comment) => text = comment.split_once('\n').map_or("", |(_, rest)| rest),
            None => return text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::id_at;

    #[test]
    fn a_place_is_in_the_policy_around_it() {
        let text = "// @id(\"no\")\n@note(\"a \\\" ; b\") @id(\"one\") permit(principal, action, resource); // ; \"\n\
                    permit(principal, action, resource) when { \"é; @id(\\\"x\\\")\" == \"\" };\n\
                    @id (\"two\")\nforbid(";
        let at = |part: &str, nth: usize| text.match_indices(part).nth(nth).map(|(at, _)| at).unwrap_or(usize::MAX);
        for (offset, expect) in [
            (0, Some("one")),
            (at("permit", 0), Some("one")),
            (at("permit", 1), None),
            (at("when", 0), None),
            (at("forbid", 0), Some("two")),
            (usize::MAX, Some("two")),
        ] {
            assert_eq!(id_at(text, offset), expect, "{offset}");
        }
        for text in ["", "permit(", "@", "@id", "@id(", "@id(\"", "@id(\"\")", "\"\\", "@a(\"\\"] {
            for offset in 0..=text.len() {
                assert_eq!(id_at(text, offset), None, "{text} {offset}");
            }
        }
    }
}
