//! Spans of time that are counted apart.

use std::fmt;

use provost_types::{QuotaSpec, QuotaUnit, QuotaWindow};
use serde::{Deserialize, Serialize};
use time::{Duration, Month, OffsetDateTime, Time};

const NS: u64 = 1_000_000_000;

/// What an account counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Span {
    /// One calendar window, Unix seconds.
    Window {
        /// The first second.
        start_s: u64,
        /// The second after the last.
        end_s: u64,
    },
    /// Any second.
    Rate,
    /// Now.
    Slots,
}

impl Span {
    /// The span that a quota counts in at a time.
    pub fn of(spec: &QuotaSpec, now_ns: u64) -> Self {
        let now_s = now_ns / NS;
        let fixed = |length: u64| {
            let start_s = now_s - now_s % length;
            Span::Window { start_s, end_s: start_s.saturating_add(length) }
        };
        match (spec.unit, spec.window) {
            (QuotaUnit::Concurrent, _) => Span::Slots,
            (_, Some(QuotaWindow::Second)) => Span::Rate,
            (_, Some(QuotaWindow::Minute)) => fixed(60),
            (_, Some(QuotaWindow::Hour)) => fixed(3_600),
            (_, Some(QuotaWindow::Day)) => fixed(86_400),
            // A quota without a window is refused at admission; were it here, the longest holds.
            (_, Some(QuotaWindow::Month) | None) => month(now_s),
        }
    }

    /// The start of a calendar window, nanoseconds since the Unix epoch.
    pub fn start_ns(&self) -> Option<u64> {
        match self {
            Span::Window { start_s, .. } => Some(start_s.saturating_mul(NS)),
            Span::Rate | Span::Slots => None,
        }
    }

    /// The end of a calendar window, nanoseconds since the Unix epoch.
    pub fn end_ns(&self) -> Option<u64> {
        match self {
            Span::Window { end_s, .. } => Some(end_s.saturating_mul(NS)),
            Span::Rate | Span::Slots => None,
        }
    }
}

/// The calendar month. A time past the calendar's end counts in one last window.
fn month(now_s: u64) -> Span {
    let last = Span::Window { start_s: 0, end_s: u64::MAX / NS };
    let Some(now) = i64::try_from(now_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok()) else {
        return last;
    };
    let Ok(first) = now.replace_time(Time::MIDNIGHT).replace_day(1) else { return last };
    let days = i64::from(Month::length(first.month(), first.year()));
    match (u64::try_from(first.unix_timestamp()), first.checked_add(Duration::days(days))) {
        (Ok(start_s), Some(next)) => Span::Window { start_s, end_s: next.unix_timestamp().max(0).unsigned_abs() },
        _ => last,
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::Window { start_s, end_s } => write!(f, "{start_s}-{end_s}"),
            Span::Rate => f.write_str("rate"),
            Span::Slots => f.write_str("slots"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use provost_types::QuotaPer;
    use time::macros::datetime;

    use super::*;

    fn spec(unit: QuotaUnit, window: Option<QuotaWindow>) -> QuotaSpec {
        QuotaSpec { limit: 1, unit, per: QuotaPer::Tenant, window, principals: BTreeSet::new(), tools: BTreeSet::new() }
    }

    #[test]
    fn windows_are_those_of_the_calendar() {
        let at = |t: OffsetDateTime| t.unix_timestamp().unsigned_abs();
        let now = datetime!(2028-02-29 13:45:59.9 UTC);
        let table = [
            (QuotaWindow::Minute, datetime!(2028-02-29 13:45:00 UTC), datetime!(2028-02-29 13:46:00 UTC)),
            (QuotaWindow::Hour, datetime!(2028-02-29 13:00:00 UTC), datetime!(2028-02-29 14:00:00 UTC)),
            (QuotaWindow::Day, datetime!(2028-02-29 00:00:00 UTC), datetime!(2028-03-01 00:00:00 UTC)),
            (QuotaWindow::Month, datetime!(2028-02-01 00:00:00 UTC), datetime!(2028-03-01 00:00:00 UTC)),
        ];
        let now_ns = u64::try_from(now.unix_timestamp_nanos()).unwrap();
        for (window, start, end) in table {
            let span = Span::of(&spec(QuotaUnit::Calls, Some(window)), now_ns);
            assert_eq!(span, Span::Window { start_s: at(start), end_s: at(end) }, "{window:?}");
            // The end belongs to the next window.
            let next = Span::of(&spec(QuotaUnit::Calls, Some(window)), at(end) * NS);
            assert!(matches!(next, Span::Window { start_s, .. } if start_s == at(end)), "{window:?}");
        }
        assert_eq!(Span::of(&spec(QuotaUnit::Tokens, Some(QuotaWindow::Second)), now_ns), Span::Rate);
        assert_eq!(Span::of(&spec(QuotaUnit::Concurrent, None), now_ns), Span::Slots);
    }

    #[test]
    fn december_ends_with_the_year_and_no_time_panics() {
        let now = datetime!(2026-12-31 23:59:59 UTC).unix_timestamp().unsigned_abs() * NS;
        let end = datetime!(2027-01-01 0:00 UTC).unix_timestamp().unsigned_abs() * NS;
        let month = spec(QuotaUnit::Calls, Some(QuotaWindow::Month));
        assert_eq!(Span::of(&month, now).end_ns(), Some(end));
        for time in [0, 1, u64::MAX, u64::MAX / 2] {
            for window in [QuotaWindow::Minute, QuotaWindow::Day, QuotaWindow::Month] {
                let span = Span::of(&spec(QuotaUnit::Calls, Some(window)), time);
                assert!(span.end_ns().is_some_and(|end| end >= time || end >= u64::MAX - 366 * 86_400 * NS));
            }
        }
    }
}
