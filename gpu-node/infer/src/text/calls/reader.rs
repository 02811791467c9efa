//! Takes calls out of text as it comes.

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

#[cfg(test)]
mod tests {
    use provost_types::FunctionTool;

    use super::*;

    fn tools(parallel: bool) -> ChatTools {
        let function =
            |name: &str| FunctionTool { name: name.to_owned(), description: None, parameters: None, strict: false };
        ChatTools { functions: vec![function("f"), function("g")], choice: ToolChoice::Auto, parallel }
    }

    /// What comes of pieces: the text, each call as `name arguments`, and whether the answer asks for results.
    fn run(form: CallForm, parallel: bool, pieces: &[&str]) -> (String, Vec<String>, bool) {
        let mut reader = CallReader::new(form, &tools(parallel));
        let (mut text, mut calls) = (String::new(), Vec::<String>::new());
        let mut take = |said: Said| {
            text.push_str(&said.text);
            for delta in said.calls {
                assert!(delta.head.is_some() || !delta.arguments.is_empty(), "a piece says something");
                match delta.head {
                    Some(head) => {
                        assert_eq!(delta.index as usize, calls.len());
                        assert!(head.id.len() == 29 && head.id.starts_with("call_"), "{}", head.id);
                        calls.push(format!("{} {}", head.name, delta.arguments));
                    }
                    None => {
                        assert_eq!(delta.index as usize + 1, calls.len());
                        calls[delta.index as usize].push_str(&delta.arguments);
                    }
                }
            }
        };
        for piece in pieces {
            take(reader.read(piece));
        }
        take(reader.finish());
        (text, calls, reader.has_whole_calls())
    }

    /// The same however the text is cut: whole, in two at each place, letter by letter, and in threes.
    fn check(form: CallForm, parallel: bool, text: &str, says: &str, calls: &[&str], asks: bool) {
        let calls: Vec<String> = calls.iter().map(|call| (*call).to_owned()).collect();
        let expected = (says.to_owned(), calls, asks);
        assert_eq!(run(form, parallel, &[text]), expected, "{text}");
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for at in &places {
            assert_eq!(run(form, parallel, &[&text[..*at], &text[*at..]]), expected, "{text} cut at {at}");
        }
        for size in [1, 3] {
            let starts: Vec<usize> = places.iter().copied().step_by(size).collect();
            let pieces: Vec<&str> = starts
                .iter()
                .enumerate()
                .map(|(n, start)| &text[*start..starts.get(n + 1).copied().unwrap_or(text.len())])
                .collect();
            assert_eq!(run(form, parallel, &pieces), expected, "{text} in pieces of {size}");
        }
    }

