//! Two definitions, line by line.

/// Lines of each side that are compared; the rest is left out.
const MAX_LINES: usize = 1_000;
/// Lines shown around a change.
const CONTEXT: usize = 2;

/// `-` what went, `+` what came, with a little around it.
pub(super) fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.lines().take(MAX_LINES).collect(), new.lines().take(MAX_LINES).collect());
    // Longest common subsequence; a definition has few lines.
    let mut longest = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] =
                if old[i] == new[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut all) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            all.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            all.push(('-', old[i]));
            i += 1;
        } else {
            all.push(('+', new[j]));
            j += 1;
        }
    }
    let near = |at: usize| {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(all.len()));
        all[from..to].iter().any(|(mark, _)| *mark != ' ')
    };
    let shown = all.iter().enumerate().filter(|(at, _)| near(*at));
    shown.map(|(_, (mark, line))| format!("{mark} {line}\n")).collect()
}

/// A line as a terminal may show it: what would be hidden, or would act on the terminal, is written out.
pub(super) fn visible(line: &str) -> String {
    line.chars()
        .map(|c| {
            let hidden = c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{00ad}')
                || matches!(c, '\u{e0000}'..='\u{e007f}' | '\u{fe00}'..='\u{fe0f}');
            if hidden { format!("<U+{:04X}>", u32::from(c)) } else { c.to_string() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_a_little_around_it() {
        let old = "a\nb\nc\nd\ne\nf";
        assert_eq!(lines(old, old), "");
        assert_eq!(lines(old, "a\nb\nc\nX\ne\nf"), "  b\n  c\n- d\n+ X\n  e\n  f\n");
        assert_eq!(lines("", "x"), "+ x\n");
        assert_eq!(lines("x", ""), "- x\n");
    }

    #[test]
    fn nothing_is_hidden_from_who_reads_it() {
        assert_eq!(visible("a\u{200b}b\u{1b}[8mc\u{e0041}"), "a<U+200B>b<U+001B>[8mc<U+E0041>");
    }
}
