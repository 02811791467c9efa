//! A document as lines of text, and the parts that its author gave it.
//!
//! Invariants: every line of the document has its number, so that a citation leads back to it; what is no text is
//! refused with its reason.

use std::{ops::Range, time::Instant};

use super::{globs::Format, markdown, pdf};

/// Bytes of a document's file.
pub(super) const MAX_FILE_BYTES: u64 = 32 << 20;
/// Bytes of its text.
pub(super) const MAX_TEXT_BYTES: usize = 8 << 20;
/// Characters of a title.
const MAX_TITLE_CHARS: usize = 200;

/// A document that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    /// In order; what stands in none of them is not searched.
    pub(super) sections: Vec<Section>,
    /// 0: it has none.
    pub(super) pages: u32,
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// The headings that it stands under, the outermost first.
    pub(super) headings: Vec<String>,
    pub(super) page: Option<u32>,
    /// Its lines, counted from 0.
    pub(super) lines: Range<usize>,
}

/// Reads a document; `Err`: why it cannot be. Blocks, and ends about when it has to.
pub(super) fn read(path: &str, format: Format, bytes: &[u8], until: Instant) -> Result<Text, String> {
    let mut text = match format {
        Format::Markdown => markdown::read(lines_of(bytes)?),
        Format::Text => {
            let lines = lines_of(bytes)?;
            let whole = Section { headings: Vec::new(), page: None, lines: 0..lines.len() };
            Text { sections: vec![whole], lines, ..Text::default() }
        }
        Format::Pdf => of_pages(pdf::read(bytes, until)?),
    };
    let title: String = text.title.split_whitespace().collect::<Vec<_>>().join(" ");
    text.title = title.chars().filter(|c| !c.is_control()).take(MAX_TITLE_CHARS).collect();
    if text.title.is_empty() {
        text.title = path.rsplit('/').next().unwrap_or(path).to_owned();
    }
    Ok(text)
}

fn lines_of(bytes: &[u8]) -> Result<Vec<String>, String> {
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(format!("it has more than {MAX_TEXT_BYTES} bytes of text"));
    }
    let text = std::str::from_utf8(bytes).map_err(|cause| format!("it is not UTF-8: {cause}"))?;
    if text.contains('\0') {
        return Err("it has NUL characters, so it is no text".to_owned());
    }
    Ok(text.trim_start_matches('\u{feff}').lines().map(str::to_owned).collect())
}

/// Each page a section, lines counted through.
fn of_pages(read: pdf::Pages) -> Text {
    let mut text = Text { title: read.title, ..Text::default() };
    for page in read.pages {
        let from = text.lines.len();
        text.lines.extend(page.lines().map(|line| line.trim_end().to_owned()));
        text.pages += 1;
        text.sections.push(Section { headings: Vec::new(), page: Some(text.pages), lines: from..text.lines.len() });
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_with_its_reason() {
        let read = |bytes: &[u8]| read("a/b.txt", Format::Text, bytes, Instant::now());
        assert!(read(b"\xff\xfe").unwrap_err().contains("UTF-8"));
        assert!(read(b"a\0b").unwrap_err().contains("NUL"));
        let text = read("\u{feff}one\r\n\r\ntwo".as_bytes()).unwrap();
        assert_eq!(
            (text.title.as_str(), text.lines),
            ("b.txt", vec!["one".to_owned(), String::new(), "two".to_owned()])
        );
        assert_eq!(text.sections[0].lines, 0..3);
    }
}
