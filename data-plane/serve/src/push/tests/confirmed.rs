//! How old a state may be, and what counts as a confirmation.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::push::{Freshness, StalenessLimits, StalenessReader, contact::Contact, verdict};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn old_states_lose_what_may_have_been_taken_away() {
    use Freshness::{Fresh, GrantsExpired, Stale};
    let limits = StalenessLimits::default();
    let short = StalenessLimits { grants_max_age: 10 * SECOND, ..limits };
    let never = StalenessLimits { grants_max_age: Duration::ZERO, ..limits };
    for (age, limits, expect) in [
        (Some(0), limits, Fresh),
        (Some(29), limits, Fresh),
        (Some(30), limits, Stale),
        (Some(3_599), limits, Stale),
        (Some(3_600), limits, GrantsExpired),
        (Some(9), short, Fresh),
        (Some(10), short, GrantsExpired),
        (Some(0), never, GrantsExpired),
        (None, limits, GrantsExpired),
    ] {
        assert_eq!(verdict(age.map(Duration::from_secs), &limits), expect, "{age:?} {limits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_moving_time_on_one_stream_confirms_what_is_run() {
    let contact = Contact::default();
    let ages = |contact: &Contact| contact.confirmed_ago().map(|a| a.as_secs());
    contact.connected("a");
    contact.bookmark(100, true);
    assert_eq!(ages(&contact), None, "one bookmark says nothing");
    tokio::time::advance(SECOND).await;
    contact.bookmark(101, true);
    assert_eq!(ages(&contact), Some(1), "confirmed since the one before");
    for _ in 0..30 {
        tokio::time::advance(SECOND).await;
        contact.bookmark(101, true);
    }
    assert_eq!(ages(&contact), Some(31), "a node without its quorum confirms nothing");
    contact.connected("b");
    contact.bookmark(900, true);
    assert_eq!(ages(&contact), Some(31), "another node's clock says nothing");
    tokio::time::advance(SECOND).await;
    contact.bookmark(901, false);
    assert_eq!(ages(&contact), Some(32), "the node runs something else");
    tokio::time::advance(SECOND).await;
    contact.bookmark(902, true);
    assert_eq!(ages(&contact), Some(1));
    contact.bookmark(5, true);
    contact.bookmark(6, true);
    assert_eq!(ages(&contact), Some(1), "a time that went back");
    contact.disconnected();
    tokio::time::advance(60 * SECOND).await;
    assert_eq!(ages(&contact), Some(61));
}

#[tokio::test(start_paused = true)]
async fn age_goes_on_over_a_restart_and_an_unlikely_clock_is_not_believed() {
    let now = SystemTime::now();
    let limits = StalenessLimits::default();
    for (stored, later, expect) in [
        (Some(now), 0, Freshness::Fresh),
        (Some(now), 40, Freshness::Stale),
        (Some(now - 40 * SECOND), 0, Freshness::Stale),
        (Some(now - 3_590 * SECOND), 0, Freshness::Stale),
        (Some(now - 3_590 * SECOND), 11, Freshness::GrantsExpired),
        (Some(now + 20 * SECOND), 0, Freshness::Fresh),
        (Some(now + 200 * SECOND), 0, Freshness::GrantsExpired),
        (None, 0, Freshness::GrantsExpired),
    ] {
        let contact = Arc::new(Contact::default());
        contact.restored(stored);
        tokio::time::advance(later * SECOND).await;
        let reader = StalenessReader { contact };
        assert_eq!(reader.freshness(&limits), expect, "{stored:?} and {later} s");
    }
}
