//! `/v1/audio/transcriptions`: the form is read here, and what a model makes of it answered in the form that was asked for.

use std::{error::Error, sync::Arc};

use bytes::{Buf, Bytes};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body;
use provost_data_pipeline::{Operation, Plane};
use provost_mcp::{RawJson, RawObject};

use super::{Asked, error, form};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Final, ResponseBody, pass_over},
};

/// When who found no place may come again, in seconds.
const AGAIN_S: u64 = 1;

impl<P: Plane + 'static> Frontend<P> {
    pub(crate) async fn transcriptions<B>(self: &Arc<Self>, inbound: Inbound, body: B) -> Response<ResponseBody>
    where
        B: Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Ok(caller) = self.caller_of(&inbound) else {
            // Nothing is read of who is not known; the refusal is that of every call, and recorded like it.
            pass_over(&inbound.headers, body);
            return self
                .infer(inbound, Operation::Transcribe(String::new()), Asked::whole(RawJson::EMPTY_OBJECT))
                .await;
        };
        let Some(place) = self.recordings.take(&caller.principal.tenant) else {
            pass_over(&inbound.headers, body);
            return busy();
        };
        match form::read(&inbound.headers, body).await {
            Ok(form) => {
                let asked = Asked { params: form.params, told: form.told, sound: Some(form.sound), place: Some(place) };
                self.infer(inbound, Operation::Transcribe(form.model), asked).await
            }
            Err(unread) => unread.response(),
        }
    }
}

fn busy() -> Response<ResponseBody> {
    let message = "this node holds as many recordings as it may, in all or of one tenant; try again in a second";
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "PV-SPEECH-BUSY", message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(AGAIN_S));
    response
}

/// An answer that is a text: its member `text`, as this kind.
pub(super) fn plain(mut end: Final, body: &RawJson, kind: &'static str) -> Final {
    if let Some(text) = RawObject::parse(body).ok().and_then(|answer| answer.get_text("text")) {
        end.body = Bytes::from(text);
        end.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    end
}
