//! `provost watch`: changes as they happen.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use provost_wire::admin::{ResourceView, WatchChange, WatchRequest, watch_response::Event};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{
    AdminArgs,
    admin::{connect, failed},
};

/// Tries in a row to take up a watch that broke off; each tries every address.
const MAX_TRIES: u32 = 10;
/// Before each of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Bookmarks come each second: a server that is silent for so long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);

#[derive(Args)]
pub struct WatchArgs {
    /// The kind, such as `Plugin`, or `all`.
    kind: String,
    /// Only this name.
    name: Option<String>,
    /// Changes after this revision. Default: what there is now, then changes.
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: u64,
    /// Print one JSON object a line, bookmarks too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs until it is interrupted, or the changes asked for are gone.
pub async fn run(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let mut place = args.from;
    let mut tries = 0;
    loop {
        let before = place;
        let Err(error) = follow(&args, &mut place).await else { return Ok(ExitCode::SUCCESS) };
        let broke_off = error.downcast_ref::<Status>().is_none_or(passing);
        // Without a place there is nothing to take up: what was printed would be printed again.
        if !broke_off || place == 0 {
            return Err(error.downcast::<Status>().map_or_else(|other| other, failed));
        }
        tries = if place > before { 1 } else { tries + 1 };
        if tries > MAX_TRIES {
            return Err(error.downcast::<Status>().map_or_else(|other| other, failed));
        }
        eprintln!("the watch broke off ({error:#}); going on from revision {place}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether another try, or another node, may do.
fn passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::DeadlineExceeded
    )
}

async fn follow(args: &WatchArgs, place: &mut u64) -> anyhow::Result<()> {
    let (mut client, context) = connect(&args.admin).await?;
    let kind = if args.kind == "all" { String::new() } else { args.kind.clone() };
    let request = WatchRequest {
        kind,
        tenant: context.tenant.unwrap_or_default(),
        name: args.name.clone().unwrap_or_default(),
        from_revision: *place,
    };
    let mut events = client.watch(request).await?.into_inner();
    loop {
        let event = tokio::time::timeout(SILENCE_LIMIT, events.message())
            .await
            .map_err(|_| Status::unavailable("the server is silent"))??;
        match event {
            None => return Err(Status::unavailable("the server ended the watch").into()),
            Some(message) => match message.event {
                Some(Event::Bookmark(bookmark)) => {
                    *place = bookmark.revision;
                    if args.json {
                        println!("{}", json!({ "type": "bookmark", "revision": bookmark.revision }));
                    }
                }
                Some(Event::Change(change)) => {
                    show(args.json, &change);
                    // The present state comes in several messages: only the bookmark after them is a place.
                    if !change.initial {
                        *place = change.revision;
                    }
                }
                // Of a later release.
                None => {}
            },
        }
    }
}

fn show(as_json: bool, change: &WatchChange) {
    if as_json {
        println!("{}", value(change));
        return;
    }
    for line in lines(change) {
        println!("{line}");
    }
}

fn key(view: &ResourceView) -> String {
    match view.tenant.as_str() {
        "" => format!("{}/{}", view.kind, view.name),
        tenant => format!("{}/{tenant}/{}", view.kind, view.name),
    }
}

/// `REVISION SIGN KEY SUMMARY`: `=` was there, `+` was made, `~` was changed, `-` was removed.
fn lines(change: &WatchChange) -> Vec<String> {
    let put = |view: &ResourceView| {
        let sign = match (change.initial, view.created == view.modified) {
            (true, _) => '=',
            (false, true) => '+',
            (false, false) => '~',
        };
        format!("{} {sign} {}  {}", change.revision, key(view), view.summary).trim_end().to_owned()
    };
    let delete = |key: &String| format!("{} - {key}", change.revision);
    change.puts.iter().map(put).chain(change.deletes.iter().map(delete)).collect()
}

fn value(change: &WatchChange) -> Value {
    let put = |view: &ResourceView| {
        let document: Value = serde_json::from_str(&view.json).unwrap_or_default();
        json!({ "resource": key(view), "created": view.created, "modified": view.modified, "document": document })
    };
    json!({
        "type": if change.initial { "initial" } else { "change" },
        "revision": change.revision,
        "puts": change.puts.iter().map(put).collect::<Vec<_>>(),
        "deletes": change.deletes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, created: u64, modified: u64) -> ResourceView {
        ResourceView {
            kind: "Role".into(),
            tenant: "acme".into(),
            name: name.into(),
            json: r#"{"kind":"Role"}"#.into(),
            summary: "1 rules".into(),
            created,
            modified,
            ..Default::default()
        }
    }

    #[test]
    fn a_change_is_a_line_a_resource() {
        let mut change = WatchChange {
            revision: 7,
            puts: vec![view("made", 7, 7), view("changed", 3, 7)],
            deletes: vec!["Role/acme/gone".into()],
            initial: false,
        };
        assert_eq!(
            lines(&change),
            ["7 + Role/acme/made  1 rules", "7 ~ Role/acme/changed  1 rules", "7 - Role/acme/gone"]
        );
        assert_eq!(value(&change)["puts"][1]["document"]["kind"], "Role");
        change.initial = true;
        assert_eq!(lines(&change)[0], "7 = Role/acme/made  1 rules");
        assert_eq!(value(&change)["type"], "initial");
    }
}
