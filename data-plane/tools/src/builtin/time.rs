//! `time`: the time now, and a time at another offset from UTC.

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::Outcome;

pub(super) fn tools() -> Vec<Value> {
    let offset = json!({
        "type": "string",
        "pattern": "^(Z|[+-][0-9]{2}:[0-9]{2})$",
        "description": "Offset from UTC, such as +02:00; Z is UTC.",
    });
    let output = json!({
        "type": "object",
        "properties": {
            "time": {"type": "string", "description": "RFC 3339, at the offset."},
            "unixMs": {"type": "integer", "description": "Milliseconds since 1970 in UTC."},
            "weekday": {"type": "string"},
        },
        "required": ["time", "unixMs", "weekday"],
    });
    let hints = json!({"readOnlyHint": true, "openWorldHint": false});
    vec![
        json!({
            "name": "convert",
            "title": "Convert a time",
            "description": "Gives a point in time at another offset from UTC.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "time": {"type": "string", "description": "RFC 3339, such as 2026-07-28T09:00:00Z."},
                    "offset": offset,
                },
                "required": ["time", "offset"],
                "additionalProperties": false,
            },
            "outputSchema": output,
            "annotations": hints,
        }),
        json!({
            "name": "now",
            "title": "The time now",
            "description": "Gives the current time, in UTC or at an offset from it.",
            "inputSchema": {
                "type": "object",
                "properties": {"offset": offset},
                "additionalProperties": false,
            },
            "outputSchema": output,
            "annotations": hints,
        }),
    ]
}

pub(super) fn call(tool: &str, arguments: &Map<String, Value>) -> Outcome {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str);
    let given = match (tool, text("time")) {
        ("now", _) => OffsetDateTime::now_utc(),
        (_, Some(given)) => match OffsetDateTime::parse(given, &Rfc3339) {
            Ok(time) => time,
            Err(cause) => return Outcome::failure(format!("`time` is not RFC 3339: {cause}")),
        },
        (_, None) => return Outcome::failure("`time` is missing"),
    };
    let Some(offset) = offset(text("offset").unwrap_or("Z")) else {
        return Outcome::failure("`offset` is not like +02:00 or Z");
    };
    let Some(there) = given.checked_to_offset(offset) else {
        return Outcome::failure("the time is outside of what can be written");
    };
    match there.format(&Rfc3339) {
        Ok(written) => Outcome::structured(json!({
            "time": written,
            "unixMs": (there.unix_timestamp_nanos() / 1_000_000) as i64,
            "weekday": there.weekday().to_string(),
        })),
        Err(cause) => Outcome::failure(cause.to_string()),
    }
}

/// `Z`, or a sign, two digits, a colon and two digits.
fn offset(text: &str) -> Option<UtcOffset> {
    if text == "Z" {
        return Some(UtcOffset::UTC);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |digits: &str| (digits.len() == 2).then(|| digits.parse::<i8>().ok()).flatten().filter(|n| *n >= 0);
    UtcOffset::from_hms(sign * number(hours)?, sign * number(minutes)?, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_converted() {
        let convert = |time: &str, offset: &str| {
            let arguments = json!({"time": time, "offset": offset});
            call("convert", arguments.as_object().unwrap_or(&Map::new())).result
        };
        let good = convert("2026-07-28T23:30:00Z", "+02:00");
        assert_eq!(good["structuredContent"]["time"], "2026-07-29T01:30:00+02:00");
        assert_eq!(good["structuredContent"]["weekday"], "Wednesday");
        for (time, offset) in [
            ("yesterday", "Z"),
            ("2026-07-28T23:30:00Z", "+99:99"),
            ("2026-07-28T23:30:00Z", "+é:00"),
            ("2026-07-28T23:30:00Z", ""),
            ("9999-12-31T23:59:59Z", "+23:00"),
        ] {
            assert_eq!(convert(time, offset)["isError"], true, "{time} {offset} was taken");
        }
    }
}
