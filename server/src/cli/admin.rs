//! The connection to the admin API, and how its failures become ours.

use anyhow::Context;
use provost_wire::{AdminClient, admin};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{AdminArgs, context::AdminContext};
use crate::failure::Failure;

/// Largest message either way: a large apply, or a listing of everything.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Puts the token on each request.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A client of the admin API.
pub type Client = AdminClient<InterceptedService<Channel, Bearer>>;

/// Connects.
pub async fn connect(args: &AdminArgs) -> anyhow::Result<(Client, AdminContext)> {
    let context = args.resolve()?;
    let token = format!("Bearer {}", context.token);
    let mut bearer: MetadataValue<Ascii> =
        token.parse().context("PV-CLI-ADMIN-TOKEN: the admin token holds characters that a token cannot have")?;
    bearer.set_sensitive(true);
    let channel = Endpoint::from_shared(context.endpoint.clone())
        .with_context(|| format!("PV-CLI-ADMIN: {} is not an address", context.endpoint))?
        .connect()
        .await
        .map_err(|cause| {
            Failure::new(
                "PV-CLI-UNREACHABLE",
                format!("the admin API at {} cannot be reached: {cause}", context.endpoint),
                "is the server running? `provost dev` starts one",
            )
        })?;
    let client = AdminClient::with_interceptor(channel, Bearer(bearer))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Ok((client, context))
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
    let failure = admin::Failure::of(&status);
    let mut message = failure.message.clone();
    for problem in &failure.problems {
        message.push_str("\n  ");
        message.push_str(&problem.to_string());
    }
    Failure { code: failure.code, message, hint: Some(failure.hint).filter(|hint| !hint.is_empty()) }.into()
}
