//! `provost plugin test`: declared cases against a component, in the engine that nodes run.
//!
//! Purpose: an author learns here what a node would answer, without one. What a plugin asks of its node is answered out
//! of the case: nothing is sent anywhere, nothing is kept.
//! Invariants: a case that asks for what it does not declare fails, and so does one that declares what is not asked
//! for. What the manifest does not want is not given.
//! Left out: policy, limits and guards of a tenant (`provost simulate`).

mod cases;
mod compare;
mod host;
mod run;

pub(super) use cases::{MAX_CASES_BYTES, parse};

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use clap::Args;
use provost_package::{COMPONENT, MAX_PACKAGE_BYTES, Package, Wants};
use serde_json::{Value, json};

use self::{
    cases::CaseFile,
    run::{Report, Runner},
};
use super::{
    super::diff::visible,
    artefact::{self, ArtefactArgs},
    files,
    project::Project,
    sign, wrap,
};
use crate::{cli::table, failure::Failure};

/// The part of a package that has its cases.
pub(super) const PART: &str = "cases.yaml";

#[derive(Args)]
pub struct TestArgs {
    /// A project's folder, a package, or a component.
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    place: PathBuf,
    /// The cases. Default: those of the project or of the package.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Only the case of this name.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    artefact: ArtefactArgs,
}

/// Cases and where they stand.
struct Declared {
    place: String,
    file: CaseFile,
}

impl Declared {
    fn of(place: String, text: &[u8]) -> Result<Self, Failure> {
        Ok(Self { file: parse(&place, text)?, place })
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        Self::of(path.display().to_string(), &files::read(path, MAX_CASES_BYTES)?)
    }
}

/// What is tested.
struct Subject {
    component: Bytes,
    /// What it may ask for; `None`: everything.
    wants: Option<Wants>,
    cases: Declared,
}

pub async fn run(args: TestArgs) -> anyhow::Result<ExitCode> {
    // Before a component is built for them.
    let given = args.cases.as_deref().map(Declared::read).transpose()?;
    let subject = if args.place.is_dir() { of_project(&args, given).await? } else { of_file(&args.place, given)? };
    let Declared { place, mut file } = subject.cases;
    if let Some(wanted) = &args.case {
        only(&mut file, wanted, &place)?;
    }
    let runner = Runner::new(subject.component, subject.wants, &file)?;
    let mut reports = Vec::with_capacity(file.cases.len());
    for case in &file.cases {
        reports.push(runner.run(case).await?);
    }
    show(&reports, args.json)?;
    let failed = reports.iter().any(|report| !report.problems.is_empty());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn of_project(args: &TestArgs, given: Option<Declared>) -> anyhow::Result<Subject> {
    let project = Project::read(&args.place)?;
    let cases = match (given, &project.said.tests) {
        (Some(given), _) => given,
        (None, Some(tests)) => Declared::read(&project.path(tests))?,
        (None, None) => return Err(undeclared(&args.place).into()),
    };
    let component = artefact::obtain(&project, &args.artefact).await?;
    Ok(Subject { component, wants: Some(project.said.wants), cases })
}

fn of_file(path: &Path, given: Option<Declared>) -> Result<Subject, Failure> {
    let bytes = files::read(path, MAX_PACKAGE_BYTES)?;
    if wrap::is_wasm(&bytes) {
        let cases = given.ok_or_else(|| undeclared(path))?;
        return Ok(Subject { component: wrap::component(bytes)?.into(), wants: None, cases });
    }
    let package = Package::read(bytes.into()).map_err(|error| sign::refused(&error))?;
    let component = package.part(COMPONENT).ok_or_else(|| {
        let text = format!("{} has no part `{COMPONENT}`", path.display());
        Failure::new("PV-PACKAGE-FORMAT", text, "build it with `provost plugin build`")
    })?;
    let cases = match (given, package.part(PART)) {
        (Some(given), _) => given,
        (None, Some(text)) => Declared::of(format!("{PART} of {}", path.display()), &text)?,
        (None, None) => return Err(undeclared(path)),
    };
    Ok(Subject { component, wants: Some(package.manifest().wants.clone()), cases })
}

fn undeclared(path: &Path) -> Failure {
    let hint = "name them with --cases FILE, or in plugin.yaml: `tests: tests/cases.yaml`";
    Failure::new("PV-PLUGIN-CASES", format!("{} declares no cases", path.display()), hint)
}

/// Leaves the case of that name.
fn only(file: &mut CaseFile, wanted: &str, place: &str) -> Result<(), Failure> {
    if file.cases.iter().any(|case| case.name == wanted) {
        file.cases.retain(|case| case.name == wanted);
        return Ok(());
    }
    let names: Vec<String> = file.cases.iter().map(|case| format!("`{}`", case.name)).collect();
    let text = format!("{place} has no case `{wanted}`");
    Err(Failure::new("PV-PLUGIN-CASES", text, format!("there are {}", names.join(", "))))
}

fn show(reports: &[Report<'_>], as_json: bool) -> anyhow::Result<()> {
    let failed = reports.iter().filter(|report| !report.problems.is_empty()).count();
    if as_json {
        let cases: Vec<Value> = reports
            .iter()
            .map(|report| {
                json!({
                    "name": report.case.name, "tool": report.case.tool, "ok": report.problems.is_empty(),
                    "ms": report.ms, "problems": report.problems, "log": report.log,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "failed": failed, "cases": cases }))?);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|report| {
            let result = if report.problems.is_empty() { "ok" } else { "FAILED" };
            vec![report.case.name.clone(), report.case.tool.clone(), result.to_owned(), report.ms.to_string()]
        })
        .collect();
    table::print(&["CASE", "TOOL", "RESULT", "MS"], &rows);
    for report in reports.iter().filter(|report| !report.problems.is_empty()) {
        println!("\n{}:", report.case.name);
        // The guest's own words are among them, and it may be anybody's.
        report.problems.iter().flat_map(|problem| problem.lines()).for_each(|line| println!("  {}", visible(line)));
        report.log.iter().for_each(|line| println!("  log: {}", visible(line)));
    }
    println!("\n{} cases, {failed} failed", reports.len());
    Ok(())
}
