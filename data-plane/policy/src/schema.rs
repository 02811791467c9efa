//! The Cedar schema that policies are checked against, and the names of its types.

use std::sync::LazyLock;

use cedar_policy::{Context, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema, Validator};
use provost_types::Action;

/// The schema in Cedar's own syntax, for people, editors and analysis tools.
pub const SCHEMA_TEXT: &str = include_str!("schema.cedarschema");

/// The parsed schema and the type names, parsed once so that requests only clone them.
pub(crate) struct Vocabulary {
    /// Made once: making one copies the schema.
    pub(crate) validator: Validator,
    pub(crate) principal: EntityTypeName,
    pub(crate) role: EntityTypeName,
    pub(crate) attributes: EntityTypeName,
    pub(crate) plugin: EntityTypeName,
    /// The entities that hold the arguments of a call, in the order of [`ARGUMENTS`].
    pub(crate) arguments: [EntityUid; ARGUMENTS.len()],
    /// The context of a call of which only the arguments are read: the same for all calls.
    pub(crate) of_arguments: Context,
    resources: [EntityTypeName; ACTIONS.len()],
    actions: [EntityUid; ACTIONS.len()],
}

/// Every action, in the order in which tables are indexed by it.
pub(crate) const ACTIONS: [Action; 4] = [Action::CallTool, Action::GetPrompt, Action::ReadResource, Action::UseModel];

/// The parts of `context` that lead to the arguments.
const ARGUMENTS: [&str; 4] = ["args", "ints", "bools", "lists"];

/// The schema text is a constant, and so is what it parses to.
static VOCABULARY: LazyLock<Result<Vocabulary, String>> = LazyLock::new(Vocabulary::parse);

/// The place of an action in tables.
pub(crate) fn action_index(action: Action) -> usize {
    match action {
        Action::CallTool => 0,
        Action::GetPrompt => 1,
        Action::ReadResource => 2,
        Action::UseModel => 3,
    }
}

impl Vocabulary {
    /// The vocabulary. The schema is part of this crate, so an error is one of ours; it becomes a
    /// problem of the compilation instead of a panic.
    pub(crate) fn get() -> Result<&'static Self, &'static str> {
        VOCABULARY.as_ref().map_err(String::as_str)
    }

    fn parse() -> Result<Self, String> {
        let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA_TEXT).map_err(|e| e.to_string())?;
        let name = |text: &str| -> Result<EntityTypeName, String> {
            format!("Provost::{text}").parse().map_err(|e| format!("{e}"))
        };
        let of_call = |kind: &EntityTypeName| Self::uid(kind, "call");
        let arguments = [name("Texts")?, name("Integers")?, name("Booleans")?, name("Lists")?];
        let arguments = arguments.each_ref().map(of_call);
        let of_arguments = Context::from_pairs(argument_pairs(&arguments)).map_err(|e| e.to_string())?;
        let action_type = name("Action")?;
        let action = |a: Action| EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(a.as_str()));
        Ok(Self {
            validator: Validator::new(schema),
            principal: name("Principal")?,
            role: name("Role")?,
            attributes: name("Attributes")?,
            plugin: name("Plugin")?,
            arguments,
            of_arguments,
            resources: [name("Tool")?, name("Prompt")?, name("Resource")?, name("Model")?],
            actions: ACTIONS.map(action),
        })
    }

    /// `type::"id"`.
    pub(crate) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
    }

    /// The parts of a context that lead to the arguments of a call.
    pub(crate) fn argument_pairs(&self) -> impl Iterator<Item = (String, RestrictedExpression)> {
        argument_pairs(&self.arguments)
    }

    /// The entity of an action.
    pub(crate) fn action(&self, action: Action) -> &EntityUid {
        &self.actions[action_index(action)]
    }

    /// The type of the objects that an action is done to.
    pub(crate) fn resource(&self, action: Action) -> &EntityTypeName {
        &self.resources[action_index(action)]
    }
}

fn argument_pairs(arguments: &[EntityUid; ARGUMENTS.len()]) -> impl Iterator<Item = (String, RestrictedExpression)> {
    let each = ARGUMENTS.into_iter().zip(arguments);
    each.map(|(name, uid)| (name.to_owned(), RestrictedExpression::new_entity_uid(uid.clone())))
}
