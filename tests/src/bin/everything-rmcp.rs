//! The everything-server as a program: `everything-rmcp [--era modern|legacy|dual] [--http ADDR]
//! [--more-tools N]`.
//! Without `--http` it serves on stdin and stdout; with it, the first line on stdout is the URL.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use provost_tests::everything::{EraChoice, Everything, serve_http, serve_stdio};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut era = EraChoice::Dual;
    let mut http: Option<SocketAddr> = None;
    let mut more_tools = 0;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--era" => era = value()?.parse().map_err(anyhow::Error::msg)?,
            "--http" => http = Some(value()?.parse().context("--http needs HOST:PORT")?),
            "--more-tools" => more_tools = value()?.parse().context("--more-tools needs a number")?,
            other => bail!("unknown argument `{other}`"),
        }
    }
    let server = Everything::new(era).with_more_tools(more_tools)?;
    match http {
        None => serve_stdio(server).await,
        Some(address) => {
            let running = serve_http(server, address).await?;
            #[expect(clippy::print_stdout, reason = "whoever starts it reads the URL here")]
            {
                println!("{}", running.url());
            }
            running.finished().await;
            Ok(())
        }
    }
}
