//! The text of a PDF file, page by page.
//!
//! Files are anybody's. What they can make us do is bounded: bytes of objects and of each stream, pages, text and time;
//! a panic of the reader ends the task that it runs on, and nothing else. Encrypted files are not read: the reader
//! takes them a way that knows none of these bounds.
//! Left out: pictures of text, which need recognition; the order of columns, which is that of the file.

use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use lopdf::{
    Dictionary, Document, Encoding, LoadOptions, Object, ObjectId,
    content::{Content, Operation},
    decode_text_string,
};

use super::{pdf_map::is_modest, text::MAX_TEXT_BYTES};

/// How long one file may take.
pub(super) const MAX_TIME: Duration = Duration::from_secs(60);
/// Pages of a file.
const MAX_PAGES: usize = 5_000;
/// Bytes that all objects of a file take in memory, about.
const MAX_OBJECT_BYTES: usize = 128 << 20;
/// Bytes of one stream of objects, or of a font's map, without compression.
const MAX_STREAM_BYTES: usize = 4 << 20;
/// Bytes of what one page shows, without compression.
const MAX_PAGE_BYTES: usize = 32 << 20;
/// Fonts of a page whose maps are kept at once: a map takes many times its bytes.
const MAX_FONTS: usize = 8;
/// Bytes of text that are shown in one step: each may stand for hundreds of characters.
const STEP_BYTES: usize = 4_096;
/// Operations of a page between two looks at the clock.
const OPERATIONS_PER_CHECK: usize = 1_024;
/// The reader descends a hundred levels, in frames that are large without optimisation.
const STACK_BYTES: usize = 32 << 20;
/// A gap in a line, in thousandths of the font's size, that is a space between words.
const WORD_GAP: f32 = -180.0;

thread_local! {
    /// What the file that this thread loads may still take; the reader's filter is a plain function.
    static LEFT: Cell<(usize, Option<Instant>)> = const { Cell::new((0, None)) };
}

/// The pages of a file.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) title: String,
    pub(super) pages: Vec<String>,
}

/// Reads a file; `Err`: why it cannot be.
pub(super) fn read(bytes: &[u8], until: Instant) -> Result<Pages, String> {
    if has_name(bytes, b"Encrypt") {
        return Err("it is encrypted; only files that open without a password are read".to_owned());
    }
    stacker::grow(STACK_BYTES, || read_here(bytes, until))
}

fn read_here(bytes: &[u8], until: Instant) -> Result<Pages, String> {
    LEFT.set((MAX_OBJECT_BYTES, Some(until)));
    let options = LoadOptions {
        filter: Some(keep_within),
        max_decompressed_size: Some(MAX_STREAM_BYTES),
        ..LoadOptions::default()
    };
    let document = Document::load_mem_with_options(bytes, options)
        .map_err(|cause| format!("it is no PDF file that can be read: {cause}"))?;
    if LEFT.get().0 == 0 {
        return Err(format!("its objects take more than {MAX_OBJECT_BYTES} bytes, or too long"));
    }
    let ids = document.get_pages();
    if ids.len() > MAX_PAGES {
        return Err(format!("it has more than {MAX_PAGES} pages"));
    }
    let mut read = Pages { title: title(&document), pages: Vec::with_capacity(ids.len()) };
    let mut length = 0;
    for id in ids.values() {
        let page = page(&document, *id, until)?;
        length += page.len();
        if length > MAX_TEXT_BYTES {
            return Err(format!("it has more than {MAX_TEXT_BYTES} bytes of text"));
        }
        read.pages.push(page);
    }
    if read.pages.iter().all(|page| page.trim().is_empty()) {
        return Err("it has no text; pictures of text have to be recognised first".to_owned());
    }
    Ok(read)
}

