//! Maps of codes to letters in PDF files (`ToUnicode`; ISO 32000-1, 9.10.3), looked at before they are read.
//!
//! The reader counts out every code of every range: one line of a map can name four billion.

use memchr::memmem;

const BEGIN: &[u8] = b"beginbfrange";
const END: &[u8] = b"endbfrange";
/// Digits of a code in a range: codes of two bytes are 65,536 at most, however often they are named.
const MAX_DIGITS: usize = 4;

/// Whether all ranges of a map are of codes of at most two bytes. What is written in an unusual way is not.
pub(super) fn is_modest(map: &[u8]) -> bool {
    let mut rest = map;
    while let Some(at) = memmem::find(rest, BEGIN) {
        rest = rest.get(at + BEGIN.len()..).unwrap_or_default();
        let end = memmem::find(rest, END).unwrap_or(rest.len());
        if !rest.get(..end).is_some_and(are_modest) {
            return false;
        }
    }
    true
}

/// Each line is a first code, a last one, and a text or a list of texts.
fn are_modest(lines: &[u8]) -> bool {
    // Which of a line comes next, and the digits of what is open.
    let (mut place, mut digits, mut is_list) = (0_usize, None::<usize>, false);
    for byte in lines {
        match (byte, digits) {
            // Could hide what is a code and what is not.
            (b'%', _) | (b'<', Some(_)) => return false,
            (b'<', None) => digits = Some(0),
            (b'>', Some(count)) => {
                if place < 2 && count > MAX_DIGITS {
                    return false;
                }
                digits = None;
                if !is_list {
                    place = (place + 1) % 3;
                }
            }
            (b'[', None) if place == 2 => is_list = true,
            (b']', None) if is_list => (is_list, place) = (false, 0),
            (_, Some(count)) if byte.is_ascii_hexdigit() => digits = Some(count + 1),
            (_, Some(_)) if byte.is_ascii_whitespace() => {}
            (_, None) if byte.is_ascii_whitespace() => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_more_than_two_bytes_are_not_counted_out() {
        for (lines, expect) in [
            ("<00> <ff> <0041>", true),
            ("<0000><FFFF><0041 0042>\n<0001> <0002> [<00410042> <0043>]\n<0003> <0003> <004100420043>", true),
            ("<000000> <FFFFFF> <0041>", false),
            ("<0001> <0002> <0041>\n<00000000> <FFFFFFFF> <0041>", false),
            ("<0001> <0002> [<0041>] <00000000> <FFFFFFFF> <0041>", false),
            ("<0001> % <\n<0002> <0041>", false),
            ("<0001> <0002> x", false),
        ] {
            let map = format!("1 beginbfrange\n{lines}\nendbfrange\n");
            assert_eq!(is_modest(map.as_bytes()), expect, "{lines}");
            assert_eq!(is_modest(format!("{map}1 beginbfrange\n<00> <01> <41>\nendbfrange").as_bytes()), expect);
        }
        // Single codes are not counted out, whatever their length.
        assert!(is_modest(b"1 beginbfchar\n<00000001> <0041>\nendbfchar"));
        assert!(is_modest(b""));
    }
}
