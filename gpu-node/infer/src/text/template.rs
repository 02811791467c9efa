//! Chat templates: Jinja, as models ship them.
//!
//! The dialect is that of Python's `transformers`: trimmed blocks, Python's string methods, and
//! `raise_exception`. Rendering is bounded by fuel, so a template cannot loop for ever.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use provost_types::{ChatMessage, FunctionCall, FunctionTool};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Value as Json, json};

use super::calls::CallForm;
use crate::error::{FileContext, InferError};

/// Instructions that one rendering may execute.
const RENDER_FUEL: u64 = 5_000_000;
/// Longest text that a conversation may become, in bytes: twice the largest body that is taken by default. A template that
/// indents JSON makes much of little, and tokenizing takes many times the text's memory.
const MAX_PROMPT_BYTES: usize = 8 << 20;
/// Widest indentation that a template may ask for.
const MAX_INDENT: usize = 16;
const TEMPLATE: &str = "chat";

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    /// It shows the model what it may call.
    knows_tools: bool,
    /// It shows the model what it called before.
    knows_calls: bool,
    form: Option<CallForm>,
}

impl ChatTemplate {
    /// Compiles a template.
    pub(crate) fn new(
        source: String,
        bos_token: String,
        eos_token: String,
        at: &FileContext,
    ) -> Result<Self, InferError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| at.malformed(error))?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(RENDER_FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", tojson);
        let (form, knows_calls) = (CallForm::of(&source), source.contains("tool_calls"));
        environment
            .add_template_owned(TEMPLATE, source)
            .map_err(|error| at.malformed(format!("the chat template does not compile: {error}")))?;
        let knows_tools = environment
            .get_template(TEMPLATE)
            .is_ok_and(|template| template.undeclared_variables(false).contains("tools"));
        Ok(Self { environment, bos_token, eos_token, knows_tools, knows_calls, form })
    }

    /// How the model writes calls.
    ///
    /// # Errors
    /// [`InferError::Request`] when its template knows no tools, or it writes calls in a way that is not read here.
    pub(crate) fn call_form(&self) -> Result<CallForm, InferError> {
        match self.form {
            Some(form) if self.knows_tools => Ok(form),
            None if self.knows_tools => Err(InferError::Request(
                "this model writes calls of tools in a form that is not served; leave out `tools` or use another model"
                    .to_owned(),
            )),
            _ => Err(InferError::Request(
                "this model's chat template knows no tools; leave out `tools` or use another model".to_owned(),
            )),
        }
    }

    /// The text of a conversation, up to where the model's answer begins.
    ///
    /// # Errors
    /// [`InferError::Request`] when the template refuses the conversation.
    pub fn render(&self, messages: &[ChatMessage], tools: &[FunctionTool]) -> Result<String, InferError> {
        self.render_to(messages, tools, true)
    }

    /// The text of a conversation as it stands, with its last answer.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_whole(&self, messages: &[ChatMessage]) -> Result<String, InferError> {
        self.render_to(messages, &[], false)
    }

    fn render_to(
        &self,
        messages: &[ChatMessage],
        tools: &[FunctionTool],
        add_generation_prompt: bool,
    ) -> Result<String, InferError> {
        if !self.knows_calls && messages.iter().any(|message| !message.calls.is_empty()) {
            return Err(InferError::Request(
                "this model's chat template knows no `tool_calls` in messages; leave them out or use another model"
                    .to_owned(),
            ));
        }
        let messages: Vec<Json> = messages.iter().map(shown_message).collect();
        let tools: Vec<Json> = tools.iter().map(shown_tool).collect();
        // Templates ask whether there are tools; an empty list is not the same as none to all of them.
        let tools = if tools.is_empty() { Value::UNDEFINED } else { Value::from(Serde(tools)) };
        let shown = context! {
            messages => Value::from(Serde(messages)),
            tools => tools,
            add_generation_prompt,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        let mut text = Bounded::default();
        let rendered = self
            .environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render_captured_to(shown, &mut text).map(drop));
        let refused = |cause: &str| {
            InferError::Request(format!("the model's chat template does not accept these messages: {cause}"))
        };
        match rendered {
            Ok(()) => String::from_utf8(text.0).map_err(|_| refused("it writes what is no text")),
            Err(error) => {
                // Writing fails only where there is no more room.
                let cause = match error.kind() {
                    ErrorKind::WriteFailure => too_long(),
                    _ => error.detail().unwrap_or("it failed to render").to_owned(),
                };
                Err(refused(&cause))
            }
        }
    }
}