/// Lets objects be kept while there is room and time. Of a stream's answer only that there is one is looked at.
fn keep_within(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    let (left, until) = LEFT.get();
    let is_late = until.is_none_or(|until| Instant::now() > until);
    let left = if is_late { 0 } else { left.saturating_sub(weight(object)) };
    LEFT.set((left, until));
    let kept = if matches!(object, Object::Stream(_)) { Object::Null } else { object.clone() };
    (left > 0).then_some((id, kept))
}

/// The bytes that an object takes, about.
fn weight(object: &Object) -> usize {
    let inner: usize = match object {
        Object::Name(bytes) | Object::String(bytes, _) => bytes.len(),
        Object::Array(items) => items.iter().map(weight).sum(),
        Object::Dictionary(members) => members.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        Object::Stream(stream) => {
            stream.content.len() + stream.dict.iter().map(|(name, value)| name.len() + weight(value)).sum::<usize>()
        }
        Object::Null | Object::Boolean(_) | Object::Integer(_) | Object::Real(_) | Object::Reference(_) => 0,
    };
    inner.saturating_add(size_of::<Object>())
}

/// Whether a name stands anywhere in the file, also with its letters as `#45` (ISO 32000-1, 7.3.5).
fn has_name(bytes: &[u8], name: &[u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    memchr::memchr_iter(b'/', bytes).any(|at| {
        let mut rest = bytes.get(at + 1..).unwrap_or_default();
        name.iter().all(|wanted| {
            let (found, after) = match rest {
                [b'#', high, low, after @ ..] => match digit(*high).zip(digit(*low)) {
                    Some((high, low)) => (high << 4 | low, after),
                    None => return false,
                },
                [plain, after @ ..] => (*plain, after),
                [] => return false,
            };
            rest = after;
            found == *wanted
        })
    })
}

fn title(document: &Document) -> String {
    let info = document.trailer.get_deref(b"Info", document).and_then(Object::as_dict);
    let title = info.and_then(|info| info.get_deref(b"Title", document)).and_then(decode_text_string);
    title.unwrap_or_default()
}

/// A page's text, a line for each that it shows.
fn page(document: &Document, id: ObjectId, until: Instant) -> Result<String, String> {
    let fonts = document.get_page_fonts(id).map_err(|cause| format!("a page's fonts cannot be read: {cause}"))?;
    let mut kept = Fonts::new();
    let content = document
        .get_page_content_with_limit(id, MAX_PAGE_BYTES)
        .map_err(|cause| format!("a page cannot be read: {cause}"))?;
    let mut shown = Shown::default();
    let mut encoding = None;
    for (n, operation) in Content::<Vec<Operation>>::decode_iter(&content).enumerate() {
        if n % OPERATIONS_PER_CHECK == 0 && Instant::now() > until {
            return Err(late());
        }
        if shown.text.len() > MAX_TEXT_BYTES {
            return Err(format!("it has more than {MAX_TEXT_BYTES} bytes of text"));
        }
        // What comes after a fault of a page is not shown by readers either.
        let Ok(Operation { operator, operands }) = operation else { break };
        match operator.as_str() {
            "Tf" => {
                let name = operands.first().and_then(|name| name.as_name().ok());
                if Instant::now() > until {
                    return Err(late());
                }
                encoding = name.and_then(|name| encoding_of(document, &fonts, &mut kept, name));
            }
            "Tj" | "TJ" => shown.show(encoding.as_deref(), &operands),
            "'" => {
                shown.line();
                shown.show(encoding.as_deref(), &operands);
            }
            "\"" => {
                shown.line();
                shown.show(encoding.as_deref(), operands.get(2..).unwrap_or_default());
            }
            "T*" | "ET" => shown.line(),
            "Td" | "TD" => shown.moved(number(operands.get(1)) != 0.0),
            "Tm" => {
                let height = number(operands.get(5));
                shown.moved(height != shown.height);
                shown.height = height;
            }
            _ => {}
        }
    }
    Ok(shown.text)
}

fn late() -> String {
    format!("it takes longer than {} s to read", MAX_TIME.as_secs())
}

/// The encodings of fonts that a page used lately, by name; `None`: its letters are not known.
type Fonts<'a> = BTreeMap<Vec<u8>, Option<Rc<Encoding<'a>>>>;

/// How a font's letters are written.
fn encoding_of<'a>(
    document: &'a Document,
    fonts: &BTreeMap<Vec<u8>, &'a Dictionary>,
    kept: &mut Fonts<'a>,
    name: &[u8],
) -> Option<Rc<Encoding<'a>>> {
    if let Some(known) = kept.get(name) {
        return known.clone();
    }
    let font: &'a Dictionary = fonts.get(name).copied()?;
    let encoding = match has_modest_map(document, font) {
        true => font.get_font_encoding_with_limit(document, MAX_STREAM_BYTES).ok().map(Rc::new),
        false => None,
    };
    if kept.len() >= MAX_FONTS {
        kept.clear();
    }
    kept.insert(name.to_vec(), encoding.clone());
    encoding
}

