//! Objects and arrays edited member by member, the rest kept byte for byte.

use std::{borrow::Cow, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    RawJson,
    raw::{quoted, text_of},
    scan::{JsonFault, Scanner},
};

/// Members that most objects have at most.
const TYPICAL_MEMBERS: usize = 8;

/// One member: its key as text with quotes, and its value.
#[derive(Clone, Debug)]
struct Member {
    key: Piece,
    /// The key decoded, where that differs from what stands between its quotes.
    decoded: Option<Box<[u8]>>,
    value: Piece,
}

/// A part of the text that an object came from, or text of its own.
#[derive(Clone, Debug)]
enum Piece {
    At(Range<usize>),
    Own(Bytes),
}

impl Piece {
    fn bytes<'a>(&'a self, source: &'a [u8]) -> &'a [u8] {
        match self {
            Self::At(range) => source.get(range.clone()).unwrap_or_default(),
            Self::Own(bytes) => bytes,
        }
    }
}

impl Member {
    fn new(name: &str, value: RawJson) -> Self {
        let quoted = quoted(name);
        let same = quoted.get(1..quoted.len().saturating_sub(1)) == Some(name.as_bytes());
        let decoded = (!same).then(|| name.as_bytes().into());
        Self { key: Piece::Own(quoted), decoded, value: Piece::Own(value.bytes()) }
    }

    fn decoded<'a>(&'a self, source: &'a [u8]) -> &'a [u8] {
        let quoted = self.key.bytes(source);
        match &self.decoded {
            Some(decoded) => decoded,
            None => quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default(),
        }
    }
}

/// A JSON object whose members can be read, replaced, added and removed; order and unknown members
/// stay, and values keep their bytes (shared, not copied, until [`RawObject::finish`]). To read one costs
/// one allocation, however many members it has: most are looked at and never changed.
///
/// ```
/// use provost_mcp::{RawJson, RawObject};
/// let raw = RawJson::from_checked(bytes::Bytes::from_static(br#"{"name":"a.b","x":1.50}"#));
/// let mut object = RawObject::parse(&raw).unwrap();
/// object.set_text("name", "b");
/// assert_eq!(object.finish().as_str(), r#"{"name":"b","x":1.50}"#);
/// ```
#[derive(Clone, Debug)]
pub struct RawObject {
    /// The text it came from; members are parts of it.
    source: Bytes,
    is_changed: bool,
    members: Vec<Member>,
}

impl Default for RawObject {
    fn default() -> Self {
        Self::new()
    }
}

impl RawObject {
    /// An object without members.
    pub fn new() -> Self {
        Self { source: Bytes::new(), is_changed: true, members: Vec::new() }
    }

    /// Reads the members of an object; values are slices of `raw`.
    pub fn parse(raw: &RawJson) -> Result<Self, JsonFault> {
        let source = raw.bytes();
        let mut members = Vec::with_capacity(TYPICAL_MEMBERS);
        Scanner::of_checked(&source).whole_object(|key, value| {
            let decoded = key.escaped.then(|| key.decode(&source).into_owned().into());
            members.push(Member { key: Piece::At(key.start - 1..key.end + 1), decoded, value: Piece::At(value) });
        })?;
        Ok(Self { source, is_changed: false, members })
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.members.iter().position(|m| m.decoded(&self.source) == key.as_bytes())
    }

    fn member(&self, key: &str) -> Option<&Member> {
        self.members.get(self.position(key)?)
    }

    fn value(&self, member: &Member) -> RawJson {
        RawJson::part(match &member.value {
            Piece::At(range) => self.source.slice(range.clone()),
            Piece::Own(bytes) => bytes.clone(),
        })
    }

    /// The member's value.
    pub fn get(&self, key: &str) -> Option<RawJson> {
        self.member(key).map(|member| self.value(member))
    }

    /// The member's value if it is a string, decoded.
    pub fn get_text(&self, key: &str) -> Option<String> {
        let value = self.member(key)?.value.bytes(&self.source);
        text_of(std::str::from_utf8(value).ok()?).map(Cow::into_owned)
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
        self.is_changed = true;
        match self.position(key).and_then(|i| self.members.get_mut(i)) {
            Some(member) => member.value = Piece::Own(value.bytes()),
            None => self.members.push(Member::new(key, value)),
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
        self.is_changed = true;
        let member = self.members.remove(i);
        Some(self.value(&member))
    }

    /// Keys and values in order. A key with a lone surrogate is given with replacement characters.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, RawJson)> {
        self.members.iter().map(|m| (String::from_utf8_lossy(m.decoded(&self.source)), self.value(m)))
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
        if self.is_changed { self.text() } else { RawJson::part(self.source) }
    }

    /// The same, and the object stays.
    pub fn text(&self) -> RawJson {
        if !self.is_changed {
            return RawJson::part(self.source.clone());
        }
        let source = &*self.source;
        let lengths = self.members.iter().map(|m| m.key.bytes(source).len() + m.value.bytes(source).len() + 2);
        let size = lengths.sum::<usize>();
        let mut out = BytesMut::with_capacity(size + 2);
        out.put_u8(b'{');
        for (i, member) in self.members.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            out.put_slice(member.key.bytes(source));
            out.put_u8(b':');
            out.put_slice(member.value.bytes(source));
        }
        out.put_u8(b'}');
        RawJson::from_checked(out.freeze())
    }
}

/// The items of a JSON array, as slices of it.
pub fn array_items(raw: &RawJson) -> Result<Vec<RawJson>, JsonFault> {
    let bytes = raw.bytes();
    let mut items = Vec::new();
    Scanner::of_checked(&bytes).whole_array(|item| items.push(raw.slice(item)))?;
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
