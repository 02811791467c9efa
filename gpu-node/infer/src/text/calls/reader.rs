//! Takes calls out of text as it comes.

#[cfg(test)]
mod tests;

use provost_types::{CallDelta, CallHead, ChatTools, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::form::CallForm;
use super::scan::{Head, MAX_HEAD_BYTES, ObjectEnd};

/// Blanks that may turn out to stand before a call and wait for what follows, in bytes. More are text: what waits is looked
/// through with each piece that comes, and models may write nothing but blanks.
const MAX_BLANKS: usize = 256;
/// Most calls of one answer.
const MAX_CALLS: u32 = 32;
/// Letters of a call's id after its beginning. Letters only: a number in it could look like one that is protected.
const ID_LETTERS: usize = 24;

/// Reads one answer. Joined, its pieces do not depend on how the text was cut.
#[derive(Debug)]
pub(crate) struct CallReader {
    form: CallForm,
    /// What may be called; anything else that is written like a call is text.
    names: Vec<String>,
    most: u32,
    /// A grammar lets the model say nothing but calls.
    only_calls: bool,
    state: State,
    /// What came and is not decided on.
    held: String,
    /// What stood before `held` and is text if that is no call.
    opening: String,
    begun: u32,
    whole: u32,
    /// Nothing but blanks came after a call.
    after_call: bool,
}

/// What comes next.
#[derive(Debug)]
enum State {
    /// Text.
    Text,
    /// An answer that may be a call, or another call.
    Start,
    /// A call up to its arguments.
    Head,
    /// An object that is a call if it turns out so at its end; looked through up to here.
    Object { end: ObjectEnd, seen: usize },
    /// Arguments.
    Arguments(ObjectEnd),
    /// What else is in the object of a call.
    Rest(ObjectEnd),
    /// The mark at the end of a call, if the model sets one.
    Close,
}

/// What came out of a piece of text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) calls: Vec<CallDelta>,
}

impl Said {
    /// Adds what came after it.
    pub(crate) fn append(&mut self, more: Said) {
        self.text.push_str(&more.text);
        self.calls.extend(more.calls);
    }
}

/// A call whose members come in any order.
#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(alias = "parameters")]
    arguments: Map<String, Value>,
}

impl CallReader {
    pub(crate) fn new(form: CallForm, tools: &ChatTools) -> Self {
        Self {
            form,
            names: tools.functions.iter().map(|function| function.name.clone()).collect(),
            most: if tools.parallel { MAX_CALLS } else { 1 },
            only_calls: tools.choice != ToolChoice::Auto,
            state: match form {
                CallForm::Tagged => State::Text,
                CallForm::Json => State::Start,
            },
            held: String::new(),
            opening: String::new(),
            begun: 0,
            whole: 0,
            after_call: false,
        }
    }

    /// Takes more of the answer.
    pub(crate) fn read(&mut self, text: &str) -> Said {
        let mut said = Said::default();
        self.held.push_str(text);
        while !self.is_done() && self.go_on(&mut said) {}
        said
    }

    /// Nothing more will come: what is no call yet is text, or the beginning of a call where there is nothing else.
    pub(crate) fn finish(&mut self) -> Said {
        let mut said = Said::default();
        let is_call = matches!(self.state, State::Arguments(_) | State::Rest(_) | State::Close);
        if !is_call && !self.only_calls && !self.is_done() {
            let text = std::mem::take(&mut self.opening) + &std::mem::take(&mut self.held);
            self.say(&text, &mut said);
        }
        said
    }

    /// True when the answer has all the calls it may have: what follows is not looked at.
    pub(crate) fn is_done(&self) -> bool {
        self.whole >= self.most
    }

    /// True when there are calls, each with all of its arguments.
    pub(crate) fn has_whole_calls(&self) -> bool {
        self.begun > 0 && !matches!(self.state, State::Arguments(_))
    }

    /// Decides on some of what is held. False: that takes more text.
    fn go_on(&mut self, said: &mut Said) -> bool {
        match &mut self.state {
            State::Text => self.text(said),
            State::Start => self.start(),
            State::Head => self.head(said),
            State::Object { end, seen } => {
                let Some(at) = end.find(&self.held[*seen..]) else {
                    *seen = self.held.len();
                    return false;
                };
                let object: String = self.held.drain(..*seen + at).collect();
                self.object(&object, said);
                true
            }
            State::Arguments(end) => {
                let found = end.find(&self.held);
                let arguments: String = self.held.drain(..found.unwrap_or(self.held.len())).collect();
                if found.is_some() {
                    self.state = State::Rest(ObjectEnd::within(1));
                }
                self.argue(arguments, said);
                found.is_some()
            }
            State::Rest(end) => {
                let found = end.find(&self.held);
                self.held.drain(..found.unwrap_or(self.held.len()));
                if found.is_some() {
                    self.end_call();
                }
                found.is_some()
            }
            State::Close => self.close(),
        }
    }

