//! One attack: what is done to a copy, and what both verifiers must then say.

use std::{fs, path::Path};

use provost_audit_verify::{Exit, Report, State, Verdict};

use crate::{
    common::{Spot, copy_dir, matrix, place_of, verify_both},
    scene::Scene,
};

/// An attack and its expected end.
pub struct Case<'a> {
    name: &'a str,
    anchored: bool,
    exit: Exit,
    verdict: &'static str,
    place: Option<Spot>,
    attack: Box<dyn Fn(&Path) + 'a>,
}

/// Found, by this verdict and at this place.
pub fn found<'a>(
    name: &'a str,
    verdict: &'static str,
    place: (u64, String, u64),
    attack: impl Fn(&Path) + 'a,
) -> Case<'a> {
    let exit = Exit::Tampered;
    Case { name, anchored: false, exit, verdict, place: Some(place), attack: Box::new(attack) }
}

/// Not visible: everything still holds within itself. Said openly, because it is what an anchor is for.
pub fn unseen<'a>(name: &'a str, attack: impl Fn(&Path) + 'a) -> Case<'a> {
    let exit = Exit::Unanchored;
    Case { name, anchored: false, exit, verdict: "holds", place: None, attack: Box::new(attack) }
}

/// Input is missing, from this place on.
pub fn missing<'a>(name: &'a str, verdict: &'static str, place: Spot, attack: impl Fn(&Path) + 'a) -> Case<'a> {
    let exit = Exit::Incomplete;
    Case { name, anchored: false, exit, verdict, place: Some(place), attack: Box::new(attack) }
}

impl Case<'_> {
    /// The auditor kept a checkpoint.
    pub fn anchored(mut self) -> Self {
        self.anchored = true;
        if self.exit == Exit::Unanchored {
            self.exit = Exit::Proven;
        }
        self
    }
}

/// Tries each case on a copy of the scene, and writes its row.
pub fn try_all(scene: &Scene, cases: &[Case<'_>]) {
    let dir = scene.dir.path().join("case");
    for case in cases {
        copy_dir(&scene.audit(), &dir);
        (case.attack)(&dir);
        let report = verify_both(&dir, case.anchored.then_some(&scene.anchor));
        let name = case.name;
        assert_eq!(report.exit, case.exit, "{name}:\n{report}");
        assert_eq!(place_of(&report, &dir), case.place, "{name}:\n{report}");
        assert_eq!(verdict(&report), case.verdict, "{name}:\n{report}");
        let place = case.place.as_ref().map_or("-".to_owned(), |(i, file, at)| format!("record {i}, {file} at {at}"));
        matrix::row(name, &verdict_text(&report), &report.exit_code().to_string(), &place);
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// The first verdict that does not hold.
pub fn verdict(report: &Report) -> &'static str {
    if !report.missing_logs.is_empty() && report.logs.iter().all(|log| log.exit() != report.exit) {
        return "LOG MISSING";
    }
    let log = report.logs.iter().find(|log| log.exit() == report.exit).unwrap();
    let failed = |(_, v): &(&str, &Verdict)| v.state == State::Failed;
    let open = |(_, v): &(&str, &Verdict)| !matches!(v.state, State::Proven | State::Consistent);
    let verdicts = log.verdicts();
    verdicts.iter().find(|v| failed(v)).or(verdicts.iter().find(|v| open(v))).map_or("holds", |(name, _)| name)
}

fn verdict_text(report: &Report) -> String {
    match (verdict(report), report.exit) {
        ("holds", Exit::Unanchored) => "holds within itself".to_owned(),
        ("holds", _) => "holds".to_owned(),
        (name, Exit::Incomplete) => format!("{name} incomplete"),
        (name, Exit::Stale) => format!("{name} stale"),
        (name, _) => format!("{name} failed"),
    }
}
