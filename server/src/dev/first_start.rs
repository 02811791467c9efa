//! What `provost dev` puts in place before it serves: resources, a caller's token, the dataset.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use anyhow::Context;
use provost_control_api::SourceFile;
use provost_types::{Kind, Name, PrincipalRef, ResourceKey, Snapshot};
use serde::{Deserialize, Serialize};

use super::governed::Governed;
use crate::failure::Failure;

/// The principal that `--anonymous` calls run as.
pub const ANONYMOUS: &str = "anonymous";

/// The quickstart, as it lies in `examples/quickstart`.
const QUICKSTART: [(&str, &str); 4] = [
    ("quickstart/tenant.yaml", include_str!("../../../examples/quickstart/tenant.yaml")),
    ("quickstart/roles.yaml", include_str!("../../../examples/quickstart/roles.yaml")),
    ("quickstart/policies.yaml", include_str!("../../../examples/quickstart/policies.yaml")),
    ("quickstart/plugins.yaml", include_str!("../../../examples/quickstart/plugins.yaml")),
];
const QUICKSTART_DATA: &str = include_str!("../../../examples/quickstart/shop.sql");
/// The script's name in the folder.
const QUICKSTART_SCRIPT: &str = "shop.sql";
/// Where the quickstart's plugin `sql` looks, as its document says; below the data folder.
const QUICKSTART_URL: &str = "sqlite:quickstart/shop.db";

/// A token and whose it is; kept in `DATA/keys/dev-token.json` so that a restart shows the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallerToken {
    /// The tenant.
    pub tenant: Name,
    /// The principal.
    pub principal: Name,
    /// The token, whole.
    pub token: String,
}

/// Applies the resources named by `--config`. Without any, the quickstart is applied to a store
/// that has no tenant yet; later starts leave what people made of it alone.
pub async fn apply_config(node: &impl Governed, paths: &[PathBuf], data_dir: &Path) -> anyhow::Result<()> {
    if paths.is_empty() {
        let is_new = node.snapshot().of_kind(Kind::Tenant).next().is_none();
        if !is_new {
            return Ok(());
        }
        make_quickstart_data(data_dir, QUICKSTART_DATA).await?;
        let documents =
            QUICKSTART.map(|(path, text)| SourceFile { path: path.to_owned(), text: text.to_owned() }).to_vec();
        return node.apply(documents, "provost dev: quickstart").await;
    }
    let documents: Vec<SourceFile> =
        crate::cli::documents::read(paths)?.into_iter().map(|(path, text)| SourceFile { path, text }).collect();
    // A copy of the quickstart, changed or not, names the same database: it is made for that too.
    if documents.iter().any(|document| document.text.contains(QUICKSTART_URL)) {
        make_quickstart_data(data_dir, &script_beside(paths)?).await?;
    }
    node.apply(documents, "provost dev --config").await
}

/// The principal `anonymous` of a tenant.
pub fn anonymous(tenant: Name) -> anyhow::Result<PrincipalRef> {
    Ok(PrincipalRef { tenant, name: Name::new(ANONYMOUS)? })
}

/// The script that lies in one of these folders, or beside one of these files; else the quickstart's own.
fn script_beside(paths: &[PathBuf]) -> anyhow::Result<Cow<'static, str>> {
    let folder = |path: &PathBuf| match path.is_dir() {
        true => path.clone(),
        false => path.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let script = paths.iter().map(|path| folder(path).join(QUICKSTART_SCRIPT)).find(|script| script.is_file());
    let Some(script) = script else { return Ok(Cow::Borrowed(QUICKSTART_DATA)) };
    let text = std::fs::read_to_string(&script);
    Ok(Cow::Owned(text.with_context(|| format!("PV-DEV-QUICKSTART: {} cannot be read", script.display()))?))
}

/// The shop's database, made once.
async fn make_quickstart_data(data_dir: &Path, script: &str) -> anyhow::Result<()> {
    let path = data_dir.join("quickstart").join("shop.db");
    provost_data_tools::sql::create_sqlite_from_script(&path, script)
        .await
        .context("PV-DEV-QUICKSTART: the quickstart's database cannot be made")?;
    Ok(())
}

/// Lets `anonymous` use everything of the tenant, unless the tenant has such a principal already:
/// then what people gave it holds.
pub async fn grant_anonymous(node: &impl Governed, tenant: &Name) -> anyhow::Result<()> {
    let snapshot = node.snapshot();
    let tenant_key = ResourceKey { kind: Kind::Tenant, tenant: None, name: tenant.clone() };
    if snapshot.get(&tenant_key).is_none() {
        return Err(Failure::new(
            "PV-DEV-ANONYMOUS",
            format!("there is no tenant {tenant} to serve without a token"),
            "name a tenant of the configuration",
        )
        .into());
    }
    let exists = snapshot.of_tenant(Kind::Principal, tenant).any(|r| r.metadata.name.as_str() == ANONYMOUS);
    if exists {
        return Ok(());
    }
    let yaml = format!(
        "apiVersion: provost/v1\nkind: Principal\n\
         metadata: {{ name: {ANONYMOUS}, tenant: {tenant} }}\n\
         spec: {{ type: agent, displayName: Anybody on this machine }}\n---\n\
         apiVersion: provost/v1\nkind: Role\n\
         metadata: {{ name: {ANONYMOUS}, tenant: {tenant} }}\n\
         spec:\n  description: Made by provost dev --anonymous\n  rules:\n  \
         - {{ tools: ['*'], prompts: ['*'], resources: ['*'], models: ['*'] }}\n---\n\
         apiVersion: provost/v1\nkind: RoleBinding\n\
         metadata: {{ name: {ANONYMOUS}, tenant: {tenant} }}\n\
         spec: {{ role: {ANONYMOUS}, principals: [{ANONYMOUS}] }}\n"
    );
    let documents = vec![SourceFile { path: "--anonymous".to_owned(), text: yaml }];
    node.apply(documents, "provost dev --anonymous").await
}

/// The token to show: the one shown before if its principal is still there, else a new one.
pub async fn caller_token(
    node: &impl Governed,
    snapshot: &Snapshot,
    data_dir: &Path,
) -> anyhow::Result<Option<CallerToken>> {
    let path = data_dir.join("keys").join("dev-token.json");
    if let Ok(text) = std::fs::read(&path)
        && let Ok(token) = serde_json::from_slice::<CallerToken>(&text)
        && node.knows_token(&token.token)
    {
        return Ok(Some(token));
    }
    let Some((tenant, principal)) = super::first_caller(snapshot) else { return Ok(None) };
    let token = node.create_token(&tenant, &principal).await?;
    let made = CallerToken { tenant, principal, token };
    super::write_private(&path, &serde_json::to_vec_pretty(&made)?)?;
    Ok(Some(made))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_quickstart_may_bring_data_of_its_own() {
        let quickstart = QUICKSTART.iter().any(|(_, text)| text.contains(QUICKSTART_URL));
        assert!(quickstart, "the quickstart's plugin looks elsewhere than where its database is made");
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().to_owned(), dir.path().join("plugins.yaml"));
        for paths in [vec![folder.clone()], vec![file.clone()]] {
            assert_eq!(script_beside(&paths).unwrap(), QUICKSTART_DATA);
        }
        std::fs::write(dir.path().join(QUICKSTART_SCRIPT), "CREATE TABLE t (a);").unwrap();
        for paths in [vec![folder], vec![file]] {
            assert_eq!(script_beside(&paths).unwrap(), "CREATE TABLE t (a);");
        }
    }
}
