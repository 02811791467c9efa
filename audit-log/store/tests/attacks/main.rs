//! Each attack on a copied directory and each fault of the store: verdict, exit code and place, by
//! two verifiers. `cases.txt` is the list; each case writes its row of the matrix.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod case;
mod checkpoints;
mod cluster_notes;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod faults;
mod fields;
mod forgery;
mod key_list;
mod list;
mod lives;
mod logs;
mod mutation;
mod numbers;
mod records;
mod scene;
mod segments;
mod unreadable;
