//! What a plugin says of its prompts and resources.

use std::{collections::HashSet, sync::Arc};

use provost_mcp::{RawJson, RawObject};
use serde_json::{Value, json};

use crate::{
    PluginError,
    bindings::{
        prompts::exports::provost::plugin::prompts::{Prompt, PromptArgument},
        resources::exports::provost::plugin::resources::{ResourceInfo, TemplateInfo},
    },
    limits::{MAX_ITEMS, MAX_TOOL_NAME, MAX_URI},
    tool::is_tool_name,
};

/// Largest list, as JSON.
const MAX_LIST_BYTES: usize = 4 << 20;

/// One prompt, resource or template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginItem {
    /// Its name, URI or URI template.
    pub key: String,
    /// As its list shows it.
    pub definition: RawJson,
}

/// What a plugin has beside tools.
#[derive(Clone, Debug)]
pub struct PluginOffer {
    /// Its prompts.
    pub prompts: Arc<[PluginItem]>,
    /// Its resources.
    pub resources: Arc<[PluginItem]>,
    /// Its templates of resources.
    pub templates: Arc<[PluginItem]>,
}

/// The definitions of prompts, if they are ones.
pub(crate) fn prompts_of(listed: Vec<Prompt>) -> Result<Vec<PluginItem>, PluginError> {
    let mut list = List::new("prompts", listed.len())?;
    for prompt in listed {
        if !is_tool_name(&prompt.name) {
            return Err(list.wrong(&format!(
                "`{}` is no name: 1 to {MAX_TOOL_NAME} letters, digits, `_`, `-` and `.`",
                prompt.name.escape_debug()
            )));
        }
        let mut object = RawObject::new();
        object.set_text("name", &prompt.name);
        text(&mut object, "title", prompt.title.as_deref());
        object.set_text("description", &prompt.description);
        let arguments: Vec<Value> = prompt.arguments.iter().map(argument).collect();
        object.set("arguments", RawJson::from(Value::from(arguments)));
        list.add(prompt.name, object)?;
    }
    Ok(list.items)
}

/// The definitions of resources, if they are ones.
pub(crate) fn resources_of(listed: Vec<ResourceInfo>) -> Result<Vec<PluginItem>, PluginError> {
    let mut list = List::new("resources", listed.len())?;
    for resource in listed {
        let object = list.addressed("uri", &resource.uri)?;
        list.add_named(
            resource.uri,
            object,
            [
                ("name", Some(resource.name)),
                ("title", resource.title),
                ("description", resource.description),
                ("mimeType", resource.mime_type),
            ],
        )?;
    }
    Ok(list.items)
}

/// The definitions of templates, if they are ones.
pub(crate) fn templates_of(listed: Vec<TemplateInfo>) -> Result<Vec<PluginItem>, PluginError> {
    let mut list = List::new("templates of resources", listed.len())?;
    for template in listed {
        let object = list.addressed("uriTemplate", &template.uri_template)?;
        list.add_named(
            template.uri_template,
            object,
            [
                ("name", Some(template.name)),
                ("title", template.title),
                ("description", template.description),
                ("mimeType", template.mime_type),
            ],
        )?;
    }
    Ok(list.items)
}

fn argument(argument: &PromptArgument) -> Value {
    let mut shown = json!({ "name": argument.name, "required": argument.required });
    if let Some(description) = &argument.description {
        shown["description"] = description.as_str().into();
    }
    shown
}

fn text(object: &mut RawObject, member: &str, text: Option<&str>) {
    if let Some(text) = text {
        object.set_text(member, text);
    }
}

/// A list that is being looked at.
struct List {
    what: &'static str,
    items: Vec<PluginItem>,
    keys: HashSet<String>,
    bytes: usize,
}

