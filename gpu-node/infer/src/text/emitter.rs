//! From tokens to what callers may see.

use provost_types::TokenLogprob;

use super::{ChatText, IncrementalText, StopTexts};
use crate::error::InferError;

/// Joins characters, holds back what may become a stop text, and keeps each token's likelihood with
/// the text that it belongs to.
#[derive(Debug)]
pub(crate) struct Emitter {
    text: IncrementalText,
    stop: StopTexts,
    /// Text that may be shown and has not been taken.
    shown: String,
    /// Bytes of text made and shown so far.
    made: usize,
    told: usize,
    /// Tokens that were not taken yet, each with the place in the text at which it begins.
    tokens: Vec<(usize, TokenLogprob)>,
    ended: bool,
}

/// Whether a stop text was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    None,
    StopText,
}

impl Emitter {
    pub(crate) fn new(stop: &[String]) -> Result<Self, InferError> {
        Ok(Self {
            text: IncrementalText::default(),
            stop: StopTexts::new(stop)?,
            shown: String::new(),
            made: 0,
            told: 0,
            tokens: Vec::new(),
            ended: false,
        })
    }

    /// The same of a text that goes on with one that there is: a blank in front is a part of it.
    #[must_use]
    pub(crate) fn going_on(mut self) -> Self {
        self.text = IncrementalText::going_on();
        self
    }

    /// Takes a token in.
    pub(crate) fn push(&mut self, side: &ChatText, token: u32, likely: Option<TokenLogprob>) -> Ending {
        self.tokens.extend(likely.map(|likely| (self.made, likely)));
        let piece = self.text.push(side, token);
        self.watch(&piece)
    }

    /// Nothing more will come: half a character and the beginning of a stop text are what they are.
    pub(crate) fn finish(&mut self) -> Ending {
        let rest = self.text.finish();
        if self.watch(&rest) == Ending::StopText {
            return Ending::StopText;
        }
        let held = self.stop.finish();
        self.show(&held);
        self.ended = true;
        Ending::None
    }

    /// What may be shown now, and the tokens that it came from.
    pub(crate) fn take(&mut self) -> (String, Vec<TokenLogprob>) {
        // A token that begins where the shown text ends belongs to text that may yet be cut off.
        let certain = match self.ended {
            true => self.tokens.len(),
            false => self.tokens.iter().take_while(|(begins, _)| *begins < self.told).count(),
        };
        let tokens = self.tokens.drain(..certain).map(|(_, token)| token).collect();
        (std::mem::take(&mut self.shown), tokens)
    }

    fn watch(&mut self, piece: &str) -> Ending {
        self.made += piece.len();
        let (shown, stopped) = self.stop.push(piece);
        self.show(&shown);
        if stopped { Ending::StopText } else { Ending::None }
    }

    fn show(&mut self, text: &str) {
        self.told += text.len();
        self.shown.push_str(text);
    }
}
