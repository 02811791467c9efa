//! Where a run is: one file that is replaced as a whole.
//!
//! It has the variables, the moments of the optimiser and the number of steps: with the seed that is all on which the next step
//! depends. It also says of which run it is, so that it is not taken for that of another.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::TuneError;
use super::adamw::AdamW;
use super::folder::Folder;
use super::variables::Variables;

const FILE: &str = "checkpoint.safetensors";
/// The entry of the file's metadata that says of which run it is.
const RUN: &str = "provost_tune";
const FIRST: &str = "first_moment.";
const SECOND: &str = "second_moment.";

/// Of which run a checkpoint is, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Digest of the base.
    pub(super) base: String,
    /// Digest of the data.
    pub(super) data: String,
    /// [`TuneSettings::identity`](super::TuneSettings::identity).
    pub(super) settings: String,
    /// Steps taken.
    pub(super) step: u64,
}

/// Writes down where a run is.
pub(super) fn write(folder: &Folder, run: &Run, variables: &Variables, adamw: &AdamW) -> Result<(), TuneError> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for ((name, var), (first, second)) in variables.named().zip(&adamw.moments) {
        tensors.push((format!("{FIRST}{name}"), first.clone()));
        tensors.push((format!("{SECOND}{name}"), second.clone()));
        tensors.push((name, var.as_detached_tensor()));
    }
    let said = serde_json::to_string(run).map_err(|cause| folder.error(FILE, cause))?;
    let metadata = HashMap::from([(RUN.to_owned(), said)]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|cause| folder.error(FILE, cause))?;
    folder.write(FILE, &bytes)
}

/// Brings variables and optimiser to where a run was: the steps taken. None: it has not begun. `run` says which run this is to be.
pub(super) fn read(
    folder: &Folder,
    run: &Run,
    variables: &Variables,
    adamw: &mut AdamW,
) -> Result<Option<u64>, TuneError> {
    let Some(bytes) = folder.read(FILE)? else {
        return Ok(None);
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|cause| folder.error(FILE, cause))?;
    let said = header.metadata().as_ref().and_then(|metadata| metadata.get(RUN));
    let Some(said) = said else {
        return Err(folder.error(FILE, "is no checkpoint"));
    };
    let found: Run = serde_json::from_str(said).map_err(|cause| folder.error(FILE, cause))?;
    let differs = [
        ("another base", found.base != run.base),
        ("other data", found.data != run.data),
        ("other settings", found.settings != run.settings),
    ];
    if let Some((what, _)) = differs.into_iter().find(|(_, differs)| *differs) {
        let cause = format!("is of a run with {what}; choose another folder, or remove this one to begin anew");
        return Err(folder.error(FILE, cause));
    }
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
    let tensors = tensors.map_err(|cause| folder.error(FILE, cause))?;
    let taken = |name: &str, like: &Var| {
        let tensor = tensors.get(name).filter(|tensor| tensor.dims() == like.dims() && tensor.dtype() == like.dtype());
        tensor.cloned().ok_or_else(|| folder.error(FILE, format!("tensor `{name}` is missing or of another shape")))
    };
    let mut moments = Vec::with_capacity(adamw.moments.len());
    for (name, var) in variables.named() {
        var.set(&taken(&name, var)?).map_err(TuneError::compute)?;
        moments.push((taken(&format!("{FIRST}{name}"), var)?, taken(&format!("{SECOND}{name}"), var)?));
    }
    adamw.moments = moments;
    adamw.step = found.step;
    Ok(Some(found.step))
}
