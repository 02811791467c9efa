//! Row `tokens`: tokens a second that the engine reads and writes on the processor, beside llama.cpp: the same file, as many
//! threads, greedily, in turn.
//!
//! The engine runs in this process, as a node has it; llama.cpp in a Python interpreter that has it (llama-cpp-python), by the
//! program that `scripts/compare_llama.sh` uses too. That program writes the model, of random weights, the same each time.
//!
//! Left out: what a node adds to an answer; without such an interpreter there is no model either, and no row.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use provost_gpu_serve::answer_speeds;
use serde::Deserialize;

use super::{
    judge::{self, Bar},
    peers::{LLAMA, PeerArg},
    program::{command, is_program},
    report::{Figure, Row},
    stage::{Effort, Stage},
};
use crate::compute_threads;

/// The row.
pub const ROW: &str = "tokens";
/// Makes the model, and measures llama.cpp.
const PROGRAM: &str = include_str!("../../../../scripts/compare_llama.py");
/// The kind of weights, as that program names it: four bits and six, as in most files that people use on a processor.
const KIND: &str = "q4_k";
/// Of llama.cpp's tokens a second.
const LEAST_DECODE: f64 = 0.9;
const LEAST_PREFILL: f64 = 0.5;
/// More rounds than this are not made: an answer takes seconds, and the machine is nobody else's.
const MOST_ROUNDS: u32 = 3;
/// Writing the model, and what one round takes at most on two slow cores.
const WRITES: Duration = Duration::from_secs(8);
const ROUND: Duration = Duration::from_secs(10);
const QUICK_ROUND: Duration = Duration::from_secs(4);
/// One run of the interpreter.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// What is shown of what the interpreter said last.
const MAX_SAID_CHARS: usize = 200;
/// Fails where something is missing, and says the version.
const ASK: &str = "import gguf, numpy, llama_cpp; print(llama_cpp.__version__)";

/// Tokens of a prompt and of its answer.
#[derive(Clone, Copy)]
struct Sizes {
    prompt: usize,
    answer: u32,
}

impl Sizes {
    fn of(effort: &Effort) -> Self {
        match effort.quick {
            true => Self { prompt: 64, answer: 16 },
            false => Self { prompt: 256, answer: 64 },
        }
    }
}

/// How long the row takes where llama.cpp is there.
pub fn lasts(effort: &Effort) -> Duration {
    let round = if effort.quick { QUICK_ROUND } else { ROUND };
    WRITES + round * effort.rounds.min(MOST_ROUNDS)
}

/// The interpreter that was named, else the one that `scripts/compare_llama.sh` has made.
pub fn offered(named: &[PeerArg]) -> Option<PathBuf> {
    match named.iter().find(|peer| peer.name == LLAMA) {
        Some(peer) => Some(PathBuf::from(&peer.place)),
        None => made(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from), std::env::home_dir()),
    }
}

/// Where that script keeps it, once it is whole.
fn made(cache: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let cache = cache.filter(|cache| !cache.as_os_str().is_empty()).or_else(|| Some(home?.join(".cache")))?;
    let folder = cache.join("provost/compare-llama/venv");
    let python = folder.join("bin/python");
    (folder.join("installed").exists() && is_program(&python)).then_some(python)
}

/// An interpreter that has llama.cpp.
#[derive(Clone, Debug)]
pub struct Llama {
    python: PathBuf,
    /// Of llama-cpp-python.
    pub version: String,
}

impl Llama {
    /// Asks it whether it has what is needed.
    ///
    /// # Errors
    /// With what it said, where it has not.
    pub async fn ask(python: PathBuf) -> anyhow::Result<Self> {
        let version = run(&python, &["-c", ASK]).await?.trim().to_owned();
        Ok(Self { python, version })
    }

    async fn rates(&self, program: &str, model: &str, sizes: Sizes) -> anyhow::Result<Rates> {
        let [threads, prompt, answer] =
            [compute_threads::now().to_string(), sizes.prompt.to_string(), sizes.answer.to_string()];
        let said = run(&self.python, &[program, "llama", model, &threads, &prompt, &answer]).await?;
        Told::of(&said).context("llama.cpp does not say what it took")?.rates()
    }
}

/// What an answer took, as the program prints it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Told {
    prompt: u64,
    prefill_s: f64,
    decoded: u64,
    decode_s: f64,
}

impl Told {
    /// Of what was printed: other lines may stand before it.
    fn of(said: &str) -> Option<Self> {
        said.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    fn rates(self) -> anyhow::Result<Rates> {
        let is_whole = self.prompt > 0 && self.decoded > 0 && self.prefill_s > 0.0 && self.decode_s > 0.0;
        anyhow::ensure!(is_whole, "an answer without tokens or without time: {self:?}");
        Ok(Rates { prefill: self.prompt as f64 / self.prefill_s, decode: self.decoded as f64 / self.decode_s })
    }
}

/// Tokens a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    /// Of the prompt.
    prefill: f64,
    /// Of the answer after its first token.
    decode: f64,
}

