//! The audit log by itself: records appended and made durable, and the log verified that comes of it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use provost_audit_store::{AuditLog, AuditLogConfig, open};
use provost_audit_verify::{Exit, VerifyOptions, verify};
use provost_types::{AuditSink, Phase};
use tokio::{task::JoinSet, time::Instant};

use super::{
    judge::Bar,
    program::{command, is_program, on_path},
    report::{Figure, Row},
    sample,
    stage::Stage,
};

const LEAST_APPENDS: f64 = 20_000.0;
const LEAST_VERIFIED: f64 = 1_500_000.0;
/// Fewer records than this are verified in less time than it takes to begin.
const LEAST_RECORDS: u64 = 200_000;
/// Callers that each wait for their record.
const CALLERS: usize = 1_024;
/// The program that loads three voters; it is built from `bench`, and no part of the packages.
const AUDIT_LOAD: &str = "audit_load";
/// Its own start and the time to form the group.
const LOAD_LIMIT: Duration = Duration::from_secs(120);

/// Rows `audit-append` and `audit-verify`.
pub async fn append_and_verify(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let folder = stage.scratch.folder("audit")?;
    let log = open(AuditLogConfig::new(&folder, "node-1")).await.context("PV-BENCH: no audit log can be made")?;
    let log = Arc::new(log);
    let next = Arc::new(AtomicU64::new(1));
    let mut rates = Vec::new();
    for round in 1..=stage.effort.rounds {
        stage.say(&format!("audit-append, round {round} of {}", stage.effort.rounds));
        rates.push(append(&log, &next, stage.effort.measured).await?);
    }
    log.close().await.context("PV-BENCH: the audit log does not end well")?;
    let one = Figure::new("one", "one replica on this disk", "records/s", rates);
    let (figures, notes) = match three_voters(stage).await {
        Ok(Some(three)) => (vec![three, one], Vec::new()),
        Ok(None) => {
            let why = format!("three voters: {AUDIT_LOAD} is neither beside this program nor on PATH");
            (vec![one], vec![why])
        }
        Err(cause) => (vec![one], vec![format!("three voters: {cause:#}")]),
    };
    let verified = verify_often(stage, folder.join("audit")).await?;
    Ok(vec![Row::measured("audit-append", "", figures, notes), verified])
}

/// Durable records a second.
async fn append(log: &Arc<AuditLog>, next: &Arc<AtomicU64>, time: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (log, next) = (log.clone(), next.clone());
        callers.spawn(async move {
            let mut written = 0_u64;
            while began.elapsed() < time {
                let call = next.fetch_add(1, Ordering::Relaxed);
                for phase in [Phase::Intent, Phase::Outcome] {
                    let done = log.record(sample::event(call, phase)?).await;
                    done.map_err(|cause| anyhow::anyhow!("PV-BENCH: a record was refused: {}", cause.0))?;
                    written += 1;
                }
            }
            anyhow::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(done) = callers.join_next().await {
        written += done.context("PV-BENCH: a caller ended early")??;
    }
    Ok(written as f64 / began.elapsed().as_secs_f64())
}

async fn verify_often(stage: &Stage, dir: PathBuf) -> anyhow::Result<Row> {
    let mut rates = Vec::new();
    let mut records = 0;
    for round in 1..=stage.effort.rounds {
        stage.say(&format!("audit-verify, round {round} of {}", stage.effort.rounds));
        let dir = dir.clone();
        let began = Instant::now();
        let report = tokio::task::spawn_blocking(move || verify(&dir, &VerifyOptions::default())).await;
        let report = report.context("PV-BENCH: verifying ended early")?.context("PV-BENCH: the log cannot be read")?;
        let took = began.elapsed().as_secs_f64();
        anyhow::ensure!(
            matches!(report.exit, Exit::Proven | Exit::Unanchored),
            "PV-BENCH: the log that was just written does not verify: {}",
            report.verdict
        );
        records = report.logs.iter().map(|log| log.records).sum::<u64>();
        rates.push(records as f64 / took);
    }
    let doubt = (records < LEAST_RECORDS).then_some("too few records were appended to say how fast many are verified");
    let figure =
        Figure::new("rate", "records verified", "records/s", rates).against(Bar::at_least(LEAST_VERIFIED), doubt);
    Ok(Row::measured("audit-verify", "", vec![figure], vec![format!("a log of {records} records")]))
}

/// What [`AUDIT_LOAD`] measures, where it is there: three voters over mutual TLS on one disk.
async fn three_voters(stage: &Stage) -> anyhow::Result<Option<Figure>> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(AUDIT_LOAD)));
    let Some(program) = beside.filter(|file| is_program(file)).or_else(|| on_path(AUDIT_LOAD)) else {
        return Ok(None);
    };
    let mut rates = Vec::new();
    for round in 1..=stage.effort.rounds.min(3) {
        stage.say(&format!("audit-append, three voters, round {round}"));
        rates.push(load_three(&program, &stage.scratch.folder("voters")?, stage.effort.measured).await?);
    }
    let figure = Figure::new("three", "three voters, one disk", "records/s", rates);
    Ok(Some(figure.against(Bar::at_least(LEAST_APPENDS), None)))
}

async fn load_three(program: &Path, dir: &Path, time: Duration) -> anyhow::Result<f64> {
    let mut command = command(program);
    command.arg("--dir").arg(dir).args(["--seconds", &time.as_secs().max(1).to_string()]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LOAD_LIMIT, command.output()).await;
    let output = output.context("it did not end in time")?.context("it cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "it ended with {}", output.status);
    sustained(&said).context("it printed no sustained rate")
}

/// The records a second of the line that begins with `sustained`.
fn sustained(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.starts_with("sustained"))?;
    let (before, _) = line.split_once(" records/s")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_is_printed() {
        let said = "open loop at 1000/s: 2000 records in 2.0 s, 1000 records/s; p50 1.2 ms\n\
                    sustained, 2 writers with 2048 in flight each: 72608 records in 2.0 s, 36304 records/s; p50 1 ms\n";
        assert_eq!(sustained(said), Some(36_304.0));
        assert_eq!(sustained("sustained, nothing"), None);
    }
}
