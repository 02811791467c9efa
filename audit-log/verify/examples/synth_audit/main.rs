//! Writes an audit directory of any size, signed and valid, to measure verifiers with.
//!
//! `cargo run --release -p provost-audit-verify --example synth_audit -- DIR RECORDS [TENANTS]`
//!
//! See `log_writer.rs` for what is written.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for measuring stops at the first surprise")]

mod log_writer;

use std::{fs, path::PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use provost_audit_core::LogId;
use provost_audit_verify::CHECKPOINT_FILE;
use provost_types::Name;

use log_writer::{Key, LogWriter};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, records, rest @ ..] = args.as_slice() else {
        eprintln!("usage: synth_audit DIR RECORDS [TENANTS]");
        std::process::exit(5);
    };
    let records: u64 = records.parse().expect("a number of records");
    let tenants: u64 = rest.first().map_or(1, |n| n.parse().expect("a number of tenants"));
    let dir = PathBuf::from(dir);
    let key = Key(Ed25519KeyPair::generate().expect("a key"));
    let mut top = String::new();
    let mut bytes = 0;
    for n in 0..tenants {
        let log = LogId(Some(Name::new(&format!("tenant-{n}")).expect("a name")));
        let share = records / tenants + u64::from(n < records % tenants);
        let mut writer = LogWriter::create(&dir, log, &key);
        for index in 0..share {
            writer.append(index, index + 1 == share);
        }
        let (note, leaf_bytes) = writer.finish();
        top.push_str(&note);
        top.push('\n');
        bytes += leaf_bytes;
    }
    fs::write(dir.join(CHECKPOINT_FILE), top).expect("the checkpoints");
    println!("{records} records in {tenants} logs, {} bytes each", bytes / records.max(1));
}
