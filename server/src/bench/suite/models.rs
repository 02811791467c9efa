//! Three models where two fit, under mixed traffic: how long callers wait, and how often models come and go.
//!
//! The node is one of this program, with models of random weights on the processor and little memory for them. Clients ask
//! its OpenAI-compatible API as others do: every call is authorised, limited, guarded and recorded.

use std::{path::Path, time::Duration};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::{
    cluster::{Cluster, value_of},
    documents,
    judge::Bar,
    model_files::{begin, next, write_chat, write_embedding},
    node_files::ModelsOf,
    program::{LOOK_EVERY, START_LIMIT},
    report::{Figure, Row},
    scale::quantile,
    stage::{Effort, Stage},
};

/// The row.
pub const ROW: &str = "models";
/// What the node may use for models, what requests compute with and their caches.
const MEMORY_MIB: u64 = 28;
/// Callers; each asks one model after the other.
const CLIENTS: u64 = 4;
/// The longest pause of a caller between two requests is a millisecond less.
const PAUSE_MS: u64 = 40;
/// Tokens of an answer.
const ANSWER_TOKENS: u32 = 8;
/// A node refuses who waits for more than a minute.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// Traffic in a full run: so many fifths of what a side of a comparison is measured for there, which makes a minute.
const FIFTHS: u32 = 12;
const MILLIS_A_SECOND: f64 = 1e3;
const BYTES_A_MIB: f64 = 1_048_576.0;

/// A model of the row.
struct Model {
    name: &'static str,
    kind: Kind,
    layers: usize,
    /// Requests of a hundred that are for it.
    share: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    Embedding,
}

/// Each two of them fit into [`MEMORY_MIB`], all three do not.
static MODELS: [Model; 3] = [
    Model { name: "first", kind: Kind::Chat, layers: 2, share: 45 },
    Model { name: "second", kind: Kind::Chat, layers: 2, share: 30 },
    Model { name: "vectors", kind: Kind::Embedding, layers: 4, share: 25 },
];

/// How long the traffic lasts.
pub fn lasts(effort: &Effort) -> Duration {
    effort.measured * effort.rounds * FIFTHS / 5
}

/// Row `models`.
pub async fn models(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    stage.say("models: writing three");
    let folder = stage.scratch.folder("model-files")?;
    let files = folder.clone();
    let written = tokio::task::spawn_blocking(move || write_all(&files)).await;
    let sizes = written.context("PV-BENCH: the models were not written")??;
    stage.say("models: starting a node");
    let with = ModelsOf { folder, memory_mib: MEMORY_MIB };
    let node = Box::pin(Cluster::start_with(&stage.scratch, ROW, 1, &stage.upstream, Some(&with))).await?;
    let outcome = Box::pin(under_traffic(stage, &node, &sizes)).await;
    node.stop().await;
    Ok(vec![outcome?])
}

/// Writes the models; gives the bytes of each.
fn write_all(folder: &Path) -> anyhow::Result<Vec<u64>> {
    let write = |(model, seed): (&Model, u64)| {
        let folder = folder.join(model.name);
        match model.kind {
            Kind::Chat => write_chat(&folder, model.layers, seed),
            Kind::Embedding => write_embedding(&folder, model.layers, seed),
        }
    };
    let written: std::io::Result<Vec<u64>> = MODELS.iter().zip(1..).map(write).collect();
    written.with_context(|| format!("PV-BENCH-FILE: {} cannot be written", folder.display()))
}

async fn under_traffic(stage: &Stage, node: &Cluster, sizes: &[u64]) -> anyhow::Result<Row> {
    let revision = node.apply(&documents::for_models()).await?;
    node.until_active(revision).await?;
    let asker = Asker::new(node)?;
    for model in &MODELS {
        until_answered(&asker, model).await?;
    }
    let time = lasts(&stage.effort);
    stage.say(&format!("models: {} s of traffic", time.as_secs()));
    let before = counted(node).await?;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(ask_until(asker.clone(), client, began + time));
    }
    let mut seen = Seen::default();
    while let Some(done) = clients.join_next().await {
        seen.add(done.context("PV-BENCH: a client ended early")?);
    }
    let lasted = began.elapsed();
    let counted = counted(node).await?.since(&before);
    let last = seen.last.take();
    anyhow::ensure!(
        !seen.took_ms.is_empty(),
        "PV-BENCH-ERRORS: no model answered; last: {}",
        last.unwrap_or_else(|| "nothing was asked".to_owned())
    );
    let mut notes = vec![note(sizes, lasted)];
    notes.extend(last.map(|last| format!("the last failure: {last}")));
    Ok(Row::measured(ROW, "", figures(seen, &counted), notes))
}

