//! How a client reaches control-plane nodes: given from outside, with the node's certificate in it.

use provost_types::BoxFuture;
use tonic::transport::Channel;

/// Why there is no connection.
pub type DialError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to control-plane nodes.
pub trait Dial: Send + Sync {
    /// Those that there are now, in any order; asked before each try.
    fn endpoints(&self) -> Vec<String>;

    /// Connects to one of them and checks who it is.
    fn dial<'a>(&'a self, endpoint: &'a str) -> BoxFuture<'a, Result<Channel, DialError>>;
}
