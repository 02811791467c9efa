//! What a service manager hears of `provost server` (systemd's `Type=notify` and `WatchdogSec=`).

use std::{os::unix::net::UnixDatagram, time::Instant};

use rustix::process::Signal;

use crate::{
    harness,
    servers::{LIMIT, Site, good},
};

/// The next message with this line. Signs of life come at any time.
fn heard(socket: &UnixDatagram, wanted: &str) -> String {
    let (began, mut buffer) = (Instant::now(), [0; 256]);
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|cause| panic!("{wanted} is not said: {cause}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.lines().any(|line| line == wanted) {
            return message;
        }
        assert!(began.elapsed() < LIMIT, "{wanted} is not said, but {message}");
    }
}

#[test]
fn a_service_manager_hears_that_a_node_serves_lives_and_ends() {
    let mut site = Site::new();
    let mut plan = site.plan("cp-1", &["control-plane", "audit-log"], &[], None);
    good(&site.init(&plan, "told", &[], &[]));
    let path = site.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    plan.env = vec![
        ("NOTIFY_SOCKET", path.to_str().unwrap().to_owned()),
        // Microseconds. The test asks for a sign, not for its time.
        ("WATCHDOG_USEC", "500000".to_owned()),
    ];
    let server = plan.start();
    // The first that is said: a sign of life before it would have systemd's watchdog count while the node starts.
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).unwrap();
    let first = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(first.lines().any(|line| line == "READY=1"), "{first}");
    // Ready is what serves: its admin port answers now, and not some time later.
    std::net::TcpStream::connect(plan.admin).unwrap();
    heard(&socket, "WATCHDOG=1");
    harness::signal(server.pid(), Signal::TERM);
    heard(&socket, "STOPPING=1");
}
