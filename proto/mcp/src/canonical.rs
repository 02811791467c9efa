//! One text for equal JSON, to compare and to digest.

use crate::{RawJson, RawObject, array_items};

/// Writes a value so that values which differ only in space, in the order of keys or in the way
/// strings are escaped give the same bytes. Numbers keep their text (`1` and `1.0` differ). This is
/// for digests inside Provost; it is not RFC 8785.
pub fn canonical_bytes(value: &RawJson) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.as_bytes().len());
    write(value, &mut out);
    out
}

fn write(value: &RawJson, out: &mut Vec<u8>) {
    match value.as_bytes().first() {
        Some(b'{') => {
            let object = RawObject::parse(value).unwrap_or_default();
            let mut members: Vec<_> = object.iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            out.push(b'{');
            for (i, (key, inner)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(RawJson::from_text(key).as_bytes());
                out.push(b':');
                write(inner, out);
            }
            out.push(b'}');
        }
        Some(b'[') => {
            out.push(b'[');
            for (i, item) in array_items(value).unwrap_or_default().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Some(b'"') => match value.as_text() {
            Some(text) => out.extend_from_slice(RawJson::from_text(&text).as_bytes()),
            None => out.extend_from_slice(value.as_bytes()),
        },
        _ => out.extend_from_slice(value.as_bytes()),
    }
}
