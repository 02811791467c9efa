//! Why a socket is closed by this node: the table of close codes.

use std::{borrow::Cow, time::Duration};

use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Nothing was asked for a long time.
    Idle(Duration),
    /// The node shuts down.
    Draining,
    /// The frames do not follow RFC 6455.
    Protocol,
    /// A binary frame.
    Binary,
    /// A text frame that holds no UTF-8.
    Utf8,
    /// The credential of the upgrade is not good any more, or is somebody else's.
    Credential,
    /// More notifications than the client reads.
    SlowReader,
    /// No frame, not even a pong.
    Silent(Duration),
    /// A message longer than this many bytes.
    TooLarge(usize),
}

impl Closing {
    /// The close frame: code, and a reason that begins with our stable code.
    pub(super) fn message(self) -> Message {
        let (code, reason): (CloseCode, Cow<'static, str>) = match self {
            Self::Idle(limit) => {
                (CloseCode::Normal, format!("PV-WS-IDLE: no message for {} s", limit.as_secs()).into())
            }
            Self::Draining => (CloseCode::Away, "PV-WS-DRAINING: the node shuts down; connect again".into()),
            Self::Protocol => (CloseCode::Protocol, "PV-WS-PROTOCOL: the frames do not follow RFC 6455".into()),
            Self::Binary => (CloseCode::Unsupported, "PV-WS-BINARY: send each message as one text frame".into()),
            Self::Utf8 => (CloseCode::Invalid, "PV-WS-UTF8: a text frame must hold UTF-8".into()),
            Self::Credential => (CloseCode::Policy, "PV-WS-CREDENTIAL: the token is not good any more".into()),
            Self::SlowReader => (CloseCode::Policy, "PV-WS-SLOW-READER: notifications were not read in time".into()),
            Self::Silent(limit) => {
                (CloseCode::Policy, format!("PV-WS-SILENT: no frame and no pong for {} s", limit.as_secs()).into())
            }
            Self::TooLarge(max) => {
                (CloseCode::Size, format!("PV-WS-TOO-LARGE: a message has at most {max} bytes").into())
            }
        };
        Message::Close(Some(CloseFrame { code, reason: reason.as_ref().into() }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn every_reason_fits_its_frame() {
        let longest = Duration::from_secs(u64::MAX);
        let all = [
            Closing::Idle(longest),
            Closing::Draining,
            Closing::Protocol,
            Closing::Binary,
            Closing::Utf8,
            Closing::Credential,
            Closing::SlowReader,
            Closing::Silent(longest),
            Closing::TooLarge(usize::MAX),
        ];
        for closing in all {
            let Message::Close(Some(frame)) = closing.message() else { panic!("{closing:?} is no close frame") };
            // RFC 6455, section 5.5: 125 bytes, two of them the code.
            assert!(frame.reason.len() <= 123 && frame.reason.as_str().starts_with("PV-WS-"), "{closing:?}");
        }
    }
}
