//! The report as one page that a person can read, keep and print: no scripts, nothing loaded.
//!
//! Invariant: every text that comes from the directory (names, reasons, paths) is escaped; an
//! attacker who writes a log must not be able to write the report.

use std::fmt::Write;

use crate::report::{Exit, LogReport, Report, State};

/// What the page says beside the report.
#[derive(Clone, Debug, Default)]
pub struct HtmlContext {
    /// The anchor: where it came from, and its text.
    pub anchor: Option<(String, String)>,
    /// The key that was demanded (`--key`).
    pub trusted_key: Option<String>,
    /// From when on records were read in full (`--since`), as text.
    pub since: Option<String>,
    /// When this was verified, as text.
    pub verified_at: String,
    /// By which program.
    pub program: String,
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1a1a1a}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-top:1px solid #ccc;padding-top:1em}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3em .6em;border-bottom:1px solid #ddd}\
code,pre{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}\
.verdict{padding:.8em 1em;border-left:6px solid #777;background:#f4f4f4}\
.proven{border-color:#167a36}.failed{border-color:#b3261e;background:#fdecea}.open{border-color:#a86400}\
td.failed{font-weight:bold;color:#b3261e}";

/// What no verification of a log can show. The page always says it.
const LIMITS: [&str; 5] = [
    "That a record tells the truth: it says what the node claimed when it wrote it. It cannot be changed afterwards unseen.",
    "That an event was recorded at all, if the node that should have recorded it never did.",
    "Anything about records beyond the last signed checkpoint: whoever can write the files can cut those off or rewrite them.",
    "The time of a record: it is the clock of the node that wrote it. The order of records, and the latest time at which a \
     checkpoint can have been signed, are what is proven.",
    "Without an anchor from outside: that this is the log that others were shown, that it is whole, or that it is not an \
     older copy.",
];

impl Report {
    /// The page.
    pub fn to_html(&self, context: &HtmlContext) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_html(&mut out, context);
        out
    }

    fn write_html(&self, out: &mut String, context: &HtmlContext) -> std::fmt::Result {
        write!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>Audit verification</title><style>{STYLE}</style></head><body><h1>Audit verification</h1>"
        )?;
        let class = match self.exit {
            Exit::Proven => "proven",
            Exit::Tampered => "failed",
            _ => "open",
        };
        write!(
            out,
            "<p class=\"verdict {class}\"><b>{}</b><br>Exit code {}.</p>",
            text(&self.verdict),
            self.exit_code()
        )?;
        write!(out, "<h2>What was verified</h2><table>")?;
        row(out, "Directory", &self.path.display().to_string())?;
        let records: u64 = self.logs.iter().map(|log| log.records).sum();
        row(out, "Logs", &format!("{} with {records} records", self.logs.len()))?;
        row(out, "When", &context.verified_at)?;
        row(out, "By", &context.program)?;
        let demanded = context.trusted_key.as_deref();
        row(out, "Key demanded", demanded.unwrap_or("none: each log was checked with the key that lies beside it"))?;
        if let Some(since) = &context.since {
            row(
                out,
                "Read in full since",
                &format!("{since}; older segments were taken by their roots, which the checkpoints cover"),
            )?;
        }
        match &context.anchor {
            Some((name, _)) => row(out, "Anchor", name)?,
            None => row(out, "Anchor", "none: nothing from outside was compared, so nothing is proven to be whole")?,
        }
        write!(out, "</table>")?;
        if let Some((_, anchor)) = &context.anchor {
            write!(out, "<details><summary>The anchor's text</summary><pre>{}</pre></details>", text(anchor))?;
        }
        for origin in &self.missing_logs {
            write!(
                out,
                "<h2>{}</h2><p class=\"verdict failed\">The anchor or the cluster's log knows this log and the directory lacks it: it was deleted.</p>",
                text(origin)
            )?;
        }
        for log in &self.logs {
            write_log(out, log)?;
        }
        if !self.receipts.is_empty() {
            write!(out, "<h2>Receipts</h2><table>")?;
            for receipt in &self.receipts {
                let (class, word) = if receipt.holds { ("", "holds") } else { ("failed", "FAILED") };
                let (log, said) = (text(&receipt.log), text(&receipt.text));
                let index = receipt.index;
                write!(out, "<tr><th>{log}, record {index}</th><td class=\"{class}\">{word}</td><td>{said}</td></tr>")?;
            }
            write!(out, "</table>")?;
        }
        write!(out, "<h2>What this does not prove</h2><ul>")?;
        for limit in LIMITS {
            write!(out, "<li>{}</li>", text(limit))?;
        }
        write!(out, "</ul></body></html>")
    }
}

fn write_log(out: &mut String, log: &LogReport) -> std::fmt::Result {
    write!(out, "<h2>{}</h2><table>", text(&log.origin))?;
    for (name, verdict) in log.verdicts() {
        let (class, word) = match verdict.state {
            State::Proven => ("", "proven"),
            State::Consistent => ("", "consistent"),
            State::Failed => ("failed", "FAILED"),
            State::Stale => ("", "stale"),
            State::Incomplete => ("", "incomplete"),
        };
        write!(out, "<tr><th>{name}</th><td class=\"{class}\">{word}</td><td>{}</td></tr>", text(&verdict.text))?;
    }
    write!(out, "</table><table>")?;
    row(out, "Records", &format!("{}, of which {} signed and {} beyond", log.records, log.signed, log.beyond))?;
    match log.anchored {
        Some(size) => row(out, "Anchored", &format!("the anchor covers the first {size} records"))?,
        None => row(out, "Anchored", "no")?,
    }
    row(out, "Root", &log.root.to_string())?;
    row(out, "Chain", &log.chain.to_string())?;
    write!(out, "</table>")?;
    if let Some(failure) = &log.failure {
        write!(out, "<p class=\"verdict failed\"><b>First failure:</b> {}</p><table>", text(&failure.attack))?;
        row(out, "Record", &failure.index.to_string())?;
        row(out, "File", &failure.file.display().to_string())?;
        row(out, "Byte", &failure.offset.to_string())?;
        for (name, hash) in [("Expected", failure.expected), ("Found", failure.actual)] {
            if let Some(hash) = hash {
                row(out, name, &hash.to_string())?;
            }
        }
        row(out, "Last good checkpoint", &format!("{} records", failure.last_good_checkpoint))?;
        write!(out, "</table>")?;
    }
    list(out, "Records that break a rule", log.violations.iter().map(place))?;
    list(out, "Records with a doubtful time", log.suspicions.iter().map(place))?;
    list(out, "Notes", log.notes.iter().cloned())?;
    let Some(proof) = &log.proof else { return Ok(()) };
    let holds = if proof.holds { "is covered" } else { "is NOT covered" };
    let size = proof.size;
    write!(
        out,
        "<p>Record {} (leaf hash <code>{}</code>) {holds} by the checkpoint of {size} records.</p>",
        proof.index, proof.leaf_hash
    )
}

fn place(found: &crate::report::Violation) -> String {
    format!("record {}, {} at byte {}: {}", found.index, found.file.display(), found.offset, found.what)
}

fn list(out: &mut String, title: &str, items: impl Iterator<Item = String>) -> std::fmt::Result {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    write!(out, "<p><b>{title}</b></p><ul>")?;
    for item in items {
        write!(out, "<li>{}</li>", text(&item))?;
    }
    write!(out, "</ul>")
}

fn row(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    write!(out, "<tr><th>{}</th><td><code>{}</code></td></tr>", text(name), text(value))
}

fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control and direction characters could make a text look like another.
            c if (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_audit_core::LogId;

    use super::*;
    use crate::{report::Violation, verdicts::unjudged};

    #[test]
    fn nothing_from_the_log_becomes_markup() {
        let hostile = "</td><script>alert(1)</script>\u{202e}'\"&";
        let mut log = unjudged(&LogId::CLUSTER, hostile);
        log.origin = hostile.to_owned();
        log.notes.push(hostile.to_owned());
        let what = hostile.to_owned();
        log.violations.push(Violation { index: 7, file: hostile.into(), offset: 9, what });
        let exit = log.exit();
        let report = Report {
            path: hostile.into(),
            exit,
            verdict: hostile.to_owned(),
            logs: vec![log],
            missing_logs: vec![hostile.to_owned()],
            receipts: Vec::new(),
        };
        let anchor = Some((hostile.to_owned(), hostile.to_owned()));
        let page = report.to_html(&HtmlContext { anchor, verified_at: hostile.to_owned(), ..HtmlContext::default() });
        assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("record 7"), "{page}");
        assert!(page.contains("What this does not prove") && page.contains("Exit code 4"), "{page}");
    }
}
