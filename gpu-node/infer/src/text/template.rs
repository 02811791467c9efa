//! Chat templates: Jinja, as models ship them.
//!
//! The dialect is that of Python's `transformers`: trimmed blocks, Python's string methods, and
//! `raise_exception`. Rendering is bounded by fuel, so a template cannot loop for ever.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use provost_types::ChatMessage;

use crate::error::{FileContext, InferError};

/// Instructions that one rendering may execute.
const RENDER_FUEL: u64 = 5_000_000;
const TEMPLATE: &str = "chat";

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
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
        environment
            .add_template_owned(TEMPLATE, source)
            .map_err(|error| at.malformed(format!("the chat template does not compile: {error}")))?;
        Ok(Self { environment, bos_token, eos_token })
    }

    /// The text of a conversation, up to where the model's answer begins.
    ///
    /// # Errors
    /// [`InferError::Request`] when the template refuses the conversation.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, InferError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| {
                template.render(context! {
                    messages => messages,
                    add_generation_prompt => true,
                    bos_token => self.bos_token.as_str(),
                    eos_token => self.eos_token.as_str(),
                })
            })
            .map_err(|error| {
                let cause = error.detail().unwrap_or("it failed to render").to_owned();
                InferError::Request(format!("the model's chat template does not accept these messages: {cause}"))
            })
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
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
        vec![ChatMessage { role: "user".to_owned(), content: content.to_owned() }]
    }

    #[test]
    fn renders_as_models_expect() {
        let rendered = template(CHATML).unwrap().render(&user(" hi ")).unwrap();
        assert_eq!(rendered, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn python_idioms_work() {
        let source = "{%- set ns = namespace(last='') -%}
{%- for m in messages[::-1] -%}{%- if m.role == 'user' and not m.content.startswith('x') -%}
{%- set ns.last = m.content.split('|')[-1].lstrip() -%}{%- endif -%}{%- endfor -%}
{{- bos_token + ns.last + eos_token -}}";
        assert_eq!(template(source).unwrap().render(&user("a| b")).unwrap(), "<s>b</s>");
    }

    #[test]
    fn a_template_may_refuse_and_the_reason_is_told() {
        let refused =
            template("{{ raise_exception('roles must alternate') }}").unwrap().render(&user("hi")).unwrap_err();
        assert!(refused.to_string().contains("roles must alternate"), "{refused}");
    }

    #[test]
    fn an_endless_template_runs_out_of_fuel() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(template(source).unwrap().render(&user("hi")).is_err());
    }

    #[test]
    fn a_broken_template_is_refused_when_loaded() {
        let error = template("{% for %}").unwrap_err();
        assert!(error.to_string().starts_with("PV-MODEL-MALFORMED"), "{error}");
    }
}
