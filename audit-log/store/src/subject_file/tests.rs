//! Replacements that end, and such that do not.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use super::*;

fn state(applied: u64) -> SubjectState {
    let mut state = SubjectState::default();
    (state.applied, state.log_key) = (Some(applied), Secret::random().ok());
    state
}

fn bytes(state: &SubjectState) -> Vec<u8> {
    postcard::to_stdvec(state).unwrap()
}

/// A process that dies at any step of a replacement leaves the old state or the new one.
#[test]
fn a_replacement_that_is_cut_off_leaves_a_state_that_opens() {
    for renew in [false, true] {
        for died_at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let file = SubjectFile::new(SubjectPaths::below(dir.path()));
            let (old, new) = (state(1), state(2));
            file.write(&bytes(&old), false).unwrap();
            file.steps_left.store(died_at, Ordering::SeqCst);
            let done = file.write(&bytes(&new), renew).is_ok();
            let file = SubjectFile::new(SubjectPaths::below(dir.path()));
            let found = file.read().unwrap().unwrap();
            assert!(found == old || found == new, "renew {renew}, step {died_at}");
            assert!(!done || found == new, "renew {renew}, step {died_at}: done and not there");
            // And the next replacement works.
            file.write(&bytes(&state(3)), true).unwrap();
            assert_eq!(file.read().unwrap().unwrap().applied, Some(3));
            if done {
                assert!(died_at >= 3, "there are steps to die at");
                break;
            }
        }
    }
}

/// Whatever step a renewal died at, and the next start's too: the start after that leaves nothing on disk,
/// by a name or without one, that opens what was before.
#[test]
fn a_start_ends_a_renewal_that_was_cut_off() {
    let (mut ended, mut twice) = (0, 0);
    for died_at in 0.. {
        for again_at in [usize::MAX, 0, 3, 6, 9, 12, 15] {
            let dir = tempfile::tempdir().unwrap();
            let paths = SubjectPaths::below(dir.path());
            let file = SubjectFile::new(paths.clone());
            file.write(&bytes(&state(1)), false).unwrap();
            let (old_kek, old_keys) = (fs::read(&paths.kek).unwrap(), fs::read(&paths.keys).unwrap());
            let held: Vec<File> = [&paths.kek, &paths.keys].iter().map(|p| File::open(p).unwrap()).collect();
            file.steps_left.store(died_at, Ordering::SeqCst);
            let done = file.write(&bytes(&state(2)), true).is_ok();
            let began = fs::read(&paths.kek).unwrap() != old_kek;

            let file = SubjectFile::new(paths.clone());
            file.steps_left.store(again_at, Ordering::SeqCst);
            twice += usize::from(file.read().is_err());
            let found = SubjectFile::new(paths.clone()).read().unwrap().unwrap();
            let at = format!("died at {died_at}, then at {again_at}");
            assert!(!done || found.applied == Some(2), "{at}");
            for path in [&paths.kek, &paths.keys] {
                let others: Vec<_> = [NEW, OLD].iter().filter(|end| beside(path, end).exists()).collect();
                assert!(others.is_empty(), "{at}: {others:?}");
            }
            let kek = fs::read(&paths.kek).unwrap();
            assert_eq!(kek.len(), KEY_BYTES, "{at}");
            if began {
                ended += 1;
                assert_ne!(kek, old_kek, "{at}");
                let kek = Secret::from_slice(&kek).unwrap();
                assert!(kek.open(MAGIC, &old_keys[MAGIC.len()..]).is_none(), "{at}");
                for file in &held {
                    let mut left = vec![1; 32];
                    file.read_exact_at(&mut left, 0).unwrap();
                    assert!(left.iter().all(|b| *b == 0), "{at}: old bytes are still there");
                }
            }
            if done && again_at == 15 {
                assert!(ended > 7 && twice > 7, "{ended} renewals were ended, {twice} in a third start");
                return;
            }
        }
    }
}

#[test]
fn after_a_renewal_no_file_opens_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let paths = SubjectPaths::below(dir.path());
    let file = SubjectFile::new(paths.clone());
    file.write(&bytes(&state(1)), false).unwrap();
    let (old_kek, old_keys) = (fs::read(&paths.kek).unwrap(), fs::read(&paths.keys).unwrap());
    // The blocks of the old files, as somebody sees them who still has them open.
    let held: Vec<File> = [&paths.kek, &paths.keys].iter().map(|p| File::open(p).unwrap()).collect();
    file.write(&bytes(&state(2)), true).unwrap();
    for file in held {
        let mut left = vec![1; 32];
        file.read_exact_at(&mut left, 0).unwrap();
        assert!(left.iter().all(|b| *b == 0), "the old bytes were written over");
    }
    let now = fs::read(&paths.kek).unwrap();
    assert_eq!(now.len(), KEY_BYTES);
    assert_ne!(now, old_kek);
    let kek = Secret::from_slice(&now).unwrap();
    assert!(kek.open(MAGIC, &old_keys[MAGIC.len()..]).is_none());
    for path in [&paths.kek, &paths.keys] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn keys_that_others_may_read_or_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = SubjectPaths::below(dir.path());
    let file = SubjectFile::new(paths.clone());
    assert!(file.read().unwrap().is_none());
    file.write(&bytes(&state(1)), false).unwrap();
    let code = |file: &SubjectFile| file.read().err().map(|e| (e.code(), e.to_string()));
    fs::set_permissions(&paths.kek, fs::Permissions::from_mode(0o640)).unwrap();
    let (found, text) = code(&file).unwrap();
    assert!(found == "PV-AUDIT-KEYS" && text.contains("640"), "{text}");
    fs::set_permissions(&paths.kek, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&paths.kek, [9; KEY_BYTES]).unwrap();
    assert_eq!(code(&file).map(|c| c.0), Some("PV-AUDIT-KEYS"));
    fs::remove_file(&paths.kek).unwrap();
    assert_eq!(code(&file).map(|c| c.0), Some("PV-AUDIT-KEYS"));
    assert!(file.write(&bytes(&state(2)), false).is_err(), "no second key is made over a state");
}
