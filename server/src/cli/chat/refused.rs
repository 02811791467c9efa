//! What a person reads when the API refuses a request: its code, its cause and what to do next.

use std::fmt::Display;

use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;

/// How much of a body that is no refusal of the API is shown.
const SHOWN_BYTES: usize = 200;
/// The code of a refusal without one.
const REFUSED: &str = "PV-CLI-REFUSED";
const NO_API: &str = "is this a node of Provost with the role data-plane? its API lies at /v1, beside /mcp";

/// The error of OpenAI's API; `data` is that of JSON-RPC, in which nodes refuse whole connections.
#[derive(Deserialize)]
pub struct ApiError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: Value,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Refusal {
    error: ApiError,
}

impl ApiError {
    /// The failure of the command. `wait_s`: the seconds after which the node would be asked again.
    pub fn failure(&self, status: Option<u16>, wait_s: Option<u64>) -> Failure {
        let code = self.code.as_str().or_else(|| self.data["code"].as_str()).unwrap_or(REFUSED);
        let prefix = format!("{code}: ");
        let cause = self.message.strip_prefix(&prefix).unwrap_or(&self.message);
        let message = status.map_or_else(|| cause.to_owned(), |status| format!("{cause} (HTTP {status})"));
        Failure { code: code.to_owned(), message, hint: hint(code, status, wait_s) }
    }
}

fn hint(code: &str, status: Option<u16>, wait_s: Option<u64>) -> Option<String> {
    match (code, status, wait_s) {
        ("PV-POLICY-DENIED", ..) => Some("`provost audit query --status denied` shows the record".to_owned()),
        ("PV-MODEL-UNKNOWN", ..) => {
            Some("leave --model out to see which there are; a role permits models by `models`".to_owned())
        }
        (_, Some(401), _) => Some("check the token: `provost token create --principal NAME` makes one".to_owned()),
        (_, _, Some(wait_s)) => Some(format!("try again in {wait_s} s")),
        _ => None,
    }
}

/// A status that is no success, with the body that came with it.
pub fn refused(status: u16, wait_s: Option<u64>, body: &[u8]) -> Failure {
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(body) {
        return refusal.error.failure(Some(status), wait_s);
    }
    let shown = String::from_utf8_lossy(body.get(..SHOWN_BYTES).unwrap_or(body)).trim().to_owned();
    let text = if shown.is_empty() { shown } else { format!(": {shown}") };
    Failure::new(REFUSED, format!("the server answered HTTP {status}{text}"), NO_API)
}

/// An answer that is none of the API.
pub fn no_api(cause: impl Display) -> Failure {
    Failure::new("PV-CLI-ANSWER", format!("the server's answer is not usable: {cause}"), NO_API)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_codes_and_say_what_to_do() {
        let api =
            |code: &str| format!(r#"{{"error":{{"message":"{code}: no","type":"x","param":null,"code":"{code}"}}}}"#);
        let rpc =
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no","data":{"code":"PV-HTTP-HOST"}}}"#;
        for (status, wait_s, body, code, message, hint) in [
            (403, None, api("PV-POLICY-DENIED"), "PV-POLICY-DENIED", "no (HTTP 403)", "audit query"),
            (404, None, api("PV-MODEL-UNKNOWN"), "PV-MODEL-UNKNOWN", "no (HTTP 404)", "--model"),
            (429, Some(7), api("PV-MODEL-BUSY"), "PV-MODEL-BUSY", "no (HTTP 429)", "in 7 s"),
            (401, None, rpc.to_owned(), "PV-HTTP-HOST", "no (HTTP 401)", "token create"),
            (404, None, "<html>".to_owned(), REFUSED, "the server answered HTTP 404: <html>", "/v1"),
            (502, None, String::new(), REFUSED, "the server answered HTTP 502", "/v1"),
        ] {
            let failure = refused(status, wait_s, body.as_bytes());
            assert_eq!((failure.code.as_str(), failure.message.as_str()), (code, message), "{body}");
            assert!(failure.hint.is_some_and(|said| said.contains(hint)), "{body}");
        }
    }
}
