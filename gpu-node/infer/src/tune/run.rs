//! A fine-tuning from its data to its adapter.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::adamw::AdamW;
use super::checkpoint::{self, Run};
use super::examples::{Example, Examples, Telling};
use super::folder::Folder;
use super::order::{Order, random};
use super::trainee::Trainee;
use super::variables::{Beginning, Variables};
use super::{TuneError, TuneSettings};
use crate::decoder::Decoder;
use crate::error::InferError;
use crate::lora::{CONFIG_FILE, TENSORS_FILE, Target};
use crate::network::Network;
use crate::source::ModelSource;

/// candle walks the graph of a pass by recursion, one frame an operation: a deep model needs more than threads usually have. What
/// is not used is not taken.
const STACK_BYTES: usize = 256 << 20;
/// Streams of random numbers; the order of examples takes those from 1 on.
const FIRST_WEIGHTS: u64 = 0;
const PROBE: u64 = u64::MAX;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneStep {
    /// Its number; the first is 1.
    pub step: u64,
    /// How many there are to be.
    pub steps: u64,
    /// Minus the logarithm of the likelihood of a token of an answer, on average over the step's examples, before the step.
    pub loss: f32,
    /// Tokens that were read.
    pub tokens: u64,
    /// Of them a second.
    pub tokens_per_second: f64,
}

/// How a fine-tuning ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Steps taken in all.
    pub steps: u64,
    /// Those of them that an earlier run of the same folder had taken.
    pub resumed_from: u64,
    /// Examples in the data.
    pub examples: u64,
    /// Values that were trained.
    pub parameters: u64,
    /// The adapter is there. False: it was stopped, and goes on from its checkpoint if it is run again.
    pub is_complete: bool,
}

/// Trains an adapter for `base` on the conversations of the file `data`, and writes it into the folder `out`, where a run that was interrupted
/// goes on. `watch` hears of each step and may stop the run, which writes a checkpoint then.
///
/// # Errors
/// [`TuneError`] when settings, data, base or folder cannot be used, when a variable gets no gradient, or the loss is no number.
pub fn fine_tune(
    base: &ModelSource,
    data: &Path,
    out: &Path,
    settings: &TuneSettings,
    watch: &mut (dyn FnMut(&TuneStep) -> ControlFlow<()> + Send),
) -> Result<Tuned, TuneError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fine-tuning".to_owned()).stack_size(STACK_BYTES);
        let run = thread.spawn_scoped(scope, || train(base, data, out, settings, watch));
        let run = run.map_err(|cause| TuneError::Model(InferError::Failed(format!("no thread: {cause}"))))?;
        run.join().unwrap_or_else(|_| Err(TuneError::Model(InferError::Failed("the training panicked".to_owned()))))
    })
}

