//! The data: one conversation a line, as JSON. The last message is the answer to learn.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use provost_types::ChatMessage;
use serde::Deserialize;

use super::error::DataProblem;
use super::{BadLine, TuneError};
use crate::error::InferError;
use crate::text::ChatText;

/// Longest line, in bytes.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// Most examples of one run; they are kept in memory as tokens.
const MAX_EXAMPLES: usize = 1_000_000;
/// Bad lines that are kept for the message; beyond they are counted.
const MAX_BAD_LINES: usize = 1_000;
/// Fewer tokens than these have no gradient everywhere: with one position there is nothing to attend to.
const MIN_TOKENS: usize = 3;

/// One conversation: tokens, of which those from `answer` on are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) tokens: Vec<u32>,
    pub(super) answer: usize,
}

/// All of the data.
#[derive(Debug)]
pub(super) struct Examples {
    pub(super) all: Vec<Example>,
    /// Of the file.
    pub(super) digest: String,
}

/// How a conversation is told.
pub(super) struct Telling<'a> {
    pub(super) text: &'a ChatText,
    pub(super) vocabulary: usize,
    /// Longest example, in tokens.
    pub(super) most: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: String,
}

impl Examples {
    /// Reads a file. Either every line can be used, or the error has all that cannot; lines of white space are none.
    pub(super) fn read(path: &Path, telling: &Telling<'_>) -> Result<Self, TuneError> {
        let failed =
            |cause: &dyn std::fmt::Display| TuneError::Data(DataProblem::File(format!("{}: {cause}", path.display())));
        let file = File::open(path).map_err(|cause| failed(&cause))?;
        let (mut reader, mut hasher) = (BufReader::new(file), blake3::Hasher::new());
        let (mut all, mut bad, mut beyond) = (Vec::new(), Vec::new(), 0u64);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = (&mut reader).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
            if read.map_err(|cause| failed(&cause))? == 0 {
                break;
            }
            if line.len() as u64 > MAX_LINE_BYTES {
                return Err(failed(&format!("line {number} has more than {MAX_LINE_BYTES} bytes")));
            }
            hasher.update(&line);
            if line.trim_ascii().is_empty() {
                continue;
            }
            match telling.example(&line) {
                Ok(example) if all.len() < MAX_EXAMPLES => all.push(example),
                Ok(_) => return Err(failed(&format!("it has more than {MAX_EXAMPLES} lines"))),
                Err(cause) if bad.len() < MAX_BAD_LINES => bad.push(BadLine { line: number, cause }),
                Err(_) => beyond += 1,
            }
        }
        if !bad.is_empty() {
            return Err(TuneError::Data(DataProblem::of_lines(bad, beyond)));
        }
        if all.is_empty() {
            return Err(failed(&"it has no lines"));
        }
        Ok(Self { all, digest: hasher.finalize().to_hex().to_string() })
    }
}

impl Telling<'_> {
    fn example(&self, line: &[u8]) -> Result<Example, String> {
        let row: Row = serde_json::from_slice(line).map_err(|cause| format!("no conversation: {cause}"))?;
        let messages = row.messages.into_iter().map(|message| ChatMessage::new(message.role, message.content));
        let messages: Vec<ChatMessage> = messages.collect();
        match messages.last() {
            Some(last) if last.role == "assistant" && messages.len() > 1 => {}
            _ => return Err("the last message must be of the role `assistant`, after others".to_owned()),
        }
        self.tokens(&messages).map_err(|cause| match cause {
            InferError::Request(cause) => cause,
            other => other.to_string(),
        })
    }

    fn tokens(&self, messages: &[ChatMessage]) -> Result<Example, InferError> {
        let (before, whole) = self.text.texts(messages)?;
        let Some(answer) = whole.strip_prefix(before.as_str()) else {
            let cause = "the model's chat template writes the conversation otherwise once its answer is there";
            return Err(InferError::Request(cause.to_owned()));
        };
        let prompt = self.text.tokens(&before)?;
        let mut tokens = self.text.tokens(&whole)?;
        // Where the two run into each other, the answer begins as it does when the model writes it.
        if !tokens.starts_with(&prompt) {
            tokens.clone_from(&prompt);
            tokens.extend(self.text.tokens(answer)?);
        }
        InferError::check_tokens(&tokens, self.vocabulary)?;
        let count = tokens.len();
        let refused = match prompt.len() {
            0 => "the messages before the answer have no tokens".to_owned(),
            answer if answer == count => "the answer has no tokens".to_owned(),
            _ if count < MIN_TOKENS => format!("the conversation has {count} tokens, and must have {MIN_TOKENS}"),
            _ if count > self.most => format!("the conversation has {count} tokens, and may have {}", self.most),
            answer => return Ok(Example { tokens, answer }),
        };
        Err(InferError::Request(refused))
    }
}
