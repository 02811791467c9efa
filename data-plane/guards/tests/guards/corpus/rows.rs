//! Rows: a value, or none, in the places where text holds one.

use provost_data_guards::Kind;

use super::{
    negatives::{FORMS, negative, timestamp, uuid},
    rng::Rng,
    values::{Value, value},
};

/// A text, and what it holds.
pub struct Row {
    pub text: String,
    /// Kind, start and end of what is in it.
    pub label: Option<(Kind, usize, usize)>,
}

/// A row with a value of this kind.
pub fn positive(kind: Kind, rng: &mut Rng) -> Row {
    let value = value(kind, rng);
    let (before, after) = around(&value, rng);
    let start = before.len();
    let end = start + value.text.len();
    Row { text: format!("{before}{}{after}", value.text), label: Some((kind, start, end)) }
}

/// A row without a value.
pub fn clean(rng: &mut Rng) -> Row {
    let form = rng.below(FORMS);
    let value = Value { text: negative(form, rng), keys: &[] };
    let (before, after) = around(&value, rng);
    Row { text: format!("{before}{}{after}", value.text), label: None }
}

/// A JSON row of a table as tools return them, without anything like a protected value.
pub fn ordinary(rng: &mut Rng) -> String {
    format!(
        r#"{{"id":"{}","created_at":"{}","status":"{}","customer":{},"total":{}.{:02},"items":[{{"sku":"{}-{}","quantity":{}}}],"note":"{} {} {}, {} {}."}}"#,
        uuid(rng),
        timestamp(rng),
        rng.pick(&["open", "paid", "shipped", "returned"]),
        rng.below(90_000),
        rng.below(900),
        rng.below(100),
        rng.pick(&["CHAIR", "TABLE", "LAMP"]),
        rng.below(9000),
        rng.below(9) + 1,
        word(rng),
        word(rng),
        word(rng),
        word(rng),
        word(rng),
    )
}

fn word(rng: &mut Rng) -> &'static str {
    rng.pick(&[
        "the", "customer", "asked", "for", "delivery", "before", "noon", "please", "ring", "twice", "and", "wait",
        "gift", "wrapped",
    ])
}

/// What stands before and after a value.
fn around(value: &Value, rng: &mut Rng) -> (String, String) {
    let (id, at, words) = (uuid(rng), timestamp(rng), [word(rng), word(rng), word(rng)].join(" "));
    if !value.keys.is_empty() {
        let key = rng.pick(value.keys);
        return match rng.below(4) {
            0 => (format!(r#"{{"id":"{id}","{key}":""#), format!(r#"","at":"{at}"}}"#)),
            1 => (format!(r#"{{"message":"{words}, {key}: "#), format!(r#", {words}","n":{}}}"#, rng.below(100))),
            2 => (format!("{at} level=info {key}="), format!(" took={}ms", rng.below(900))),
            _ => (format!(r#"[{{"{key}" : ""#), format!(r#""}},{{"other":"{words}"}}]"#)),
        };
    }
    match rng.below(9) {
        0 => (format!(r#"{{"id":"{id}","value":""#), format!(r#"","at":"{at}"}}"#)),
        1 => (format!(r#"{{"message":"{words} "#), format!(r#", {words}","n":{}}}"#, rng.below(100))),
        2 => (format!(r#"{{"text":"{words}\n"#), format!(r#"\n{words}"}}"#)),
        3 => (format!("{at} level=info value="), format!(" took={}ms", rng.below(900))),
        4 => (format!("{},", rng.below(1000)), format!(",active,{words}")),
        5 => (format!("{words} ("), format!(") {words}")),
        6 => (format!("{words}: "), format!(". {words}")),
        7 => (format!(r#"["{words}\t"#), r#"\u00a0"]"#.to_owned()),
        _ => (format!("<td>{}</td><td>", rng.below(1000)), format!("</td><td>{words}</td>")),
    }
}
