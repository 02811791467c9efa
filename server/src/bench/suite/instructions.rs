//! Row `instructions`: what the hot paths of a governed call cost in instructions, which no other load on the machine changes.
//!
//! The program `instructions` of `bench`, where it lies beside this one, runs each path under callgrind with two numbers of
//! turns; the difference, divided, is one turn. `make instructions` compares the same with a file.
//!
//! Left out: the call as a whole, of which HTTP, system calls and what lies between the paths are part; so nothing here is
//! held against a bar.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::Context;

use super::{
    program::{command, is_program, on_path},
    report::{Figure, Row},
    stage::Stage,
};

/// Built from `bench`, and no part of the packages.
const PROGRAM: &str = "instructions";
const VALGRIND: &str = "valgrind";
/// Turns of the two runs: the first ones fill caches and grow tables, in both.
const TURNS: (u32, u32) = (200, 1_200);
/// A run takes a second or two.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Row `instructions`.
pub async fn instructions(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let not_here = |why: String| Ok(vec![Row::skipped("instructions", "", why)]);
    let Some(valgrind) = on_path(VALGRIND) else {
        return not_here(format!("{VALGRIND} is not on PATH"));
    };
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let Some(program) = beside.filter(|file| is_program(file)) else {
        return not_here(format!("{PROGRAM}, which is built from `bench`, is not beside this program"));
    };
    match Box::pin(count_all(stage, &valgrind, &program)).await {
        Ok(figures) => {
            let note =
                "user space, under callgrind, which has fewer abilities than the processor: hashes may cost more than \
                        outside. The bar of 150k is for a whole call, of which these are parts"
                    .to_owned();
            Ok(vec![Row::measured("instructions", "", figures, vec![note])])
        }
        // Not every machine's programs run under valgrind.
        Err(cause) => not_here(format!("{cause:#}")),
    }
}

async fn count_all(stage: &Stage, valgrind: &Path, program: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = stage.scratch.folder("instructions")?;
    let listed = run(command(program), &format!("{PROGRAM} without arguments")).await?.stdout;
    let mut figures = Vec::new();
    for path in String::from_utf8_lossy(&listed).split_ascii_whitespace() {
        stage.say(&format!("instructions, {path}"));
        let few = count(valgrind, program, path, TURNS.0, &folder).await?;
        let many = count(valgrind, program, path, TURNS.1, &folder).await?;
        let turn = (many - few) / f64::from(TURNS.1 - TURNS.0);
        figures.push(Figure::new(path, format!("{path}, one turn"), "instructions", vec![turn]));
    }
    Ok(figures)
}

/// All instructions of one run.
async fn count(valgrind: &Path, program: &Path, path: &str, turns: u32, folder: &Path) -> anyhow::Result<f64> {
    let mut counted = command(valgrind);
    counted.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", folder.join("out").display()));
    counted.arg(program).arg(path).arg(turns.to_string()).current_dir(folder);
    let what = format!("{VALGRIND}, for {path}");
    let output = run(counted, &what).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).with_context(|| format!("{what}, does not say what it collected"))
}

/// Runs a program to its end, which has to be a good one. It is ended with us.
async fn run(mut command: tokio::process::Command, what: &str) -> anyhow::Result<std::process::Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(RUN_LIMIT, command.output()).await;
    let output = output.with_context(|| format!("{what}, does not end"))?;
    let output = output.with_context(|| format!("{what}, cannot be started"))?;
    anyhow::ensure!(output.status.success(), "{what}, ended with {}", output.status);
    Ok(output)
}

/// The number of callgrind's line `Collected : N`.
fn collected(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let said = "==7== Callgrind, a call-graph generating cache profiler\n==7== \n==7== Events    : Ir\n\
                    ==7== Collected : 8135772\n==7== \n==7== I   refs:      8,135,772\n";
        assert_eq!(collected(said), Some(8_135_772.0));
        for nothing in ["", "==7== Collected : much\n", "==7== Events    : Ir\n"] {
            assert_eq!(collected(nothing), None, "{nothing}");
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_badly_or_is_not_there_is_an_error_that_names_it() {
        let mut fails = tokio::process::Command::new("sh");
        fails.args(["-c", "exit 3"]);
        let gone = tokio::process::Command::new("/nonexistent/program");
        for (command, says) in [(fails, "ended with"), (gone, "cannot be started")] {
            let error = format!("{:#}", run(command, "that").await.unwrap_err());
            assert!(error.starts_with("that, ") && error.contains(says), "{error}");
        }
    }
}
