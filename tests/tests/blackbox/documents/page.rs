//! A page of documentation, as what a test does with it.
//!
//! The info string of a block says what it is. `sh` is run, command by command, in order, in one shell and against one
//! node. `console` holds commands that are not run here, and says why. Everything else is shown only. Comments that
//! no reader sees, each directly above its block, say the rest:
//!
//! | comment | block | |
//! |---|---|---|
//! | `<!-- expect 2: exit 1; has TEXT -->` | `sh` | what becomes of the second command; several stand on lines of their own |
//! | `<!-- not run: REASON -->` | `console` | why; also in `NOT_RUN`, beside this file |
//! | `<!-- file: NAME -->` | any | the block is written to this file first |
//! | `<!-- shown -->` | `text` | the last command says this: each line, wherever; numbers may be others |
//! | `<!-- hidden` … `-->` | none | commands that are run and that a reader does not need |
//!
//! A command that nothing is said of has to end with 0.

/// What is to become of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The exit code; `None`: any.
    pub exit: Option<i32>,
    pub has: Vec<String>,
    pub lacks: Vec<String>,
    /// Asked again until it is so: what a change does is seen moments later.
    pub eventually: bool,
    /// It does not end by itself.
    pub interrupt: bool,
    /// Arguments that the test adds: bounds, mostly.
    pub add: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub line: usize,
    pub text: String,
    pub expect: Expect,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    File { name: String, text: String },
    Run(Command),
    Shown { line: usize, text: String },
    NotRun { line: usize, reason: String },
}

/// What blocks may be.
const KNOWN: &[&str] = &["sh", "console", "text", "yaml", "toml", "json", "cedar", "rust", "python", "nginx", "html"];

/// What a line of commands begins with, and a line of anything else does not.
const PROGRAMS: &[&str] = &[
    "provost ", "make ", "docker ", "cargo ", "kubectl ", "helm ", "sudo ", "curl ", "scripts/", "protoc ", "$ ",
    "apt ",
];

/// Reads a page; a mistake in it is an error with its line.
pub fn read(page: &str) -> Result<Vec<Piece>, String> {
    let lines: Vec<&str> = page.lines().collect();
    let (mut pieces, mut mark, mut at) = (Vec::new(), None, 0);
    while let Some(line) = lines.get(at) {
        let start = at + 1;
        at += 1;
        if let Some(rest) = line.strip_prefix("<!--") {
            let mut text = rest.to_owned();
            while !text.contains("-->") {
                text += "\n";
                text += *lines.get(at).ok_or(format!("line {start}: the comment does not end"))?;
                at += 1;
            }
            let text = text.split("-->").next().unwrap_or_default().trim().to_owned();
            match text.strip_prefix("hidden") {
                Some(hidden) => {
                    let lines: Vec<&str> = hidden.lines().collect();
                    pieces.extend(commands(&lines, start - 1, "")?.into_iter().map(Piece::Run));
                }
                None => mark = Some(text),
            }
            continue;
        }
        let Some(info) = line.strip_prefix("```") else {
            if mark.is_some() {
                return Err(format!("line {start}: the comment above this line stands above no block"));
            }
            continue;
        };
        let body: Vec<&str> = lines[at..].iter().take_while(|l| !l.starts_with("```")).copied().collect();
        at += body.len() + 1;
        block(&mut pieces, info, mark.take().unwrap_or_default(), &body, start)?;
    }
    Ok(pieces)
}

/// One block, with the comment above it.
fn block(pieces: &mut Vec<Piece>, info: &str, mark: String, body: &[&str], line: usize) -> Result<(), String> {
    if !KNOWN.contains(&info) {
        return Err(format!("line {line}: a block is one of {KNOWN:?}, not {info:?}"));
    }
    let text = body.join("\n") + "\n";
    if let Some(name) = mark.strip_prefix("file:") {
        pieces.push(Piece::File { name: name.trim().to_owned(), text });
        return Ok(());
    }
    match (info, mark.as_str()) {
        ("sh", expects) => {
            let expects = expects.strip_prefix("expect").unwrap_or(expects);
            pieces.extend(commands(body, line, expects)?.into_iter().map(Piece::Run));
        }
        ("console", mark) => {
            let reason = mark.strip_prefix("not run:").ok_or(format!("line {line}: nothing says why it is not run"))?;
            pieces.push(Piece::NotRun { line, reason: reason.split_whitespace().collect::<Vec<_>>().join(" ") });
        }
        ("text", "shown") => pieces.push(Piece::Shown { line, text }),
        (_, "") => {
            if let Some(bad) = body.iter().find(|l| PROGRAMS.iter().any(|name| l.starts_with(name)) && info == "text") {
                return Err(format!("line {line}: commands stand in blocks `sh` or `console`: {bad}"));
            }
        }
        (_, mark) => return Err(format!("line {line}: nobody knows the comment {mark:?} above a block {info:?}")),
    }
    Ok(())
}

