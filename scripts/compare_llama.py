#!/usr/bin/env python3
"""The parts of compare_llama.sh that are not a shell's: models of random weights, llama.cpp, Provost's API, the table."""

import argparse
import json
import os
import random
import statistics
import string
import sys
import time
import urllib.request

# A qwen3 of 222 million parameters: rows of weights are multiples of 256, so that each kind of quantisation has its fast products.
LAYERS, HIDDEN, WIDE, HEADS, KV_HEADS, HEAD_DIM = 12, 1024, 3072, 16, 8, 128
VOCABULARY, CONTEXT = 32_768, 4096
SEED = 7
# Elements and bytes of a block, as ggml stores them.
Q8_0, Q4_K, Q6_K = (32, 34), (256, 144), (256, 210)
# About what trained weights deviate from 0 by.
DEVIATION = 0.02
API_DEADLINE_S = 600


def blocks_q8_0(rng, np, count):
    made = np.empty((count, 34), np.uint8)
    made[:, :2] = np.frombuffer(np.float16(DEVIATION / 73).tobytes(), np.uint8)
    made[:, 2:] = rng.integers(-127, 128, (count, 32), np.int8).view(np.uint8)
    return made


def blocks_q4_k(rng, np, count):
    """Weights are d * scale * (q - 7.5): the minimum of each part is 7.5 times its scale."""
    scale = rng.integers(16, 64, (count, 8), np.uint8)
    made = np.empty((count, 144), np.uint8)
    step = DEVIATION / (4.6 * 40)
    made[:, :2] = np.frombuffer(np.float16(step).tobytes(), np.uint8)
    made[:, 2:4] = np.frombuffer(np.float16(7.5 * step).tobytes(), np.uint8)
    low, high = scale[:, :4], scale[:, 4:]
    # Six bits each of eight scales and eight minima, which are the same here.
    made[:, 4:8] = made[:, 8:12] = low | (high >> 4) << 6
    made[:, 12:16] = (high & 15) | (high & 15) << 4
    made[:, 16:] = rng.integers(0, 256, (count, 128), np.uint8)
    return made


def blocks_q6_k(rng, np, count):
    made = np.empty((count, 210), np.uint8)
    made[:, :192] = rng.integers(0, 256, (count, 192), np.uint8)
    scales = rng.integers(16, 64, (count, 16)) * rng.choice([-1, 1], (count, 16))
    made[:, 192:208] = scales.astype(np.int8).view(np.uint8)
    made[:, 208:] = np.frombuffer(np.float16(DEVIATION / (18.5 * 40)).tobytes(), np.uint8)
    return made


