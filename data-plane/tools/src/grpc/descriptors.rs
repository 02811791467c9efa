//! Files of descriptors, and the pool that is made of them.
//!
//! Invariants: files and their bytes are bounded; a file that cannot be used costs what needs it, and nothing else; the
//! files of protobuf itself are ours, whatever others say that they are; no descriptor ends a task ([`caught`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DescriptorPool,
    prost_types::{DescriptorProto, FileDescriptorProto, field_descriptor_proto::Label, field_descriptor_proto::Type},
};

use crate::UpstreamError;

/// Files of one plugin.
pub(super) const MAX_FILES: usize = 1_024;
/// Bytes of all of them.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A `FileDescriptorSet`, its files as bytes: options that are extensions stay in them.
#[derive(Clone, PartialEq, Message)]
struct Set {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// What of a `FileDescriptorProto` is needed to put files in order.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
}

struct File {
    /// Each once: how often one is named would be work in every round.
    imports: BTreeSet<String>,
    bytes: Bytes,
}

/// Files by name, each once.
#[derive(Default)]
pub(super) struct Files {
    by_name: BTreeMap<String, File>,
    bytes: usize,
}

impl Files {
    /// The files of a `FileDescriptorSet` in Base64; white space in it does not matter.
    pub(super) fn of_base64(text: &str) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = BASE64_STANDARD.decode(text).map_err(|cause| format!("it is no Base64: {cause}"))?;
        let set = Set::decode(&bytes[..]).map_err(|_| "it is no `FileDescriptorSet`".to_owned())?;
        let mut files = Self::default();
        for file in set.files {
            files.add(file).map_err(|cause| cause.to_string())?;
        }
        match files.by_name.is_empty() {
            true => Err("it has no files".to_owned()),
            false => Ok(files),
        }
    }

    /// One more file; one of the same name is kept as it is.
    pub(super) fn add(&mut self, bytes: Bytes) -> Result<(), UpstreamError> {
        let head = Head::decode(bytes.clone());
        let head = head.map_err(|_| UpstreamError::Garbage("a file of its descriptors cannot be read".to_owned()))?;
        if self.by_name.contains_key(&head.name) {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > MAX_BYTES || self.by_name.len() >= MAX_FILES {
            return Err(UpstreamError::TooLarge(MAX_BYTES));
        }
        let imports: BTreeSet<String> = head.imports.into_iter().collect();
        if imports.len() > MAX_FILES {
            return Err(UpstreamError::Garbage(format!(
                "a file of its descriptors imports more than {MAX_FILES} others"
            )));
        }
        self.by_name.insert(head.name, File { imports, bytes });
        Ok(())
    }

    /// Files that are imported and not there.
    pub(super) fn missing(&self) -> BTreeSet<String> {
        let ours = DescriptorPool::global();
        let imported = self.by_name.values().flat_map(|file| &file.imports);
        let is_missing = |name: &&String| !self.by_name.contains_key(*name) && ours.get_file_by_name(name).is_none();
        imported.filter(is_missing).cloned().collect()
    }

    /// What the files describe, and which of them cannot be used.
    pub(super) fn read(self) -> (DescriptorPool, Vec<(String, String)>) {
        let mut pool = DescriptorPool::global();
        let (mut waiting, mut left_out) = (self.by_name, Vec::new());
        // Each round takes those whose imports are there; a circle never comes to its turn.
        loop {
            let is_ready = |file: &File| file.imports.iter().all(|import| pool.get_file_by_name(import).is_some());
            let ready: Vec<String> =
                waiting.iter().filter(|(_, file)| is_ready(file)).map(|(name, _)| name.clone()).collect();
            if ready.is_empty() {
                break;
            }
            for name in ready {
                let Some(file) = waiting.remove(&name) else { continue };
                let added = match is_sound(&file.bytes) {
                    true => pool.decode_file_descriptor_proto(file.bytes).map_err(|cause| cause.to_string()),
                    false => Err("it has a map or an enumeration that is none".to_owned()),
                };
                left_out.extend(added.err().map(|cause| (name, cause)));
            }
        }
        let lacks = |name| (name, "something that it imports is not there".to_owned());
        left_out.extend(waiting.into_keys().map(lacks));
        (pool, left_out)
    }
}

/// Does what others' descriptors, and messages by them, are read with; `None`: it panicked. The reader takes it for
/// granted that a compiler wrote the descriptors, which nobody knows of those that a server gives.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What it worked on is dropped with it, or was only looked at.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Whether maps and enumerations of a file are what they have to be: the reader looks at their parts unseen.
fn is_sound(file: &Bytes) -> bool {
    FileDescriptorProto::decode(file.clone()).is_ok_and(|file| {
        file.enum_type.iter().all(|of| !of.value.is_empty()) && file.message_type.iter().all(is_sound_message)
    })
}

fn is_sound_message(message: &DescriptorProto) -> bool {
    let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
    (!is_map || is_entry(message))
        && message.enum_type.iter().all(|of| !of.value.is_empty())
        && message.nested_type.iter().all(is_sound_message)
}

