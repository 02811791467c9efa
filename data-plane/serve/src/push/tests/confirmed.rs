//! How old a state may be, and what counts as a confirmation.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::push::{Freshness, PushConfig, StalenessLimits, StalenessReader, contact::Contact, verdict};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn old_states_lose_what_may_have_been_taken_away() {
    use Freshness::{Fresh, GrantsExpired, Stale};
    let limits = StalenessLimits::default();
    let short = StalenessLimits { grants_max_age: Some(10 * SECOND), ..limits };
    let never = StalenessLimits { grants_max_age: Some(Duration::ZERO), ..limits };
    let unlimited = StalenessLimits { grants_max_age: None, ..limits };
    for (age, limits, expect) in [
        (Some(0), limits, Fresh),
        (Some(29), limits, Fresh),
        (Some(30), limits, Stale),
        (Some(86_399), limits, Stale),
        (Some(86_400), limits, GrantsExpired),
        (Some(9), short, Fresh),
        (Some(10), short, GrantsExpired),
        (Some(0), never, GrantsExpired),
        (None, limits, GrantsExpired),
        (Some(29), unlimited, Fresh),
        (Some(864_000), unlimited, Stale),
        (None, unlimited, Stale),
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
        (Some(now - 86_390 * SECOND), 0, Freshness::Stale),
        (Some(now - 86_390 * SECOND), 11, Freshness::GrantsExpired),
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

#[tokio::test(start_paused = true)]
async fn a_first_state_counts_from_when_it_came_and_a_later_one_confirms_nothing() {
    let limits = StalenessLimits { grants_max_age: Some(10 * SECOND), ..StalenessLimits::default() };
    let contact = Arc::new(Contact::default());
    let reader = StalenessReader { contact: contact.clone() };
    assert_eq!(reader.freshness(&limits), Freshness::GrantsExpired, "nothing is known");
    contact.received();
    assert_eq!(reader.freshness(&limits), Freshness::Fresh, "no denial right after the first start");
    tokio::time::advance(9 * SECOND).await;
    contact.received();
    assert_eq!(reader.age(), Some(9 * SECOND), "a control-plane node without a quorum can send states too");
    tokio::time::advance(SECOND).await;
    assert_eq!(reader.freshness(&limits), Freshness::GrantsExpired);
    // After a restart the age on disk holds, whatever is sent before it is confirmed.
    let restarted = Arc::new(Contact::default());
    restarted.restored(contact.confirmed_at());
    restarted.received();
    let reader = StalenessReader { contact: restarted.clone() };
    assert_eq!(reader.freshness(&limits), Freshness::GrantsExpired);
    restarted.connected("a");
    restarted.bookmark(100, true);
    tokio::time::advance(SECOND).await;
    restarted.bookmark(101, true);
    assert_eq!(reader.freshness(&limits), Freshness::Fresh, "a quorum has confirmed it");
}

#[test]
fn the_age_on_disk_is_noted_often_enough_for_the_limit_and_not_each_second() {
    let every = |max: Option<u64>| {
        let mut config = PushConfig::new("dp-1", "test", 1);
        config.grants_max_age = max.map(Duration::from_secs);
        config.stamp_every().as_secs()
    };
    for (max, expect) in [(None, 60), (Some(86_400), 60), (Some(300), 30), (Some(5), 1), (Some(0), 1)] {
        assert_eq!(every(max), expect, "{max:?}");
    }
}
