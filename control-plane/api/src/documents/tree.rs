//! A YAML (or JSON) text as a tree, with or without the place of each node: knowing the places takes
//! several times as long.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};

use super::MAX_DOCUMENTS;

/// A node and its place: line and column from 1, or 0 where unknown.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: (u32, u32),
    /// Taken out because it was wrong; the rest is read as if it were not there.
    pub(crate) removed: bool,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    String(String),
    Seq(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: (u32, u32),
}

/// The documents of a text, or why it is not read: the place, the code and the cause.
pub(crate) type Read = Result<Vec<Node>, ((u32, u32), &'static str, String)>;

/// The code of a text that is no YAML.
const SYNTAX: &str = "PV-DOC-SYNTAX";
/// The code of one that is more than is read at once.
pub(super) const SIZE: &str = "PV-DOC-SIZE";

/// Opening brackets of a text that is flat: it cannot be nested deeper, and any stack is enough for that.
const MAX_FLAT_BRACKETS: usize = 8;
/// Bytes of a text that is looked through for them.
const MAX_FLAT_BYTES: usize = 64 << 10;

/// Reads the documents of a text that has few brackets and is sound JSON; `None`: it is not.
pub(crate) fn read_flat(text: &str) -> Option<Read> {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'{' | b'['));
    if text.len() > MAX_FLAT_BYTES || brackets.count() > MAX_FLAT_BRACKETS {
        return None;
    }
    Some(Ok(parts(read_json(text)?)))
}

/// Reads every document of a text; empty ones are left out, and a list at the top is taken as
/// one document an item. Without `PLACED` the places of nodes are 0.
pub(crate) fn read<const PLACED: bool>(text: &str) -> Read {
    if !PLACED && let Some(document) = read_json(text) {
        return Ok(parts(document));
    }
    let budget = serde_saphyr::budget! { max_documents: MAX_DOCUMENTS };
    let options = serde_saphyr::options! { budget: budget };
    let documents: Vec<ReadNode<PLACED>> = serde_saphyr::from_multiple_with_options(text, options).map_err(|e| {
        let place = e.location().map_or((0, 0), place);
        let (code, said) = plainly(&e.without_snippet().to_string());
        (place, code, said)
    })?;
    Ok(documents.into_iter().flat_map(|ReadNode(document)| parts(document)).collect())
}

/// What the parser says, without what it advises those who call it.
fn plainly(said: &str) -> (&'static str, String) {
    let said = said.lines().next().unwrap_or("not YAML");
    if let Some(what) = said.strip_prefix("budget breached: ") {
        return match what.split([' ', '{']).next() {
            Some("Documents") => (SIZE, format!("it has more than {MAX_DOCUMENTS} documents")),
            Some("Depth") => (SYNTAX, "it is nested deeper than is read".to_owned()),
            _ => (SIZE, "it has more values, or refers to some more often, than is read at once".to_owned()),
        };
    }
    let said = said
        .replace(", set DuplicateKeyPolicy in Options if acceptable", "")
        .replace("recursive references require weak recursion types", "a reference stands within what it refers to");
    (SYNTAX, said)
}

/// The documents of what was read as one.
fn parts(document: Node) -> Vec<Node> {
    match document.value {
        Value::Null => Vec::new(),
        Value::Seq(items) => items,
        _ => vec![document],
    }
}

/// What programs send is JSON, which as such is read several times as fast. `None`: it is not, or it
/// is not sound; as YAML it is found out what is wrong.
fn read_json(text: &str) -> Option<Node> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let ReadNode::<false>(document) = serde_json::from_str(text).ok()?;
    (!repeats_a_key(&document)).then_some(document)
}

fn repeats_a_key(node: &Node) -> bool {
    match &node.value {
        Value::Seq(items) => items.iter().any(repeats_a_key),
        Value::Map(entries) => {
            let mut seen = BTreeSet::new();
            entries.iter().any(|(key, node)| !seen.insert(key.text.as_str()) || repeats_a_key(node))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl Node {
    pub(crate) fn empty_map(place: (u32, u32)) -> Self {
        Node { value: Value::Map(Vec::new()), place, removed: false }
    }

    /// The first field of that name, if this is a map that has it.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The tree without what was removed.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Number(n) => n.clone().into(),
            Value::String(s) => s.clone().into(),
            Value::Seq(items) => items.iter().filter(|n| !n.removed).map(Node::to_json).collect(),
            Value::Map(entries) => {
                let kept = entries.iter().filter(|(_, n)| !n.removed);
                kept.map(|(key, node)| (key.text.clone(), node.to_json())).collect()
            }
        }
    }
}

fn place(location: Location) -> (u32, u32) {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (small(location.line()), small(location.column()))
}

/// A node as it is read.
struct ReadNode<const PLACED: bool>(Node);

impl<'de, const PLACED: bool> Deserialize<'de> for ReadNode<PLACED> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (value, place) = if PLACED {
            let spanned = Spanned::<ReadValue<PLACED>>::deserialize(d)?;
            (spanned.value, place(spanned.referenced))
        } else {
            (ReadValue::deserialize(d)?, (0, 0))
        };
        Ok(Self(Node { value: value.0, place, removed: false }))
    }
}

