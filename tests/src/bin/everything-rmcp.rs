//! The everything-server as a program: `everything-rmcp [--era modern|legacy|dual] [--http ADDR]
//! [--more-tools N]`.
//! `--connect ADDR` says on stderr whether it gets there, and `--hold MIB` takes that much memory: for processes that
//! are kept apart.
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
            "--connect" => {
                let reached = std::net::TcpStream::connect(value()?).map_or("it is out of reach", |_| "it is reached");
                bail!("{reached}");
            }
            "--hold" => {
                let mib: usize = value()?.parse().context("--hold needs a number")?;
                // Not zeroes, which need no memory.
                let held: Vec<Vec<u8>> = (0..mib).map(|_| vec![1; 1 << 20]).collect();
                std::thread::sleep(std::time::Duration::from_secs(600));
                bail!("{} MiB were held", held.len());
            }
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