/// Whether a message is an entry of a map: a key that JSON has, and one value.
fn is_entry(message: &DescriptorProto) -> bool {
    let [key, value] = &message.field[..] else { return false };
    let no_key = [Type::Double, Type::Float, Type::Bytes, Type::Message, Type::Enum, Type::Group];
    (key.number(), value.number()) == (1, 2)
        && key.r#type.is_some()
        && !no_key.contains(&key.r#type())
        && [key, value].iter().all(|field| field.label() != Label::Repeated)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost_reflect::prost_types::{EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions};

    use super::*;

    #[test]
    fn what_no_compiler_writes_is_left_out() {
        let field = |name: &str, number: i32, of: Type| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            r#type: Some(of.into()),
            label: Some(Label::Optional.into()),
            ..Default::default()
        };
        let map = |fields: Vec<FieldDescriptorProto>| {
            let options = MessageOptions { map_entry: Some(true), ..Default::default() };
            let entry = DescriptorProto {
                name: Some("E".to_owned()),
                field: fields,
                options: Some(options),
                ..Default::default()
            };
            let mut whole = file("m.proto", &[], "M");
            whole.message_type.extend([entry]);
            whole
        };
        let (key, value) = (field("key", 1, Type::String), field("value", 2, Type::Bool));
        let repeated = FieldDescriptorProto { label: Some(Label::Repeated.into()), ..value.clone() };
        let mut no_values = file("m.proto", &[], "M");
        no_values.enum_type.push(EnumDescriptorProto { name: Some("N".to_owned()), ..Default::default() });
        for (case, whole, expect) in [
            ("good", map(vec![key.clone(), value.clone()]), true),
            ("empty", map(Vec::new()), false),
            ("no value", map(vec![key.clone()]), false),
            ("a key of fractions", map(vec![field("key", 1, Type::Double), value.clone()]), false),
            ("many values", map(vec![key.clone(), repeated]), false),
            ("other numbers", map(vec![key, field("value", 3, Type::Bool)]), false),
            ("an enumeration of nothing", no_values, false),
        ] {
            let mut files = Files::default();
            files.add(whole.encode_to_vec().into()).unwrap();
            let (pool, left_out) = files.read();
            assert_eq!((pool.get_message_by_name("M").is_some(), left_out.is_empty()), (expect, expect), "{case}");
        }
        assert_eq!(caught(|| 7), Some(7));
    }

    fn file(name: &str, imports: &[&str], message: &str) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.to_owned()),
            dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
            message_type: vec![DescriptorProto { name: Some(message.to_owned()), ..Default::default() }],
            syntax: Some("proto3".to_owned()),
            ..Default::default()
        }
    }

    #[test]
    fn files_are_read_in_any_order_and_a_bad_one_costs_what_needs_it() {
        let mut files = Files::default();
        let all = [
            file("c.proto", &["b.proto", "google/protobuf/any.proto"], "C"),
            file("b.proto", &["a.proto"], "B"),
            file("a.proto", &[], "A"),
            file("lost.proto", &["none.proto"], "Lost"),
            file("round.proto", &["about.proto"], "Round"),
            file("about.proto", &["round.proto"], "About"),
            // Two of one name cannot both be.
            file("again.proto", &[], "A"),
            file("google/protobuf/any.proto", &[], "Ours"),
        ];
        for file in &all {
            files.add(file.encode_to_vec().into()).unwrap();
        }
        assert_eq!(files.missing(), BTreeSet::from(["none.proto".to_owned()]));
        let (pool, left_out) = files.read();
        let has = |name: &str| pool.get_message_by_name(name).is_some();
        assert!(has("A") && has("B") && has("C") && has("google.protobuf.Any") && !has("Ours"));
        let names: BTreeSet<&str> = left_out.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["lost.proto", "round.proto", "about.proto", "again.proto"]));
    }

    #[test]
    fn a_set_is_base64_of_files() {
        let set = FileDescriptorSet { file: vec![file("a.proto", &[], "A")] };
        let text = BASE64_STANDARD.encode(set.encode_to_vec());
        let (first, rest) = text.split_at(10);
        let (pool, _) = Files::of_base64(&format!("{first}\n  {rest}\n")).unwrap().read();
        assert!(pool.get_message_by_name("A").is_some());
        for text in ["", "???", "AAAA", &BASE64_STANDARD.encode(b"no set at all")] {
            assert!(Files::of_base64(text).is_err(), "{text}");
        }
        let names: Vec<String> = (0..=MAX_FILES).map(|n| format!("{n}.proto")).collect();
        let many: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = FileDescriptorSet { file: vec![file("a.proto", &many, "A")] };
        assert!(Files::of_base64(&BASE64_STANDARD.encode(many.encode_to_vec())).is_err());
        let large = FileDescriptorSet { file: vec![file("a.proto", &[], &"x".repeat(MAX_BYTES))] };
        assert!(Files::of_base64(&BASE64_STANDARD.encode(large.encode_to_vec())).is_err());
    }
}
