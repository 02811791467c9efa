//! The models that a caller may use, and the one that is meant where none is named.

use serde::Deserialize;

use crate::failure::Failure;

/// Most names that an error lists.
const SHOWN_MODELS: usize = 20;

/// The list, as the API gives it.
#[derive(Deserialize)]
pub struct List {
    /// Its models.
    pub data: Vec<Listed>,
}

/// A model of the list.
#[derive(Deserialize)]
pub struct Listed {
    id: String,
    /// `chat`, `embedding` or `speech`; servers of others do not say.
    kind: Option<String>,
}

/// The only chat model. Errors: there is none, or more than one.
pub fn only(models: Vec<Listed>) -> Result<String, Failure> {
    let is_chat = |model: &Listed| model.kind.as_deref().is_none_or(|kind| kind == "chat");
    let mut names: Vec<String> = models.into_iter().filter(is_chat).map(|model| model.id).collect();
    names.sort();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::new(
            "PV-CLI-MODEL",
            "there is no chat model that this token may use",
            "`provost model list` shows what nodes have; a role permits models by `models`",
        )),
        several => {
            let shown = several.iter().take(SHOWN_MODELS).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if several.len() > SHOWN_MODELS { ", …" } else { "" };
            let message = format!("there are {} chat models: {shown}{more}", several.len());
            Err(Failure::new("PV-CLI-MODEL", message, "name one with --model"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(models: &[(&str, Option<&str>)]) -> Result<String, Failure> {
        let listed = |(id, kind): &(&str, Option<&str>)| Listed { id: (*id).to_owned(), kind: kind.map(str::to_owned) };
        only(models.iter().map(listed).collect())
    }

    #[test]
    fn the_only_chat_model_is_meant_and_several_are_named() {
        let embeds = ("minilm", Some("embedding"));
        assert_eq!(of(&[embeds, ("qwen3", Some("chat"))]).ok().as_deref(), Some("qwen3"));
        assert_eq!(of(&[("other", None)]).ok().as_deref(), Some("other"));
        assert!(of(&[]).is_err_and(|error| error.message.contains("no chat model")));
        assert!(of(&[embeds]).is_err_and(|error| error.message.contains("no chat model")));
        let several = of(&[("b", Some("chat")), embeds, ("a", Some("chat"))]);
        assert!(several.is_err_and(|error| error.message == "there are 2 chat models: a, b"));
        let names: Vec<String> = (0..30).map(|n| format!("m{n:02}")).collect();
        let many: Vec<(&str, Option<&str>)> = names.iter().map(|name| (name.as_str(), None)).collect();
        assert!(of(&many).is_err_and(|error| error.message.ends_with("m19, …")));
    }
}
