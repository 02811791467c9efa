//! The service of `examples/plugins/grpc` as a program: `grpc-tickets [--port N]`. Its key is in TICKETS_KEY; the first
//! line on stdout is where it is.

use anyhow::{Context, bail};
use provost_tests::tickets::{Reflection, Service, router};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut port = 8_191_u16;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--port" => port = args.next().context("--port needs a value")?.parse().context("--port needs a number")?,
            other => bail!("unknown argument `{other}`"),
        }
    }
    let key = std::env::var("TICKETS_KEY").context("TICKETS_KEY is the key of the service")?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the port cannot be used")?;
    #[expect(clippy::print_stdout, reason = "whoever starts it reads the address here")]
    {
        println!("tickets at http://{}", listener.local_addr()?);
    }
    let router = router(Service::new(&key), Reflection::V1)?;
    router.serve_with_incoming(TcpIncoming::from(listener)).await.context("the server ended")
}
