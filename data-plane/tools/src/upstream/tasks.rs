//! Task handles as clients see them: `plugin.ID`, so that a later request finds its plugin.

use memchr::memmem::Finder;
use provost_mcp::{RawJson, RawObject, array_items, array_of};

use crate::mark::Mark;

/// The member that every handle stands under.
static HANDLE: Mark = Mark::new(|| Finder::new(b"\"taskId\""));

/// What a legacy result says of the task that it belongs to (2025-11-25, basic/utilities/tasks).
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// Prefixes every task handle in a result.
pub(super) fn prefix_handles(plugin: &str, result: RawJson) -> RawJson {
    rewrite_handles(result, &|id| Some(format!("{plugin}.{id}")))
}

/// Writes every task handle in a result or in the params of a notification anew: `taskId`, `task.taskId`,
/// `tasks[].taskId` and that of the related task in `_meta`. Where `rewrite` gives none, a listed task is left
/// out, and any other keeps no handle. What has no handles stays as it is.
pub fn rewrite_handles(result: RawJson, rewrite: &dyn Fn(&str) -> Option<String>) -> RawJson {
    // Nearly every result has none.
    if !HANDLE.is_in(result.as_bytes()) {
        return result;
    }
    let Ok(mut object) = RawObject::parse(&result) else { return result };
    rewrite_one(rewrite, &mut object);
    if let Some(mut task) = object.get_object("task") {
        rewrite_one(rewrite, &mut task);
        object.set("task", task.finish());
    }
    if let Some(mut meta) = object.get_object("_meta")
        && let Some(mut task) = meta.get_object(RELATED_TASK)
    {
        rewrite_one(rewrite, &mut task);
        meta.set(RELATED_TASK, task.finish());
        object.set("_meta", meta.finish());
    }
    if let Some(tasks) = object.get("tasks").and_then(|t| array_items(&t).ok()) {
        let rewritten: Vec<RawJson> = tasks
            .into_iter()
            .filter_map(|raw| match RawObject::parse(&raw) {
                Ok(mut task) => (rewrite_one(rewrite, &mut task)).then(|| task.finish()),
                Err(_) => Some(raw),
            })
            .collect();
        object.set("tasks", array_of(&rewritten));
    }
    object.finish()
}

/// Whether the task may stay where it is listed.
fn rewrite_one(rewrite: &dyn Fn(&str) -> Option<String>, object: &mut RawObject) -> bool {
    let Some(id) = object.get_text("taskId") else { return true };
    match rewrite(&id) {
        Some(handle) => {
            object.set_text("taskId", &handle);
            true
        }
        None => {
            object.remove("taskId");
            false
        }
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
        assert_eq!(
            prefixed(json!({"content": [], "_meta": {RELATED_TASK: {"taskId": "1"}, "x": 1}})),
            Some(json!({"content": [], "_meta": {RELATED_TASK: {"taskId": "p.1"}, "x": 1}}))
        );
        let untouched = RawJson::from(json!({"content": [{"text": "the \"taskId\" is 1"}]}));
        assert_eq!(prefix_handles("p", untouched.clone()), untouched);
    }

    #[test]
    fn what_gets_no_handle_is_not_listed() {
        let rewrite = |id: &str| (id != "2").then(|| format!("{id}!"));
        let rewritten = |v| rewrite_handles(RawJson::from(v), &rewrite).parse::<serde_json::Value>().ok();
        assert_eq!(
            rewritten(json!({"tasks": [{"taskId": "1"}, {"taskId": "2"}, {"taskId": "3", "status": "working"}]})),
            Some(json!({"tasks": [{"taskId": "1!"}, {"taskId": "3!", "status": "working"}]}))
        );
        assert_eq!(rewritten(json!({"taskId": "2", "x": 1})), Some(json!({"x": 1})));
    }
}
