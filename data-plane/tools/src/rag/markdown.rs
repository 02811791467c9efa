//! The headings of a Markdown document.
//!
//! What CommonMark (0.31) calls ATX and setext headings, outside of fenced code. Front matter of YAML gives a title,
//! and is no text.

use super::text::{Section, Text};

/// Characters of a heading that are kept: each piece below it has them, and they are embedded with it.
const MAX_HEADING_CHARS: usize = 200;

/// Cuts a document at its headings. The title is the first heading of the first level, or the front matter's.
pub(super) fn read(lines: Vec<String>) -> Text {
    let (body, named) = front_matter(&lines);
    let mut title = named.unwrap_or_default();
    let mut sections = Vec::new();
    let mut headings: Vec<(usize, String)> = Vec::new();
    let mut fence: Option<(char, usize)> = None;
    let mut from = body;
    let mut first_level_one = true;
    let mut at = body;
    while let Some(line) = lines.get(at) {
        let before = at;
        at += 1;
        if let Some(open) = fence {
            if closes(line, open) {
                fence = None;
            }
            continue;
        }
        if let Some(open) = opens(line) {
            fence = Some(open);
            continue;
        }
        let Some((level, text)) = atx(line).or_else(|| {
            // A line under it makes a heading of a paragraph's only line.
            let stands_alone = before == body || lines.get(before - 1).is_none_or(|line| line.trim().is_empty());
            let level = setext(lines.get(at)?)?;
            (stands_alone && is_paragraph(line)).then(|| {
                at += 1;
                (level, plain(line))
            })
        }) else {
            continue;
        };
        push(&mut sections, &headings, from..before);
        from = at;
        headings.retain(|(of, _)| *of < level);
        if level == 1 && std::mem::take(&mut first_level_one) {
            title.clone_from(&text);
        }
        headings.push((level, text));
    }
    push(&mut sections, &headings, from..lines.len());
    Text { title, lines, sections, pages: 0 }
}

fn push(sections: &mut Vec<Section>, headings: &[(usize, String)], lines: std::ops::Range<usize>) {
    let headings = headings.iter().map(|(_, text)| text.clone()).filter(|text| !text.is_empty()).collect();
    sections.push(Section { headings, page: None, lines });
}

/// The first line after front matter, and the title that it gives.
fn front_matter(lines: &[String]) -> (usize, Option<String>) {
    if lines.first().is_none_or(|line| line.trim_end() != "---") {
        return (0, None);
    }
    let Some(end) = lines.iter().skip(1).position(|line| line.trim_end() == "---") else { return (0, None) };
    let title = lines.iter().skip(1).take(end).find_map(|line| line.strip_prefix("title:"));
    let title = title.map(|text| text.trim().trim_matches(['"', '\'']).to_owned());
    (end + 2, title)
}

/// The line without up to three spaces of indentation; more make code of it.
fn outdented(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(' ');
    (line.len() - text.len() <= 3).then_some(text)
}

fn opens(line: &str) -> Option<(char, usize)> {
    let text = outdented(line)?;
    let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let count = text.chars().take_while(|c| *c == mark).count();
    let is_inline = mark == '`' && text.trim_start_matches('`').contains('`');
    (count >= 3 && !is_inline).then_some((mark, count))
}

fn closes(line: &str, (mark, count): (char, usize)) -> bool {
    let text = line.trim();
    text.chars().count() >= count && text.chars().all(|c| c == mark)
}

fn atx(line: &str) -> Option<(usize, String)> {
    let text = outdented(line)?;
    let rest = text.trim_start_matches('#');
    let level = text.len() - rest.len();
    if !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    let rest = rest.trim();
    let bare = rest.trim_end_matches('#');
    let text = if bare.is_empty() || bare.ends_with([' ', '\t']) { bare } else { rest };
    Some((level, plain(text)))
}

fn setext(line: &str) -> Option<usize> {
    let text = outdented(line)?.trim_end();
    let all = |mark: char| text.len() >= 2 && text.chars().all(|c| c == mark);
    if all('=') { Some(1) } else { all('-').then_some(2) }
}

fn is_paragraph(line: &str) -> bool {
    let text = line.trim();
    outdented(line).is_some() && !text.is_empty() && !text.starts_with(['>', '|', '-', '*', '+', '='])
}

/// A heading as it is read: without marks of code and emphasis, links by their text.
fn plain(heading: &str) -> String {
    let mut out = String::new();
    let mut rest = heading.trim();
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(text, more)| Some((text, more.split_once(')')?.1)));
        out.push_str(before);
        match link {
            Some((text, more)) => {
                out.push_str(text);
                rest = more;
            }
            None => {
                out.push('[');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.retain(|c| !matches!(c, '`' | '*'));
    out.trim().chars().take(MAX_HEADING_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(text: &str) -> (String, Vec<(String, String)>) {
        let read = read(text.lines().map(str::to_owned).collect());
        let of = |s: &Section| (s.headings.join(" > "), read.lines[s.lines.clone()].join("|"));
        (read.title.clone(), read.sections.iter().map(of).filter(|(_, text)| !text.is_empty()).collect())
    }

    #[test]
    fn a_heading_has_a_bound() {
        let (title, read) = sections(&format!("# {}\nx", "é".repeat(10_000)));
        assert_eq!(title.chars().count(), MAX_HEADING_CHARS);
        assert_eq!(read, [(title, "x".to_owned())]);
    }

    #[test]
    fn a_document_is_cut_at_its_headings() {
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let table: [Case<'_>; 9] = [
            ("no heading", "", &[("", "no heading")]),
            (
                "# A\nx\n## B\ny\n### C\nz\n## D\nw",
                "A",
                &[("A", "x"), ("A > B", "y"), ("A > B > C", "z"), ("A > D", "w")],
            ),
            ("# A\n```sh\n# no heading\n```\n## B\ny", "A", &[("A", "```sh|# no heading|```"), ("A > B", "y")]),
            ("~~~~\n# a\n~~~\n# b\n~~~~\n# C\nx", "C", &[("", "~~~~|# a|~~~|# b|~~~~"), ("C", "x")]),
            (
                "A `code` [link](x.md)\n===\nx\n\nB\n---\ny",
                "A code link",
                &[("A code link", "x|"), ("A code link > B", "y")],
            ),
            ("a\nb\n---\nc", "", &[("", "a|b|---|c")]),
            ("#no\n####### no\n    # no\n# Yes #\nx", "Yes", &[("", "#no|####### no|    # no"), ("Yes", "x")]),
            ("---\ntitle: \"T\"\ntags: [a]\n---\nx\n## B\ny", "T", &[("", "x"), ("B", "y")]),
            ("| a | b |\n|---|---|\n| c | d |", "", &[("", "| a | b |||---|---||| c | d |")]),
        ];
        for (text, title, expect) in table {
            let (read_title, read) = sections(text);
            let read: Vec<(&str, &str)> = read.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!((read_title.as_str(), read.as_slice()), (title, expect), "{text}");
        }
    }
}
