#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use provost_types::Name;

use super::{form::VERSION, *};
use crate::{
    retention_state::{RetentionCommand, RetentionReply},
    subject_entry::{KeyCommand, KeyReply},
};

fn example() -> Command {
    let acme = LogId(Some(Name::new("acme").unwrap()));
    let records = vec![
        AppendRecord { log: acme, leaf: Bytes::from_static(b"{}"), body: Some(Bytes::from_static(b"sealed")) },
        AppendRecord { log: LogId::CLUSTER, leaf: Bytes::from_static(b""), body: None },
    ];
    Command::Append(Append { writer: "n1".to_owned(), epoch: 3, batch: 9, records })
}

#[test]
fn round_trips() {
    let keys = Command::Keys(KeyCommand::Recorded(7));
    let release = Command::Retention(RetentionCommand::Release(LogId::CLUSTER, "case-7".to_owned()));
    let rotated = Rotated { record: 5, follows: [1; 32], public_key: [2; 32], notes: vec!["note".to_owned()] };
    for command in [
        example(),
        Command::Seal,
        Command::SealAll,
        Command::Signed(vec!["note".to_owned()]),
        Command::Cosigned("n".to_owned()),
        Command::Rotated(rotated),
        release,
        keys,
    ] {
        let bytes = Bytes::from(command.encode());
        assert_eq!(Command::decode(&bytes), Ok(command));
        for cut in 0..bytes.len() {
            assert!(Command::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
    let head = Head { log: LogId::CLUSTER, size: 1, root: Hash::ZERO, chain: Hash::ZERO };
    for reply in [
        Reply::Appended(vec![(LogId::CLUSTER, 7)]),
        Reply::Fenced { epoch: 2 },
        Reply::OutOfOrder { next: 4 },
        Reply::Invalid("why".to_owned()),
        Reply::Sealed(vec![head]),
        Reply::Taken(2),
        Reply::Keys(KeyReply::Stale { generation: 3 }),
        Reply::Retention(RetentionReply::Refused("why".to_owned())),
    ] {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

#[test]
fn records_in_a_row_share_the_name_of_their_log() {
    let names = ["acme", "acme", "", "", "acm", "acme"];
    let record = |name: &&str| AppendRecord { log: LogId(Name::new(name).ok()), leaf: Bytes::new(), body: None };
    let records = names.iter().map(record).collect();
    let bytes = Bytes::from(Command::Append(Append { writer: "n1".to_owned(), epoch: 1, batch: 0, records }).encode());
    let Ok(Command::Append(append)) = Command::decode(&bytes) else { panic!("it is not read") };
    let read: Vec<&str> = append.records.iter().map(|record| record.log.tenant()).collect();
    assert_eq!(read, names);
    assert!(std::ptr::eq(read[0], read[1]), "the name was made twice");
}

#[test]
fn an_entry_tells_where_it_appends() {
    let bytes = example().encode();
    let acme = LogId(Some(Name::new("acme").unwrap()));
    assert_eq!(Command::appends(&bytes), Some(vec![(acme, true), (LogId::CLUSTER, false)]));
    for cut in 0..bytes.len() {
        assert_eq!(Command::appends(&bytes[..cut]), None, "cut at {cut}");
    }
    for other in [Command::Seal, Command::SealAll, Command::Signed(vec!["note".to_owned()])] {
        assert_eq!(Command::appends(&other.encode()), None, "{other:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        let _ = Reply::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let bytes = Bytes::from(bytes);
        let appends = Command::appends(&bytes);
        if let Ok(Command::Append(append)) = Command::decode(&bytes) {
            let expect: Vec<_> = append.records.into_iter().map(|r| (r.log, r.body.is_some())).collect();
            assert_eq!(appends, Some(expect));
        }
    }
}