def byte_characters():
    """How byte-level vocabularies write the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]


def make(kind, path):
    import gguf
    import numpy as np

    types = gguf.GGMLQuantizationType
    forms = {types.Q8_0: (Q8_0, blocks_q8_0), types.Q4_K: (Q4_K, blocks_q4_k), types.Q6_K: (Q6_K, blocks_q6_k)}
    rng = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(path + ".part", "qwen3")
    writer.add_name(f"random-{kind}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    # One token a byte, one that ends, and names for the rest, which no text spells by chance.
    characters = byte_characters()
    joined = characters[0] + characters[1]
    tokens = [*characters, "<|end|>", joined]
    tokens += [f"<extra_{n}>" for n in range(len(tokens), VOCABULARY)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if n == 256 else gguf.TokenType.NORMAL for n in range(VOCABULARY)])
    writer.add_token_merges([f"{characters[0]} {characters[1]}"])
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages[0].content }}")

    def matrix(name, rows, columns, form):
        (elements, size), blocks = forms[form]
        data = blocks(rng, np, rows * columns // elements).reshape(rows, columns // elements * size)
        writer.add_tensor(name + ".weight", data, raw_dtype=form)

    def ones(name, size):
        writer.add_tensor(name + ".weight", np.ones(size, np.float32))

    # "Medium" files: the output, and values and the way down of half of the layers, have six bits.
    most = types.Q8_0 if kind == "q8_0" else types.Q4_K
    better = types.Q8_0 if kind == "q8_0" else types.Q6_K
    matrix("token_embd", VOCABULARY, HIDDEN, better)
    ones("output_norm", HIDDEN)
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        some = better if layer % 2 else most
        ones(at + "attn_norm", HIDDEN)
        ones(at + "attn_q_norm", HEAD_DIM)
        ones(at + "attn_k_norm", HEAD_DIM)
        ones(at + "ffn_norm", HIDDEN)
        matrix(at + "attn_q", HEADS * HEAD_DIM, HIDDEN, most)
        matrix(at + "attn_k", KV_HEADS * HEAD_DIM, HIDDEN, most)
        matrix(at + "attn_v", KV_HEADS * HEAD_DIM, HIDDEN, some)
        matrix(at + "attn_output", HIDDEN, HEADS * HEAD_DIM, most)
        matrix(at + "ffn_gate", WIDE, HIDDEN, most)
        matrix(at + "ffn_up", WIDE, HIDDEN, most)
        matrix(at + "ffn_down", HIDDEN, WIDE, some)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(path + ".part", path)


def llama(model, threads, prompt, answer):
    """Greedy, as Provost; nothing is turned into text."""
    import ctypes

    import llama_cpp
    import numpy as np

    if os.environ.get("LLAMA_REPACK") == "0":
        # Weights as they are in the file: no layouts of its own for AMX or AVX-512.
        defaults = llama_cpp.llama_model_default_params

        def plain():
            parameters = defaults()
            parameters.use_extra_bufts = False
            return parameters

        llama_cpp.llama_cpp.llama_model_default_params = llama_cpp.llama_model_default_params = plain
    engine = llama_cpp.Llama(
        model, n_ctx=prompt + answer + 64, n_batch=prompt, n_ubatch=prompt, n_threads=threads, n_threads_batch=threads,
        n_gpu_layers=0, seed=SEED, verbose=False)
    picks = random.Random(SEED)

    def likeliest():
        logits = llama_cpp.llama_get_logits_ith(engine.ctx, -1)
        row = np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (VOCABULARY,))
        return int(row.argmax())

    # The first time is not told, as Provost's is not.
    for _ in range(2):
        engine.reset()
        tokens = [picks.randrange(97, 123) for _ in range(prompt)]
        began = time.perf_counter()
        engine.eval(tokens)
        token = likeliest()
        first = time.perf_counter()
        for _ in range(answer - 1):
            engine.eval([token])
            token = likeliest()
        ended = time.perf_counter()
    print(json.dumps({"prompt": prompt, "prefill_s": first - began, "decoded": answer - 1, "decode_s": ended - first}))


def api(dev_file, model, prompt, answer, round_number):
    with open(dev_file, encoding="utf-8") as file:
        dev = json.load(file)

    def once(number):
        letters = "".join(random.Random(number).choices(string.ascii_lowercase, k=prompt))
        body = {"model": model, "messages": [{"role": "user", "content": letters}], "max_tokens": answer, "temperature": 0,
                "stream": True, "stream_options": {"include_usage": True}}
        request = urllib.request.Request(
            dev["openai"] + "/chat/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer " + dev["token"]})
        began, first, last, usage = time.perf_counter(), None, None, None
        with urllib.request.urlopen(request, timeout=API_DEADLINE_S) as events:
            for line in events:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                if any(choice["delta"].get("content") for choice in event.get("choices", [])):
                    last = time.perf_counter()
                    first = first or last
        if first is None or usage is None:
            sys.exit("compare_llama: the API told no text or no usage")
        return {"prompt": usage["prompt_tokens"], "prefill_s": first - began, "decoded": usage["completion_tokens"] - 1,
                "decode_s": last - first}

    # The first loads the model.
    once(0)
    print(json.dumps(once(round_number)))


def table(results):
    with open(results, encoding="utf-8") as file:
        runs = [json.loads(line) for line in file]

    def rates(who, kind, threads, tokens, seconds):
        """Tokens a second, one a round, in order."""
        found = [run["result"] for run in runs if (run["who"], run["kind"], run["threads"]) == (who, kind, threads)]
        return [result[tokens] / result[seconds] for result in found]

    def ratio(own, other):
        """Within each round, since the machine may be another one in the next."""
        return statistics.median(one / two for one, two in zip(own, other, strict=True))

    print("| tokens/s, median | llama.cpp | Provost's engine | | Provost's API | |")
    print("|---|--:|--:|--:|--:|--:|")
    for kind in sorted({run["kind"] for run in runs}, reverse=True):
        for threads in sorted({run["threads"] for run in runs}, reverse=True):
            for name, tokens, seconds in (("prompt", "prompt", "prefill_s"), ("answer", "decoded", "decode_s")):
                them, engine, served = (rates(who, kind, threads, tokens, seconds) for who in ("llama.cpp", "engine", "api"))
                print(f"| {kind}, {threads} threads, {name} | {statistics.median(them):,.1f} "
                      f"| {statistics.median(engine):,.1f} | {ratio(engine, them):.2f} "
                      f"| {statistics.median(served):,.1f} | {ratio(served, them):.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("make")
    part.add_argument("kind", choices=["q8_0", "q4_k"])
    part.add_argument("path")
    part = parts.add_parser("llama")
    part.add_argument("model")
    for name in ("threads", "prompt", "answer"):
        part.add_argument(name, type=int)
    part = parts.add_parser("api")
    part.add_argument("dev_file")
    part.add_argument("model")
    for name in ("prompt", "answer", "round_number"):
        part.add_argument(name, type=int)
    part = parts.add_parser("table")
    part.add_argument("results")
    arguments = vars(parser.parse_args())
    globals()[arguments.pop("part")](**arguments)


main()
