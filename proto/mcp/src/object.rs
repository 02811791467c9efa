//! Objects and arrays edited member by member, the rest kept byte for byte.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    RawJson,
    scan::{JsonFault, JsonLimits, Scanner},
};

/// One member: its key decoded, its key as text with quotes, its value.
#[derive(Clone, Debug)]
struct Member {
    name: Name,
    value: RawJson,
}

/// A key: the text with its quotes, and the decoded form where that differs.
#[derive(Clone, Debug)]
struct Name {
    quoted: Bytes,
    decoded: Option<Box<[u8]>>,
}

impl Name {
    fn new(text: &str) -> Self {
        let quoted = serde_json::to_vec(text).unwrap_or_default();
        let same = quoted.get(1..quoted.len() - 1) == Some(text.as_bytes());
        let decoded = (!same).then(|| text.as_bytes().into());
        Self { quoted: quoted.into(), decoded }
    }

    fn decoded(&self) -> &[u8] {
        match &self.decoded {
            Some(decoded) => decoded,
            None => self.quoted.get(1..self.quoted.len().saturating_sub(1)).unwrap_or_default(),
        }
    }
}

/// A JSON object whose members can be read, replaced, added and removed; order and unknown members
/// stay, and values keep their bytes (shared, not copied, until [`RawObject::finish`]).
///
/// ```
/// use provost_mcp::{RawJson, RawObject};
/// let raw = RawJson::from_checked(bytes::Bytes::from_static(br#"{"name":"a.b","x":1.50}"#));
/// let mut object = RawObject::parse(&raw).unwrap();
/// object.set_text("name", "b");
/// assert_eq!(object.finish().as_str(), r#"{"name":"b","x":1.50}"#);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RawObject {
    /// The text it came from, as long as nothing was changed.
    unchanged: Option<RawJson>,
    members: Vec<Member>,
}

impl RawObject {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the members of an object; values are slices of `raw`.
    pub fn parse(raw: &RawJson) -> Result<Self, JsonFault> {
        let bytes = raw.bytes();
        let mut members = Vec::new();
        Scanner::new(&bytes, JsonLimits::MAX_DEPTH).whole_object(|key, value| {
            let quoted = bytes.slice(key.start - 1..key.end + 1);
            let decoded = key.escaped.then(|| key.decode(&bytes).into_owned().into());
            members.push(Member { name: Name { quoted, decoded }, value: raw.slice(value) });
        })?;
        Ok(Self { unchanged: Some(raw.clone()), members })
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.members.iter().position(|m| m.name.decoded() == key.as_bytes())
    }

    /// The member's value.
    pub fn get(&self, key: &str) -> Option<RawJson> {
        self.position(key).map(|i| self.members[i].value.clone())
    }

    /// The member's value if it is a string, decoded.
    pub fn get_text(&self, key: &str) -> Option<String> {
        self.get(key)?.as_text().map(Cow::into_owned)
    }

    /// The member's value if it is an object.
    pub fn get_object(&self, key: &str) -> Option<RawObject> {
        Self::parse(&self.get(key)?).ok()
    }

    /// Whether there is such a member.
    pub fn has(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Replaces the member in its place, or adds it at the end.
    pub fn set(&mut self, key: &str, value: RawJson) {
        self.unchanged = None;
        match self.position(key) {
            Some(i) => self.members[i].value = value,
            None => self.members.push(Member { name: Name::new(key), value }),
        }
    }

    /// Like [`RawObject::set`] with a string value.
    pub fn set_text(&mut self, key: &str, text: &str) {
        self.set(key, RawJson::from_text(text));
    }

    /// Adds the member only if there is none of that name.
    pub fn set_default(&mut self, key: &str, value: impl FnOnce() -> RawJson) {
        if !self.has(key) {
            self.set(key, value());
        }
    }

    /// Sets a member of the object under `key`, which is made if it is not there (or no object).
    pub fn set_in(&mut self, key: &str, inner: &str, value: RawJson) {
        let mut object = self.get_object(key).unwrap_or_default();
        object.set(inner, value);
        self.set(key, object.finish());
    }

    /// Takes the member out.
    pub fn remove(&mut self, key: &str) -> Option<RawJson> {
        let i = self.position(key)?;
        self.unchanged = None;
        Some(self.members.remove(i).value)
    }

    /// Keys and values in order. A key with a lone surrogate is given with replacement characters.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &RawJson)> {
        self.members.iter().map(|m| (String::from_utf8_lossy(m.name.decoded()), &m.value))
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The object as text: the very bytes it came from if nothing was changed.
    pub fn finish(self) -> RawJson {
        if let Some(raw) = self.unchanged {
            return raw;
        }
        let size = self.members.iter().map(|m| m.name.quoted.len() + m.value.as_bytes().len() + 2).sum::<usize>();
        let mut out = BytesMut::with_capacity(size + 2);
        out.put_u8(b'{');
        for (i, member) in self.members.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            out.put_slice(&member.name.quoted);
            out.put_u8(b':');
            out.put_slice(member.value.as_bytes());
        }
        out.put_u8(b'}');
        RawJson::from_checked(out.freeze())
    }
}

/// The items of a JSON array, as slices of it.
pub fn array_items(raw: &RawJson) -> Result<Vec<RawJson>, JsonFault> {
    let bytes = raw.bytes();
    let mut items = Vec::new();
    Scanner::new(&bytes, JsonLimits::MAX_DEPTH).whole_array(|item| items.push(raw.slice(item)))?;
    Ok(items)
}

/// A JSON array of the items, in order.
pub fn array_of<'a>(items: impl IntoIterator<Item = &'a RawJson>) -> RawJson {
    let mut out = BytesMut::new();
    out.put_u8(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item.as_bytes());
    }
    out.put_u8(b']');
    RawJson::from_checked(out.freeze())
}