fn train(
    base: &ModelSource,
    data: &Path,
    out: &Path,
    settings: &TuneSettings,
    watch: &mut (dyn FnMut(&TuneStep) -> ControlFlow<()> + Send),
) -> Result<Tuned, TuneError> {
    let targets = settings.check()?;
    let decoder = dense_decoder(base)?;
    let Some(trainee) = Trainee::new(&decoder) else {
        return Err(unsupported(base, "its weights are quantised; fine-tuning needs those of `model.safetensors`"));
    };
    let text = base.load_chat_text()?;
    let most = settings.max_tokens.min(decoder.context());
    let examples = Examples::read(data, &Telling { text: &text, vocabulary: decoder.vocabulary(), most })?;
    let folder = Folder::open(out)?;

    let shape = (settings.rank, settings.scale());
    let new = |beginning, stream| {
        let mut random = random(settings.seed, stream);
        Variables::new(&decoder.config, &targets, shape, beginning, &mut random).map_err(TuneError::compute)
    };
    let variables = new(Beginning::Plain, FIRST_WEIGHTS)?;
    let vars: Vec<Var> = variables.named().map(|(_, var)| var.clone()).collect();
    let vars: Vec<&Var> = vars.iter().collect();
    let mut adamw = AdamW::new(settings.learning_rate, &vars).map_err(TuneError::compute)?;
    let digest = blake3::Hash::from_bytes(base.digest()?).to_hex().to_string();
    let mut run = Run { base: digest, data: examples.digest.clone(), settings: settings.identity(), step: 0 };
    let found = checkpoint::read(&folder, &run, &variables, &mut adamw)?;
    if found.is_none() && folder.has(TENSORS_FILE) {
        return Err(
            folder.error(TENSORS_FILE, "is there already, and no checkpoint of this run; choose another folder")
        );
    }
    run.step = found.unwrap_or(0);
    let resumed_from = run.step;

    let mut order = Order::new(settings.seed, examples.all.len());
    if let Some(first) = examples.all.get(order.at(0)) {
        probe(&trainee, first, &new(Beginning::Probe, PROBE)?)?;
    }
    let mut is_stopped = false;
    while run.step < settings.steps && !is_stopped {
        let began = Instant::now();
        let place = run.step * settings.batch as u64;
        let batch = (place..place + settings.batch as u64).filter_map(|place| examples.all.get(order.at(place)));
        let batch: Vec<&Example> = batch.collect();
        run.step += 1;
        let (loss, gradients) = of_batch(&trainee, &batch, &variables)?;
        if !loss.is_finite() {
            return Err(TuneError::Diverged { step: run.step });
        }
        adamw.step(&vars, &gradients).map_err(TuneError::compute)?;
        let tokens: u64 = batch.iter().map(|example| example.tokens.len() as u64).sum();
        let tokens_per_second = tokens as f64 / began.elapsed().as_secs_f64().max(1e-9);
        let step = TuneStep { step: run.step, steps: settings.steps, loss, tokens, tokens_per_second };
        is_stopped = watch(&step).is_break();
        if is_stopped || run.step == settings.steps || run.step.is_multiple_of(settings.checkpoint_every) {
            checkpoint::write(&folder, &run, &variables, &adamw)?;
        }
    }
    let is_complete = run.step >= settings.steps;
    if is_complete {
        write_adapter(&folder, base, settings, &targets, &variables)?;
    }
    let parameters: u64 = vars.iter().map(|var| var.elem_count() as u64).sum();
    Ok(Tuned { steps: run.step, resumed_from, examples: examples.all.len() as u64, parameters, is_complete })
}

fn dense_decoder(base: &ModelSource) -> Result<Arc<Decoder>, TuneError> {
    if base.adapter_bytes() > 0 {
        return Err(unsupported(base, "it is an adapter itself; name the model that it is over"));
    }
    match base.load_network()? {
        Network::Decoder(decoder) => Ok(decoder),
        Network::Encoder(_) | Network::Speech(_) => {
            Err(unsupported(base, "it is no chat model; fine-tuning is for chat models"))
        }
    }
}

fn unsupported(base: &ModelSource, cause: &str) -> TuneError {
    TuneError::Model(InferError::Unsupported { model: base.info().name.clone(), cause: cause.to_owned() })
}

/// The loss of a batch, an average over the tokens of its answers, and the gradient of each variable. One example after the other, so
/// that memory is that of the longest one.
fn of_batch(trainee: &Trainee<'_>, batch: &[&Example], variables: &Variables) -> Result<(f32, Vec<Tensor>), TuneError> {
    let learned: usize = batch.iter().map(|example| example.tokens.len() - example.answer).sum();
    let (mut total, mut sums) = (0f32, Vec::<Tensor>::new());
    for example in batch {
        let loss = trainee.loss(example, variables, 1.0 / learned.max(1) as f64).map_err(TuneError::compute)?;
        total += loss.to_scalar::<f32>().map_err(TuneError::compute)?;
        let gradients = gradients(&loss.backward().map_err(TuneError::compute)?, variables)?;
        let gradients = gradients.into_iter().map(|(_, gradient)| gradient);
        sums = match sums.is_empty() {
            true => gradients.collect(),
            false => {
                let added = sums.iter().zip(gradients).map(|(sum, gradient)| sum + gradient);
                added.collect::<candle_core::Result<_>>().map_err(TuneError::compute)?
            }
        };
    }
    Ok((total, sums))
}