/// What was measured in one round.
struct Round {
    own: Rates,
    /// None once it has failed.
    llama: Option<Rates>,
}

/// Row `tokens`.
pub async fn tokens(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let Some(llama) = &stage.peers.llama else {
        return Ok(vec![Row::skipped(ROW, "", &stage.peers.without_llama)]);
    };
    stage.say("tokens: writing a model");
    let folder = stage.scratch.folder(ROW)?;
    let program = in_folder(&folder, "compare_llama.py")?;
    let model = in_folder(&folder, "model.gguf")?;
    std::fs::write(&program, PROGRAM).with_context(|| format!("PV-BENCH-FILE: {program} cannot be written"))?;
    let writing = run(&llama.python, &[&program, "make", KIND, &model]).await;
    writing.context("PV-BENCH-FILE: the model cannot be written")?;
    let sizes = Sizes::of(&stage.effort);
    let (mut rounds, mut lost) = (Vec::new(), None);
    let count = stage.effort.rounds.min(MOST_ROUNDS);
    for round in 1..=count {
        stage.say(&format!("tokens, round {round} of {count}"));
        let own = own_rates(&model, sizes).await?;
        let llama = match lost {
            Some(_) => None,
            None => llama.rates(&program, &model, sizes).await.map_err(|cause| lost = Some(format!("{cause:#}"))).ok(),
        };
        rounds.push(Round { own, llama });
    }
    let mut notes = vec![note(sizes, &llama.version)];
    notes.extend(lost.map(|cause| format!("{LLAMA} failed and is left out: {cause}")));
    Ok(vec![Row::measured(ROW, "", figures(&rounds), notes)])
}

/// A path as an argument; the folder is this run's own, below one that the user named.
fn in_folder(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name).into_os_string().into_string();
    path.map_err(|path| anyhow::anyhow!("PV-BENCH-FILE: {} is no UTF-8; name another --dir", path.display()))
}

/// The engine's own, of a model that is read anew, as llama.cpp's is.
async fn own_rates(model: &str, sizes: Sizes) -> anyhow::Result<Rates> {
    let model = PathBuf::from(model);
    let answered = tokio::task::spawn_blocking(move || answer_speeds(&model, sizes.prompt, sizes.answer, 1)).await;
    let told = answered.context("PV-BENCH: the engine ended early")??;
    let one = told.first().context("PV-BENCH: the engine told nothing")?;
    let (prefill_s, decode_s) = (one.prefill.as_secs_f64(), one.decode.as_secs_f64());
    Told { prompt: one.prompt, prefill_s, decoded: one.decoded, decode_s }.rates().context("PV-BENCH: the engine")
}