    fn text(&mut self, said: &mut Said) -> bool {
        if self.form == CallForm::Json {
            let text = std::mem::take(&mut self.held);
            self.say(&text, said);
            return false;
        }
        let opened = self.held.find(CallForm::OPEN);
        let text = opened.unwrap_or(self.held.len() - beginning_at_end_of(&self.held, CallForm::OPEN));
        // Blanks before a call are no part of the answer.
        let certain = self.held.floor_char_boundary(text.saturating_sub(MAX_BLANKS));
        let text = self.held[..text].trim_end().len().max(certain);
        let text: String = self.held.drain(..text).collect();
        self.say(&text, said);
        if opened.is_some() {
            let opening = self.held.find(CallForm::OPEN).unwrap_or(0) + CallForm::OPEN.len();
            self.opening = self.held.drain(..opening).collect();
            self.state = State::Head;
        }
        opened.is_some()
    }

    fn start(&mut self) -> bool {
        let further = self.begun > 0;
        let between = |c: char| c.is_whitespace() || (further && matches!(c, ';' | ','));
        let at = self.held.find(|c: char| !between(c)).unwrap_or(self.held.len());
        if at > MAX_BLANKS {
            self.state = State::Text;
            return true;
        }
        let Some(next) = self.held[at..].chars().next() else { return false };
        self.state = if next == '{' {
            self.opening = self.held.drain(..at).collect();
            State::Head
        } else {
            State::Text
        };
        true
    }

    fn head(&mut self, said: &mut Said) -> bool {
        match Head::of(&self.held) {
            Head::Unfinished => return false,
            Head::Call { name, arguments } if self.names.iter().any(|known| known == name) => {
                let name = name.to_owned();
                self.held.drain(..arguments);
                self.begin(name, said);
                self.state = State::Arguments(ObjectEnd::default());
            }
            _ if self.begins_object() => {
                self.state = State::Object { end: ObjectEnd::default(), seen: 0 };
            }
            _ => self.no_call("", said),
        }
        true
    }

    fn begins_object(&self) -> bool {
        let rest = self.held.trim_start();
        rest.starts_with('{') && self.held.len() - rest.len() <= MAX_HEAD_BYTES
    }

    fn object(&mut self, object: &str, said: &mut Said) {
        match serde_json::from_str::<Written>(object) {
            Ok(Written { name, arguments }) if self.names.contains(&name) => {
                self.begin(name, said);
                self.argue(Value::Object(arguments).to_string(), said);
                self.end_call();
            }
            _ => self.no_call(object, said),
        }
    }

    fn close(&mut self) -> bool {
        // After a call they are no part of the answer in any case.
        let blanks = self.held.len() - self.held.trim_start().len();
        self.held.drain(..blanks);
        if self.held.starts_with(CallForm::CLOSE) {
            self.held.drain(..CallForm::CLOSE.len());
        } else if CallForm::CLOSE.starts_with(self.held.as_str()) {
            return false;
        }
        self.state = State::Text;
        true
    }

    fn begin(&mut self, name: String, said: &mut Said) {
        self.opening.clear();
        let head = Some(CallHead { id: new_id(), name });
        said.calls.push(CallDelta { index: self.begun, head, arguments: String::new() });
        self.begun += 1;
    }

    fn argue(&mut self, arguments: String, said: &mut Said) {
        let index = self.begun.saturating_sub(1);
        match said.calls.last_mut().filter(|call| call.index == index) {
            Some(call) => call.arguments.push_str(&arguments),
            None if arguments.is_empty() => {}
            None => said.calls.push(CallDelta { index, head: None, arguments }),
        }
    }

    fn end_call(&mut self) {
        self.whole += 1;
        self.after_call = true;
        self.state = match self.form {
            CallForm::Tagged => State::Close,
            CallForm::Json => State::Start,
        };
    }

    fn no_call(&mut self, object: &str, said: &mut Said) {
        let text = std::mem::take(&mut self.opening) + object;
        self.say(&text, said);
        self.state = State::Text;
    }

    fn say(&mut self, text: &str, said: &mut Said) {
        let text = if self.after_call { text.trim_start() } else { text };
        if !text.is_empty() {
            self.after_call = false;
            said.text.push_str(text);
        }
    }
}

/// Bytes at the end of a text that `mark` begins with.
fn beginning_at_end_of(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|length| text.ends_with(&mark[..*length])).unwrap_or(0)
}

fn new_id() -> String {
    let mut random: u128 = rand::random();
    let letters = (0..ID_LETTERS).map(|_| {
        let letter = u8::try_from(random % 26).unwrap_or_default();
        random /= 26;
        char::from(b'a' + letter)
    });
    std::iter::once("call_".to_owned()).chain(letters.map(String::from)).collect()
}
