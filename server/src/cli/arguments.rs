//! The arguments of a tool as a command line gives them: `--arg name=value` several times, or one JSON object.
//!
//! A node refuses arguments that name a member twice. So they are refused here too, before anything is sent: to keep
//! the last one silently would send something else than what was written. What is written as JSON goes on byte by
//! byte, so that no number is rounded. All faults are a matter of usage.

use bytes::Bytes;
use provost_mcp::{JsonFault, JsonLimits, RawJson};
use serde_json::{Map, Value};

use crate::failure::{Failure, Usage};

/// The object that `--arg` flags make. A value that is JSON is taken as JSON; any other is a string.
pub fn of_pairs(pairs: &[String]) -> Result<Map<String, Value>, Usage> {
    let refuse = |text: String, hint: &str| Usage(Failure::new("PV-CLI-ARGUMENTS", text, hint));
    let mut object = Map::new();
    for pair in pairs {
        let (name, text) =
            pair.split_once('=').ok_or_else(|| refuse(format!("--arg {pair} has no `=`"), "write --arg name=value"))?;
        if let Err(twice @ JsonFault::DuplicateKey { .. }) = checked(text) {
            return Err(refuse(format!("the argument `{name}`: {twice}"), "write each name once"));
        }
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        if object.insert(name.to_owned(), value).is_some() {
            let hint = "give each argument once; a list is one argument: --arg 'names=[\"a\",\"b\"]'";
            return Err(refuse(format!("the argument `{name}` is given twice"), hint));
        }
    }
    Ok(object)
}

/// What `flag` says, as it is written: one JSON object with each name once.
pub fn of_json(flag: &str, text: &str) -> Result<RawJson, Usage> {
    let read = checked(text).and_then(|raw| if raw.is_object() { Ok(raw) } else { Err(JsonFault::NotAnObject) });
    read.map_err(|fault| {
        let text = format!("{flag} is refused: {fault}");
        let hint = format!("write one object with each name once, quoted for the shell: {flag} '{{\"text\":\"hi\"}}'");
        Usage(Failure::new("PV-CLI-ARGUMENTS", text, hint))
    })
}

fn checked(text: &str) -> Result<RawJson, JsonFault> {
    RawJson::check(Bytes::copy_from_slice(text.as_bytes()), &JsonLimits::REQUEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pairs(pairs: &[&str]) -> Result<Value, String> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        of_pairs(&pairs).map(Value::Object).map_err(|fault| fault.to_string())
    }

    #[test]
    fn pairs_make_an_object_with_each_name_once() {
        let good = pairs(&["text=a=b", "n=3", "list=[1,\"x\"]", "word=null?", "none="]);
        assert_eq!(good, Ok(json!({"text": "a=b", "n": 3, "list": [1, "x"], "word": "null?", "none": ""})));
        assert_eq!(pairs(&[]), Ok(json!({})));
        let table: [(&[&str], &str); 3] = [
            (&["text"], "--arg text has no `=`"),
            (&["a=1", "a=2"], "the argument `a` is given twice"),
            (&["a={\"b\":1,\"b\":2}"], "the argument `a`: the key \"b\" stands twice"),
        ];
        for (bad, says) in table {
            let said = pairs(bad).unwrap_err();
            assert!(said.starts_with("PV-CLI-ARGUMENTS") && said.contains(says), "{bad:?}: {said}");
        }
    }

    #[test]
    fn json_goes_on_as_it_is_written_or_not_at_all() {
        let exact = r#"{"n":12345678901234567890123,"z":1.10,"a":null}"#;
        assert_eq!(of_json("--json", exact).unwrap().as_str(), exact);
        for (bad, says) in [
            ("{bad", "--json is refused: the text is not valid JSON"),
            ("[1]", "not a JSON object"),
            ("3", "not a JSON object"),
            (r#"{"a":1,"a":2}"#, "\"a\" stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "\"a\" stands twice"),
        ] {
            let said = of_json("--json", bad).unwrap_err().to_string();
            assert!(said.starts_with("PV-CLI-ARGUMENTS") && said.contains(says), "{bad}: {said}");
        }
    }
}
