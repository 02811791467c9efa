//! How a failed command ends: a stable code, the cause and what to do next, on stderr.

use std::{error::Error, fmt, process::ExitCode};

/// An error of the command line with its stable code and next step.
#[derive(Debug)]
pub struct Failure {
    /// `PV-…`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a next step.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  next: {hint}"),
            // What came over the wire may have no hint; each code has a page.
            None => write!(f, "\n  next: docs/errors/{}.md says what to do", self.code),
        }
    }
}

impl Error for Failure {}

/// A failure of the command line itself: what was asked for makes no sense, whatever the server does.
#[derive(Debug)]
pub struct Usage(pub Failure);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Usage {}

/// The causes of an error of a request, without what it says itself, which repeats the address.
pub fn causes(error: &reqwest::Error) -> String {
    let mut all = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    if all.is_empty() { "the request failed".to_owned() } else { all.join(": ") }
}

/// 2 for usage, as for what the parser of the command line refuses; else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Usage>().is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Prints what the parser of the command line refuses, with a code as all errors have. Help that was not asked for,
/// because a command needs another word, goes out as it is.
pub fn print_refused(refused: &clap::Error) {
    let text = refused.render().to_string();
    match text.strip_prefix("error: ") {
        Some(cause) => eprint!("error: PV-CLI-USAGE: {cause}"),
        None => eprint!("{text}"),
    }
}

/// Prints an error. Errors of libraries carry their code in their text; others get `PV-CLI`.
pub fn print(error: &anyhow::Error) {
    let text = format!("{error:#}");
    if error.downcast_ref::<Failure>().is_some() || text.contains("PV-") {
        eprintln!("error: {text}");
    } else {
        eprintln!("error: PV-CLI: {text}");
    }
}
