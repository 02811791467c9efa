//! What is printed of answers: text as it comes, or JSON at the end; tokens used where somebody looks.

use std::io::{IsTerminal, Write};

use serde_json::json;

use super::answer::Answer;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    is_json: bool,
    /// Whether text goes to a terminal.
    is_terminal: bool,
    /// Whether somebody reads stderr.
    is_watched: bool,
}

impl Output {
    /// For this process.
    pub fn new(is_json: bool) -> Self {
        let (is_terminal, is_watched) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Self { is_json, is_terminal, is_watched }
    }

    /// A piece of an answer.
    pub fn piece(self, text: &str) {
        if self.is_json {
            return;
        }
        if self.is_terminal {
            print!("{}", printable(text));
        } else {
            print!("{text}");
        }
        let _ = std::io::stdout().flush();
    }

    /// The end of a whole answer.
    pub fn end(self, answer: &Answer) {
        if self.is_json {
            let line = json!({ "model": answer.model, "content": answer.content,
                               "finish_reason": answer.finish_reason, "usage": answer.usage });
            println!("{line}");
            return;
        }
        println!();
        if !self.is_watched {
            return;
        }
        if let Some(usage) = &answer.usage {
            let (read, written) = (&usage["prompt_tokens"], &usage["completion_tokens"]);
            let cut = if answer.finish_reason.as_deref() == Some("length") { ", cut off there" } else { "" };
            eprintln!("({}: {read} tokens read, {written} written{cut})", answer.model);
        }
    }

    /// The end of an answer that was not completed.
    pub fn cut(self) {
        if !self.is_json {
            println!();
        }
    }
}

/// What a model wrote, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\tc\u{9b}"), "a[2Jb\n\tc");
    }
}
