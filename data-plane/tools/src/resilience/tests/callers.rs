//! Plugins that call plugins: nobody waits for who waits for them.

use std::sync::Arc;

use provost_types::ToolResilience;

use super::*;
use crate::{GuestCall, NestedError, OtherTools};

/// An upstream whose calls may make others.
struct Calling(Scripted);

impl Upstream for Calling {
    fn run<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        self.0.run(request, link)
    }

    fn calls_others(&self) -> bool {
        true
    }

    fn definition(&self, _: &str) -> Option<RawJson> {
        None
    }
}

/// A call below so many plugins.
#[derive(Debug)]
struct Below(u8);

impl OtherTools for Below {
    fn depth(&self) -> u8 {
        self.0
    }

    fn call(&self, _: GuestCall) -> BoxFuture<'static, Result<RawJson, NestedError>> {
        Box::pin(std::future::ready(Err(NestedError::Denied("no".to_owned()))))
    }
}

async fn call_below(depth: u8, shield: &Shield, upstream: &dyn Upstream) -> Execution {
    let (facts, principal) = (client(None), PrincipalRef { tenant: name("acme"), name: name("ann") });
    let below: Arc<dyn OtherTools> = Arc::new(Below(depth));
    let request = ExecuteRequest {
        operation: tool(),
        params: RawJson::from(json!({ "name": "t", "arguments": {} })),
        client: &facts,
        principal: &principal,
        subject: None,
        deadline: Instant::now() + Duration::from_secs(30),
        revision: Revision(1),
        call_id: CallId(1),
        other_tools: Some(&below),
    };
    shield.execute(upstream, &request, &Link::default()).await
}

/// A tool with one place.
fn one_place() -> Shield {
    let rule = ToolResilience { tools: ["t".to_owned()].into(), max_concurrent: 1, ..ToolResilience::default() };
    shield(ResilienceSpec { tools: vec![rule], ..ResilienceSpec::default() })
}

fn code(execution: &Execution) -> Option<String> {
    match &execution.reply {
        Reply::Error(error) => error.stable_code(),
        _ => None,
    }
}

#[tokio::test]
async fn a_call_below_a_plugin_waits_for_no_place_that_may_be_waiting_for_it() {
    let shield = one_place();
    let upstream = Calling(scripted(|n| (if n == 1 { 1_500 } else { 0 }, Ok(json!({ "n": n })))));
    let first = call_below(0, &shield, &upstream);
    let others = async {
        while upstream.0.begun() < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let refused = call_below(1, &shield, &upstream).await;
        assert_eq!(upstream.0.ended.load(Ordering::SeqCst), 0, "it was refused while the first one ran");
        assert_eq!(code(&refused).as_deref(), Some("PV-UPSTREAM-BUSY"));
        // A caller's own call waits as ever.
        call_below(0, &shield, &upstream).await
    };
    let (first, waited) = tokio::join!(first, others);
    assert_eq!((code(&first), code(&waited), upstream.0.begun()), (None, None, 2));
    // With a place free there is nothing to wait for.
    assert_eq!(code(&call_below(1, &shield, &upstream).await), None);
}

#[tokio::test]
async fn a_call_of_what_calls_nobody_waits_at_any_depth() {
    let shield = one_place();
    let upstream = scripted(|n| (if n == 1 { 50 } else { 0 }, Ok(json!({ "n": n }))));
    let (first, second) = tokio::join!(call_below(1, &shield, &upstream), call_below(1, &shield, &upstream));
    assert_eq!((code(&first), code(&second), upstream.begun()), (None, None, 2));
}

#[tokio::test]
async fn an_answer_that_other_tools_are_in_is_not_kept() {
    let (calling, alone) =
        (Calling(scripted(|n| (0, Ok(json!({ "n": n }))))), scripted(|n| (0, Ok(json!({ "n": n })))));
    let (first, second) = (shield(cached_tool()), shield(cached_tool()));
    for _ in 0..2 {
        call_below(0, &first, &calling).await;
        call_below(0, &second, &alone).await;
    }
    assert_eq!((calling.0.begun(), alone.begun()), (2, 1));
}
