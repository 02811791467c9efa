//! What packages ship beside the binary: completions of shells, man pages.

use std::process::{Command, Stdio};

use crate::harness::{binary, text};

#[test]
fn shells_get_scripts_that_know_every_command() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef provost"), ("fish", "complete -c provost")] {
        let output = Command::new(binary("provost")).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}: {}", text(&output));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(mark), "{shell}: no `{mark}`");
        for command in ["server", "join-token", "kill-switch", "simulate"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let output = Command::new(binary("provost")).args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut command = Command::new(binary("provost"));
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The script is longer than a pipe holds: what is left of it meets nobody.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

#[test]
fn what_cannot_be_read_has_a_code_and_the_exit_code_of_usage() {
    let table: [(&[&str], i32, &str); 5] = [
        (&["nonsense"], 2, "nonsense"),
        (&["call"], 2, "<TOOL>"),
        (&["why", "MAYBE", "--principal", "ana"], 2, "MAYBE"),
        (&["kill-switch", "on", "--all"], 2, "--reason"),
        (&["audit", "verify", "--nonsense"], 5, "--nonsense"),
    ];
    for (args, code, says) in table {
        let output = Command::new(binary("provost")).args(args).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.starts_with("error: PV-CLI-USAGE: ") && said.contains(says), "{args:?}: {said}");
        assert!(said.contains("--help") && output.stdout.is_empty(), "{args:?}: {said}");
    }
    // A word is missing: what there is, is shown. That is no error of its own.
    let output = Command::new(binary("provost")).arg("kill-switch").output().unwrap();
    let said = text(&output);
    assert!(output.status.code() == Some(2) && said.contains("Example: provost kill-switch on"), "{said}");
}

#[test]
fn each_command_has_a_man_page() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(binary("provost")).arg("man").arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for (page, part) in [
        ("provost.1", "cluster"),
        ("provost-server.1", "PROVOST_CONFIG"),
        ("provost-cluster-init.1", "provost cluster init"),
        ("provost-audit-verify.1", "audit"),
    ] {
        let page_text = std::fs::read_to_string(dir.path().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(page_text.contains(".SH NAME"), "{page} is no man page");
        assert!(page_text.contains(part), "{page} says nothing of {part}");
    }
    let output = Command::new(binary("provost")).args(["man", "/nonexistent/man1"]).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("PV-CLI-FILE"), "{}", text(&output));
}