/// The gradient of each variable, by its name. Where one is missing the loss does not depend on the variable, or the chain of operations between them
/// was cut: it would stay as it is for ever, and nothing else would say so.
fn gradients(store: &GradStore, variables: &Variables) -> Result<Vec<(String, Tensor)>, TuneError> {
    let of = |(name, var): (String, &Var)| match store.get(var) {
        // Without what it was computed from, which would be kept in memory with it.
        Some(gradient) => Ok((name, gradient.detach())),
        None => Err(TuneError::Gradient { variable: name, cause: "gets no gradient" }),
    };
    variables.named().map(of).collect()
}

/// Makes sure that every variable learns: with all of them other than zero, each one's gradient is a number and not zero. In training
/// B begins at zero, so that A's gradient is zero in the first step by nature; here it cannot be.
fn probe(trainee: &Trainee<'_>, example: &Example, variables: &Variables) -> Result<(), TuneError> {
    let loss = trainee.loss(example, variables, 1.0).map_err(TuneError::compute)?;
    for (variable, gradient) in gradients(&loss.backward().map_err(TuneError::compute)?, variables)? {
        let largest = gradient.abs().and_then(|gradient| gradient.flatten_all()?.max(0)?.to_scalar::<f32>());
        let largest = largest.map_err(TuneError::compute)?;
        let cause = if !largest.is_finite() {
            "gets a gradient that is no number"
        } else if largest > 0.0 {
            continue;
        } else {
            "gets a gradient that is zero everywhere"
        };
        return Err(TuneError::Gradient { variable, cause });
    }
    Ok(())
}

/// The result, as PEFT writes it; its configuration last, without which it is no adapter.
fn write_adapter(
    folder: &Folder,
    base: &ModelSource,
    settings: &TuneSettings,
    targets: &[Target],
    variables: &Variables,
) -> Result<(), TuneError> {
    let tensors: Vec<(String, Tensor)> =
        variables.named().map(|(name, var)| (name, var.as_detached_tensor())).collect();
    let bytes = safetensors::serialize(tensors, None).map_err(|cause| folder.error(TENSORS_FILE, cause))?;
    folder.write(TENSORS_FILE, &bytes)?;
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.info().name,
        "r": settings.rank, "lora_alpha": settings.alpha, "lora_dropout": 0.0, "target_modules": names,
        "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
        "modules_to_save": null, "use_rslora": false, "use_dora": false,
    });
    folder.write(CONFIG_FILE, format!("{config:#}\n").as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the probe says of variables for a base with so many layers more than the fixture has.
    fn probed(beginning: Beginning, more: usize) -> Result<(), TuneError> {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
        let path = Path::new(&root).join("tests/fixtures/tiny-chat");
        let decoder = dense_decoder(&ModelSource::open("m", &path).unwrap()).unwrap();
        let mut shape = decoder.config.clone();
        shape.layers += more;
        let variables = Variables::new(&shape, &Target::ALL, (2, 1.0), beginning, &mut random(1, 0)).unwrap();
        let example = Example { tokens: vec![1, 2, 3, 4, 5], answer: 3 };
        probe(&Trainee::new(&decoder).unwrap(), &example, &variables)
    }

    #[test]
    fn a_variable_that_cannot_learn_is_found() {
        probed(Beginning::Probe, 0).unwrap();
        let unused = probed(Beginning::Probe, 1).unwrap_err().to_string();
        assert!(unused.starts_with("PV-TUNE-GRADIENT") && unused.contains("layers.2."), "{unused}");
        assert!(unused.contains("gets no gradient"), "{unused}");
        // As it is in the first step, which is why the probe does not look at that one.
        let zero = probed(Beginning::Plain, 0).unwrap_err().to_string();
        assert!(zero.contains("lora_A.weight gets a gradient that is zero everywhere"), "{zero}");
    }
}
