//! Messages from and to what the node's operations take and give.

use provost_control_state::ChangeKind;
use provost_types::{Kind, Name, Resource};
use provost_wire::admin as wire;
use tonic::Response;

use crate::{
    Caller, ChangeReport, ControlError, ErrorKind, ResourceDiff, ResourceFilter, Scope, SourceFile, document_json,
    document_yaml, summary,
};

pub(super) fn invalid(error: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorKind::Invalid, "PV-ADMIN-REQUEST", error.to_string(), "")
}

pub(super) fn name(text: &str) -> Result<Name, ControlError> {
    Name::new(text).map_err(invalid)
}

fn optional_name(text: &str) -> Result<Option<Name>, ControlError> {
    if text.is_empty() { Ok(None) } else { name(text).map(Some) }
}

/// A tenant's administrator need not name the tenant.
pub(super) fn tenant(caller: &Caller, text: &str) -> Result<Name, ControlError> {
    match (&caller.scope, text) {
        (Scope::Tenant(own), "") => Ok(own.clone()),
        (Scope::Cluster, "") => Err(invalid("which tenant? name it with `--tenant`")),
        (_, text) => name(text),
    }
}

pub(super) fn filter(kind: &str, tenant: &str, name: &str) -> Result<ResourceFilter, ControlError> {
    let kind = if kind.is_empty() { None } else { Some(kind.parse::<Kind>().map_err(invalid)?) };
    Ok(ResourceFilter { kind, tenant: optional_name(tenant)?, name: optional_name(name)? })
}

pub(super) fn files(documents: Vec<wire::Document>) -> Vec<SourceFile> {
    documents.into_iter().map(|d| SourceFile { path: d.path, text: d.text }).collect()
}

fn change_kind(kind: ChangeKind) -> i32 {
    let kind = match kind {
        ChangeKind::Created => wire::ChangeKind::Created,
        ChangeKind::Updated => wire::ChangeKind::Updated,
        ChangeKind::Deleted => wire::ChangeKind::Deleted,
        ChangeKind::Unchanged => wire::ChangeKind::Unchanged,
    };
    kind.into()
}

pub(super) fn resource_change(diff: &ResourceDiff) -> wire::ResourceChange {
    let text = |v: &Option<serde_json::Value>| {
        v.as_ref().map_or(String::new(), |v| serde_json::to_string(v).unwrap_or_default())
    };
    wire::ResourceChange {
        resource: diff.key.to_string(),
        kind: change_kind(diff.kind),
        fields: diff
            .fields
            .iter()
            .map(|f| wire::FieldChange { field: f.field.clone(), old: text(&f.old), new: text(&f.new) })
            .collect(),
    }
}

pub(super) fn report(report: ChangeReport) -> Response<wire::ApplyResponse> {
    Response::new(wire::ApplyResponse {
        revision: report.revision.0,
        changes: report.diffs.iter().map(resource_change).collect(),
        dry_run: report.dry_run,
    })
}

pub(super) fn view(resource: &Resource) -> wire::ResourceView {
    wire::ResourceView {
        kind: resource.spec.kind().to_string(),
        tenant: resource.metadata.tenant.as_ref().map_or(String::new(), |t| t.to_string()),
        name: resource.metadata.name.to_string(),
        json: document_json(resource).to_string(),
        yaml: document_yaml(resource),
        summary: summary(resource),
        created: resource.created.0,
        modified: resource.modified.0,
    }
}
