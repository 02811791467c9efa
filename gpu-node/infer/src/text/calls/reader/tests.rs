//! Answers with calls in every form, cut wherever they can be.

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
    for text in ["It is {\"name\": \"f\", \"parameters\": {}}", "{\"answer\": {\"a\": 1}} is it", " \n", "{\"name\""] {
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