/// Whether the font's map, if it has one, can be read: the reader counts out each of its ranges.
fn has_modest_map(document: &Document, font: &Dictionary) -> bool {
    let map = font.get_deref(b"ToUnicode", document).and_then(Object::as_stream);
    // A font without a map has none to count out.
    map.map_or(true, |map| {
        let text = map.get_plain_content_with_limit(MAX_STREAM_BYTES);
        text.is_ok_and(|text| is_modest(text.as_ref()))
    })
}

fn number(operand: Option<&Object>) -> f32 {
    operand.and_then(|operand| operand.as_float().ok()).unwrap_or_default()
}

/// What a page has shown so far.
#[derive(Default)]
struct Shown {
    text: String,
    /// Where the matrix of text put it last.
    height: f32,
}

impl Shown {
    fn show(&mut self, encoding: Option<&Encoding<'_>>, operands: &[Object]) {
        let Some(encoding) = encoding else { return };
        for operand in operands {
            match operand {
                // Text in a font whose letters are not known is left out.
                Object::String(bytes, _) => {
                    for step in bytes.chunks(STEP_BYTES) {
                        if self.text.len() > MAX_TEXT_BYTES {
                            return;
                        }
                        let _ = encoding.write_to_string(step, &mut self.text);
                    }
                }
                Object::Array(items) => self.show(Some(encoding), items),
                gap => self.gap(gap),
            }
        }
    }

    fn gap(&mut self, gap: &Object) {
        if gap.as_float().is_ok_and(|width| width < WORD_GAP) {
            self.space();
        }
    }

    /// To another place: of another line, or of this one.
    fn moved(&mut self, is_line: bool) {
        if is_line { self.line() } else { self.space() }
    }

    fn space(&mut self) {
        if self.text.chars().next_back().is_some_and(|last| !last.is_whitespace()) {
            self.text.push(' ');
        }
    }