impl List {
    fn new(what: &'static str, length: usize) -> Result<Self, PluginError> {
        let list = Self { what, items: Vec::new(), keys: HashSet::new(), bytes: 0 };
        match length <= MAX_ITEMS {
            true => Ok(list),
            false => Err(list.wrong(&format!("{length} are more than the {MAX_ITEMS} that it may have"))),
        }
    }

    fn wrong(&self, why: &str) -> PluginError {
        PluginError::Offer(format!("{} is wrong: {why}", self.what))
    }

    /// An object that begins with a URI or a template of one.
    fn addressed(&self, member: &str, uri: &str) -> Result<RawObject, PluginError> {
        let is_fine = (1..=MAX_URI).contains(&uri.len()) && uri.contains(':') && !uri.contains(char::is_control);
        if !is_fine {
            return Err(self.wrong(&format!("`{}` is no URI of 1 to {MAX_URI} bytes", uri.escape_debug())));
        }
        let mut object = RawObject::new();
        object.set_text(member, uri);
        Ok(object)
    }

    fn add_named(
        &mut self,
        key: String,
        mut object: RawObject,
        members: [(&str, Option<String>); 4],
    ) -> Result<(), PluginError> {
        for (member, value) in members {
            text(&mut object, member, value.as_deref());
        }
        self.add(key, object)
    }

    fn add(&mut self, key: String, object: RawObject) -> Result<(), PluginError> {
        if !self.keys.insert(key.clone()) {
            return Err(self.wrong(&format!("`{}` is there twice", key.escape_debug())));
        }
        let definition = object.finish();
        self.bytes += definition.as_bytes().len();
        if self.bytes > MAX_LIST_BYTES {
            return Err(self.wrong(&format!("it is larger than {MAX_LIST_BYTES} bytes")));
        }
        self.items.push(PluginItem { key, definition });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(name: &str) -> Prompt {
        let argument = PromptArgument { name: "title".to_owned(), description: None, required: true };
        Prompt { name: name.to_owned(), title: None, description: "Asks.".to_owned(), arguments: vec![argument] }
    }

    fn resource(uri: &str) -> ResourceInfo {
        let (name, mime_type) = ("cover".to_owned(), Some("image/png".to_owned()));
        ResourceInfo { uri: uri.to_owned(), name, title: None, description: None, mime_type }
    }

    #[test]
    fn definitions_are_what_lists_show() {
        let prompts = prompts_of(vec![prompt("review")]).unwrap();
        assert_eq!(
            prompts[0].definition.as_str(),
            r#"{"name":"review","description":"Asks.","arguments":[{"name":"title","required":true}]}"#
        );
        let resources = resources_of(vec![resource("library://cover")]).unwrap();
        assert_eq!(resources[0].key, "library://cover");
        assert_eq!(
            resources[0].definition.as_str(),
            r#"{"uri":"library://cover","name":"cover","mimeType":"image/png"}"#
        );
    }

    #[test]
    fn wrong_lists_are_refused() {
        let long = format!("x:{}", "y".repeat(MAX_URI));
        let table = [
            (prompts_of(vec![prompt("a b")]).map(drop), "prompts is wrong: `a b` is no name"),
            (prompts_of(vec![prompt("a"), prompt("a")]).map(drop), "`a` is there twice"),
            (prompts_of(vec![prompt("a"); MAX_ITEMS + 1]).map(drop), "more than"),
            (resources_of(vec![resource("")]).map(drop), "is no URI"),
            (resources_of(vec![resource("cover")]).map(drop), "is no URI"),
            (resources_of(vec![resource("x:\ny")]).map(drop), "is no URI"),
            (resources_of(vec![resource(&long)]).map(drop), "is no URI"),
            (resources_of(vec![resource("x:y"), resource("x:y")]).map(drop), "twice"),
        ];
        for (ended, why) in table {
            let error = ended.unwrap_err().to_string();
            assert!(error.starts_with("PV-PLUGIN-OFFER: ") && error.contains(why), "{why}: {error}");
        }
    }
}
