//! A network of its own, in which packets of one port are lost.
//!
//! util-linux's `unshare` makes it, root alone may, and it goes with the last process in it. netfilter's random match drops the
//! packets: where netem is no part of the kernel this often is. Both ways of the port are met, over TCP and UDP, and nothing
//! else: what a node says to its upstream arrives.
//!
//! Left out: delay, of which netfilter knows nothing. The round trip is that of the loopback network.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use super::program::{command, on_path};
use crate::failure::Failure;

/// The share of packets that is lost, each way.
pub const LOST: f64 = 0.01;
const UNSHARE: &str = "unshare";
/// What is called by name.
const PROGRAMS: [&str; 3] = [UNSHARE, "ip", "iptables"];
/// The network has the loopback device alone; packets are as long as on a wire, bytes.
const UP: [&str; 7] = ["ip", "link", "set", "lo", "mtu", "1500", "up"];
/// Whose packets the trial would lose: nobody listens there.
const TRIAL_PORT: u16 = 9;
/// Each of these programs takes milliseconds.
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// What is done to a rule.
#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

/// Why no packets can be lost here; `None`: they can.
pub async fn missing() -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    if let Some(why) = lacking(is_root, |name| on_path(name).is_some()) {
        return Some(why);
    }
    // Whether this kernel has such a network and such a match is seen by making them.
    let mut trial = command(Path::new(UNSHARE));
    trial.args(["--net", "--", "sh", "-c", &script(TRIAL_PORT)]);
    run(trial, UNSHARE).await.err().map(|cause| format!("no packets can be lost here: {cause}"))
}

/// Which of the programs, and of the rights, are not there.
fn lacking(is_root: bool, has: impl Fn(&str) -> bool) -> Option<String> {
    let absent = PROGRAMS.into_iter().filter(|name| !has(name)).map(|name| format!("{name} is not on PATH"));
    let user = (!is_root).then(|| "this user is not root".to_owned());
    let lacking: Vec<String> = absent.chain(user).collect();
    let why = || format!("losing packets takes a network of its own: {}", lacking.join(", "));
    (!lacking.is_empty()).then(why)
}

/// All that is done in the network, for a shell.
fn script(port: u16) -> String {
    let rules = rules(Change::Add, port).into_iter().map(|words| words.join(" "));
    std::iter::once(UP.join(" ")).chain(rules).collect::<Vec<_>>().join(" && ")
}

/// The commands that change the rules: those to the port and those from it, of both protocols.
fn rules(change: Change, port: u16) -> Vec<Vec<String>> {
    let change = match change {
        Change::Add => "-A",
        Change::Remove => "-D",
    };
    let ways = [("tcp", "--dport"), ("tcp", "--sport"), ("udp", "--dport"), ("udp", "--sport")];
    let rule = |(protocol, side): (&str, &str)| {
        // On the loopback network whatever is sent comes in once.
        let (port, lost) = (port.to_string(), LOST.to_string());
        let of = ["iptables", "-w", "5", change, "INPUT", "-p", protocol, side, &port];
        let chance = ["-m", "statistic", "--mode", "random", "--probability", &lost, "-j", "DROP"];
        of.into_iter().chain(chance).map(str::to_owned).collect::<Vec<String>>()
    };
    ways.into_iter().map(rule).collect()
}

/// Runs a program in a network of its own, as whose only process it begins.
pub fn apart(program: PathBuf) -> Command {
    let mut command = command(Path::new(UNSHARE));
    command.args(["--net", "--"]).arg(program);
    command
}

/// Prepares the network that this process was started in. Refused in one that others use: rules are for one that goes.
pub async fn enter() -> anyhow::Result<()> {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let (own, parent) = (of("self"), of(&std::os::unix::process::parent_id().to_string()));
    if own.zip(parent).is_none_or(|(own, parent)| own == parent) {
        let text = "packets are lost in a network of its own only, and this one is shared";
        return Err(Failure::new("PV-BENCH-START", text, "run `provost bench suite --rows loss`").into());
    }
    let [program, words @ ..] = UP;
    let mut up = command(Path::new(program));
    up.args(words);
    run(up, program).await.map_err(failed)
}