/// A message as templates expect it: arguments are an object, not a text.
fn shown_message(message: &ChatMessage) -> Json {
    let mut shown = json!({ "role": message.role, "content": message.content });
    if !message.calls.is_empty() {
        let shown_call = |call: &FunctionCall| {
            json!({
                "id": call.id, "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        };
        shown["tool_calls"] = message.calls.iter().map(shown_call).collect();
    }
    if let Some(id) = &message.call_id {
        shown["tool_call_id"] = Json::from(id.as_str());
    }
    shown
}

/// A function as models were trained to see it: members in this order.
fn shown_tool(tool: &FunctionTool) -> Json {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = Json::from(description.as_str());
    }
    function["parameters"] = match &tool.parameters {
        Some(parameters) => Json::Object(parameters.clone()),
        None => json!({ "type": "object", "properties": {} }),
    };
    json!({ "type": "function", "function": function })
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// JSON as Python writes it, which is what models saw in training: a space after `,` and `:`, and nothing escaped for HTML.
fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let mut out = Bounded::default();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
        Some(indent) => {
            let indent = " ".repeat(indent.min(MAX_INDENT));
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
    };
    let unwritten =
        |cause: &dyn std::fmt::Display| Error::new(ErrorKind::InvalidOperation, format!("no JSON: {cause}"));
    written.map_err(|cause| unwritten(&cause))?;
    String::from_utf8(out.0).map(Value::from_safe_string).map_err(|cause| unwritten(&cause))
}

/// A text of [`MAX_PROMPT_BYTES`] at most.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(more.len()) > MAX_PROMPT_BYTES {
            return Err(io::Error::other(too_long()));
        }
        self.0.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_long() -> String {
    format!("they become longer than {MAX_PROMPT_BYTES} bytes; send less")
}

/// `json.dumps` without options.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CHATML: &str = "{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message['content'].strip() + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}";

    fn template(source: &str) -> Result<ChatTemplate, InferError> {
        let at = FileContext::new("m", "chat_template.jinja");
        ChatTemplate::new(source.to_owned(), "<s>".to_owned(), "</s>".to_owned(), &at)
    }

    fn user(content: &str) -> Vec<ChatMessage> {
        vec![ChatMessage::new("user", content)]
    }

    #[test]
    fn renders_as_models_expect() {
        let rendered = template(CHATML).unwrap().render(&user(" hi "), &[]).unwrap();
        assert_eq!(rendered, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn python_idioms_work() {
        let source = "{%- set ns = namespace(last='') -%}
{%- for m in messages[::-1] -%}{%- if m.role == 'user' and not m.content.startswith('x') -%}
{%- set ns.last = m.content.split('|')[-1].lstrip() -%}{%- endif -%}{%- endfor -%}
{{- bos_token + ns.last + eos_token -}}";
        assert_eq!(template(source).unwrap().render(&user("a| b"), &[]).unwrap(), "<s>b</s>");
    }

    #[test]
    fn a_template_may_refuse_and_the_reason_is_told() {
        let refused =
            template("{{ raise_exception('roles must alternate') }}").unwrap().render(&user("hi"), &[]).unwrap_err();
        assert!(refused.to_string().contains("roles must alternate"), "{refused}");
    }

    #[test]
    fn an_endless_template_runs_out_of_fuel() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(template(source).unwrap().render(&user("hi"), &[]).is_err());
    }

    #[test]
    fn a_broken_template_is_refused_when_loaded() {
        let error = template("{% for %}").unwrap_err();
        assert!(error.to_string().starts_with("PV-MODEL-MALFORMED"), "{error}");
    }

    /// The parts of the templates of Qwen3 and Llama 3.1 that show tools and calls.
    const TAGGED: &str = "{%- if tools %}{{- '# Tools' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n<tool_call>' }}
{%- endif %}
{%- for message in messages %}
{%- for made in message.tool_calls %}
{%- if made.function %}{%- set made = made.function %}{%- endif %}
{{- '[' + made.name + ' ' }}
{%- if made.arguments is string %}{{- made.arguments }}{%- else %}{{- made.arguments | tojson }}{%- endif %}
{{- ']' }}
{%- endfor %}
{%- if message.role == 'tool' %}{{- message.tool_call_id + '=' + message.content }}{%- endif %}
{%- endfor %}";
    const JSON: &str = "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}
{{- 'Respond in the format {\"name\": name, \"parameters\": dictionary}' }}{%- endif %}";

    fn weather() -> FunctionTool {
        let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
        FunctionTool {
            name: "weather".to_owned(),
            description: Some("Says <how> it's".to_owned()),
            parameters: parameters.as_object().cloned(),
            strict: false,
        }
    }

    #[test]
    fn tools_are_shown_as_python_would_write_them() {
        let rendered = template(TAGGED).unwrap().render(&user("hi"), &[weather()]).unwrap();
        let json = r#"{"type": "function", "function": {"name": "weather", "description": "Says <how> it's", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}"#;
        assert_eq!(rendered, format!("# Tools\n{json}\n<tool_call>"));
        assert_eq!(template(TAGGED).unwrap().render(&user("hi"), &[]).unwrap(), "");

        let rendered = template(JSON).unwrap().render(&user("hi"), &[weather()]).unwrap();
        assert!(rendered.starts_with("{\n    \"type\": \"function\",\n    \"function\": {\n"), "{rendered}");
        assert_eq!(template(JSON).unwrap().render(&user("hi"), &[]).unwrap(), "");
    }

    #[test]
    fn a_text_that_becomes_too_long_is_refused_while_it_is_made() {
        let refused = |source: &str, messages: &[ChatMessage], tools: &[FunctionTool]| {
            let refused = template(source).unwrap().render(messages, tools).unwrap_err().to_string();
            assert!(refused.contains("longer than 8388608 bytes"), "{refused}");
        };
        // Of two bytes each, deep inside, indentation makes hundreds.
        let mut deep = json!(vec![1; 60_000]);
        for _ in 0..58 {
            deep = Json::Array(vec![deep]);
        }
        let parameters = json!({ "type": "object", "default": deep });
        let tools = [FunctionTool { parameters: parameters.as_object().cloned(), ..weather() }];
        refused(JSON, &user("hi"), &tools);
        assert!(template(TAGGED).unwrap().render(&user("hi"), &tools).is_ok());
        refused("{% for n in range(9) %}{{ messages[0].content }}{% endfor %}", &user(&"x".repeat(1 << 20)), &[]);
    }

    #[test]
    fn calls_and_their_results_are_shown() {
        let arguments = json!({ "city": "Žilina", "n": [1, null] }).as_object().cloned().unwrap();
        let call = FunctionCall { id: "c1".to_owned(), name: "weather".to_owned(), arguments };
        let asked = ChatMessage { calls: vec![call], ..ChatMessage::new("assistant", "") };
        let told = ChatMessage { call_id: Some("c1".to_owned()), ..ChatMessage::new("tool", "rain") };
        let messages = [asked, told];
        let rendered = template(TAGGED).unwrap().render(&messages, &[]).unwrap();
        assert_eq!(rendered, r#"[weather {"city": "Žilina", "n": [1, null]}]c1=rain"#);
        let refused = template(CHATML).unwrap().render(&messages, &[]).unwrap_err();
        assert!(refused.to_string().contains("tool_calls"), "{refused}");
    }

    #[test]
    fn a_template_says_how_calls_are_written() {
        assert_eq!(template(TAGGED).unwrap().call_form().unwrap(), CallForm::Tagged);
        assert_eq!(template(JSON).unwrap().call_form().unwrap(), CallForm::Json);
        for (source, says) in [
            (CHATML, "knows no tools"),
            ("{# tools #}<tool_call>", "knows no tools"),
            ("{{ tools }} [TOOL_CALLS]", "form that is not served"),
            ("{{ tools }} <tool_call><function=name>", "form that is not served"),
        ] {
            let refused = template(source).unwrap().call_form().unwrap_err();
            assert!(refused.to_string().contains(says), "{source}: {refused}");
        }
    }
}
