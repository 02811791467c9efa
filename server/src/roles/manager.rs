//! What the service manager that started this process is told of it: that it serves, lives, ends.
//!
//! Purpose: `Type=notify` and `WatchdogSec=` of systemd, by the datagrams of sd_notify(3). Whoever waits for
//! `systemctl start` then waits until the node serves.
//! Invariants: without a manager nothing happens; a manager that does not read holds nothing up for longer
//! than `SEND_LIMIT`; that the process lives is said by a task among those that serve, so that it stays unsaid
//! when these get no turn.
//! Left out: taking sockets over, reloading.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    sync::Arc,
    time::Duration,
};

use tokio_util::task::AbortOnDropHandle;

/// A manager whose queue is full is waited for no longer; what was to be said is then lost.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// That the process lives is said so many times within the time that the manager gives for it.
const SIGNS_PER_LIMIT: u32 = 3;

/// Where to tell it.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How long the manager goes without a sign of life before it ends the process.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that started this process, if it wants to be told.
    pub fn of_this_process() -> Option<Arc<Self>> {
        let found = Self::find(variable, std::process::id());
        let manager = found.inspect_err(|cause| {
            tracing::warn!(%cause, "NOTIFY_SOCKET names no socket: the service manager cannot be told that this serves");
        });
        manager.ok().flatten().map(Arc::new)
    }

    fn find(get: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> io::Result<Option<Self>> {
        let Some(name) = get("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let address = address(&name)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        Ok(Some(Self { socket, address, watchdog: watchdog(get, own_pid) }))
    }

    /// Everything is served.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=ready");
    }

    /// The process ends, by itself or because it was told to.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what runs");
    }

    /// Says that the process lives until what is returned is dropped; `None` where nobody asks.
    pub fn keep_alive(self: &Arc<Self>) -> Option<AbortOnDropHandle<()>> {
        let limit = self.watchdog?;
        let manager = self.clone();
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut turns = tokio::time::interval(limit / SIGNS_PER_LIMIT);
            loop {
                turns.tick().await;
                manager.tell("WATCHDOG=1");
            }
        })))
    }

    fn tell(&self, message: &str) {
        if let Err(cause) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            tracing::warn!(%cause, said = message, "the service manager could not be told");
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// A path, or `@` and a name that is no file (Linux).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::{linux::net::SocketAddrExt, unix::ffi::OsStrExt};
        if let Some(name) = name.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(name)
}

/// `WATCHDOG_USEC`, microseconds, unless it is meant for another process (`WATCHDOG_PID`).
fn watchdog(get: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Option<Duration> {
    let number = |name: &str| get(name)?.to_str()?.parse::<u64>().ok();
    if get("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(u64::from(own_pid)) {
        return None;
    }
    // Less than a millisecond is a slip, and 0 is no interval.
    number("WATCHDOG_USEC").filter(|usec| *usec >= 1_000).map(Duration::from_micros)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PID: u32 = 77;

    fn find(variables: &[(&str, &str)]) -> io::Result<Option<ServiceManager>> {
        let get = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).into());
        ServiceManager::find(get, PID)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn listening(address: &SocketAddr) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        assert!(find(&[]).unwrap().is_none());
        assert!(find(&[("NOTIFY_SOCKET", "")]).unwrap().is_none());
        assert!(find(&[("WATCHDOG_USEC", "1000000")]).unwrap().is_none());
    }

    #[test]
    fn a_manager_hears_that_the_process_serves_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = listening(&SocketAddr::from_pathname(&path).unwrap());
        let manager = find(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap().unwrap();
        manager.ready();
        assert!(heard(&socket).lines().any(|line| line == "READY=1"));
        manager.stopping();
        assert!(heard(&socket).lines().any(|line| line == "STOPPING=1"));
        drop(socket);
        // Nobody reads any more: it is a warning, and no more.
        manager.ready();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_no_file_is_found() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("provost-test-{}", std::process::id());
        let socket = listening(&SocketAddr::from_abstract_name(&name).unwrap());
        let variable = format!("@{name}");
        find(&[("NOTIFY_SOCKET", variable.as_str())]).unwrap().unwrap().ready();
        assert!(heard(&socket).starts_with("READY=1"));
    }

    #[test]
    fn signs_of_life_are_asked_of_this_process_only() {
        let cases = [
            ("3000000", None, Some(3_000)),
            ("3000000", Some("77"), Some(3_000)),
            ("3000000", Some("78"), None),
            ("0", None, None),
            ("soon", None, None),
        ];
        for (period, of, expect) in cases {
            let get = |wanted: &str| match wanted {
                "WATCHDOG_USEC" => Some(period.into()),
                "WATCHDOG_PID" => of.map(Into::into),
                _ => None,
            };
            assert_eq!(watchdog(get, PID), expect.map(Duration::from_millis), "{period} {of:?}");
        }
    }

    #[tokio::test]
    async fn it_says_again_that_it_lives_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = listening(&SocketAddr::from_pathname(&path).unwrap());
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000")];
        let manager = Arc::new(find(&variables).unwrap().unwrap());
        let alive = manager.keep_alive();
        assert!(alive.is_some());
        let signs = tokio::task::spawn_blocking(move || [heard(&socket), heard(&socket)]).await.unwrap();
        assert_eq!(signs, ["WATCHDOG=1", "WATCHDOG=1"]);
    }
}
