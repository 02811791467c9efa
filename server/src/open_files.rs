//! How many files the process may have open: each connection is one.
//!
//! Systems give a process few (1,024 is usual) and let it take more by itself; a node that stayed with
//! the few would refuse clients, or the storage could not open its files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a server takes, where the hard limit allows: connections, storage and upstreams fit in. Programs that
/// it starts inherit it.
const FOR_A_SERVER: u64 = 65_536;
/// With fewer than this a node cannot hold as many connections as it would.
const ENOUGH: u64 = 20_000;

/// Raises the soft limit for a server; says so where it stays low.
pub fn raise_for_a_server() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FOR_A_SERVER, |hard| hard.min(FOR_A_SERVER));
    let files = raise_to(wanted).unwrap_or(limit.current.unwrap_or(FOR_A_SERVER));
    if files < ENOUGH {
        tracing::warn!(
            files,
            "few files may be open, and each connection is one; raise the hard limit (`ulimit -Hn`, LimitNOFILE)"
        );
    }
}

/// Raises the soft limit to at least `wanted`, and gives what it is then.
///
/// # Errors
/// The hard limit, which is lower.
pub fn raise_to(wanted: u64) -> Result<u64, u64> {
    let limit = getrlimit(Resource::Nofile);
    // No limit is more than any.
    let Some(soft) = limit.current else { return Ok(u64::MAX) };
    if soft >= wanted {
        return Ok(soft);
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < wanted) {
        return Err(hard);
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    raised.map(|()| wanted).map_err(|_| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        let soft = before.current.unwrap_or(u64::MAX);
        assert_eq!(raise_to(1), Ok(soft), "one file is less than it has");
        if let Some(hard) = before.maximum {
            assert_eq!(raise_to(hard), Ok(hard.max(soft)));
            assert_eq!(raise_to(hard.saturating_add(1)), Err(hard));
        }
        raise_for_a_server();
        assert!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) >= soft);
    }
}
