//! Short names out of texts.

/// The words of `text` in lower case, joined, at most `max` characters long.
pub(crate) fn of(text: &str, separator: &str, max: usize) -> String {
    let mut slug = String::new();
    let mut length = 0;
    // An apostrophe is a part of its word.
    let plain = text.replace(['\'', '’'], "");
    for word in plain.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        let word_length = word.chars().count();
        if slug.is_empty() {
            slug = word.chars().take(max).collect();
            length = word_length.min(max);
            continue;
        }
        let longer = length + separator.chars().count() + word_length;
        if longer > max {
            break;
        }
        slug += separator;
        slug += &word;
        length = longer;
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn words_are_joined_and_not_cut() {
        let table = [
            ("Hello, World!", 99, "hello-world"),
            ("  Don't   panic  ", 99, "dont-panic"),
            ("Straße 12", 99, "straße-12"),
            ("one two three", 8, "one-two"),
            ("one two three", 7, "one-two"),
            ("one two three", 6, "one"),
            ("unbelievable", 5, "unbel"),
            ("…", 99, ""),
        ];
        for (text, max, expect) in table {
            assert_eq!(of(text, "-", max), expect, "{text}");
        }
    }
}
