//! Which version a build speaks, and which it understands.
//!
//! A release that changes what nodes say or store raises [`WIRE_VERSION`] by one, reads what the
//! version before said and stored, and says and stores nothing new before every control-plane node
//! can read it (the control plane keeps the least version of its members).

/// The version of what nodes say to each other and store. 2 added kinds and fields of resources
/// (`Spec::since_version`), and the events of what commands make and no document can (`Kind::is_governance`).
/// 3 added kinds and fields of resources. 4 added sources of plugins. 5 added packages of plugins and their publishers, and
/// further sources of plugins. 6 added models as resources. 7 added how long a component may compute
/// (`computeMs`).
pub const WIRE_VERSION: u32 = 7;

/// The version that this process speaks: [`WIRE_VERSION`].
///
/// Builds with debug assertions, and no others, take another from `PROVOST_TEST_WIRE_VERSION`: so
/// tests put two versions into one cluster although there is only one build.
pub fn wire_version() -> u32 {
    #[cfg(debug_assertions)]
    if let Some(version) = std::env::var("PROVOST_TEST_WIRE_VERSION").ok().and_then(|text| text.parse().ok()) {
        return version;
    }
    WIRE_VERSION
}

/// Whether a node of another version and this one understand each other: they are at most one
/// apart. The newer of two speaks as the older does.
pub fn understands(other: u32) -> bool {
    other > 0 && other.abs_diff(wire_version()) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_understand_each_other() {
        let table = [(0, false), (WIRE_VERSION, true), (WIRE_VERSION + 1, true), (WIRE_VERSION + 2, false)];
        for (other, expect) in table {
            assert_eq!(understands(other), expect, "{other}");
        }
    }
}
