//! What a plugin says of its tools.

use std::collections::HashSet;

use bytes::Bytes;
use provost_mcp::{RawJson, RawObject};

use crate::{
    PluginError,
    bindings::provost::plugin::types,
    imports::json_limits,
    limits::{MAX_TOOL_NAME, MAX_TOOLS},
};

/// Largest list of tools, as JSON.
const MAX_LIST_BYTES: usize = 4 << 20;

/// One tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginTool {
    /// Its name.
    pub name: String,
    /// As `tools/list` shows it.
    pub definition: RawJson,
}

/// The definitions, if they are ones.
pub(crate) fn tools_of(listed: Vec<types::Tool>) -> Result<Vec<PluginTool>, PluginError> {
    if listed.len() > MAX_TOOLS {
        return Err(PluginError::Tools(format!(
            "{} tools are more than the {MAX_TOOLS} that it may have",
            listed.len()
        )));
    }
    let mut names = HashSet::new();
    let mut size = 0;
    let mut tools = Vec::with_capacity(listed.len());
    for tool in listed {
        if !is_tool_name(&tool.name) {
            return Err(PluginError::Tools(format!(
                "`{}` is no name of a tool: 1 to {MAX_TOOL_NAME} letters, digits, `_`, `-` and `.`",
                tool.name.escape_debug()
            )));
        }
        if !names.insert(tool.name.clone()) {
            return Err(PluginError::Tools(format!("`{}` is there twice", tool.name)));
        }
        let tool = definition(tool)?;
        size += tool.definition.as_bytes().len();
        if size > MAX_LIST_BYTES {
            return Err(PluginError::Tools(format!("it is larger than {MAX_LIST_BYTES} bytes")));
        }
        tools.push(tool);
    }
    Ok(tools)
}

pub(crate) fn is_tool_name(name: &str) -> bool {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=MAX_TOOL_NAME).contains(&name.len()) && name.bytes().all(is_fine)
}

fn definition(tool: types::Tool) -> Result<PluginTool, PluginError> {
    let mut object = RawObject::new();
    object.set_text("name", &tool.name);
    if let Some(title) = &tool.title {
        object.set_text("title", title);
    }
    object.set_text("description", &tool.description);
    let parts = [
        ("inputSchema", Some(tool.input_schema)),
        ("outputSchema", tool.output_schema),
        ("annotations", tool.annotations),
    ];
    for (member, text) in parts {
        let Some(text) = text else { continue };
        let wrong = |why: &str| PluginError::Tools(format!("`{member}` of `{}`: {why}", tool.name));
        let json = RawJson::check(Bytes::from(text), &json_limits(MAX_LIST_BYTES));
        let json = json.map_err(|fault| wrong(&fault.to_string()))?;
        if !json.is_object() {
            return Err(wrong("it is not an object"));
        }
        object.set(member, json);
    }
    Ok(PluginTool { name: tool.name, definition: object.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, schema: &str) -> types::Tool {
        types::Tool {
            name: name.to_owned(),
            title: None,
            description: "Counts \"words\".".to_owned(),
            input_schema: schema.to_owned(),
            output_schema: None,
            annotations: Some("{ \"readOnlyHint\": true }".to_owned()),
        }
    }

    #[test]
    fn definitions_are_what_lists_show() {
        let tools = tools_of(vec![tool("count", r#"{"type":"object"}"#)]).unwrap();
        assert_eq!(
            tools[0].definition.as_str(),
            r#"{"name":"count","description":"Counts \"words\".","inputSchema":{"type":"object"},"annotations":{ "readOnlyHint": true }}"#
        );
    }

    #[test]
    fn wrong_lists_are_refused() {
        let many = (0..=MAX_TOOLS).map(|i| tool(&format!("t{i}"), "{}")).collect();
        let long = "x".repeat(MAX_TOOL_NAME + 1);
        let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_LIST_BYTES / 2));
        let table: [(Vec<types::Tool>, &str); 8] = [
            (many, "more than"),
            (vec![tool("", "{}")], "no name"),
            (vec![tool("a b", "{}")], "no name"),
            (vec![tool(&long, "{}")], "no name"),
            (vec![tool("a", "{}"), tool("a", "{}")], "twice"),
            (vec![tool("a", "[]")], "not an object"),
            (vec![tool("a", r#"{"x":1,"x":2}"#)], "stands twice"),
            (vec![tool("a", &large), tool("b", &large)], "larger than"),
        ];
        for (listed, why) in table {
            let error = tools_of(listed).unwrap_err();
            assert!(error.to_string().contains(why), "{why}: {error}");
        }
    }
}
