//! The form with a recording, as it comes: `multipart/form-data` (RFC 7578).
//!
//! Invariants: the sound is held once, its digest made as it comes; every field is known or refused by its name; what is said
//! of the file beside its bytes, its name too, goes no further. What belongs to no field is searched again whenever more of it
//! comes, so there may be little of it.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use aws_lc_rs::digest;
use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use multer::{Constraints, Field, Multipart, SizeLimit};
use provost_mcp::RawJson;
use provost_types::{MAX_SOUND_BYTES, Sound};
use serde_json::{Map, Value, json};

use super::{Told, error};
use crate::http::{ResponseBody, pass_over, says_too_long};

/// Longest text of a field, in bytes.
const MAX_TEXT_BYTES: u64 = 64 << 10;
/// Bytes of a form beside its file.
const MAX_BESIDE_BYTES: usize = 256 << 10;
/// Bytes of a form that are no field's data: boundaries, the heads of fields, what comes before the first.
const MAX_HEADS_BYTES: usize = 64 << 10;
/// The longest boundary, in bytes (RFC 2046, 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;
const MAX_FIELDS: usize = 32;
/// So many bytes are given out before what they make is looked at, and others have their turn.
const TURN_BYTES: usize = 256 << 10;
/// The longest wait for a form: a client that drips it holds memory.
const FORM_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// A form that was read.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) model: String,
    /// Its fields as an object; of the file its length and digest.
    pub(super) params: RawJson,
    pub(super) sound: Sound,
    pub(super) told: Told,
}

/// Why a form was not read: status, code, cause.
#[derive(Debug)]
pub(super) struct Unread(StatusCode, &'static str, String);

impl Unread {
    fn invalid(cause: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, "PV-OPENAI-INVALID", cause.into())
    }

    fn too_large() -> Self {
        let message =
            format!("a recording has at most {MAX_SOUND_BYTES} bytes, and other fields little; send it in parts");
        Self(StatusCode::PAYLOAD_TOO_LARGE, "PV-HTTP-BODY-TOO-LARGE", message)
    }

    fn broken() -> Self {
        let message = "the form could not be read to its end".to_owned();
        Self(StatusCode::BAD_REQUEST, "PV-HTTP-BODY-BROKEN", message)
    }

    pub(super) fn response(&self) -> Response<ResponseBody> {
        error(self.0, self.1, &self.2)
    }
}

impl From<multer::Error> for Unread {
    fn from(fault: multer::Error) -> Self {
        use multer::Error as Fault;
        match fault {
            Fault::FieldSizeExceeded { .. } | Fault::StreamSizeExceeded { .. } => Self::too_large(),
            Fault::StreamReadFailed(_) | Fault::IncompleteStream | Fault::IncompleteFieldData { .. } => Self::broken(),
            other => Self::invalid(format!("the form cannot be read: {other}")),
        }
    }
}

/// Reads a form.
///
/// # Errors
/// When it is none, is too large, or has a field that is not served.
pub(super) async fn read<B>(headers: &HeaderMap, body: B) -> Result<Form, Unread>
where
    B: Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let boundary = match checked(headers) {
        Ok(boundary) => boundary,
        Err(refused) => {
            pass_over(headers, body);
            return Err(refused);
        }
    };
    let heads = Heads::default();
    let chunks = Incoming { body: Some(Box::pin(body)), heads: heads.clone(), turn: 0 };
    let limit = SizeLimit::new().whole_stream((MAX_SOUND_BYTES + MAX_BESIDE_BYTES) as u64).per_field(MAX_TEXT_BYTES);
    let limit = limit.for_field("file", MAX_SOUND_BYTES as u64);
    let multipart = Multipart::with_constraints(chunks, boundary, Constraints::new().size_limit(limit));
    tokio::time::timeout(FORM_TIMEOUT, fields(multipart, &heads)).await.unwrap_or_else(|_| Err(Unread::broken()))
}

/// Bytes of a form that were read and have not come back as a field's data.
#[derive(Clone, Debug, Default)]
struct Heads(Arc<AtomicUsize>);

impl Heads {
    fn read(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn were_data(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Between fields: of all that was looked at, nothing begins a field's data.
    fn are_too_long(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_HEADS_BYTES
    }
}

/// A body as it comes, in turns. What is left of one that is given up is read and thrown away for a while, as of every body
/// that is refused.
struct Incoming<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    /// `None`: it is over.
    body: Option<Pin<Box<B>>>,
    heads: Heads,
    /// Bytes that were given out in this turn.
    turn: usize,
}

impl<B> Stream for Incoming<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Item = Result<Bytes, B::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Who parses it reads on until it has to wait, and looks only then at what it has.
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
            let polled = body.as_mut().poll_frame(cx);
            match polled {
                Poll::Pending => {
                    self.turn = 0;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    if let Ok(mut data) = frame.into_data() {
                        let length = data.remaining();
                        self.turn = self.turn.saturating_add(length);
                        self.heads.read(length);
                        return Poll::Ready(Some(Ok(data.copy_to_bytes(length))));
                    }
                }
                Poll::Ready(Some(Err(fault))) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(fault)));
                }
                Poll::Ready(None) => self.body = None,
            }
        }
    }
}

