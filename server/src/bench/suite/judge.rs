//! What repetitions say: their median, how far they drift, and whether a bar holds. Pure.

use serde::{Deserialize, Serialize};

/// A comparison whose plain side moves by more than this between repetitions says nothing about the other side.
pub const MAX_DRIFT: f64 = 0.10;

/// Which side of a bar is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The median must not be below it.
    AtLeast,
    /// The median must not be above it.
    AtMost,
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Which side is good.
    pub limit: Limit,
    /// In the figure's unit.
    pub value: f64,
}

/// What is said of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The bar holds.
    Held,
    /// The bar does not hold.
    Missed,
    /// There is a bar, and this run can say nothing of it.
    Refused,
    /// There is no bar.
    None,
}

impl Bar {
    /// The median must not be below `value`.
    pub fn at_least(value: f64) -> Self {
        Self { limit: Limit::AtLeast, value }
    }

    /// The median must not be above `value`.
    pub fn at_most(value: f64) -> Self {
        Self { limit: Limit::AtMost, value }
    }

    /// Whether it holds.
    pub fn holds(self, median: f64) -> bool {
        match self.limit {
            Limit::AtLeast => median >= self.value,
            Limit::AtMost => median <= self.value,
        }
    }

    /// `>=` or `<=`.
    pub fn sign(self) -> &'static str {
        match self.limit {
            Limit::AtLeast => ">=",
            Limit::AtMost => "<=",
        }
    }
}

impl Verdict {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Missed => "missed",
            Self::Refused => "refused",
            Self::None => "",
        }
    }
}

/// The middle of what is finite; `None`: nothing is.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied()?;
    let lower = sorted.get((sorted.len() - 1) / 2).copied()?;
    Some(f64::midpoint(lower, upper))
}

/// From the least to the most, as a share of the median; `None`: there are no two to compare.
pub fn drift(values: &[f64]) -> Option<f64> {
    let middle = median(values).filter(|middle| *middle > 0.0 && values.len() > 1)?;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some((most - least) / middle)
}

/// Why these repetitions of the plain side bear no verdict; `None`: they do.
pub fn doubt(plain: &[f64]) -> Option<String> {
    match drift(plain) {
        None => Some("the plain side was measured fewer than two times".to_owned()),
        Some(drift) if drift > MAX_DRIFT => Some(format!(
            "the plain side drifted by {:.0} % between repetitions, which is more than {:.0} %",
            drift * 100.0,
            MAX_DRIFT * 100.0
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let table: [(&[f64], Option<f64>); 5] = [
            (&[], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 3.0], Some(3.0)),
            (&[1.0, 4.0, 2.0, 3.0], Some(2.5)),
            (&[f64::NAN, 2.0, f64::INFINITY], Some(2.0)),
        ];
        for (values, expect) in table {
            assert_eq!(median(values), expect, "{values:?}");
        }
    }

    #[test]
    fn a_plain_side_that_drifts_bears_no_verdict() {
        let table: [(&[f64], bool); 6] = [
            (&[100.0, 104.0, 109.0], true),
            (&[100.0, 100.0], true),
            (&[100.0, 104.0, 115.0], false),
            (&[100.0], false),
            (&[], false),
            (&[0.0, 0.0], false),
        ];
        for (values, bears) in table {
            assert_eq!(doubt(values).is_none(), bears, "{values:?}");
        }
        assert!(doubt(&[100.0, 150.0]).unwrap().contains("40 %"));
    }

    #[test]
    fn a_bar_holds_at_its_value() {
        assert!(Bar::at_least(0.5).holds(0.5) && !Bar::at_least(0.5).holds(0.49));
        assert!(Bar::at_most(60.0).holds(60.0) && !Bar::at_most(60.0).holds(60.1));
    }
}
