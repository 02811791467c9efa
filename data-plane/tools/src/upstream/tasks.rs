//! Task handles as clients see them: `plugin.ID`, so that a later request finds its plugin.

use provost_mcp::{RawJson, RawObject, array_items, array_of};

/// Prefixes every task handle in a result: `taskId`, `task.taskId`, `tasks[].taskId`. Results
/// without handles stay as they are.
pub(super) fn prefix_handles(plugin: &str, result: RawJson) -> RawJson {
    // Nearly every result has none.
    if memchr::memmem::find(result.as_bytes(), b"\"taskId\"").is_none() {
        return result;
    }
    let Ok(mut object) = RawObject::parse(&result) else { return result };
    prefix_one(plugin, &mut object);
    if let Some(mut task) = object.get_object("task") {
        prefix_one(plugin, &mut task);
        object.set("task", task.finish());
    }
    if let Some(tasks) = object.get("tasks").and_then(|t| array_items(&t).ok()) {
        let prefixed: Vec<RawJson> = tasks
            .into_iter()
            .map(|raw| match RawObject::parse(&raw) {
                Ok(mut task) => {
                    prefix_one(plugin, &mut task);
                    task.finish()
                }
                Err(_) => raw,
            })
            .collect();
        object.set("tasks", array_of(&prefixed));
    }
    object.finish()
}

fn prefix_one(plugin: &str, object: &mut RawObject) {
    if let Some(id) = object.get_text("taskId") {
        object.set_text("taskId", &format!("{plugin}.{id}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn handles_are_prefixed_where_they_stand() {
        let prefixed = |v| prefix_handles("p", RawJson::from(v)).parse::<serde_json::Value>().ok();
        assert_eq!(
            prefixed(json!({"resultType": "task", "taskId": "1", "x": 1.5})),
            Some(json!({"resultType": "task", "taskId": "p.1", "x": 1.5}))
        );
        assert_eq!(
            prefixed(json!({"task": {"taskId": "1"}, "tasks": [{"taskId": "2"}, 3]})),
            Some(json!({"task": {"taskId": "p.1"}, "tasks": [{"taskId": "p.2"}, 3]}))
        );
        let untouched = RawJson::from(json!({"content": [{"text": "the \"taskId\" is 1"}]}));
        assert_eq!(prefix_handles("p", untouched.clone()), untouched);
    }
}