impl<B> Drop for Incoming<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|_| tokio::runtime::Handle::try_current().is_ok()) {
            pass_over(&HeaderMap::new(), body);
        }
    }
}

/// What the headers say of a form: its boundary.
fn checked(headers: &HeaderMap) -> Result<String, Unread> {
    let unsupported = |code, message: &str| Unread(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, message.to_owned());
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind)
        .map_err(|_| unsupported("PV-HTTP-CONTENT-TYPE", "Content-Type must be multipart/form-data with a boundary"))?;
    if boundary.len() > MAX_BOUNDARY_BYTES {
        let message = format!("the boundary of the form must have at most {MAX_BOUNDARY_BYTES} characters");
        return Err(unsupported("PV-HTTP-CONTENT-TYPE", &message));
    }
    let is_plain = |value: &HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        let message = "the body is encoded; send it as it is, without Content-Encoding";
        return Err(unsupported("PV-HTTP-CONTENT-ENCODING", message));
    }
    if says_too_long(headers, MAX_SOUND_BYTES + MAX_BESIDE_BYTES) {
        return Err(Unread::too_large());
    }
    Ok(boundary)
}

/// The next field, all before it having been read to their ends.
async fn next_field(multipart: &mut Multipart<'static>, heads: &Heads) -> Result<Option<Field<'static>>, Unread> {
    std::future::poll_fn(|cx| match multipart.poll_next_field(cx) {
        Poll::Pending if heads.are_too_long() => Poll::Ready(Err(Unread::invalid(format!(
            "the form has more than {MAX_HEADS_BYTES} bytes of boundaries, heads of fields and what is no field"
        )))),
        polled => polled.map_err(Unread::from),
    })
    .await
}

async fn fields(mut multipart: Multipart<'static>, heads: &Heads) -> Result<Form, Unread> {
    let (mut texts, mut times, mut file) = (Map::new(), Vec::new(), None);
    let mut count = 0;
    while let Some(field) = next_field(&mut multipart, heads).await? {
        count += 1;
        if count > MAX_FIELDS {
            return Err(Unread::invalid(format!("the form has more than {MAX_FIELDS} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        if name.strip_suffix("[]").unwrap_or(&name) == "timestamp_granularities" {
            times.push(Value::from(text(field, &name, heads).await?));
        } else if texts.contains_key(&name) || (name == "file" && file.is_some()) {
            return Err(Unread::invalid(format!("`{name}` is in the form twice")));
        } else if name == "file" {
            file = Some(recording(field, heads).await?);
        } else {
            let value = value(&name, field, heads).await?;
            texts.insert(name, value);
        }
    }
    if !times.is_empty() {
        texts.insert("timestamp_granularities".to_owned(), Value::from(times));
    }
    let (sound, digest) = file.ok_or_else(|| Unread::invalid("`file` is missing"))?;
    texts.insert("file".to_owned(), json!({ "bytes": sound.bytes().len(), "sha256": digest }));
    // They change nothing in the answer.
    for name in ["user", "stream"] {
        texts.remove(name);
    }
    let model = texts.get("model").and_then(Value::as_str).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Unread::invalid("`model` is missing"))?.to_owned();
    let told = told(texts.get("response_format").and_then(Value::as_str))?;
    Ok(Form { model, params: RawJson::from(Value::Object(texts)), sound, told })
}

/// How an answer in a form is told.
fn told(format: Option<&str>) -> Result<Told, Unread> {
    match format {
        None | Some("json" | "verbose_json") => Ok(Told::Whole),
        Some("text" | "srt") => Ok(Told::Text("text/plain; charset=utf-8")),
        Some("vtt") => Ok(Told::Text("text/vtt; charset=utf-8")),
        Some(other) => Err(Unread::invalid(format!(
            "response_format `{other}` is not served; there are json, text, verbose_json, srt and vtt"
        ))),
    }
}

/// The bytes of a file with their SHA-256, hexadecimal.
async fn recording(mut field: Field<'static>, heads: &Heads) -> Result<(Sound, String), Unread> {
    let (mut bytes, mut hash) = (BytesMut::new(), digest::Context::new(&digest::SHA256));
    while let Some(chunk) = field.chunk().await? {
        heads.were_data(chunk.len());
        hash.update(&chunk);
        bytes.extend_from_slice(&chunk);
    }
    let digest = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((Sound::new(bytes), digest))
}

async fn text(field: Field<'static>, name: &str, heads: &Heads) -> Result<String, Unread> {
    let bytes = field.bytes().await?;
    heads.were_data(bytes.len());
    String::from_utf8(bytes.to_vec()).map_err(|_| Unread::invalid(format!("`{name}` is no UTF-8")))
}

/// A field that is no file.
async fn value(name: &str, field: Field<'static>, heads: &Heads) -> Result<Value, Unread> {
    match name {
        "model" | "language" | "prompt" | "response_format" | "user" => {
            Ok(Value::from(text(field, name, heads).await?))
        }
        "temperature" => {
            let value = text(field, name, heads).await?.trim().parse::<f32>().ok().filter(|value| value.is_finite());
            value.map(Value::from).ok_or_else(|| Unread::invalid("`temperature` must be a number"))
        }
        "stream" => match text(field, name, heads).await?.trim() {
            "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(not_served(name)),
        },
        _ => Err(not_served(name)),
    }
}

fn not_served(name: &str) -> Unread {
    Unread::invalid(format!("`{name}` is not served here"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    /// Reads a form that comes in pieces of so many bytes.
    async fn form(parts: &[(&str, &str)], piece: usize) -> Result<Form, String> {
        let mut body = String::new();
        for (head, content) in parts {
            body += &format!("--b\r\nContent-Disposition: form-data; name={head}\r\n\r\n{content}\r\n");
        }
        body += "--b--\r\n";
        whole(&body, piece).await
    }

    /// The same of a body.
    async fn whole(body: &str, piece: usize) -> Result<Form, String> {
        let pieces: Vec<Result<Frame<Bytes>, Infallible>> =
            body.as_bytes().chunks(piece).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=b"));
        read(&headers, StreamBody::new(stream::iter(pieces))).await.map_err(|unread| unread.2)
    }

    const FILE: (&str, &str) = ("\"file\"; filename=\"whose.wav\"", "a\r\nsound");
    const MODEL: (&str, &str) = ("\"model\"", "m");

    #[tokio::test]
    async fn a_form_is_the_same_in_whatever_pieces_it_comes() {
        let parts = [
            FILE,
            MODEL,
            ("\"temperature\"", "0.5"),
            ("\"response_format\"", "srt"),
            ("\"timestamp_granularities[]\"", "segment"),
            ("\"user\"", "u"),
            ("\"stream\"", "false"),
        ];
        for piece in [1, 7, 100_000] {
            let form = form(&parts, piece).await.unwrap();
            assert_eq!((form.model.as_str(), form.told), ("m", Told::Text("text/plain; charset=utf-8")));
            assert_eq!(&form.sound.bytes()[..], b"a\r\nsound");
            let digest = digest::digest(&digest::SHA256, b"a\r\nsound");
            let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let expected = json!({
                "model": "m", "temperature": 0.5, "response_format": "srt", "timestamp_granularities": ["segment"],
                "file": { "bytes": 8, "sha256": digest },
            });
            assert_eq!(form.params.parse::<Value>().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn long_fields_are_read_and_what_is_no_field_is_not_gathered() {
        let long = "a long sound\r\n".repeat(100_000);
        let prompt = "p".repeat(60_000);
        let parts = [MODEL, ("\"prompt\"", prompt.as_str()), ("\"file\"", long.as_str()), ("\"language\"", "en")];
        for piece in [1_000, 100_000_000] {
            let form = form(&parts, piece).await.unwrap();
            assert_eq!(form.sound.bytes().len(), long.len(), "{piece}");
            assert!(form.params.as_str().contains("\"en\""), "{piece}");
        }
        let field = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n";
        for before in
            [long.clone(), format!("{field}X: {}", "x".repeat(1_000_000)), "--b".to_owned() + &" ".repeat(1_000_000)]
        {
            let body = format!("{before}\r\n{field}\r\nm\r\n--b--\r\n");
            let refused = whole(&body, 1_000).await.unwrap_err();
            assert!(refused.contains("heads of fields"), "{refused}");
        }
    }

    #[test]
    fn a_boundary_has_its_bounds() {
        for (length, taken) in [(70, true), (71, false)] {
            let mut headers = HeaderMap::new();
            let kind = format!("multipart/form-data; boundary={}", "b".repeat(length));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&kind).unwrap());
            assert_eq!(checked(&headers).is_ok(), taken, "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_twice_or_not_served_is_named() {
        for (parts, says) in [
            (vec![MODEL], "`file` is missing"),
            (vec![FILE], "`model` is missing"),
            (vec![FILE, ("\"model\"", "")], "`model` is missing"),
            (vec![FILE, MODEL, FILE], "`file` is in the form twice"),
            (vec![MODEL, FILE, MODEL], "`model` is in the form twice"),
            (vec![MODEL, FILE, ("\"known_speaker_names[]\"", "x")], "`known_speaker_names[]`"),
            (vec![MODEL, FILE, ("\"stream\"", "true")], "`stream`"),
            (vec![MODEL, FILE, ("\"temperature\"", "inf")], "`temperature`"),
            (vec![MODEL, FILE, ("\"response_format\"", "midi")], "`midi`"),
            (vec![MODEL; MAX_FIELDS + 1], "twice"),
            (vec![("\"timestamp_granularities[]\"", "segment"); MAX_FIELDS + 1], "fields"),
        ] {
            let refused = form(&parts, 50).await.unwrap_err();
            assert!(refused.contains(says), "{says}: {refused}");
        }
    }
}
