//! What changed between two texts, line by line.

/// Cells of the table of common lines: 16 MB of it.
const MAX_CELLS: usize = 4 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// A unified diff without file names; empty where nothing changed, `None` where there is too much to compare.
pub(crate) fn unified(before: &str, after: &str, context: usize) -> Option<String> {
    let old: Vec<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let lines = compare(&old, &new)?;
    let mut out = String::new();
    let (mut old_at, mut new_at, mut from) = (0, 0, 0);
    while let Some(first) = next_change(&lines, from) {
        let start = first.saturating_sub(context).max(from);
        let end = end_of_hunk(&lines, first, context);
        for line in &lines[from..start] {
            advance(line, &mut old_at, &mut new_at);
        }
        let hunk = &lines[start..end];
        let olds = hunk.iter().filter(|line| !matches!(line, Line::New(_))).count();
        let news = hunk.iter().filter(|line| !matches!(line, Line::Gone(_))).count();
        // A range without lines is named by the line before it.
        let begin = |at: usize, count: usize| if count == 0 { at } else { at + 1 };
        out += &format!("@@ -{},{olds} +{},{news} @@\n", begin(old_at, olds), begin(new_at, news));
        for line in hunk {
            let (mark, text) = match line {
                Line::Same(text) => (' ', text),
                Line::Gone(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            out.push(mark);
            out += text;
            out.push('\n');
            advance(line, &mut old_at, &mut new_at);
        }
        from = end;
    }
    Some(out)
}

fn advance(line: &Line<'_>, old_at: &mut usize, new_at: &mut usize) {
    *old_at += usize::from(!matches!(line, Line::New(_)));
    *new_at += usize::from(!matches!(line, Line::Gone(_)));
}

fn next_change(lines: &[Line<'_>], from: usize) -> Option<usize> {
    (from..lines.len()).find(|&i| !matches!(lines[i], Line::Same(_)))
}

/// Where the hunk ends that has the change at `first`: changes whose surroundings meet are in one.
fn end_of_hunk(lines: &[Line<'_>], first: usize, context: usize) -> usize {
    let mut last = first;
    while let Some(next) = next_change(lines, last + 1) {
        if next - last > context.saturating_mul(2) + 1 {
            break;
        }
        last = next;
    }
    lines.len().min((last + 1).saturating_add(context))
}

/// All lines in order, by the longest common subsequence.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Option<Vec<Line<'a>>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let width = b.len() + 1;
    if (a.len() + 1).checked_mul(width)? > MAX_CELLS {
        return None;
    }
    // common[i * width + j]: how many lines a[i..] and b[j..] have in common.
    let mut common = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let mut lines: Vec<Line<'a>> = old[..head].iter().map(|line| Line::Same(line)).collect();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(Line::Same(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j >= b.len() || (i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::Gone(a[i]));
            i += 1;
        } else {
            lines.push(Line::New(b[j]));
            j += 1;
        }
    }
    lines.extend(old[old.len() - tail..].iter().map(|line| Line::Same(line)));
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_what_is_around_them() {
        let table = [
            ("a\nb", "a\nb", 3, ""),
            ("a\nb\nc", "a\nx\nc", 1, "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"),
            ("a\nb\nc", "a\nx\nc", 0, "@@ -2,1 +2,1 @@\n-b\n+x\n"),
            ("", "a", 3, "@@ -0,0 +1,1 @@\n+a\n"),
            ("a", "", 3, "@@ -1,1 +0,0 @@\n-a\n"),
            ("1\n2\n3\n4\n5\n6", "0\n2\n3\n4\n5\n7", 1, "@@ -1,2 +1,2 @@\n-1\n+0\n 2\n@@ -5,2 +5,2 @@\n 5\n-6\n+7\n"),
        ];
        for (before, after, context, expect) in table {
            assert_eq!(unified(before, after, context).unwrap(), expect, "{before:?} {after:?}");
        }
    }

    #[test]
    fn too_much_is_not_compared() {
        let many = |mark: &str| (0..3000).map(|i| format!("{mark}{i}\n")).collect::<String>();
        assert_eq!(unified(&many("a"), &many("b"), 3), None);
        // What is equal at both ends costs nothing.
        let middle = format!("{}x\n{}", many("a"), many("b"));
        assert!(unified(&middle, &middle.replace("x\n", "y\n"), 0).unwrap().contains("-x\n+y\n"));
    }
}
