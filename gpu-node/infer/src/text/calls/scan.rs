//! The JSON of a call, as far as it has come.

/// Longest name of a function, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Longest text before the arguments, in bytes: it is read again with each piece that comes.
pub(super) const MAX_HEAD_BYTES: usize = 1024;

/// What an unfinished text begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    /// `{"name": "…", "arguments":`, and its arguments begin at this byte.
    Call { name: &'a str, arguments: usize },
    /// It may become that.
    Unfinished,
    /// Something else.
    Other,
}

/// Why a part is not there.
enum Missing {
    Unfinished,
    Other,
}

impl<'a> Head<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        match read(text) {
            Ok((name, rest)) if text.len() - rest.len() <= MAX_HEAD_BYTES => {
                Self::Call { name, arguments: text.len() - rest.len() }
            }
            Err(Missing::Unfinished) if text.len() <= MAX_HEAD_BYTES => Self::Unfinished,
            _ => Self::Other,
        }
    }
}

/// The name, and the text from the arguments on.
fn read(text: &str) -> Result<(&str, &str), Missing> {
    let rest = after(text, "{")?;
    let rest = after(rest, "\"name\"")?;
    let rest = after(rest, ":")?;
    let rest = after(rest, "\"")?;
    let Some((name, rest)) = rest.split_once('"') else {
        return Err(if rest.len() > MAX_NAME_BYTES { Missing::Other } else { Missing::Unfinished });
    };
    let rest = after(rest, ",")?;
    let rest = match after(rest, "\"arguments\"") {
        Err(Missing::Other) => after(rest, "\"parameters\"")?,
        other => other?,
    };
    let rest = after(rest, ":")?.trim_start();
    match rest.as_bytes().first() {
        Some(b'{') => Ok((name, rest)),
        Some(_) => Err(Missing::Other),
        None => Err(Missing::Unfinished),
    }
}

/// What follows `part`, which blanks may stand before.
fn after<'a>(text: &'a str, part: &str) -> Result<&'a str, Missing> {
    let text = text.trim_start();
    match text.strip_prefix(part) {
        Some(rest) => Ok(rest),
        None if part.starts_with(text) => Err(Missing::Unfinished),
        None => Err(Missing::Other),
    }
}

/// Finds the end of an object that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct ObjectEnd {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl ObjectEnd {
    /// In an object already, after so many `{`.
    pub(super) fn within(depth: usize) -> Self {
        Self { depth, ..Self::default() }
    }

    /// Bytes of the piece up to the end of the object, its `}` with them. None: it goes on.
    pub(super) fn find(&mut self, piece: &str) -> Option<usize> {
        for (at, byte) in piece.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                b'{' if !self.in_text => self.depth += 1,
                b'}' if !self.in_text => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_known_once_its_arguments_begin() {
        let text = " {\"name\" : \"get_it\",\n \"arguments\": {\"a\": 1}}";
        let begins = text.find("{\"a\"").unwrap_or_default();
        for end in 0..text.len() {
            let head = Head::of(&text[..end]);
            if end > begins {
                assert_eq!(head, Head::Call { name: "get_it", arguments: begins }, "{end}");
            } else {
                assert_eq!(head, Head::Unfinished, "{end}");
            }
        }
        assert_eq!(Head::of("{\"name\":\"f\",\"parameters\":{"), Head::Call { name: "f", arguments: 25 });
        for other in
            ["x", "{\"arguments\"", "{\"name\": 1", "{\"name\": \"f\"}", "{\"name\": \"f\", \"arguments\": \"{}\""]
        {
            assert_eq!(Head::of(other), Head::Other, "{other}");
        }
        assert_eq!(Head::of(&format!("{{\"name\": \"{}", "n".repeat(65))), Head::Other);
        for (blanks, is_head) in [(1000, true), (MAX_HEAD_BYTES, false)] {
            let blanks = " ".repeat(blanks);
            assert_eq!(Head::of(&format!("{{{blanks}")) == Head::Unfinished, is_head);
            let whole = format!("{{{blanks}\"name\":\"f\",\"arguments\":{{");
            assert_eq!(matches!(Head::of(&whole), Head::Call { .. }), is_head);
        }
    }

    #[test]
    fn an_object_ends_with_its_own_brace() {
        for (text, end) in [
            ("{} x", Some(2)),
            (r#"{"a": {"b": "}"}} x"#, Some(17)),
            (r#"{"a": "\"}"} x"#, Some(12)),
            (r#"{"a": "\\"} x"#, Some(11)),
            (r#"{"a": {"#, None),
            (r#"{"a": "}"#, None),
        ] {
            assert_eq!(ObjectEnd::default().find(text), end, "{text}");
            // However it is cut.
            for cut in 0..text.len() {
                let mut object = ObjectEnd::default();
                let first = object.find(&text[..cut]);
                let found = first.or_else(|| object.find(&text[cut..]).map(|at| cut + at));
                assert_eq!(found, end, "{text} at {cut}");
            }
        }
    }
}