    fn line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// A file with these contents of pages, as it is written by hand: no compression, a table of offsets.
    fn file(title: &str, pages: &[&str]) -> Vec<u8> {
        let kids: Vec<String> = (0..pages.len()).map(|n| format!("{} 0 R", 5 + 2 * n)).collect();
        let mut objects = vec![
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            format!("<< /Type /Pages /Count {} /Kids [{}] >>", pages.len(), kids.join(" ")),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
            format!("<< /Title ({title}) >>"),
        ];
        for (n, content) in pages.iter().enumerate() {
            let resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 595 842]";
            objects.push(format!("<< /Type /Page /Parent 2 0 R {resources} /Contents {} 0 R >>", 6 + 2 * n));
            objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
        }
        let mut file = b"%PDF-1.4\n".to_vec();
        let mut offsets = Vec::new();
        for (n, object) in objects.iter().enumerate() {
            offsets.push(file.len());
            file.extend(format!("{} 0 obj\n{object}\nendobj\n", n + 1).bytes());
        }
        let table = file.len();
        let size = objects.len() + 1;
        file.extend(format!("xref\n0 {size}\n0000000000 65535 f \n").bytes());
        for offset in offsets {
            file.extend(format!("{offset:010} 00000 n \n").bytes());
        }
        let trailer = format!("trailer\n<< /Size {size} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{table}\n%%EOF\n");
        file.extend(trailer.bytes());
        file
    }

    fn soon() -> Instant {
        Instant::now() + MAX_TIME
    }

    #[test]
    fn pages_have_the_lines_that_they_show() {
        let first = "BT /F1 12 Tf 72 720 Td (The retention of) Tj 0 -14 Td (records is [400] days.) Tj T* (Next) ' ET";
        let second =
            "BT /F1 12 Tf 1 0 0 1 72 700 Tm [(Two) -300 (wor) 20 (ds)] TJ 1 0 0 1 200 700 Tm (same line) Tj ET";
        let read = read(&file("Records", &[first, second]), soon()).unwrap();
        assert_eq!(read.title, "Records");
        assert_eq!(read.pages, ["The retention of\nrecords is [400] days.\nNext\n", "Two words same line\n"]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let whole = file("T", &["BT /F1 12 Tf (x) Tj ET"]);
        let empty = file("T", &["0 0 m 1 1 l S"]);
        assert!(read(&empty, soon()).unwrap_err().contains("no text"));
        assert!(read(b"no file of this kind", soon()).unwrap_err().contains("no PDF"));
        assert!(read(&whole, Instant::now() - Duration::from_secs(1)).is_err());
        for name in ["/Encrypt 9 0 R", "/#45ncr#79pt 9 0 R"] {
            let text = String::from_utf8(whole.clone()).unwrap().replace("/Info 4 0 R", name);
            assert!(read(text.as_bytes(), soon()).unwrap_err().contains("encrypted"), "{name}");
        }
        // Cut off and damaged in every place: it ends, if need be by a panic, which ends one task.
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] = b'[';
            for file in [whole.get(..at).unwrap(), &damaged] {
                let _ = catch_unwind(AssertUnwindSafe(|| read(file, soon())));
            }
        }
    }

    #[test]
    fn a_font_whose_map_counts_to_billions_is_left_out() {
        for (range, expect) in [("<0041> <0042> <0061>", "ab"), ("<00000000> <FFFFFFFF> <0061>", "no text")] {
            let map = format!(
                "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapName /M def\n\
                 1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n1 beginbfrange\n{range}\nendbfrange\n\
                 endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
            );
            let mut document = Document::load_mem(&file("T", &["BT /F1 12 Tf <00410042> Tj ET"])).unwrap();
            let map = document.add_object(lopdf::Stream::new(Dictionary::new(), map.into_bytes()));
            let font = document.get_object_mut((3, 0)).and_then(Object::as_dict_mut).unwrap();
            font.remove(b"Encoding");
            font.set("Encoding", Object::Name(b"Identity-H".to_vec()));
            font.set("ToUnicode", Object::Reference(map));
            let mut bytes = Vec::new();
            document.save_to(&mut bytes).unwrap();
            let said = read(&bytes, soon()).map_or_else(|cause| cause, |read| read.pages.concat());
            assert!(said.contains(expect), "{range}: {said}");
        }
    }

    #[test]
    fn objects_have_room_and_no_more() {
        LEFT.set((1_000, Some(soon())));
        let mut object = Object::Array(vec![Object::Null; 4]);
        let weight = weight(&object);
        assert!(weight >= 4 * size_of::<Object>() && weight < 1_000, "{weight}");
        assert_eq!(keep_within((1, 0), &mut object), Some(((1, 0), object.clone())));
        let mut large = Object::Array(vec![Object::Null; 1_000]);
        assert_eq!(keep_within((2, 0), &mut large), None);
        assert_eq!(keep_within((3, 0), &mut object), None, "nothing after");
    }
}
