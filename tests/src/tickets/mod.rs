//! A gRPC service of tickets with server reflection: the one of `examples/plugins/grpc`, and what tests call.

mod service;

use tonic::transport::{Server, server::Router};
use tonic_reflection::server::Builder;

pub use service::Service;

/// What `tickets.proto` makes.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("tickets.v1");
}

/// The `FileDescriptorSet` of `tickets.proto`, comments included.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tickets");

/// How a server lets itself be asked for its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reflection {
    /// `grpc.reflection.v1`.
    V1,
    /// Only `grpc.reflection.v1alpha`.
    V1Alpha,
    /// Not at all.
    Nothing,
}

/// A server of these tickets.
pub fn router(
    tickets: impl v1::tickets_server::Tickets,
    reflection: Reflection,
) -> Result<Router, tonic_reflection::server::Error> {
    let router = Server::builder().add_service(v1::tickets_server::TicketsServer::new(tickets));
    let descriptors = Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    Ok(match reflection {
        Reflection::V1 => router.add_service(descriptors.build_v1()?),
        Reflection::V1Alpha => router.add_service(descriptors.build_v1alpha()?),
        Reflection::Nothing => router,
    })
}