fn note(sizes: &[u64], lasted: Duration) -> String {
    let mib: Vec<String> = sizes.iter().map(|bytes| format!("{:.1}", *bytes as f64 / BYTES_A_MIB)).collect();
    format!(
        "models of {} MiB in {MEMORY_MIB} MiB on the processor; {CLIENTS} callers for {:.0} s; waits are the node's own, read \
         between the bounds of its histogram; all is of one run",
        mib.join(", "),
        lasted.as_secs_f64()
    )
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    /// Of each answer, from the request to its end.
    took_ms: Vec<f64>,
    failed: u32,
    /// What was said of the last one that failed.
    last: Option<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.took_ms.extend(other.took_ms);
        self.failed += other.failed;
        self.last = other.last.or_else(|| self.last.take());
    }
}

/// What the node counted.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    loads: f64,
    evictions: f64,
    reloads: f64,
    /// How many requests began after at most so many seconds, by rising bounds; the last bound is infinite.
    waits: Vec<(f64, f64)>,
}

impl Counted {
    /// Of a page of metrics.
    fn of(page: &str) -> Option<Self> {
        let wait = |line: &str| {
            let (bound, count) = line.strip_prefix("provost_model_wait_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((bound.parse().ok()?, count.trim().parse().ok()?))
        };
        Some(Self {
            loads: value_of(page, "provost_model_loads_total")?,
            evictions: value_of(page, "provost_model_evictions_total")?,
            reloads: value_of(page, "provost_model_reloads_total")?,
            waits: page.lines().filter_map(wait).collect(),
        })
    }

    fn since(&self, before: &Self) -> Self {
        let waits = self.waits.iter().zip(&before.waits);
        Self {
            loads: self.loads - before.loads,
            evictions: self.evictions - before.evictions,
            reloads: self.reloads - before.reloads,
            waits: waits.map(|((bound, count), (_, before))| (*bound, count - before)).collect(),
        }
    }

    /// The wait that so large a share of the requests did not exceed, seconds, as if they were spread evenly between two bounds.
    /// Beyond the last finite bound it is that bound.
    fn wait(&self, share: f64) -> Option<f64> {
        let (_, all) = *self.waits.last()?;
        if all <= 0.0 {
            return None;
        }
        let rank = all * share;
        let (mut from, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.waits {
            if count >= rank && bound.is_finite() {
                return Some(from + (bound - from) * (rank - below) / (count - below).max(f64::MIN_POSITIVE));
            }
            if bound.is_finite() {
                (from, below) = (bound, count);
            }
        }
        Some(from)
    }
}

async fn counted(node: &Cluster) -> anyhow::Result<Counted> {
    let page = node.page(0).await.context("PV-BENCH: the node tells no metrics")?;
    Counted::of(&page).context("PV-BENCH: the node counts no models")
}

fn figures(seen: Seen, counted: &Counted) -> Vec<Figure> {
    let Seen { mut took_ms, failed, .. } = seen;
    let one = |id: &str, label: &str, unit: &str, value: Option<f64>| {
        Figure::new(id, label, unit, value.into_iter().collect::<Vec<_>>())
    };
    let wait = |share: f64| counted.wait(share).map(|seconds| seconds * MILLIS_A_SECOND);
    vec![
        one("answers", "answers", "answers", Some(took_ms.len() as f64)),
        one("failures", "requests without an answer", "requests", Some(f64::from(failed)))
            .against(Bar::at_most(0.0), None),
        one("loads", "models loaded", "loads", Some(counted.loads)),
        one("evictions", "models given up for others", "evictions", Some(counted.evictions)),
        one("reloads", "models loaded again", "reloads", Some(counted.reloads)),
        one("wait-p50", "from a request's arrival until it begins, p50", "ms", wait(0.5)),
        one("wait-p95", "from a request's arrival until it begins, p95", "ms", wait(0.95)),
        one("answer-p50", "a whole answer, p50", "ms", quantile(&mut took_ms, 0.5)),
        one("answer-p95", "a whole answer, p95", "ms", quantile(&mut took_ms, 0.95)),
    ]
}

/// A caller of the node's models.
#[derive(Clone)]
struct Asker {
    client: reqwest::Client,
    base: String,
    token: SecretString,
}

impl Asker {
    fn new(node: &Cluster) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build();
        let client = client.context("PV-BENCH: no HTTP client can be made")?;
        let (base, token) = node.openai(0)?;
        Ok(Self { client, base, token: token.clone() })
    }

    /// Asks a model once; what is no answer is an error.
    async fn ask(&self, model: &Model, number: u64) -> anyhow::Result<()> {
        let (path, body) = asked(model, number);
        let request = self.client.post(format!("{}/{path}", self.base)).bearer_auth(self.token.expose_secret());
        let response = request.json(&body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status.is_success(), "{} answered {status}: {text}", model.name);
        let answer: Value = serde_json::from_str(&text).context("the answer is no JSON")?;
        anyhow::ensure!(is_answer(model.kind, &answer), "{} answered {text}", model.name);
        Ok(())
    }
}

fn asked(model: &Model, number: u64) -> (&'static str, Value) {
    let text = format!("What is number {}?", number % 1_000);
    match model.kind {
        Kind::Chat => {
            let messages = json!([{ "role": "user", "content": text }]);
            let body =
                json!({ "model": model.name, "max_tokens": ANSWER_TOKENS, "temperature": 0, "messages": messages });
            ("chat/completions", body)
        }
        Kind::Embedding => ("embeddings", json!({ "model": model.name, "input": text })),
    }
}

fn is_answer(kind: Kind, answer: &Value) -> bool {
    match kind {
        Kind::Chat => answer["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 0),
        Kind::Embedding => answer["data"][0]["embedding"].as_array().is_some_and(|vector| !vector.is_empty()),
    }
}

/// Waits until a model answers: the node's data plane hears of its models and of who may use them a moment after its start.
async fn until_answered(asker: &Asker, model: &Model) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let Err(cause) = asker.ask(model, 0).await else { return Ok(()) };
        if began.elapsed() > START_LIMIT {
            return Err(cause.context(format!("PV-BENCH-START: {} has not answered after {START_LIMIT:?}", model.name)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One caller: asks a model by its share, pauses, and so on.
async fn ask_until(asker: Asker, client: u64, end: Instant) -> Seen {
    let (mut seen, mut state) = (Seen::default(), begin(client));
    while Instant::now() < end {
        let model = picked(next(&mut state));
        let began = Instant::now();
        match asker.ask(model, next(&mut state)).await {
            Ok(()) => seen.took_ms.push(began.elapsed().as_secs_f64() * MILLIS_A_SECOND),
            Err(cause) => {
                seen.failed += 1;
                seen.last = Some(format!("{cause:#}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(next(&mut state) % PAUSE_MS)).await;
    }
    seen
}

/// The model that a random number is for.
fn picked(number: u64) -> &'static Model {
    let mut rest = (number >> 32) % 100;
    for model in &MODELS {
        match rest.checked_sub(model.share) {
            Some(less) => rest = less,
            None => return model,
        }
    }
    &MODELS[0]
}

#[cfg(test)]
mod tests {
    use provost_gpu_serve::{DeviceChoice, GpuConfig, GpuNode};
    use provost_types::Inference;

    use super::*;
    use crate::bench::suite::judge::Verdict;

    #[test]
    fn a_node_takes_the_models_and_two_of_them_fit_and_three_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = write_all(dir.path()).unwrap();
        let capacity_bytes = MEMORY_MIB << 20;
        let config = GpuConfig {
            models_dir: Some(dir.path().to_owned()),
            device: DeviceChoice::Cpu,
            capacity_bytes,
            ..GpuConfig::default()
        };
        let node = GpuNode::start(config).unwrap();
        let mut names: Vec<String> = node.models().into_iter().map(|model| model.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["first", "second", "vectors"]);
        let all: u64 = sizes.iter().sum();
        assert!(all > capacity_bytes, "{sizes:?}");
        // A fifth is left for what requests need.
        assert!(sizes.iter().all(|one| all - one <= capacity_bytes / 5 * 4), "{sizes:?}");
    }

    #[test]
    fn every_model_has_its_share_of_the_requests() {
        assert_eq!(MODELS.iter().map(|model| model.share).sum::<u64>(), 100);
        let mut state = begin(1);
        let mut counts = [0_u64; MODELS.len()];
        for _ in 0..10_000 {
            let found = picked(next(&mut state));
            let at = MODELS.iter().position(|model| model.name == found.name).unwrap();
            counts[at] += 1;
        }
        for (model, count) in MODELS.iter().zip(counts) {
            assert!(count.abs_diff(model.share * 100) < 300, "{}: {count}", model.name);
        }
    }

    #[test]
    fn traffic_lasts_a_minute_and_less_where_the_budget_is_small() {
        assert_eq!(lasts(&Effort::FULL), Duration::from_secs(60));
        assert!(lasts(&Effort::QUICK) < Duration::from_secs(10));
    }

    fn page(loads: u32, evictions: u32, reloads: u32, waits: [u32; 3]) -> String {
        let [first, second, all] = waits;
        format!(
            "# TYPE provost_model_loads_total counter\nprovost_model_loads_total {loads}\nprovost_model_evictions_total \
             {evictions}\nprovost_model_reloads_total {reloads}\nprovost_model_wait_seconds_bucket{{le=\"0.1\"}} {first}\n\
             provost_model_wait_seconds_bucket{{le=\"0.5\"}} {second}\nprovost_model_wait_seconds_bucket{{le=\"+Inf\"}} {all}\n\
             provost_model_wait_seconds_count {all}\n"
        )
    }

    #[test]
    fn what_was_counted_before_does_not_count_and_waits_are_read_between_bounds() {
        let before = Counted::of(&page(3, 1, 0, [1, 2, 3])).unwrap();
        let counted = Counted::of(&page(9, 7, 6, [51, 102, 103])).unwrap().since(&before);
        assert_eq!((counted.loads, counted.evictions, counted.reloads), (6.0, 6.0, 6.0));
        assert_eq!(counted.waits, [(0.1, 50.0), (0.5, 100.0), (f64::INFINITY, 100.0)]);
        for (share, expect) in [(0.25, 0.05), (0.5, 0.1), (0.75, 0.3), (1.0, 0.5)] {
            let found = counted.wait(share).unwrap();
            assert!((found - expect).abs() < 1e-9, "{share}: {found}");
        }
        let beyond = Counted { waits: vec![(0.1, 1.0), (f64::INFINITY, 4.0)], ..Counted::default() };
        assert_eq!(beyond.wait(0.95), Some(0.1));
        assert_eq!(Counted::default().wait(0.5), None);
        assert_eq!(Counted::of("nothing"), None);
    }

    #[test]
    fn the_row_has_every_figure_and_a_request_without_an_answer_misses_its_bar() {
        let counted = Counted { evictions: 4.0, reloads: 3.0, waits: vec![(0.1, 50.0)], ..Counted::default() };
        let of = |failed: u32| {
            let took_ms = (1..=100).rev().map(f64::from).collect();
            figures(Seen { took_ms, failed, last: None }, &counted)
        };
        let found = of(0);
        let median = |id: &str| found.iter().find(|figure| figure.id == id).unwrap().median;
        let table = [
            ("answers", 100.0),
            ("failures", 0.0),
            ("loads", 0.0),
            ("evictions", 4.0),
            ("reloads", 3.0),
            ("wait-p50", 50.0),
            ("wait-p95", 95.0),
            ("answer-p50", 50.0),
            ("answer-p95", 95.0),
        ];
        assert_eq!(found.len(), table.len());
        for (id, expect) in table {
            assert!(median(id).is_some_and(|found| (found - expect).abs() < 1e-9), "{id}: {:?}", median(id));
        }
        let verdict = |failed: u32| of(failed).into_iter().find(|figure| figure.id == "failures").unwrap().verdict;
        assert_eq!((verdict(0), verdict(1)), (Verdict::Held, Verdict::Missed));
    }

    #[test]
    fn an_answer_without_content_is_none() {
        let table = [
            (Kind::Chat, json!({ "usage": { "completion_tokens": 1 } }), true),
            (Kind::Chat, json!({ "usage": { "completion_tokens": 0 } }), false),
            (Kind::Chat, json!({ "data": [{ "embedding": [1.0] }] }), false),
            (Kind::Embedding, json!({ "data": [{ "embedding": [1.0] }] }), true),
            (Kind::Embedding, json!({ "data": [] }), false),
        ];
        for (kind, answer, expect) in table {
            assert_eq!(is_answer(kind, &answer), expect, "{kind:?}: {answer}");
        }
    }
}
