//! Arguments as a message, and messages as JSON (the JSON mapping of proto3).
//!
//! Invariants: no error repeats a value of the caller's; what a message becomes as JSON has a bound, however small it was,
//! and so has its nesting: messages within an `Any` are counted too, which nobody else does.

use std::io;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use provost_mcp::{RawJson, RawObject};

use super::{
    descriptors::caught,
    method::{Call, DEFAULT_MESSAGES, MAX_MESSAGES, VALUE},
};
use crate::UpstreamError;

/// Room for readers and writers that descend with what they read: a hundred levels.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Messages within messages.
const MAX_LEVELS: usize = 100;
/// Bytes of a detail of a status as JSON.
const MAX_DETAIL_BYTES: usize = 16 * 1024;

/// The message of a call, and how many messages of its answer to take.
pub(super) fn written(call: &Call, arguments: &RawObject) -> Result<(Bytes, usize), UpstreamError> {
    let mut arguments = arguments.clone();
    let mut messages = DEFAULT_MESSAGES;
    if let Some(argument) = &call.messages
        && let Some(given) = arguments.remove(argument)
    {
        let count = given.parse::<usize>();
        let count = count.map_err(|_| refused(argument, "it is no number of messages"))?;
        messages = count.clamp(1, MAX_MESSAGES);
    }
    let json = match call.takes_fields() {
        true => arguments.clone().finish(),
        false => arguments.get(VALUE).ok_or_else(|| refused(VALUE, "it is missing"))?,
    };
    let encoded = || read(&call.input, &json).map(|message| message.encode_to_vec());
    match stacker::grow(STACK_BYTES, || caught(encoded)) {
        Some(Some(message)) => Ok((message.into(), messages)),
        Some(None) => Err(at_fault(call, &arguments)),
        None => Err(unusable(&call.input)),
    }
}

fn refused(name: &str, cause: &str) -> UpstreamError {
    UpstreamError::GrpcArgument { name: name.to_owned(), cause: cause.to_owned() }
}

fn unusable(descriptor: &MessageDescriptor) -> UpstreamError {
    UpstreamError::Garbage(format!("its descriptor of {} cannot be used", descriptor.full_name()))
}

/// `None`: it is no such message. Why not is in words that hold the value.
fn read(descriptor: &MessageDescriptor, json: &RawJson) -> Option<DynamicMessage> {
    let mut reader = serde_json::Deserializer::from_slice(json.as_bytes());
    let options = DeserializeOptions::new();
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &options).ok()?;
    reader.end().ok()?;
    Some(message)
}

/// Which argument cannot be part of the message: the first one that cannot alone.
fn at_fault(call: &Call, arguments: &RawObject) -> UpstreamError {
    if !call.takes_fields() {
        return refused(VALUE, &format!("it has no form as a {}", call.input.full_name()));
    }
    for (name, value) in arguments.iter() {
        let mut alone = RawObject::new();
        alone.set(&name, value);
        let alone = alone.finish();
        if stacker::grow(STACK_BYTES, || caught(|| read(&call.input, &alone))).flatten().is_none() {
            return refused(&name, &format!("it has no form in a {}", call.input.full_name()));
        }
    }
    let cause = format!("together they are no {}: two are of one `oneof`, perhaps", call.input.full_name());
    refused("arguments", &cause)
}

/// A message as JSON, fields without a value included where the mapping has a default for them.
pub(super) fn json(descriptor: &MessageDescriptor, bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, UpstreamError> {
    let json = stacker::grow(STACK_BYTES, || caught(|| json_here(descriptor, bytes, max_bytes)));
    json.unwrap_or_else(|| Err(unusable(descriptor)))
}

fn json_here(descriptor: &MessageDescriptor, bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, UpstreamError> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes)
        .map_err(|_| UpstreamError::Garbage(format!("it is no {}", descriptor.full_name())))?;
    if !is_within(&message, MAX_LEVELS) {
        return Err(UpstreamError::Garbage("its messages are nested too deep".to_owned()));
    }
    let mut room = Room { bytes: Vec::new(), left: max_bytes, is_full: false };
    let options = SerializeOptions::new().skip_default_fields(false);
    let done = message.serialize_with_options(&mut serde_json::Serializer::new(&mut room), &options);
    match done {
        Ok(()) => Ok(room.bytes),
        Err(_) if room.is_full => Err(UpstreamError::TooLarge(max_bytes)),
        // A time out of range, or an `Any` of a message that the descriptors do not know.
        Err(_) => Err(UpstreamError::Garbage(format!("a {} of it has no form as JSON", descriptor.full_name()))),
    }
}

/// Whether a message has at most so many levels. Protobuf's own bound begins anew in each `Any`.
fn is_within(message: &DynamicMessage, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return false };
    if let Some(packed) = packed(message) {
        return is_within(&packed, levels);
    }
    let fields = message.fields().map(|(_, value)| value);
    fields.chain(message.extensions().map(|(_, value)| value)).all(|value| is_value_within(value, levels))
}

fn is_value_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Message(message) => is_within(message, levels),
        Value::List(values) => values.iter().all(|value| is_value_within(value, levels)),
        Value::Map(values) => values.values().all(|value| is_value_within(value, levels)),
        _ => true,
    }
}

/// What is in an `Any`, if it is one of a message that is known.
fn packed(message: &DynamicMessage) -> Option<DynamicMessage> {
    let descriptor = message.descriptor();
    if descriptor.full_name() != "google.protobuf.Any" {
        return None;
    }
    let (kind, bytes) = (message.get_field_by_name("type_url")?, message.get_field_by_name("value")?);
    let kind = kind.as_str()?.rsplit('/').next().unwrap_or_default();
    let packed = descriptor.parent_pool().get_message_by_name(kind)?;
    DynamicMessage::decode(packed, &bytes.as_bytes()?[..]).ok()
}

/// A message of a type that is found by name, as JSON; `None`: there is no such type, or it is no such message.
pub(super) fn detail(pool: &DescriptorPool, full_name: &str, bytes: &[u8]) -> Option<String> {
    let descriptor = pool.get_message_by_name(full_name)?;
    String::from_utf8(json(&descriptor, bytes, MAX_DETAIL_BYTES).ok()?).ok()
}

/// Keeps so many bytes, and takes no more.
struct Room {
    bytes: Vec<u8>,
    left: usize,
    is_full: bool,
}

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => {
                self.left = left;
                self.bytes.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            None => {
                self.is_full = true;
                Err(io::Error::other("full"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
