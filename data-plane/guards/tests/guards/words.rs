//! Words of a tenant's own: whole words, any case, in pieces of a stream as in the whole text.

use std::sync::Arc;

use provost_data_guards::{Action, Guard, Kind, Paths, Rules, Verdict, Words};

fn guard(words: &[(&str, Action)]) -> Guard {
    let words = Words::new(words.iter().copied()).expect("few words").map(Arc::new);
    Guard::new(Rules::default()).with(words.into_iter().collect(), Paths::default())
}

fn masked(guard: &Guard, text: &str) -> String {
    match guard.inspect(text.as_bytes()).verdict {
        Verdict::Masked(masked) => String::from_utf8(masked).expect("text stays text"),
        Verdict::Pass => text.to_owned(),
        Verdict::Blocked(blocked) => panic!("{blocked}"),
    }
}

#[test]
fn whole_words_are_found_and_parts_of_others_are_not() {
    let guard = guard(&[
        ("Bluebird", Action::Mask),
        ("Project Lynx", Action::Mask),
        ("Lynx", Action::Report),
        ("größe", Action::Mask),
        ("#7", Action::Mask),
    ]);
    for (text, after) in [
        ("the bluebird, BLUEBIRD's", "the ********, ********'s"),
        ("bluebirds xbluebird blue bird bluebird2", "bluebirds xbluebird blue bird bluebird2"),
        ("“Bluebird”\nbluebird", "“********”\n********"),
        ("éBluebird Bluebirdé é Bluebird é", "éBluebird Bluebirdé é ******** é"),
        (r"a\nBluebird", r"a\n********"),
        ("project lynx and Lynx", "******* **** and Lynx"),
        ("größe Größe GRößE", "******* ******* *******"),
        ("room #7, #70, a#7", "room **, #70, a**"),
    ] {
        assert_eq!(masked(&guard, text), after);
    }
    let counts = guard.inspect(b"Project Lynx").counts;
    assert_eq!(counts.of(Kind::Word), 2, "a word in another is a word");
}

#[test]
fn the_strictest_list_holds_and_a_stream_says_what_the_whole_says() {
    let long = "w".repeat(128);
    let guard = guard(&[("Bluebird", Action::Report), ("bluebird", Action::Mask), (&long, Action::Mask)]);
    let text = format!("é bluebird 4111 {long} x{long} bluebird");
    let expected = masked(&guard, &text);
    assert!(!expected.contains("bluebird") && expected.contains(&format!("x{long}")));
    for size in [1, 2, 7, 64, 131, 132, 133, 500] {
        let (mut stream, mut out) = (guard.stream(), Vec::new());
        for chunk in text.as_bytes().chunks(size) {
            stream.push(chunk, &mut out).expect("nothing blocks");
        }
        stream.finish(&mut out).expect("nothing blocks");
        assert_eq!(String::from_utf8_lossy(&out), expected, "in chunks of {size}");
        let tally: Vec<_> = stream.tally().iter().collect();
        assert_eq!(tally, [(Kind::Word, Action::Report, 2), (Kind::Word, Action::Mask, 3)], "in chunks of {size}");
    }
}
