//! What quantised models take on the processor once they were used, beside what is allocated. Alone in its process.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use provost_gpu_infer::{ComputeDevice, Decoder, ModelSource, Network, Segment};

const HIDDEN: usize = 256;
const WIDE: usize = 512;
const HEADS: usize = 4;
const LAYERS: usize = 2;
const VOCABULARY: usize = 256;
/// As many rows as the products for many rows need.
const PROMPT: usize = 64;
/// Tables of positions, norms, names and the like.
const SLACK: u64 = 192 << 10;

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all of it is the system's allocator; what goes through it is counted beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: what the caller promises is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: it came from the same allocator, with the same layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn tensors(dtype: GgmlDType) -> Vec<(String, QTensor)> {
    let matrix = |rows: usize, columns: usize| {
        let numbers: Vec<f32> = (0..rows * columns).map(|at| (at as f32 * 0.37).sin() * 0.05).collect();
        let tensor = Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, dtype).unwrap()
    };
    let norm = || {
        let ones = Tensor::ones(HIDDEN, candle_core::DType::F32, &Device::Cpu).unwrap();
        QTensor::quantize(&ones, GgmlDType::F32).unwrap()
    };
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), matrix(VOCABULARY, HIDDEN)),
        ("output.weight".to_owned(), matrix(VOCABULARY, HIDDEN)),
        ("output_norm.weight".to_owned(), norm()),
    ];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        for part in ["attn_norm", "ffn_norm"] {
            tensors.push((name(part), norm()));
        }
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            tensors.push((name(part), matrix(HIDDEN, HIDDEN)));
        }
        tensors.push((name("ffn_gate"), matrix(WIDE, HIDDEN)));
        tensors.push((name("ffn_up"), matrix(WIDE, HIDDEN)));
        tensors.push((name("ffn_down"), matrix(HIDDEN, WIDE)));
    }
    tensors
}

fn write_model(path: &Path, dtype: GgmlDType) {
    let size = |size: usize| Value::U32(u32::try_from(size).unwrap());
    let text = |text: &str| Value::String(text.to_owned());
    let metadata = [
        ("general.architecture", text("llama")),
        ("llama.embedding_length", size(HIDDEN)),
        ("llama.feed_forward_length", size(WIDE)),
        ("llama.block_count", size(LAYERS)),
        ("llama.attention.head_count", size(HEADS)),
        ("llama.attention.head_count_kv", size(HEADS)),
        ("llama.context_length", size(2 * PROMPT)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        // Never read here; a model without a tokenizer is none.
        ("tokenizer.ggml.model", text("gpt2")),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    let tensors = tensors(dtype);
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// Computes with many rows, with one, and with one each of two requests.
fn use_it(decoder: &Decoder) {
    let prompt: Vec<u32> = (0..PROMPT as u32).collect();
    let (mut one, mut other) = (decoder.cache(2 * PROMPT), decoder.cache(2 * PROMPT));
    decoder.forward(&mut [Segment { tokens: &prompt, cache: &mut one }]).unwrap();
    decoder.forward(&mut [Segment { tokens: &[1], cache: &mut one }]).unwrap();
    let mut both = [Segment { tokens: &[2], cache: &mut one }, Segment { tokens: &[3], cache: &mut other }];
    decoder.forward(&mut both).unwrap();
}

fn loaded(source: &ModelSource) -> Arc<Decoder> {
    let Network::Decoder(decoder) = source.load_network().unwrap() else { panic!("it is a decoder") };
    decoder
}

#[test]
fn the_books_have_what_a_used_model_really_takes() {
    let dir = tempfile::tempdir().unwrap();
    let device = ComputeDevice::cpu();
    // The first time threads are started and what all models share is made.
    let dtypes = [GgmlDType::Q8_0, GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q5K, GgmlDType::Q4_0];
    for (number, dtype) in dtypes.into_iter().enumerate() {
        let path = dir.path().join(format!("{number}.gguf"));
        write_model(&path, dtype);
        let source = ModelSource::open("m", &path).unwrap();
        let (read, booked) = (source.weight_bytes(), source.weight_bytes_on(&device));
        let before = HELD.load(Ordering::Relaxed);
        let decoder = loaded(&source);
        use_it(&decoder);
        let held = HELD.load(Ordering::Relaxed).saturating_sub(before) as u64;
        drop(decoder);
        if number == 0 {
            continue;
        }
        assert!(
            held <= booked + SLACK,
            "{dtype:?}: {held} bytes are held, {booked} are in the books, {read} were read"
        );
        // A system may refuse AMX, whose tiles are the larger part of some.
        let least = read + (booked - read) / 4;
        assert!(held + SLACK >= least, "{dtype:?}: {held} bytes are held, {booked} are in the books, {read} were read");
        assert!(
            booked == read || held > read + SLACK,
            "{dtype:?}: nothing is kept beside the weights: {held} of {read}"
        );
    }
}
