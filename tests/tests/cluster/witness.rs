//! Reads the log that the nodes show, while clients write: what was acknowledged must stand in it, and
//! no two nodes may ever show different transactions at one revision.

use std::{collections::BTreeMap, time::Duration};

use provost_wire::admin::HistoryEntry;

use crate::{
    admin::Admin,
    history::{Operation, Value},
};

/// Patience with one question.
const LIMIT: Duration = Duration::from_secs(5);

/// Registers and their values that one transaction set.
type Written = Vec<(String, Value)>;

/// All transactions seen so far, whichever node showed them.
#[derive(Default)]
pub struct Witness {
    log: BTreeMap<u64, Written>,
    /// Between these revisions nodes forgot transactions before they were seen.
    holes: Vec<(u64, u64)>,
    faults: Vec<String>,
}

impl Witness {
    /// Asks a node. A node that does not answer is no fault.
    pub async fn look(&mut self, admin: &Admin, node: u64) -> bool {
        match admin.history(node, LIMIT).await {
            Ok(entries) => {
                self.take(node, &entries);
                true
            }
            Err(_) => false,
        }
    }

    fn take(&mut self, node: u64, entries: &[HistoryEntry]) {
        let (Some(oldest), newest) = (entries.iter().map(|e| e.revision).min(), self.log.last_key_value()) else {
            return;
        };
        if let Some((&newest, _)) = newest
            && oldest > newest
        {
            self.holes.push((newest, oldest));
        }
        for entry in entries {
            let written = written(entry);
            match self.log.get(&entry.revision) {
                None => drop(self.log.insert(entry.revision, written)),
                Some(known) if *known == written => {}
                Some(known) => self.faults.push(format!(
                    "node {node} shows {written:?} at revision {}, another showed {known:?}",
                    entry.revision
                )),
            }
        }
        // A node that knows a later transaction and lacks an earlier one has lost it.
        let shown: Vec<u64> = entries.iter().map(|e| e.revision).collect();
        let (Some(&newest), Some(&oldest)) = (shown.iter().max(), shown.iter().min()) else { return };
        for revision in self.log.range(oldest..=newest).map(|(r, _)| *r) {
            if !shown.contains(&revision) {
                self.faults.push(format!("node {node} lacks revision {revision}, another showed it"));
            }
        }
    }

    /// Transactions seen.
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// The first contradiction among nodes, or between the log and what clients were told. `Ok`
    /// holds how many acknowledged writes could not be judged.
    pub fn check(&self, operations: &[Operation]) -> Result<usize, String> {
        if let Some(fault) = self.faults.first() {
            return Err(format!("{fault} ({} such faults)", self.faults.len()));
        }
        let first = self.log.first_key_value().map_or(u64::MAX, |(r, _)| *r);
        let mut unjudged = 0;
        for operation in operations {
            let Some(value) = operation.acknowledged_write() else { continue };
            let Some(revision) = operation.revision else {
                unjudged += 1;
                continue;
            };
            if revision < first || self.holes.iter().any(|(from, to)| *from < revision && revision < *to) {
                unjudged += 1;
                continue;
            }
            let wanted = (operation.key.clone(), value);
            if !self.log.get(&revision).is_some_and(|written| written.contains(&wanted)) {
                let found = self.log.get(&revision);
                return Err(format!("an acknowledged write is lost: {operation:?}; the log shows {found:?} there"));
            }
        }
        Ok(unjudged)
    }
}

fn written(entry: &HistoryEntry) -> Written {
    let register = |change: &provost_wire::admin::ResourceChange| {
        let key = change.resource.strip_prefix("Tenant/")?;
        let field = change.fields.iter().find(|f| f.field == "spec.displayName")?;
        let digits: String = field.new.chars().filter(char::is_ascii_digit).collect();
        Some((key.to_owned(), digits.parse().ok()?))
    };
    entry.changes.iter().filter_map(register).collect()
}

#[cfg(test)]
mod tests {
    use provost_wire::admin::{FieldChange, ResourceChange};

    use super::*;
    use crate::history::Action;

    fn entry(revision: u64, key: &str, value: Value) -> HistoryEntry {
        let field = FieldChange { field: "spec.displayName".into(), old: "\"0\"".into(), new: format!("\"{value}\"") };
        let change = ResourceChange { resource: format!("Tenant/{key}"), fields: vec![field], ..Default::default() };
        HistoryEntry { revision, changes: vec![change], ..Default::default() }
    }

    fn acknowledged(revision: u64, key: &str, value: Value) -> Operation {
        let action = Action::Write(value);
        Operation { key: key.into(), action, invoked: 0, returned: Some(1), revision: Some(revision), via: 1 }
    }

    #[test]
    fn acknowledged_writes_must_stand_in_the_log() {
        let mut witness = Witness::default();
        witness.take(1, &[entry(4, "a", 7), entry(3, "b", 6)]);
        witness.take(2, &[entry(9, "a", 9), entry(8, "b", 8)]);
        let check = |revision, key, value| witness.check(&[acknowledged(revision, key, value)]);
        assert_eq!(check(4, "a", 7), Ok(0));
        assert_eq!(check(9, "a", 9), Ok(0));
        assert_eq!(check(2, "a", 1), Ok(1), "before the first look");
        assert_eq!(check(5, "a", 1), Ok(1), "in the hole between two looks");
        for (revision, key, value) in [(4, "a", 6), (4, "b", 7), (10, "a", 10), (3, "a", 6)] {
            assert!(check(revision, key, value).is_err(), "{revision} {key} {value}");
        }
    }

    #[test]
    fn nodes_must_agree() {
        let mut differ = Witness::default();
        differ.take(1, &[entry(3, "a", 6)]);
        differ.take(2, &[entry(3, "a", 7)]);
        assert!(differ.check(&[]).is_err());

        let mut lacks = Witness::default();
        lacks.take(1, &[entry(5, "a", 8), entry(4, "a", 7), entry(3, "a", 6)]);
        lacks.take(2, &[entry(4, "a", 7), entry(3, "a", 6)]);
        assert_eq!(lacks.check(&[]), Ok(0), "a node may be behind");
        lacks.take(2, &[entry(5, "a", 8), entry(3, "a", 6)]);
        assert!(lacks.check(&[]).is_err(), "a node may not skip");
    }
}
