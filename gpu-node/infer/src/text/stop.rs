//! Texts that end an answer, found across token boundaries.

use crate::error::InferError;

/// Most stop texts of one request.
const MAX_STOP_TEXTS: usize = 16;
/// Longest stop text, in bytes; bounds what is held back.
const MAX_STOP_BYTES: usize = 512;

/// Watches emitted text for stop texts and holds back what may become one.
#[derive(Debug, Default)]
pub struct StopTexts {
    texts: Vec<String>,
    held: String,
}

impl StopTexts {
    /// A watch for `texts`.
    ///
    /// # Errors
    /// [`InferError::Request`] when there are too many, or one is empty or too long.
    pub fn new(texts: &[String]) -> Result<Self, InferError> {
        if texts.len() > MAX_STOP_TEXTS {
            return Err(InferError::Request(format!(
                "{} stop texts; at most {MAX_STOP_TEXTS} are allowed",
                texts.len()
            )));
        }
        if texts.iter().any(|text| text.is_empty() || text.len() > MAX_STOP_BYTES) {
            return Err(InferError::Request(format!("a stop text is empty or longer than {MAX_STOP_BYTES} bytes")));
        }
        Ok(Self { texts: texts.to_vec(), held: String::new() })
    }

    /// Takes new text; returns what may be shown, and whether a stop text ended the answer.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let stop = self.texts.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = stop {
            let mut shown = std::mem::take(&mut self.held);
            shown.truncate(at);
            return (shown, true);
        }
        let keep = self.beginning_of_a_stop();
        let held = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// What was held back, once nothing more will come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end that are the beginning of a stop text.
    fn beginning_of_a_stop(&self) -> usize {
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let most = longest.saturating_sub(1).min(self.held.len());
        (1..=most)
            .rev()
            .filter(|length| self.held.is_char_boundary(self.held.len() - length))
            .find(|length| {
                let tail = &self.held[self.held.len() - length..];
                self.texts.iter().any(|stop| stop.starts_with(tail))
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut watch = StopTexts::new(&stops).unwrap();
        let mut out = String::new();
        for piece in pieces {
            let (shown, stopped) = watch.push(piece);
            out.push_str(&shown);
            if stopped {
                return (out, true);
            }
        }
        out.push_str(&watch.finish());
        (out, false)
    }

    #[test]
    fn stops_are_found_across_pieces_and_not_shown() {
        let check = |stops: &[&str], pieces: &[&str], text: &str, stopped: bool| {
            assert_eq!(run(stops, pieces), (text.to_owned(), stopped), "{stops:?} {pieces:?}");
        };
        check(&["END"], &["abc", "E", "N", "D", "def"], "abc", true);
        check(&["END"], &["abcENDdef"], "abc", true);
        check(&["END"], &["abcEN", "xEND"], "abcENx", true);
        check(&["END"], &["abcEN"], "abcEN", false);
        check(&["aab"], &["a", "a", "a", "b"], "a", true);
        check(&["b", "abc"], &["xab"], "xa", true);
        check(&["…"], &["wait", "…", "more"], "wait", true);
        check(&[], &["any", "thing"], "anything", false);
    }

    #[test]
    fn text_is_not_held_longer_than_needed() {
        let mut watch = StopTexts::new(&["\n\n".to_owned()]).unwrap();
        assert_eq!(watch.push("line"), ("line".to_owned(), false));
        assert_eq!(watch.push("\n"), (String::new(), false));
        assert_eq!(watch.push("next"), ("\nnext".to_owned(), false));
    }

    #[test]
    fn unreasonable_stops_are_refused() {
        assert!(StopTexts::new(&[String::new()]).is_err());
        assert!(StopTexts::new(&["x".repeat(MAX_STOP_BYTES + 1)]).is_err());
        assert!(StopTexts::new(&vec!["x".to_owned(); MAX_STOP_TEXTS + 1]).is_err());
    }
}
