//! Values as parts of a request (OpenAPI 3.1, 4.8.12; RFC 3986).
//!
//! Invariant: what comes out for a path, a query or a cookie has only unreserved characters, `%XX`, and the
//! separators of its style: no value ends its parameter or its segment, or begins another one.

use serde_json::Value;

use super::parameter::{Parameter, Style};

/// Levels of an object in `deepObject`.
const MAX_DEEP_LEVELS: usize = 8;

/// Percent-encodes all but unreserved characters (RFC 3986, 2.3).
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(DIGITS[usize::from(b >> 4)]));
                out.push(char::from(DIGITS[usize::from(b & 15)]));
            }
        }
    }
    out
}

/// Undoes percent-encoding; what is none stays.
pub(crate) fn percent_decode(text: &str) -> String {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(b) = bytes.get(at) {
        let pair = bytes.get(at + 1).copied().and_then(digit).zip(bytes.get(at + 2).copied().and_then(digit));
        match pair {
            Some((high, low)) if *b == b'%' => {
                out.push((high << 4) | low);
                at += 3;
            }
            _ => {
                out.push(*b);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A value that is one text; `None`: null, which is not sent.
pub(super) fn scalar(value: &Value) -> Result<Option<String>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(flag.to_string())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(_) | Value::Object(_) => Err("lists and objects within it have no form in a request"),
    }
}

fn scalars<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Vec<String>, &'static str> {
    let texts: Result<Vec<Option<String>>, _> = values.into_iter().map(scalar).collect();
    Ok(texts?.into_iter().flatten().collect())
}

fn members(object: &serde_json::Map<String, Value>) -> Result<Vec<(String, String)>, &'static str> {
    let mut pairs = Vec::new();
    for (key, value) in object {
        if let Some(text) = scalar(value)? {
            pairs.push((key.clone(), text));
        }
    }
    Ok(pairs)
}

/// The style `simple`, of paths and headers; `encode` is for each part. `None`: there is nothing to send.
pub(super) fn simple(
    parameter: &Parameter,
    value: &Value,
    encode: fn(&str) -> String,
) -> Result<Option<String>, &'static str> {
    if parameter.style == Style::Json {
        return Ok(Some(encode(&value.to_string())));
    }
    Ok(match value {
        Value::Array(items) => {
            let parts: Vec<String> = scalars(items)?.iter().map(|text| encode(text)).collect();
            (!parts.is_empty()).then(|| parts.join(","))
        }
        Value::Object(object) => {
            let between = if parameter.explode { "=" } else { "," };
            let pairs = members(object)?;
            let parts: Vec<String> =
                pairs.iter().map(|(key, text)| format!("{}{between}{}", encode(key), encode(text))).collect();
            (!parts.is_empty()).then(|| parts.join(","))
        }
        _ => scalar(value)?.map(|text| encode(&text)),
    })
}

/// Names and values of a query or of cookies, encoded.
pub(super) fn pairs(parameter: &Parameter, value: &Value) -> Result<Vec<(String, String)>, &'static str> {
    let name = percent(&parameter.name);
    let joined = |between: &str, parts: Vec<String>| match parts.is_empty() {
        true => Vec::new(),
        false => vec![(name.clone(), parts.iter().map(|p| percent(p)).collect::<Vec<_>>().join(between))],
    };
    let separator = match parameter.style {
        Style::Space => "%20",
        Style::Pipe => "%7C",
        _ => ",",
    };
    Ok(match (parameter.style, value) {
        (Style::Json, _) => vec![(name, percent(&value.to_string()))],
        (Style::Deep, Value::Object(object)) => {
            let mut found = Vec::new();
            deep(&name, object, 0, &mut found)?;
            found
        }
        (_, Value::Array(items)) if parameter.explode => {
            scalars(items)?.iter().map(|text| (name.clone(), percent(text))).collect()
        }
        (_, Value::Array(items)) => joined(separator, scalars(items)?),
        (_, Value::Object(object)) if parameter.explode => {
            members(object)?.iter().map(|(key, text)| (percent(key), percent(text))).collect()
        }
        (_, Value::Object(object)) => {
            joined(separator, members(object)?.into_iter().flat_map(|(key, text)| [key, text]).collect())
        }
        _ => scalar(value)?.map(|text| (name, percent(&text))).into_iter().collect(),
    })
}