/// What a node holds, as it is read.
struct ReadValue<const PLACED: bool>(Value);

impl<'de, const PLACED: bool> Deserialize<'de> for ReadValue<PLACED> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AnyValue::<PLACED>).map(Self)
    }
}

struct AnyValue<const PLACED: bool>;

impl<'de, const PLACED: bool> Visitor<'de> for AnyValue<PLACED> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("is not a finite number"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(ReadNode::<PLACED>(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        let next_key = |map: &mut A| {
            if PLACED {
                let key = map.next_key::<Spanned<String>>()?;
                Ok(key.map(|key| Key { place: place(key.referenced), text: key.value }))
            } else {
                Ok(map.next_key()?.map(|text| Key { text, place: (0, 0) }))
            }
        };
        while let Some(key) = next_key(&mut map)? {
            let ReadNode::<PLACED>(node) = map.next_value()?;
            entries.push((key, node));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_as_the_same_text_reads_as_yaml() {
        for text in [
            r#"{"a": 1, "b": [true, null, -2, 1.5, 1e3, 18446744073709551615], "c": {"d": "é\n\u00e9 \ud83d\ude00"}}"#,
            r#" [{"kind": "Tenant"}, {"kind": "Role"}]"#,
            "{}",
        ] {
            let json = parts(read_json(text).unwrap());
            let yaml = read::<true>(text).unwrap();
            let plain = |nodes: &[Node]| nodes.iter().map(Node::to_json).collect::<Vec<_>>();
            assert_eq!(plain(&json), plain(&yaml), "{text}");
        }
    }

    #[test]
    fn what_is_nested_deeply_or_no_json_is_not_flat() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let (most, more) = (nested(MAX_FLAT_BRACKETS), nested(MAX_FLAT_BRACKETS + 1));
        for (text, expect) in [
            (r#"{"kind": "Tenant", "metadata": {"name": "acme"}}"#, true),
            (r#"[{"kind": "Tenant"}, {"kind": "Role"}]"#, true),
            (most.as_str(), true),
            (more.as_str(), false),
            ("kind: Tenant", false),
            ("{a: 1}", false),
            (r#"{"a": 1, "a": 2}"#, false),
        ] {
            assert_eq!(read_flat(text).is_some(), expect, "{text}");
        }
        let text = r#"[{"kind": "Tenant"}, {"kind": "Role"}]"#;
        let plain = |documents: Vec<Node>| documents.iter().map(Node::to_json).collect::<Vec<_>>();
        assert_eq!(plain(read_flat(text).unwrap().unwrap()), plain(read::<false>(text).unwrap()));
    }

    #[test]
    fn what_is_wrong_is_said_to_who_wrote_it() {
        for (text, expect) in
            [("a: 1\na: 2\n", "duplicate mapping key: a"), ("a: &x [*x]\n", "a reference stands within")]
        {
            let (place, code, said) = read::<true>(text).err().unwrap();
            assert!(place != (0, 0) && code == SYNTAX && said.contains(expect), "{text}: {place:?} {said}");
            assert!(!said.contains("Options") && !said.contains("types"), "{said}");
        }
        let refers =
            |n: u8| format!("{0}: &{0} [{1}]\n", char::from(b'b' + n), format!("*{},", char::from(b'a' + n)).repeat(9));
        let bomb: String =
            std::iter::once("a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()).chain((0..9).map(refers)).collect();
        let (_, code, said) = read::<true>(&bomb).err().unwrap();
        assert!(code == SIZE && said.contains("more values"), "{said}");
    }

    #[test]
    fn what_is_not_sound_json_is_left_to_yaml() {
        for text in
            [r#"{"a": 1, "a": 2}"#, r#"{"a": {"b": 1, "b": 2}}"#, "{a: 1}", r#"{"a": 1"#, "{} {}", "kind: Tenant"]
        {
            assert!(read_json(text).is_none(), "{text}");
        }
    }
}
