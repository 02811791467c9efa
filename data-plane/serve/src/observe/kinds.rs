//! The values of labels that are known beforehand.

use provost_data_pipeline::{Operation, RejectionKind};

/// Methods; those of tasks are one.
pub(super) const METHODS: [&str; 19] = [
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "tools/call",
    "prompts/get",
    "resources/read",
    "completion/complete",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "logging/setLevel",
    "tasks",
    "inference/chat",
    "inference/embed",
    "inference/transcribe",
    "inference/models",
    "other",
];

/// Where an operation stands in [`METHODS`].
pub(super) fn method(operation: &Operation) -> usize {
    match operation {
        Operation::Discover => 0,
        Operation::ListTools => 1,
        Operation::ListPrompts => 2,
        Operation::ListResources => 3,
        Operation::ListResourceTemplates => 4,
        Operation::CallTool(_) => 5,
        Operation::GetPrompt(_) => 6,
        Operation::ReadResource(_) => 7,
        Operation::Complete { .. } => 8,
        Operation::Subscribe(_) => 9,
        Operation::Unsubscribe(_) => 10,
        Operation::Listen => 11,
        Operation::SetLogLevel => 12,
        Operation::Task { .. } => 13,
        Operation::Chat(_) => 14,
        Operation::Embed(_) => 15,
        Operation::Transcribe(_) => 16,
        Operation::ListModels => 17,
    }
}

/// Transports.
pub(super) const TRANSPORTS: [&str; 5] = ["http", "ws", "h3", "quic", "other"];

/// Where a transport stands in [`TRANSPORTS`].
pub(super) fn transport(name: &str) -> usize {
    TRANSPORTS.iter().position(|known| *known == name).unwrap_or(TRANSPORTS.len() - 1)
}

/// Why calls are refused.
pub(super) const REASONS: [&str; 9] = [
    "unauthenticated",
    "not_found",
    "policy",
    "limit",
    "limit_unknown",
    "invalid",
    "guard",
    "overloaded",
    "audit_unavailable",
];

/// Where a refusal stands in [`REASONS`].
pub(super) fn reason(kind: RejectionKind) -> usize {
    match kind {
        RejectionKind::Unauthenticated => 0,
        RejectionKind::NotFound => 1,
        RejectionKind::Denied => 2,
        RejectionKind::Limited => 3,
        RejectionKind::LimitUnknown => 4,
        RejectionKind::Invalid => 5,
        RejectionKind::Guarded => 6,
        RejectionKind::Overloaded => 7,
        RejectionKind::AuditUnavailable => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_the_place_of_its_method() {
        let text = String::new;
        for operation in [
            Operation::Discover,
            Operation::ListTools,
            Operation::ListPrompts,
            Operation::ListResources,
            Operation::ListResourceTemplates,
            Operation::CallTool(text()),
            Operation::GetPrompt(text()),
            Operation::ReadResource(text()),
            Operation::Complete { is_prompt: true, target: text() },
            Operation::Subscribe(text()),
            Operation::Unsubscribe(text()),
            Operation::Listen,
            Operation::SetLogLevel,
            Operation::Chat(text()),
            Operation::Embed(text()),
            Operation::Transcribe(text()),
            Operation::ListModels,
        ] {
            assert_eq!(METHODS.get(method(&operation)), Some(&operation.method()));
        }
        let task = Operation::Task { method: "tasks/get".to_owned(), task: text() };
        assert_eq!(METHODS.get(method(&task)), Some(&"tasks"));
        assert_eq!((transport("quic"), transport("pigeon")), (3, 4));
    }
}