/// `name[key]=value`; an object within is `name[key][inner]=value`, a list repeats its name.
fn deep(
    name: &str,
    object: &serde_json::Map<String, Value>,
    level: usize,
    found: &mut Vec<(String, String)>,
) -> Result<(), &'static str> {
    if level >= MAX_DEEP_LEVELS {
        return Err("it is nested too deep");
    }
    for (key, value) in object {
        let name = format!("{name}%5B{}%5D", percent(key));
        match value {
            Value::Object(inner) => deep(&name, inner, level + 1, found)?,
            Value::Array(items) => {
                found.extend(scalars(items)?.iter().map(|text| (name.clone(), percent(text))));
            }
            _ => found.extend(scalar(value)?.map(|text| (name, percent(&text)))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::parameter::Place, *};

    fn parameter(place: Place, style: Style, explode: bool) -> Parameter {
        let (name, argument) = ("p[]".to_owned(), "p".to_owned());
        Parameter { argument, name, place, style, explode, is_required: false }
    }

    #[test]
    fn a_query_has_the_form_of_its_style() {
        let (list, object) = (json!(["a b", 1, null, true]), json!({"x": "1&2", "y": 3}));
        for (style, explode, value, expect) in [
            (Style::Form, true, &json!("a&b=c#d/?+ é"), "p%5B%5D=a%26b%3Dc%23d%2F%3F%2B%20%C3%A9"),
            (Style::Form, true, &json!(1.5), "p%5B%5D=1.5"),
            (Style::Form, true, &json!(false), "p%5B%5D=false"),
            (Style::Form, true, &json!(""), "p%5B%5D="),
            (Style::Form, true, &json!(null), ""),
            (Style::Form, true, &list, "p%5B%5D=a%20b&p%5B%5D=1&p%5B%5D=true"),
            (Style::Form, false, &list, "p%5B%5D=a%20b,1,true"),
            (Style::Form, false, &json!([]), ""),
            (Style::Form, true, &object, "x=1%262&y=3"),
            (Style::Form, false, &object, "p%5B%5D=x,1%262,y,3"),
            (Style::Space, false, &list, "p%5B%5D=a%20b%201%20true"),
            (Style::Pipe, false, &list, "p%5B%5D=a%20b%7C1%7Ctrue"),
            (Style::Deep, true, &object, "p%5B%5D%5Bx%5D=1%262&p%5B%5D%5By%5D=3"),
            (
                Style::Deep,
                true,
                &json!({"a": {"b]=": [1, 2]}}),
                "p%5B%5D%5Ba%5D%5Bb%5D%3D%5D=1&p%5B%5D%5Ba%5D%5Bb%5D%3D%5D=2",
            ),
            (Style::Json, true, &object, "p%5B%5D=%7B%22x%22%3A%221%262%22%2C%22y%22%3A3%7D"),
        ] {
            let pairs = pairs(&parameter(Place::Query, style, explode), value).expect("a form");
            let query: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(query.join("&"), expect, "{style:?} {explode} {value}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let mut deep = json!(1);
        for _ in 0..20 {
            deep = json!({ "a": deep });
        }
        for (style, value) in [
            (Style::Form, json!([[1]])),
            (Style::Form, json!({"a": {"b": 1}})),
            (Style::Form, json!([{"a": 1}])),
            (Style::Deep, json!({"a": [[1]]})),
            (Style::Deep, deep),
        ] {
            assert!(pairs(&parameter(Place::Query, style, true), &value).is_err(), "{style:?} {value}");
        }
    }

    #[test]
    fn paths_and_headers_are_simple() {
        for (explode, value, expect) in [
            (false, json!("a/../b"), Some("a%2F..%2Fb")),
            (false, json!(["a,b", 2]), Some("a%2Cb,2")),
            (false, json!({"r": 1, "g": "x=y"}), Some("g,x%3Dy,r,1")),
            (true, json!({"r": 1, "g": "x=y"}), Some("g=x%3Dy,r=1")),
            (false, json!([]), None),
            (false, json!(null), None),
        ] {
            let mut found = simple(&parameter(Place::Path, Style::Simple, explode), &value, percent).expect("a form");
            // The order of members is the map's.
            if let Some(text) = &mut found
                && value.is_object()
                && text.starts_with('r')
            {
                let between = if explode { "=" } else { "," };
                *text = format!("g{between}x%3Dy,r{between}1");
            }
            assert_eq!(found.as_deref(), expect, "{value}");
        }
    }

    #[test]
    fn encoding_can_be_undone() {
        for text in ["", "plain", "a%2Fb", "ü/ \0\u{1f600}", "%", "%zz", "100%25"] {
            assert_eq!(percent_decode(&percent(text)), text);
        }
        assert_eq!(percent_decode("%4"), "%4");
    }
}
