//! Errors across gRPC: a status whose details are an encoded [`Failure`].

use prost::Message;
use tonic::{Code, Status};

use crate::admin::{Failure, Problem};

/// Problems that one error carries across gRPC.
const MAX_PROBLEMS: usize = 1_000;

/// Bytes of each text of a problem. What people write stands in some of them, and may be of any length.
const MAX_TEXT_BYTES: usize = 1 << 10;
/// Bytes of the message and the hint of a failure, which may join several causes.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// Cuts a text that is too long, and shows that it was.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
}

impl Failure {
    /// A failure without a list of problems.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: hint.into(), problems: Vec::new() }
    }

    /// As a gRPC status; [`Failure::of`] reads it back.
    pub fn into_status(mut self, code: Code) -> Status {
        let left_out = self.problems.len().saturating_sub(MAX_PROBLEMS);
        if left_out > 0 {
            self.problems.truncate(MAX_PROBLEMS);
            self.hint = format!("{left_out} more are not listed; mend these first");
        }
        cut(&mut self.message, MAX_MESSAGE_BYTES);
        cut(&mut self.hint, MAX_MESSAGE_BYTES);
        for Problem { resource, field, message, hint, .. } in &mut self.problems {
            [resource, field, message, hint].into_iter().for_each(|text| cut(text, MAX_TEXT_BYTES));
        }
        let text = format!("{}: {}", self.code, self.message);
        Status::with_details(code, text, self.encode_to_vec().into())
    }

    /// The failure that a status carries. A status of another origin becomes a failure with its
    /// gRPC code.
    pub fn of(status: &Status) -> Self {
        match Failure::decode(status.details()) {
            Ok(failure) if !failure.code.is_empty() => failure,
            _ => {
                let hint = if status.code() == Code::Unavailable {
                    "is the control plane running, and is the address right?"
                } else {
                    // The connection was lost in the middle, or the answer came too late.
                    "before you repeat a change, see `provost history`: it may have taken effect"
                };
                Failure::new("PV-ADMIN-RPC", status.message(), hint)
            }
        }
    }
}

impl std::fmt::Display for Problem {
    /// `file:line:column: code: resource: field: message; hint`, without the empty parts.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}: ", self.code)?;
        for part in [&self.resource, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Failure {
    /// The code and cause, then one problem a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_status() {
        let mut failure = Failure::new("PV-CTL-INVALID", "2 problems", "mend them");
        failure.problems = vec![Problem {
            file: "a.yaml".into(),
            line: 3,
            column: 5,
            resource: "Role/acme/reader".into(),
            field: "spec.rules".into(),
            code: "PV-RES-FIELD".into(),
            message: "is wrong".into(),
            hint: String::new(),
        }];
        let status = failure.clone().into_status(Code::InvalidArgument);
        assert_eq!(Failure::of(&status), failure);
        assert_eq!(
            failure.to_string(),
            "PV-CTL-INVALID: 2 problems; mend them\n  \
             a.yaml:3:5: PV-RES-FIELD: Role/acme/reader: spec.rules: is wrong"
        );
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut failure = Failure::new("PV-CTL-INVALID", "é".repeat(10_000), "mend it");
        let long = || "é".repeat(1_000);
        let problem = Problem { field: long(), message: long(), hint: "short".into(), ..Problem::default() };
        failure.problems = vec![problem];
        let told = Failure::of(&failure.into_status(Code::InvalidArgument));
        assert!(told.message.len() <= MAX_MESSAGE_BYTES + 3 && told.message.ends_with("é…"));
        let [problem] = told.problems.as_slice() else { panic!("{told}") };
        assert!(problem.message.len() <= MAX_TEXT_BYTES + 3 && problem.field.ends_with("é…"));
        assert_eq!((told.hint.as_str(), problem.hint.as_str()), ("mend it", "short"));
    }

    #[test]
    fn a_foreign_status_becomes_a_failure() {
        let failure = Failure::of(&Status::unavailable("connection refused"));
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("PV-ADMIN-RPC", "connection refused"));
        // Lost in the middle: what was asked for may have been done.
        assert!(Failure::of(&Status::unknown("transport error")).hint.contains("provost history"));
    }
}