/// Runs the interpreter to its end, which has to be a good one; gives what it printed. It is ended with us.
async fn run(python: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = command(python);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(RUN_LIMIT, command.output()).await;
    let output = output.with_context(|| format!("{} does not end", python.display()))?;
    let output = output.with_context(|| format!("{} cannot be started", python.display()))?;
    let last = last_words(&output.stderr);
    anyhow::ensure!(output.status.success(), "{} ended with {}: {last}", python.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last line that says something, in bounds: of Python's errors it is the cause.
fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    last.trim().chars().take(MAX_SAID_CHARS).collect()
}

fn note(sizes: Sizes, version: &str) -> String {
    format!(
        "a qwen3 of 222 million random weights in four and six bits; prompts of {} tokens, answers of {}, {} threads; the first \
         answer of each run is not counted; llama-cpp-python {version}, which keeps keys and values in 16 bits, Provost in 32",
        sizes.prompt,
        sizes.answer,
        compute_threads::now()
    )
}

/// One of the two speeds.
type Speed = fn(&Rates) -> f64;

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let parts: [(&str, &str, Speed, f64); 2] = [
        ("decode", "answer", |rates| rates.decode, LEAST_DECODE),
        ("prefill", "prompt", |rates| rates.prefill, LEAST_PREFILL),
    ];
    let mut figures = Vec::new();
    for (id, label, rate, least) in parts {
        let own: Vec<f64> = rounds.iter().map(|round| rate(&round.own)).collect();
        let both = rounds.iter().filter_map(|round| Some((rate(&round.own), rate(round.llama.as_ref()?))));
        let (ratio, llama): (Vec<f64>, Vec<f64>) = both.map(|(own, llama)| (own / llama, llama)).unzip();
        let doubt = judge::doubt(&llama);
        figures.push(
            Figure::new(&format!("{id}-ratio"), format!("{label}, Provost / llama.cpp"), "x", ratio)
                .against(Bar::at_least(least), doubt.as_deref()),
        );
        figures.push(Figure::new(id, format!("{label}, Provost"), "tokens/s", own));
        figures.push(Figure::new(&format!("{id}-llama"), format!("{label}, llama.cpp"), "tokens/s", llama));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::judge::Verdict;

    fn rates(prefill: f64, decode: f64) -> Rates {
        Rates { prefill, decode }
    }

    fn found<'a>(figures: &'a [Figure], id: &str) -> &'a Figure {
        figures.iter().find(|figure| figure.id == id).unwrap()
    }

    #[test]
    fn an_answer_and_its_prompt_are_held_against_bars_of_their_own_within_each_round() {
        let steady = [
            Round { own: rates(100.0, 45.0), llama: Some(rates(190.0, 50.0)) },
            Round { own: rates(102.0, 44.0), llama: Some(rates(194.0, 51.0)) },
        ];
        let figures_of = |rounds: &[Round]| {
            let figures = figures(rounds);
            ["decode-ratio", "prefill-ratio"].map(|id| found(&figures, id).clone())
        };
        let [decode, prefill] = figures_of(&steady);
        assert_eq!((decode.verdict, prefill.verdict), (Verdict::Missed, Verdict::Held));
        assert_eq!(decode.repetitions, [45.0 / 50.0, 44.0 / 51.0]);
        // A machine that is twice as fast in the second round: the ratios are the same, and bear no verdict.
        let moved = [
            Round { own: rates(100.0, 45.0), llama: Some(rates(190.0, 50.0)) },
            Round { own: rates(200.0, 90.0), llama: Some(rates(380.0, 100.0)) },
        ];
        let [decode, prefill] = figures_of(&moved);
        assert_eq!((decode.verdict, prefill.verdict), (Verdict::Refused, Verdict::Refused));
        assert_eq!(decode.median, Some(0.9));
    }

    #[test]
    fn where_llama_fails_its_rounds_are_left_out_and_ours_stay() {
        let rounds = [
            Round { own: rates(100.0, 45.0), llama: Some(rates(200.0, 50.0)) },
            Round { own: rates(110.0, 46.0), llama: None },
        ];
        let figures = figures(&rounds);
        assert_eq!(found(&figures, "decode").repetitions, [45.0, 46.0]);
        assert_eq!(found(&figures, "decode-llama").repetitions, [50.0]);
        assert_eq!(found(&figures, "decode-ratio").verdict, Verdict::Refused);
    }

    #[test]
    fn what_was_measured_is_read_from_the_last_line_that_says_it() {
        let said = "a warning\n{\"prompt\": 256, \"prefill_s\": 0.5, \"decoded\": 63, \"decode_s\": 2.0}\n";
        let told = Told::of(said).unwrap();
        assert_eq!(told.rates().unwrap(), rates(512.0, 31.5));
        assert_eq!(Told::of("Illegal instruction\n"), None);
        // A model that ends at once has no rate.
        let error = Told { decoded: 0, ..told }.rates().unwrap_err().to_string();
        assert!(error.starts_with("an answer without tokens"), "{error}");
    }

    #[test]
    fn the_interpreter_of_the_script_counts_once_it_is_whole_and_a_named_one_before_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let venv = dir.path().join(".cache/provost/compare-llama/venv");
        let python = venv.join("bin/python");
        std::fs::create_dir_all(venv.join("bin")).unwrap();
        std::fs::write(&python, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o700)).unwrap();
        let home = Some(dir.path().to_owned());
        assert_eq!(made(None, home.clone()), None, "it is being installed");
        std::fs::write(venv.join("installed"), "").unwrap();
        assert_eq!(made(None, home.clone()), Some(python.clone()));
        assert_eq!(made(Some(dir.path().join(".cache")), None), Some(python));
        assert_eq!(made(Some(dir.path().to_owned()), home), None);
        assert_eq!(offered(&["llama=/opt/python".parse().unwrap()]), Some(PathBuf::from("/opt/python")));
    }

    #[test]
    fn the_row_keeps_within_its_time() {
        assert!(lasts(&Effort::FULL) <= Duration::from_secs(40), "{:?}", lasts(&Effort::FULL));
        assert!(lasts(&Effort::QUICK) < lasts(&Effort::FULL));
    }

    #[tokio::test]
    async fn an_interpreter_without_llama_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("python");
        std::fs::write(
            &python,
            "echo Traceback >&2\necho \"ModuleNotFoundError: No module named 'llama_cpp'\" >&2\nexit 1\n",
        )
        .unwrap();
        // Through a shell: a file that was written just now may not be run while another test starts a program.
        let error = run(Path::new("sh"), &[python.to_str().unwrap()]).await.unwrap_err().to_string();
        assert!(error.ends_with("No module named 'llama_cpp'") && error.starts_with("sh ended with"), "{error}");
        let gone = Llama::ask(dir.path().join("gone")).await.unwrap_err().to_string();
        assert!(gone.ends_with("cannot be started"), "{gone}");
    }

    #[test]
    fn the_program_has_the_parts_that_are_used() {
        for part in ["add_parser(\"make\")", "add_parser(\"llama\")", "\"q4_k\""] {
            assert!(PROGRAM.contains(part), "{part}");
        }
    }
}
