//! Words shortly before a number that say what it is.
//!
//! Nine digits with a right check digit are one in eleven of all nine digits. Where the digits alone
//! prove too little, a word in the same JSON member or clause must say more.

/// How far back a word may stand.
const DISTANCE: usize = 48;

/// Whether one of the words (lower case) stands before `at`, with no `,` `{` `[` `;` or line end between.
/// A word of up to four letters must stand alone: `tel` is not in `hotel`.
pub(crate) fn says(buf: &[u8], at: usize, words: &[&str]) -> bool {
    let window = &buf[at.saturating_sub(DISTANCE)..at];
    let member = window.iter().rposition(|b| matches!(b, b',' | b'{' | b'[' | b';' | b'\n')).map_or(0, |i| i + 1);
    let window = &window[member..];
    let letters = window.iter().fold(false, |any, b| any | b.is_ascii_alphabetic());
    letters && words.iter().any(|word| contains(window, word.as_bytes()))
}

fn contains(window: &[u8], word: &[u8]) -> bool {
    let letter = |i: Option<usize>| i.and_then(|i| window.get(i)).is_some_and(u8::is_ascii_alphabetic);
    let Some(first) = word.first() else { return false };
    window.windows(word.len()).enumerate().any(|(i, w)| {
        w[0] | 0x20 == *first
            && w.eq_ignore_ascii_case(word)
            && (word.len() > 4 || !letter(i.checked_sub(1)) && !letter(Some(i + word.len())))
    })
}