/// The commands of a block: a line each, or several where a line ends with `\`, a quote is open, or a document
/// (`<<'END'`) stands in it.
fn commands(body: &[&str], line: usize, expects: &str) -> Result<Vec<Command>, String> {
    let mut found: Vec<Command> = Vec::new();
    let mut at = 0;
    while let Some(first) = body.get(at) {
        let start = at;
        at += 1;
        if first.trim().is_empty() || first.trim_start().starts_with('#') {
            continue;
        }
        let mut text = (*first).to_owned();
        while is_open(&text) {
            let next = body.get(at).ok_or(format!("line {}: the command does not end", line + start + 1))?;
            text = format!("{text}\n{next}");
            at += 1;
        }
        found.push(Command { line: line + start + 1, text, expect: Expect { exit: Some(0), ..Expect::default() } });
    }
    for said in expects.lines().map(str::trim).filter(|said| !said.is_empty()) {
        let (number, said) = said.split_once(':').ok_or(format!("line {line}: no `NUMBER:` in {said:?}"))?;
        let number: usize = number.trim().parse().map_err(|_| format!("line {line}: {number:?} is no number"))?;
        let command = number.checked_sub(1).and_then(|index| found.get_mut(index));
        command.ok_or(format!("line {line}: there is no command {number}"))?.expect = expect(said, line)?;
    }
    Ok(found)
}

/// Whether a command goes on in the next line.
fn is_open(text: &str) -> bool {
    if let Some((head, rest)) = text.split_once("<<'") {
        let end = rest.split('\'').next().unwrap_or_default();
        return head.matches('\'').count() % 2 == 1 || !text.lines().skip(1).any(|line| line == end);
    }
    text.ends_with('\\') || text.matches('\'').count() % 2 == 1
}

/// `exit 1; has TEXT; lacks TEXT; eventually; interrupt; add ARGUMENTS`.
fn expect(said: &str, line: usize) -> Result<Expect, String> {
    let mut expect = Expect { exit: Some(0), ..Expect::default() };
    for part in said.split(';').map(str::trim) {
        match part.split_once(' ').unwrap_or((part, "")) {
            ("exit", "any") => expect.exit = None,
            ("exit", code) => {
                expect.exit = Some(code.parse().map_err(|_| format!("line {line}: {code:?} is no exit code"))?);
            }
            ("has", text) => expect.has.push(text.to_owned()),
            ("lacks", text) => expect.lacks.push(text.to_owned()),
            ("add", arguments) => expect.add = arguments.to_owned(),
            ("eventually", "") => expect.eventually = true,
            ("interrupt", "") => (expect.interrupt, expect.exit) = (true, None),
            _ => return Err(format!("line {line}: nobody knows what {part:?} expects")),
        }
    }
    Ok(expect)
}

/// A line as it is compared: digits are all alike, as are blanks; `…` parts it.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    for c in line.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match c.is_ascii_digit() {
            true if plain.ends_with('0') => {}
            true => plain.push('0'),
            false => plain.push(c),
        }
    }
    plain
}

/// The first line of `shown` that `output` does not have.
pub fn missing<'a>(shown: &'a str, output: &str) -> Option<&'a str> {
    let output: Vec<String> = output.lines().map(plain).collect();
    shown.lines().filter(|line| !line.trim().is_empty()).find(|line| {
        let line = plain(line);
        let parts: Vec<&str> = line.split('…').map(str::trim).collect();
        !output.iter().any(|said| {
            let mut rest = said.as_str();
            parts.iter().all(|part| {
                rest.split_once(part).is_some_and(|(_, after)| {
                    rest = after;
                    true
                })
            })
        })
    })
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = "# T\n<!-- file: a.yaml -->\n```yaml\nkind: X\n```\n<!-- expect\n2: exit 1; has no; eventually\n-->\n```sh\n\
                one --x 'a\nb'  # c\n# comment\ntwo \\\n  three\n```\n<!-- shown -->\n```text\nDENY 12 …\n```\n\
                <!-- hidden\nfour <<'END'\nfive\nEND\n-->\n<!-- not run: needs\nmore -->\n```console\ndocker up\n```\n";
    let pieces = read(page).unwrap();
    let run = |piece: &Piece| match piece {
        Piece::Run(command) => (command.line, command.text.clone(), command.expect.exit),
        other => panic!("{other:?}"),
    };
    assert_eq!(pieces.len(), 6, "{pieces:?}");
    assert_eq!(pieces[0], Piece::File { name: "a.yaml".to_owned(), text: "kind: X\n".to_owned() });
    assert_eq!(run(&pieces[1]), (10, "one --x 'a\nb'  # c".to_owned(), Some(0)));
    assert_eq!(run(&pieces[2]), (13, "two \\\n  three".to_owned(), Some(1)));
    assert_eq!(pieces[3], Piece::Shown { line: 17, text: "DENY 12 …\n".to_owned() });
    assert_eq!(run(&pieces[4]).1, "four <<'END'\nfive\nEND");
    assert_eq!(pieces[5], Piece::NotRun { line: 27, reason: "needs more".to_owned() });
}

#[test]
fn mistakes_in_a_page_are_found() {
    for (page, said) in [
        ("```\nx\n```\n", "a block is one of"),
        ("```text\nprovost dev\n```\n", "commands stand in blocks"),
        ("```console\nprovost dev\n```\n", "nothing says why"),
        ("<!-- expect 2: exit 1 -->\n```sh\nx\n```\n", "no command 2"),
        ("<!-- expect 1: exits 1 -->\n```sh\nx\n```\n", "nobody knows what"),
        ("<!-- a word -->\nprose\n", "stands above no block"),
        ("```sh\nx 'y\n```\n", "does not end"),
    ] {
        let error = read(page).unwrap_err();
        assert!(error.contains(said), "{page:?}: {error}");
    }
}

#[test]
fn what_a_page_shows_is_compared_but_for_numbers_and_gaps() {
    let output = "CALLS  WHAT\n17     echo.echo  by role:all at 10:22\n";
    assert_eq!(missing("CALLS WHAT\n\n3  echo.echo …  at 9:01\n", output), None);
    assert_eq!(missing("CALLS WHAT\nsql.query\n", output), Some("sql.query"));
}
