//! Greets people: a plugin for Provost.

use provost_plugin::{Call, Failure, Plugin, Tool};
use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of the plugin; its installation may leave it out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// The word before the name.
    greeting: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { greeting: "Hello".to_owned() }
    }
}

/// The arguments of `greet`: its schema is derived from them, descriptions are the comments.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Greet {
    /// Who is greeted.
    name: String,
}

fn greet(call: &Call, arguments: Greet) -> Result<String, Failure> {
    let settings: Settings = call.config()?;
    let name = arguments.name.trim();
    if name.is_empty() {
        // For the model to read: it can do better next time.
        return Err("there is no name to greet".into());
    }
    Ok(format!("{}, {name}!", settings.greeting))
}

fn plugin() -> Plugin {
    Plugin::new().config::<Settings>().with(Tool::new("greet", "Greets somebody by name.", greet).read_only())
}

provost_plugin::export!(plugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_greeted() {
        let greeted = greet(&Call::for_tests(), Greet { name: " Ana ".to_owned() });
        assert_eq!(greeted.unwrap(), "Hello, Ana!");
        assert!(greet(&Call::for_tests(), Greet { name: " ".to_owned() }).is_err());
    }
}