/// From now on packets of the port are lost.
pub async fn lose(port: u16) -> anyhow::Result<()> {
    change(Change::Add, port).await
}

/// From now on they arrive again.
pub async fn lose_nothing(port: u16) -> anyhow::Result<()> {
    change(Change::Remove, port).await
}

async fn change(change: Change, port: u16) -> anyhow::Result<()> {
    for words in rules(change, port) {
        let Some((program, words)) = words.split_first() else { continue };
        let mut rule = command(Path::new(program));
        rule.args(words);
        run(rule, program).await.map_err(failed)?;
    }
    Ok(())
}

fn failed(cause: String) -> anyhow::Error {
    Failure::new("PV-BENCH-START", cause, "leave the row `loss` out with --rows").into()
}

/// Runs a program to its end, which has to be a good one; the error is what it said.
async fn run(mut command: Command, what: &str) -> Result<(), String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(RUN_LIMIT, command.output()).await;
    let output = match ended {
        Ok(Ok(output)) => output,
        Ok(Err(cause)) => return Err(format!("{what} cannot be started: {cause}")),
        Err(_) => return Err(format!("{what} does not end")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match said.is_empty() {
        true => Err(format!("{what} ended with {}", output.status)),
        false => Err(said.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(lacking(true, |_| true), None);
        let table: [(bool, &[&str], &str); 3] = [
            (true, &["unshare", "ip"], "iptables is not on PATH"),
            (false, &["unshare", "ip", "iptables"], "this user is not root"),
            (false, &["iptables"], "unshare is not on PATH, ip is not on PATH, this user is not root"),
        ];
        for (is_root, there, expect) in table {
            let why = lacking(is_root, |name| there.contains(&name)).unwrap();
            assert_eq!(why, format!("losing packets takes a network of its own: {expect}"));
        }
    }

    #[test]
    fn packets_to_and_from_the_port_are_lost_over_both_protocols_and_no_others() {
        let added = rules(Change::Add, 8420);
        let lines: Vec<String> = added.iter().map(|words| words.join(" ")).collect();
        let chance = "8420 -m statistic --mode random --probability 0.01 -j DROP";
        let expect = ["tcp --dport", "tcp --sport", "udp --dport", "udp --sport"]
            .map(|way| format!("iptables -w 5 -A INPUT -p {way} {chance}"));
        assert_eq!(lines, expect);
        // What was added is removed, and nothing else.
        let removed = rules(Change::Remove, 8420);
        let again: Vec<String> = removed.iter().map(|words| words.join(" ").replace(" -D ", " -A ")).collect();
        assert_eq!(again, lines);
        assert_eq!(script(8420), format!("ip link set lo mtu 1500 up && {}", lines.join(" && ")));
    }

    #[test]
    fn a_program_is_started_in_a_network_of_its_own() {
        let command = apart(PathBuf::from("/opt/a program"));
        let words: Vec<_> = command.as_std().get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(command.as_std().get_program(), "unshare");
        assert_eq!(words, ["--net", "--", "/opt/a program"]);
    }

    #[tokio::test]
    async fn a_network_that_others_use_is_left_alone() {
        // The test and whoever runs it share theirs.
        let refused = enter().await.unwrap_err().to_string();
        assert!(refused.starts_with("PV-BENCH-START") && refused.contains("shared"), "{refused}");
    }

    #[tokio::test]
    async fn what_a_program_said_when_it_failed_is_why() {
        let table = [("echo no match >&2; echo at all >&2; exit 1", "no match; at all"), ("exit 3", "that ended with")];
        for (script, expect) in table {
            let mut fails = Command::new("sh");
            fails.args(["-c", script]);
            let cause = run(fails, "that").await.unwrap_err();
            assert!(cause.starts_with(expect), "{cause}");
        }
        let gone = run(Command::new("/nonexistent/program"), "that").await.unwrap_err();
        assert!(gone.starts_with("that cannot be started"), "{gone}");
    }
}
