//! Invariant: at most one leader a term.

use std::collections::BTreeMap;

use super::record::Record;

pub(super) fn check(record: &Record) -> Result<(), String> {
    let mut of_term = BTreeMap::new();
    for (term, node) in &record.leaders {
        if let Some(other) = of_term.insert(term, node) {
            return Err(format!("nodes {other} and {node} both led in term {term}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_two_leaders_of_a_term() {
        let mut record = Record::default();
        for (term, node) in [(1, 1), (2, 3), (2, 3), (4, 1)] {
            record.leads(term, node);
        }
        assert_eq!(check(&record), Ok(()));
        record.leads(2, 1);
        assert_eq!(check(&record), Err("nodes 3 and 1 both led in term 2".to_owned()));
    }
}
