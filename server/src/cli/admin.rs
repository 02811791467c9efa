//! The connection to the admin API, and how its failures become ours.

use anyhow::Context;
use provost_wire::{AdminConnection, AuditConnection, BearerToken, admin, admin_over, audit_over, connect_plain, tls};
use tonic::{Status, transport::Channel};

use super::{AdminArgs, context::AdminContext};
use crate::failure::Failure;

/// A client of the admin API.
pub type Client = AdminConnection;

/// Connects to the first address that answers.
pub async fn connect(args: &AdminArgs) -> anyhow::Result<(Client, AdminContext)> {
    let (channel, token, context) = dial(args).await?;
    Ok((admin_over(channel, token), context))
}

/// Connects to the audit log's part of the first address that answers.
pub async fn connect_audit(args: &AdminArgs) -> anyhow::Result<AuditConnection> {
    let (channel, token, _) = dial(args).await?;
    Ok(audit_over(channel, token))
}

/// The channel to the first address that answers, and the token to speak with: for other services there.
pub async fn dial(args: &AdminArgs) -> anyhow::Result<(Channel, BearerToken, AdminContext)> {
    let context = args.resolve()?;
    let ca = args.authority()?;
    let token = BearerToken::new(&context.token).map_err(ours)?;
    let mut unanswered = Vec::new();
    // As given: without a scheme it is for the CA to say whether this is TLS.
    let list = args.admin.clone().unwrap_or_else(|| context.endpoint.clone());
    for address in addresses(&list) {
        match open(address, ca.as_deref()).await {
            Ok(channel) => return Ok((channel, token, context)),
            Err(cause) => unanswered.push(cause),
        }
    }
    match (unanswered.pop(), unanswered.is_empty()) {
        (Some(only), true) => Err(only.into()),
        (Some(last), false) => {
            let causes: Vec<String> = unanswered.into_iter().chain([last]).map(|f| f.message).collect();
            let hint = "is one of them running, and are the addresses right?";
            let text = format!("no control-plane node could be reached: {}", causes.join("; "));
            Err(Failure::new("PV-ADMIN-UNREACHABLE", text, hint).into())
        }
        (None, _) => {
            Err(Failure::new("PV-ADMIN-ADDRESS", "the admin address is empty", "write it as HOST:PORT").into())
        }
    }
}

/// The addresses of a list, in order.
fn addresses(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|address| !address.is_empty())
}

async fn open(address: &str, ca: Option<&str>) -> Result<Channel, Failure> {
    // Without a scheme a CA means TLS.
    let (address, secure) = match (address.strip_prefix("https://"), address.strip_prefix("http://")) {
        (Some(address), _) => (address, true),
        (None, Some(address)) => (address, false),
        (None, None) => (address, ca.is_some()),
    };
    let address = address.trim_end_matches('/');
    match (secure, ca) {
        (false, _) => connect_plain(address).await.map_err(ours),
        (true, Some(ca)) => match tls::admin_channel(address, ca).await {
            Ok(channel) => Ok(channel),
            Err(cause) => {
                let hint = "is this the cluster's CA, and the address of its control plane? On loopback it speaks no TLS: there \
                            leave out --admin-ca and https://";
                Err(Failure::new(cause.code(), cause.to_string(), hint))
            }
        },
        (true, None) => Err(Failure::new(
            "PV-ADMIN-CA",
            format!("https://{address} needs the cluster's CA to be checked"),
            "give --admin-ca FILE or set PROVOST_ADMIN_CA",
        )),
    }
}

impl AdminArgs {
    /// The CA to trust, as PEM.
    fn authority(&self) -> anyhow::Result<Option<String>> {
        let read = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path)
                .with_context(|| format!("PV-ADMIN-CA: the CA in {} cannot be read", path.display()))
        };
        self.admin_ca.as_ref().map(read).transpose()
    }
}

/// The tenant to use: the one given, else the only one that the caller can see.
pub async fn tenant(client: &mut Client, given: Option<&str>) -> anyhow::Result<String> {
    if let Some(tenant) = given {
        return Ok(tenant.to_owned());
    }
    let request = admin::GetRequest { kind: "Tenant".to_owned(), name: String::new(), tenant: String::new() };
    let mut tenants = client.get(request).await.map_err(failed)?.into_inner().resources;
    match (tenants.pop(), tenants.is_empty()) {
        (Some(only), true) => Ok(only.name),
        _ => Err(Failure::new(
            "PV-CLI-TENANT",
            "which tenant is meant is not clear",
            "give --tenant NAME or set PROVOST_TENANT",
        )
        .into()),
    }
}

/// A failed call as an error for people: every problem on its own line.
pub fn failed(status: Status) -> anyhow::Error {
    ours(admin::Failure::of(&status)).into()
}

fn ours(failure: admin::Failure) -> Failure {
    let mut message = failure.message;
    for problem in &failure.problems {
        message.push_str("\n  ");
        message.push_str(&problem.to_string());
    }
    Failure { code: failure.code, message, hint: Some(failure.hint).filter(|hint| !hint.is_empty()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tried_in_order() {
        let list = |text| addresses(text).collect::<Vec<_>>();
        assert_eq!(list("http://a:1,b:2"), ["http://a:1", "b:2"]);
        assert_eq!(list("https://a:1, https://b:2,"), ["https://a:1", "https://b:2"]);
        assert!(list(" , ").is_empty());
    }

    #[tokio::test]
    async fn without_an_answer_each_address_is_named() {
        let args = AdminArgs {
            admin: Some("127.0.0.1:1,https://127.0.0.1:1".into()),
            admin_token: Some("t".into()),
            admin_ca: None,
            data_dir: None,
            tenant: None,
        };
        let error = format!("{:#}", connect(&args).await.err().expect("nothing listens there"));
        assert!(error.starts_with("PV-ADMIN-UNREACHABLE"), "{error}");
        assert!(error.contains("127.0.0.1:1;") && error.contains("CA"), "{error}");
    }
}
