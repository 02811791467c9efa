//! Tools for texts. An example of a plugin: see `docs/plugins.md`.

mod diff;
mod slug;

use provost_plugin::{Call, Failure, Json, Plugin, Tool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The configuration of the plugin.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// What stands between the words of a slug.
    separator: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { separator: "-".to_owned() }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountArguments {
    /// Any text.
    text: String,
}

#[derive(Serialize, JsonSchema, Debug, PartialEq)]
struct Counted {
    /// Characters, as Unicode counts them.
    characters: usize,
    /// Runs of anything but white space.
    words: usize,
    /// Lines, the last one with or without its end.
    lines: usize,
    /// Bytes in UTF-8.
    bytes: usize,
}

fn count(_: &Call, arguments: CountArguments) -> Json<Counted> {
    let text = arguments.text;
    Json(Counted {
        characters: text.chars().count(),
        words: text.split_whitespace().count(),
        lines: text.lines().count(),
        bytes: text.len(),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SlugArguments {
    /// A title, say.
    text: String,
    /// The longest slug, in characters. Words are not cut, unless the first one alone is longer.
    #[serde(default)]
    max_length: Option<usize>,
}

fn slug(call: &Call, arguments: SlugArguments) -> Result<String, Failure> {
    let settings: Settings = call.config()?;
    let slug = slug::of(&arguments.text, &settings.separator, arguments.max_length.unwrap_or(usize::MAX));
    if slug.is_empty() {
        return Err("there is no letter or digit in the text to make a slug of".into());
    }
    Ok(slug)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DiffArguments {
    /// The text before.
    before: String,
    /// The text after.
    after: String,
    /// Unchanged lines around each change; 3 if it is not given.
    #[serde(default)]
    context: Option<usize>,
}

fn diff(_: &Call, arguments: DiffArguments) -> Result<String, Failure> {
    let changes = diff::unified(&arguments.before, &arguments.after, arguments.context.unwrap_or(3));
    changes.ok_or_else(|| "the texts differ in too many lines to compare them".into())
}

fn plugin() -> Plugin {
    Plugin::new()
        .config::<Settings>()
        .with(Tool::new("count", "Counts the characters, words, lines and bytes of a text.", count).read_only())
        .with(Tool::new("slug", "Makes a short name for addresses and files out of a text.", slug).read_only())
        .with(
            Tool::new("diff", "Shows what changed between two texts, line by line, as a unified diff.", diff)
                .title("Difference")
                .read_only(),
        )
}

provost_plugin::export!(plugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_a_function() {
        let counted = count(&Call::for_tests(), CountArguments { text: "Grüß Gott,\nWelt".to_owned() });
        assert_eq!(counted, Json(Counted { characters: 15, words: 3, lines: 2, bytes: 17 }));
        let long = SlugArguments { text: "¿Qué? ".to_owned(), max_length: None };
        assert_eq!(slug(&Call::for_tests(), long).unwrap(), "qué");
    }
}
