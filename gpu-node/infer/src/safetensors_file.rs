//! Reading tensors of safetensors files, one or sharded, with their shapes checked.
//!
//! The header is parsed without the data, so a model can be described cheaply; each tensor is then
//! read on its own, so loading needs no more memory than the result and one tensor. Weights become
//! `f32`, which the CPU kernels compute fastest; half formats double in size by that.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::device::Place;
use crate::error::{FileContext, InferError};
use crate::linear::Linear;

/// Largest header, as the format's own implementation bounds it.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The tensors of a model, by name.
pub(crate) struct SafetensorsFiles {
    model: String,
    files: Vec<PathBuf>,
    tensors: HashMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl SafetensorsFiles {
    /// Reads the headers of a model's directory.
    pub(crate) fn open(model: &str, directory: &Path) -> Result<Self, InferError> {
        Self::of_files(model, weight_files(model, directory)?)
    }

    /// Reads the headers of these files, whose tensors have different names.
    pub(crate) fn of_files(model: &str, files: Vec<PathBuf>) -> Result<Self, InferError> {
        let mut found = Self { model: model.to_owned(), files, tensors: HashMap::new() };
        for index in 0..found.files.len() {
            found.read_header(index)?;
        }
        Ok(found)
    }

    /// The files, in a fixed order.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all tensors once loaded as `f32`.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let elements = |entry: &Entry| entry.shape.iter().product::<usize>() as u64;
        let floats: u64 = self.tensors.values().map(elements).sum();
        floats * size_of::<f32>() as u64
    }

    /// What most of the weights are stored as, such as `bf16`.
    pub(crate) fn dtype(&self) -> String {
        let stored = self.tensors.values().map(|entry| (entry.dtype, entry.shape.iter().product::<usize>()));
        most_of(stored.map(|(dtype, elements)| (format!("{dtype:?}"), elements)))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The names of all tensors, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Reads one tensor, which must have this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize], place: &Place) -> Result<Tensor, InferError> {
        let Some(entry) = self.tensors.get(name) else {
            let at = match self.files.len() {
                1 => self.context(0),
                _ => FileContext::new(&self.model, SINGLE_FILE),
            };
            return Err(at.malformed(format!("tensor `{name}` is missing")));
        };
        let at = self.context(entry.file);
        if entry.shape != shape {
            return Err(at.malformed(format!(
                "tensor `{name}` has shape {:?}, the configuration calls for {shape:?}",
                entry.shape
            )));
        }
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                return Err(at.unsupported(format!("tensor `{name}` has element type {other:?}")));
            }
        };
        place.put(name, shape, || {
            let mut bytes = vec![0u8; entry.bytes];
            let mut file = File::open(&self.files[entry.file]).map_err(|e| at.unreadable(e))?;
            file.seek(SeekFrom::Start(entry.start))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| at.unreadable(e))?;
            Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)
                .and_then(|tensor| tensor.to_dtype(DType::F32))
                .map_err(|e| at.malformed(e))
        })
    }

    /// Reads `prefix.weight` (`[outputs, inputs]`) and, if asked for, `prefix.bias`.
    pub(crate) fn linear(
        &self,
        prefix: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
        place: &Place,
    ) -> Result<Linear, InferError> {
        let weight = self.tensor(&format!("{prefix}.weight"), &[outputs, inputs], place)?;
        let bias = match bias {
            true => Some(self.tensor(&format!("{prefix}.bias"), &[outputs], place)?),
            false => None,
        };
        Ok(Linear::dense(weight, bias))
    }

    fn read_header(&mut self, index: usize) -> Result<(), InferError> {
        let at = self.context(index);
        let mut file = File::open(&self.files[index]).map_err(|e| at.unreadable(e))?;
        let file_bytes = file.metadata().map_err(|e| at.unreadable(e))?.len();
        let mut prefix = [0u8; 8];
        file.read_exact(&mut prefix).map_err(|_| at.malformed("the file is shorter than its header"))?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MAX_HEADER_BYTES || header_bytes + 8 > file_bytes {
            return Err(at.malformed("the file is shorter than its header, or not safetensors"));
        }
        let mut header = vec![0u8; header_bytes as usize];
        file.read_exact(&mut header).map_err(|e| at.unreadable(e))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| at.malformed(e))?;
        let mut tensors: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
        tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let data_bytes = file_bytes - 8 - header_bytes;
        check_layout(&tensors, data_bytes, &at)?;
        for (name, tensor) in tensors {
            let (start, end) = tensor.data_offsets;
            let entry = Entry {
                file: index,
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                start: 8 + header_bytes + start as u64,
                bytes: end - start,
            };
            self.tensors.insert(name, entry);
        }
        Ok(())
    }

    fn context(&self, file: usize) -> FileContext {
        let name = self.files[file].file_name().unwrap_or_default();
        FileContext::new(&self.model, &name.to_string_lossy())
    }
}

/// Tensors must follow each other without gaps, fill the file, and be as long as their shapes say:
/// then nothing that is allocated for them is larger than the file.
fn check_layout(tensors: &[(String, &TensorInfo)], data_bytes: u64, at: &FileContext) -> Result<(), InferError> {
    let mut expected_start = 0;
    for (name, tensor) in tensors {
        let (start, end) = tensor.data_offsets;
        let bits = tensor.shape.iter().try_fold(tensor.dtype.bitsize(), |bits, dim| bits.checked_mul(*dim));
        let sound = start == expected_start
            && end >= start
            && bits.is_some_and(|bits| bits % 8 == 0 && bits / 8 == end - start);
        if !sound {
            let cause = format!("the header contradicts itself at tensor `{name}`");
            return Err(at.malformed(cause));
        }
        expected_start = end;
    }
    match (expected_start as u64).cmp(&data_bytes) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(at.malformed(format!(
            "the file is truncated: it should have {expected_start} bytes of data and has {data_bytes}"
        ))),
        Ordering::Less => Err(at.malformed("the file has more data than its header describes")),
    }
}

/// Of element types with their elements, the one with the most, in lower case.
pub(crate) fn most_of(stored: impl Iterator<Item = (String, usize)>) -> String {
    let mut elements: BTreeMap<String, usize> = BTreeMap::new();
    for (dtype, count) in stored {
        let sum = elements.entry(dtype.to_ascii_lowercase()).or_default();
        *sum = sum.saturating_add(count);
    }
    elements.into_iter().max_by_key(|(_, sum)| *sum).map(|(dtype, _)| dtype).unwrap_or_default()
}

/// The single weight file, or the shards that the index names.
fn weight_files(model: &str, directory: &Path) -> Result<Vec<PathBuf>, InferError> {
    let single = directory.join(SINGLE_FILE);
    let index = directory.join(INDEX_FILE);
    if single.is_file() || !index.is_file() {
        return Ok(vec![single]);
    }
    let at = FileContext::new(model, INDEX_FILE);
    let bytes = std::fs::read(&index).map_err(|e| at.unreadable(e))?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| at.malformed(e))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // A shard's name is joined to the directory: it must not lead out of it.
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(at.malformed(format!("shard `{name}` is not a plain file name")));
    }
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}