    #[test]
    fn tagged_calls_are_taken_out_wherever_the_text_is_cut() {
        let check = |text: &str, says: &str, calls: &[&str], asks: bool| {
            check(CallForm::Tagged, true, text, says, calls, asks);
        };
        check("no call < at all <tool_", "no call < at all <tool_", &[], false);
        check("one \n", "one \n", &[], false);
        check(
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"é\"}}\n</tool_call>",
            "",
            &["f {\"a\": \"é\"}"],
            true,
        );
        check(
            "Let me see.\n\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":{\"y\":\"</tool_call>\"}}}</tool_call>\n",
            "Let me see.",
            &["f {}", "g {\"x\":{\"y\":\"</tool_call>\"}}"],
            true,
        );
        // Members in another order, others beside them, and no mark at the end.
        check("<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}", "", &["f {\"a\":1}"], true);
        check(
            "<tool_call>{\"name\": \"f\", \"parameters\": {\"a\": [1]}, \"id\": {}} after",
            "after",
            &["f {\"a\": [1]}"],
            true,
        );
        // What is no call stays text.
        for text in [
            "<tool_call>soon</tool_call>",
            "x <tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call> y",
            "<tool_call>{\"name\": \"f\"}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"argu",
            " <tool_call>{\"a\": [}",
        ] {
            check(text, text, &[], false);
        }
        // Cut off: the caller gets what there is, and it is not called whole.
        check("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b", "", &["f {\"a\": \"b"], false);
        check("<tool_call>{\"name\": \"f\", \"arguments\": {}", "", &["f {}"], true);
    }

    #[test]
    fn blanks_wait_for_a_call_and_not_for_ever() {
        const CALL: &str = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
        let blanks = " \n".repeat(200);
        let before = &blanks[..blanks.len() - MAX_BLANKS];
        check(CallForm::Tagged, true, &format!("a{blanks}{CALL}{blanks}"), &format!("a{before}"), &["f {}"], true);
        check(CallForm::Tagged, true, &format!("{blanks}b{blanks}"), &format!("{blanks}b{blanks}"), &[], false);
        // Inside of a call they are read to its end, and before it they make it none.
        let wide = " ".repeat(MAX_HEAD_BYTES + 1);
        let inside = CALL.replacen('{', &format!("{{{wide}"), 1);
        check(CallForm::Tagged, true, &inside, "", &["f {}"], true);
        let apart = CALL.replacen('{', &format!("{wide}{{"), 1);
        check(CallForm::Tagged, true, &apart, &apart, &[], false);
        let json = format!("{blanks}{{\"name\": \"f\", \"parameters\": {{}}}}");
        check(CallForm::Json, true, &json, &json, &[], false);

        let mut reader = CallReader::new(CallForm::Tagged, &tools(true));
        let said: usize = (0..10_000).map(|_| reader.read("\u{3000}").text.len()).sum();
        assert!(said > 29_000 && reader.held.len() <= MAX_BLANKS + 3, "{said}, {}", reader.held.len());
    }

    #[test]
    fn a_json_answer_is_a_call_or_text_wherever_it_is_cut() {
        let check = |text: &str, says: &str, calls: &[&str], asks: bool| {
            check(CallForm::Json, true, text, says, calls, asks);
        };
        check(" {\"name\": \"f\", \"parameters\": {\"a\": \"}\"}}", "", &["f {\"a\": \"}\"}"], true);
        check(
            "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}\n",
            "",
            &["f {}", "g {}"],
            true,
        );
        check("{\"type\": \"function\", \"name\": \"g\", \"parameters\": {\"a\": 1}}", "", &["g {\"a\":1}"], true);
        for text in
            ["It is {\"name\": \"f\", \"parameters\": {}}", "{\"answer\": {\"a\": 1}} is it", " \n", "{\"name\""]
        {
            check(text, text, &[], false);
        }
    }

    #[test]
    fn one_call_is_enough_where_more_are_not_wanted() {
        let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
        check(CallForm::Tagged, false, &format!("a {call} {call} b"), "a", &["f {}"], true);
        let mut reader = CallReader::new(CallForm::Tagged, &tools(true));
        reader.read(&call.repeat(MAX_CALLS as usize - 1));
        assert!(!reader.is_done());
        reader.read(call);
        assert!(reader.is_done());
    }

    #[test]
    fn the_beginning_of_a_call_is_no_text_where_there_are_only_calls() {
        let tools = ChatTools { choice: ToolChoice::Required, ..tools(true) };
        let mut reader = CallReader::new(CallForm::Tagged, &tools);
        assert_eq!(reader.read("<tool_call>\n{\"name\": \"f\", \"ar"), Said::default());
        assert_eq!(reader.finish(), Said::default());
        assert!(!reader.has_whole_calls());
    }

    #[test]
    fn arguments_leave_as_they_come() {
        let mut reader = CallReader::new(CallForm::Tagged, &tools(true));
        assert_eq!(reader.read("<tool_call>{\"name\": \"f\", \"arguments\":"), Said::default());
        assert_eq!(reader.read(" {\"a").calls.len(), 1);
        let said = reader.read("\": 1");
        assert_eq!(said.calls, [CallDelta { index: 0, head: None, arguments: "\": 1".to_owned() }]);
    }
}
