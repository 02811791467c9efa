//! How a model writes calls.

use serde_json::Value;

/// Signs of forms that begin alike and hold no JSON: those of Qwen3-Coder and GLM.
const OTHER_FORMS: [&str; 2] = ["<function=", "<arg_key>"];

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallForm {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as often as it likes, after any text (Hermes, Qwen).
    Tagged,
    /// `{"name": …, "parameters": {…}}` is the whole answer (Llama 3).
    Json,
}

impl CallForm {
    pub(crate) const OPEN: &'static str = "<tool_call>";
    pub(crate) const CLOSE: &'static str = "</tool_call>";

    /// The form that a template teaches. None: none of these.
    pub(crate) fn of(template: &str) -> Option<Self> {
        if OTHER_FORMS.iter().any(|sign| template.contains(sign)) {
            None
        } else if template.contains(Self::OPEN) {
            Some(Self::Tagged)
        } else if template.contains("\"parameters\":") {
            Some(Self::Json)
        } else {
            None
        }
    }

    /// The grammar, in Lark's words, of an answer that calls one of these functions, or several of them one after the other.
    /// It refers to those of [`CallForm::argument_grammars`], in the same order.
    pub(crate) fn grammar(self, names: &[&str], several: bool) -> String {
        // Lark's texts are quoted as JSON's are.
        let quoted = |text: String| Value::from(text).to_string();
        let (open, close, arguments) = match self {
            Self::Tagged => (format!("{}\n", Self::OPEN), format!("}}\n{}", Self::CLOSE), "arguments"),
            Self::Json => (String::new(), "}".to_owned(), "parameters"),
        };
        let further = match self {
            Self::Tagged if several => format!(" ({} call)*", quoted("\n".to_owned())),
            _ => String::new(),
        };
        let functions: Vec<String> = names
            .iter()
            .zip(Self::argument_grammars())
            .map(|(name, grammar)| {
                let head = format!("{open}{{\"name\": {}, \"{arguments}\": ", Value::from(*name));
                format!("{} @{grammar}", quoted(head))
            })
            .collect();
        format!("start: call{further}\ncall: ({}) {}\n", functions.join(" | "), quoted(close))
    }

    /// What the grammars of arguments are called.
    pub(crate) fn argument_grammars() -> impl Iterator<Item = String> {
        (0_usize..).map(|n| format!("arguments_{n}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_names_each_function_and_its_arguments() {
        assert_eq!(
            CallForm::Tagged.grammar(&["f", "g"], true),
            concat!(
                "start: call (\"\\n\" call)*\n",
                r#"call: ("<tool_call>\n{\"name\": \"f\", \"arguments\": " @arguments_0 | "#,
                r#""<tool_call>\n{\"name\": \"g\", \"arguments\": " @arguments_1) "}\n</tool_call>""#,
                "\n"
            )
        );
        assert_eq!(
            CallForm::Json.grammar(&["f"], true),
            "start: call\ncall: (\"{\\\"name\\\": \\\"f\\\", \\\"parameters\\\": \" @arguments_0) \"}\"\n"
        );
    }
}
