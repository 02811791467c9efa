//! Ports for processes that must come back at the same one.
//!
//! From below the range that the system gives to outgoing connections: a port of that range that was
//! free a moment ago may be somebody's when the process starts. Each test is a process of its own and
//! begins at another place; what is taken is passed over.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// First port, and how many. Debian's ephemeral range begins at 32,768.
const RANGE: (u32, u32) = (12_000, 20_000);
/// Between the places where two processes with neighbouring ids begin: prime to the range.
const STRIDE: u32 = 211;

/// Free a moment ago, all different, and not given again by this process.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    std::array::from_fn(|_| {
        let tries = std::iter::repeat_with(|| GIVEN.fetch_add(1, Ordering::Relaxed)).take(RANGE.1 as usize);
        let mut free = tries.filter_map(|n| {
            let offset = (u64::from(std::process::id()) * u64::from(STRIDE) + u64::from(n)) % u64::from(RANGE.1);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(u64::from(RANGE.0) + offset).unwrap()));
            TcpListener::bind(address).ok().map(|_| address)
        });
        free.next().expect("a free port below the ephemeral range")
    })
}
