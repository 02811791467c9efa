//! The report as text for people.

use std::fmt;

use crate::report::{LogReport, Report, State};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for log in &self.logs {
            write!(f, "{log}")?;
        }
        for origin in &self.missing_logs {
            let text = "the anchor or the cluster's log knows it and the directory lacks it: it was deleted";
            writeln!(f, "log {origin}\n  {text}")?;
        }
        for receipt in &self.receipts {
            writeln!(f, "receipt of record {} of {}: {}", receipt.index, receipt.log, receipt.text)?;
            if !receipt.holds {
                writeln!(f, "    in {} at byte {}", receipt.file.display(), receipt.offset)?;
                writeln!(f, "    expected {}", receipt.expected)?;
                if let Some(actual) = receipt.actual {
                    writeln!(f, "    actual   {actual}")?;
                }
            }
        }
        writeln!(f, "{}", self.verdict)?;
        write!(f, "exit code {}", self.exit_code())
    }
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log {}: {} records, {} signed", self.origin, self.records, self.signed)?;
        for (name, verdict) in self.verdicts() {
            writeln!(f, "  {name:<12} {:<10} {}", word(verdict.state), verdict.text)?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "  first failure: {}", failure.attack)?;
            let file = failure.file.display();
            writeln!(f, "    record {} in {file} at byte {}", failure.index, failure.offset)?;
            if let Some(expected) = failure.expected {
                writeln!(f, "    expected {expected}")?;
            }
            if let Some(actual) = failure.actual {
                writeln!(f, "    actual   {actual}")?;
            }
            writeln!(f, "    last good checkpoint: {} records", failure.last_good_checkpoint)?;
        }
        for found in self.violations.iter().chain(&self.suspicions) {
            let file = found.file.display();
            writeln!(f, "  record {}: {} ({file} at byte {})", found.index, found.what, found.offset)?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        if let Some(proof) = &self.proof {
            if proof.is_covered() {
                let word = if proof.holds { "is" } else { "is NOT" };
                writeln!(
                    f,
                    "  record {} ({}) {word} covered by the checkpoint of {} records; path of {} hashes",
                    proof.index,
                    proof.leaf_hash,
                    proof.size,
                    proof.path.len()
                )?;
            } else {
                writeln!(
                    f,
                    "  record {} is not covered yet: the latest checkpoint is of {} records",
                    proof.index, proof.size
                )?;
            }
            for hash in &proof.path {
                writeln!(f, "    {hash}")?;
            }
        }
        Ok(())
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Proven => "proven",
        State::Consistent => "consistent",
        State::Failed => "FAILED",
        State::Stale => "stale",
        State::Incomplete => "incomplete",
    }
}
