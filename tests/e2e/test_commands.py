"""The commands that need no run: command lines, tokenize, and generate and evaluate on a foreign checkpoint, against a GPT-2 in numpy."""
import gzip
import json
import math
import os
import pathlib
import random
import re
import runpy
import signal
import struct
import subprocess
import sys
import threading

import hypothesis
import pytest
from hypothesis import strategies

from cluster import MILLRACE, wait_until

END = b"<|endoftext|>"


def call(*words, given=b"", code=0, **more):
    done = subprocess.run([MILLRACE, *map(str, words)], input=given, capture_output=True, timeout=60, check=False, **more)
    assert done.returncode == code, (words, done.returncode, done.stderr)
    return done.stdout


def refusal(*words, code=2, given=b""):
    done = subprocess.run([MILLRACE, *map(str, words)], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, (words, done.returncode, done.stderr)
    text = done.stderr.decode()
    assert text.splitlines()[-1].startswith("millrace: "), text
    return text


# ---- command lines -------------------------------------------------------------------------------------------------------------

COMMANDS = ["plan", "run", "coordinator", "worker", "status", "generate", "evaluate", "tokenize", "tokenizer", "dataset", "config", "bench"]
COMMANDS += ["version"]


def every_help(words=()):
    """(command, --help) of each command, and of the commands of commands."""
    text = call(*words, "--help").decode()
    yield " ".join(words), text
    if "\nOptions:\n" in text:
        return
    for name in re.findall(r"^  (\w+) {2,}", text, flags=re.M):
        if name != "help":
            yield from every_help((*words, name))


def test_a_letter_means_the_same_in_every_command():
    meanings = {}
    for command, text in every_help():
        for letter, name in re.findall(r"^  -(\w), --([\w-]+)", text, flags=re.M):
            meanings.setdefault(letter, {}).setdefault(name, []).append(command)
    assert len(meanings) > 5 and len(meanings["h"]["help"]) > 15
    assert {letter: names for letter, names in meanings.items() if len(names) > 1} == {}


def test_too_many_threads_are_answered_with_the_option_at_hand(foreign, tmp_path):
    """There is room in memory for the program, and not for the stacks of so many threads."""
    (tmp_path / "text").write_text("one two three " * 50)
    generate, evaluate = ["generate", foreign[0], "--prompt", "the"], ["evaluate", foreign[0], "--text", tmp_path / "text"]
    for words in (generate, evaluate, ["bench", "generate"]):
        words = ["prlimit", "--as=1200000000", MILLRACE, *map(str, words), "--threads", "256"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "of 256 could not be started; lower --threads" in done.stderr, done.stderr


def test_an_import_that_is_too_short_names_its_own_option(tmp_path):
    (tmp_path / "tokens.bin").write_bytes(struct.pack("<200H", *([5] * 199 + [50256])))
    words = ["dataset", "import", tmp_path / "tokens.bin", "--output", tmp_path / "made", "--sequence-length", 1000]
    said = refusal(*words, code=2)
    assert "make --sequence-length smaller" in said and "dataset." not in said, said


def test_every_command_is_listed_and_explains_itself():
    listed = call("--help").decode()
    for command in COMMANDS:
        assert f"\n  {command} " in listed
        text = call(command, "--help").decode()
        assert text.startswith(f"Usage: millrace {command}")
        assert call("help", command).decode() == text


def test_help_names_what_is_there_and_nothing_that_is_not():
    parts = re.search(r"^  bench +measure: (.*)$", call("--help").decode(), re.M)[1].split(", ")
    assert sorted(parts) == sorted(re.findall(r"^  (\w+) {2,}", call("bench", "--help").decode(), re.M))
    assert "--stop-after STAGE" in call("run", "--help").decode()
    assert "--stop-after STAGE" not in call("dataset", "build", "--help").decode()
    assert "unknown option" in refusal("dataset", "build", "--stop-after", "dataset")


@pytest.mark.parametrize("words, hint", [
    ([], "command"),
    (["generat"], "did you mean 'generate'"),
    (["--frobnicate"], "--help"),
    (["dataset", "inf"], "did you mean 'info'"),
    (["generate"], "generate: CHECKPOINT is missing; usage: millrace generate CHECKPOINT"),
    (["evaluate"], "evaluate: CHECKPOINT is missing"),
    (["tokenizer", "train", "a", "--vocab-size", "100", "--output", "/nowhere/b"], "expected at least 257"),
    (["generate", "x", "--temprature", "1"], "did you mean --temperature"),
    (["generate", "x", "--temperature", "hot"], "a number from 0 to 100"),
    (["generate", "x", "--top-k", "-1"], "a whole number from 0"),
    (["generate", "x", "--seed", "-1"], "2^64"),
    (["generate", "x", "--seed", "18446744073709551616"], "2^64"),
    (["generate", "x", "--greedy=yes"], "takes no value"),
    (["generate", "x", "--help=yes"], "takes no value: --help=yes"),
    (["run", "--restart", "-workers", "3"], "unknown option -w; did you mean --workers?"),
    (["run", "--restart", "-w", "--json"], "unknown option -w; did you mean --workers?"),
    (["run", "--restart", "-x"], "unknown option -x; see"),
    (["generate", "x", "--prompt"], "missing after --prompt"),
    (["generate", "x", "--dtype", "int4"], "--dtype int4: expected fp32, bf16 or int8"),
    (["evaluate", "x", "--text", "y", "--dtype", "fp16"], "--dtype fp16"),
    (["bench", "generate", "--n-head", "3"], "--n-head 3 does not divide --n-embd 256"),
    (["bench", "generate", "--new-tokens", "0"], "a whole number from 1"),
    (["bench", "train", "--dtype", "int8"], "--dtype int8: fp32 or bf16"),
    (["bench", "train", "--steps", "10001"], "a whole number from 1 to 10000"),
    (["bench", "machine", "--threads", "0"], "a whole number from 1"),
    (["generate", "x", "y"], "one word too many: y"),
    (["evaluate", "x"], "--text FILE is missing"),
    (["dataset", "cat", "x"], "--document N and --sequence N"),
    (["tokenize", "--decode", "--special"], "--special"),
    (["config", "/nowhere/pipeline.yaml"], "/nowhere/pipeline.yaml"),
])
def test_a_wrong_command_line_is_answered_with_a_hint_and_2(words, hint):
    assert hint in refusal(*words)


@pytest.mark.parametrize("words, code, state, reason", [
    (["/nowhere/pipeline.yaml"], 2, "refused", "/nowhere/pipeline.yaml"),
    (["--workers", "many"], 2, "refused", "a whole number"),
    (["--frobnicate"], 2, "refused", "unknown option"),
    (["pipeline.yaml", "--set", "model.n_layer=0", "--set", "model.n_head=0"], 2, "refused", "model.n_head"),
    (["pipeline.yaml", "--set", "dataset.sources=[nothing]"], 2, "refused", "nothing"),
    (["pipeline.yaml", "--set", "output_dir=/proc/nowhere"], 1, "failed", "/proc/nowhere"),
])
@pytest.mark.parametrize("command", ["run", "dataset build"])
def test_with_json_every_ending_is_told_as_an_object(tmp_path, command, words, code, state, reason):
    (tmp_path / "a.txt").write_text("some text " * 100)
    (tmp_path / "pipeline.yaml").write_text("dataset: { sources: [ a.txt ] }\n")
    done = subprocess.run([MILLRACE, *command.split(), *words, "--json"], capture_output=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == state and reason in told["reason"] and set(told) == {"state", "reason"}
    assert done.stderr.decode().endswith(f"millrace: {told['reason']}\n")


@pytest.mark.parametrize("words, reason", [
    (["/nowhere/pipeline.yaml"], "/nowhere/pipeline.yaml"),
    (["pipeline.yaml", "--set", "dataset.tokenizer=./nix"], "nix"),
    (["pipeline.yaml", "--set", "model.n_layer=0"], "out of range"),
    (["pipeline.yaml", "--set", "dataset.sources=[bad.jsonl]", "--set", "dataset.max_left_out=0"], "max_left_out"),
    (["--frobnicate"], "unknown option"),
])
def test_a_plan_that_cannot_be_made_is_told_as_an_object_with_json(tmp_path, words, reason):
    (tmp_path / "a.txt").write_text("some text " * 100)
    (tmp_path / "bad.jsonl").write_text('{"text": "some text"}\n' * 20 + "{}\n")
    (tmp_path / "pipeline.yaml").write_text("dataset: { sources: [ a.txt ] }\n")
    done = subprocess.run([MILLRACE, "plan", *words, "--json"], capture_output=True, timeout=60, check=False, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 2 and told["state"] == "refused" and reason in told["reason"], (told, done.stderr)
    assert told["refusal"] == told["reason"] and told["fits"] is None


def test_a_full_disk_behind_standard_output_is_a_failure_and_a_closed_pipe_is_not():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([MILLRACE, "config", "--reference"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1 and b"No space left" in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([MILLRACE, "config", "--reference"], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0 and done.stderr == b""


def test_the_version_is_told():
    told = json.loads(call("version", "--json"))
    assert told["version"] == "0.1.0" and "openblas" not in told["kernels"]
    assert told["version"] in call("version").decode()
    libraries = {"ZeroMQ", "SQLite", "libarchive", "libcurl", "libyaml", "zstd", "zlib", "liblzma", "libbz2", "utf8proc", "PCRE2"}
    assert libraries <= told["libraries"].keys() and all(version[:1].isdigit() for name, version in told["libraries"].items()
                                                         if name in libraries), told


@pytest.mark.parametrize("kernels", ["", "portable"])
def test_little_memory_to_address_is_enough_for_a_command(kernels):
    """A library that starts a thread for each processor as it is loaded fails there, or hangs deaf to SIGTERM."""
    limited = f"ulimit -v 200000 && MILLRACE_KERNELS={kernels} exec '{MILLRACE}' version --json"
    done = subprocess.run(["sh", "-c", limited], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kernels"].startswith(kernels)


def test_only_portable_loads_openblas():
    def loaded(kernels):
        done = subprocess.run([MILLRACE, "version", "--json"], capture_output=True, timeout=60, check=True,
                              env={**os.environ, "MILLRACE_KERNELS": kernels, "LD_DEBUG": "files"})
        return b"libopenblas" in done.stderr, json.loads(done.stdout)["kernels"]

    with_library, name = loaded("portable")
    assert with_library and "openblas" in name
    loads_it, name = loaded("")
    assert loads_it == (name.startswith("portable"))


# ---- tokenize ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, given, expected", [
    ([], b"Hello world", b"15496 995\n"),
    ([], b"Hello world\n", b"15496 995 198\n"),
    ([], b"", b"\n"),
    ([], b"a\0b", b"64 188 65\n"),
    ([], END, b"27 91 437 1659 5239 91 29\n"),
    (["--special"], b"a" + END + b"b", b"64 50256 65\n"),
    (["--special"], b"<" + END + END + b"<|endof", b"27 50256 50256 27 91 437 1659\n"),
    (["-0"], b"", b""),
    (["-0"], b"a\0b\0", b"64\n65\n"),
    (["-0"], b"a\0\0b", b"64\n\n65\n"),
    (["-0"], b"\0", b"\n"),
    (["-0", "--special"], b"a<|endof\0text|>" + END + b"\0", b"64 27 91 437 1659\n5239 91 29 50256\n"),
    (["--decode"], b"15496 995\n", b"Hello world"),
    (["--decode"], b" 15496\t\n995", b"Hello world"),
    (["--decode"], b"", b""),
    (["--decode"], b"50256", END),
    (["--decode", "-0"], b"64\n\n65 65\n", b"a\0\0bb\0"),
    (["--decode", "-0"], b"64\n65", b"a\0b\0"),
])
def test_tokenize_gives(options, given, expected):
    assert call("tokenize", *options, given=given) == expected


WORDS = [b"Hello", b" ", b"\n", "naïve 日本語 👩‍👩‍👧".encode(), b"1234567", END, b"<|end", b"<<|", b"don't"]
some_words = strategies.lists(strategies.sampled_from(WORDS), min_size=1, max_size=30).map(b"".join)
documents_of_any_size = strategies.lists(
    strategies.builds(lambda text, times: text * times, some_words, strategies.sampled_from([0, 1, 1, 20, 500]))
    | strategies.text(max_size=60).map(lambda text: text.replace("\0", "").encode()),
    max_size=20,
)


@hypothesis.settings(max_examples=8)
@hypothesis.given(documents_of_any_size)
def test_bytes_survive_both_ways_in_documents_of_any_size(documents):
    text = b"".join(document + b"\0" for document in documents)
    for special in ([], ["--special"]):
        ids = call("tokenize", "-0", *special, given=text)
        lines = ids.decode().split("\n")
        assert len(lines) == len(documents) + 1
        for line, document in zip(lines, documents):
            assert line.split().count("50256") == (document.count(END) if special else 0)
        assert call("tokenize", "--decode", "-0", given=ids) == text


@pytest.mark.parametrize("given, words", [
    (b"1 2 x", ["byte 4", "id number 3"]),
    (b"1 -2", ["byte 2"]),
    (b"12 50257 3", ["50257", "number 2"]),
    (b"1" * 30, ["id number 1"]),
])
def test_ids_that_are_none_are_named_with_their_place(given, words):
    text = refusal("tokenize", "--decode", code=1, given=given)
    for word in words:
        assert word in text


def test_ids_are_decoded_as_they_come_also_where_each_read_ends_inside_of_one():
    """Written by "%8d", any number of whole pages ends with a digit."""
    pages, expected = b"%8d" % 15496 * 512 * 512, b"Hello" * 512 * 512
    with subprocess.Popen([MILLRACE, "tokenize", "--decode"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        feeder = threading.Thread(target=process.stdin.write, args=[pages])
        guard = threading.Timer(30, process.kill)
        feeder.start(), guard.start()
        got = process.stdout.read(len(expected) // 2)  # while standard input is open
        guard.cancel()
        ending = threading.Thread(target=lambda: (feeder.join(), process.stdin.close()))
        ending.start()
        got += process.stdout.read()
        ending.join()
    assert got == expected and process.returncode == 0


# ---- generate and evaluate -----------------------------------------------------------------------------------------------------

V, P, C, LAYERS, HEADS = 50257, 24, 32, 2, 4


def shapes():
    yield "wpe.weight", (P, C)
    yield "wte.weight", (V, C)
    for layer in range(LAYERS):
        for name, shape in [("ln_1.weight", (C,)), ("ln_1.bias", (C,)), ("attn.c_attn.weight", (C, 3 * C)), ("attn.c_attn.bias", (3 * C,)),
                            ("attn.c_proj.weight", (C, C)), ("attn.c_proj.bias", (C,)), ("ln_2.weight", (C,)), ("ln_2.bias", (C,)),
                            ("mlp.c_fc.weight", (C, 4 * C)), ("mlp.c_fc.bias", (4 * C,)), ("mlp.c_proj.weight", (4 * C, C)),
                            ("mlp.c_proj.bias", (C,))]:
            yield f"h.{layer}.{name}", shape
    yield "ln_f.weight", (C,)
    yield "ln_f.bias", (C,)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A GPT-2 as others write it: names without "transformer.", tensors in another order. Gives (folder, tensors)."""
    numpy = pytest.importorskip("numpy")
    chooser = numpy.random.default_rng(11)
    tensors = {name: chooser.normal(1 if "ln_" in name and "weight" in name else 0, 0.4, shape).astype("<f4") for name, shape in shapes()}
    header, data = {}, b""
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [len(data), len(data) + tensor.nbytes]}
        data += tensor.tobytes()
    text = json.dumps(header).encode()
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = {"model_type": "gpt2", "vocab_size": V, "n_positions": P, "n_embd": C, "n_layer": LAYERS, "n_head": HEADS}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, {name: tensor.astype("f8") for name, tensor in tensors.items()}


def logits(tensors, ids):
    """(len(ids), V): GPT-2's forward pass as in the paper, in float64."""
    import numpy as np

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * tensors[name + ".weight"] + tensors[name + ".bias"]

    def linear(x, name):
        return x @ tensors[name + ".weight"] + tensors[name + ".bias"]

    n = len(ids)
    x = tensors["wte.weight"][ids] + tensors["wpe.weight"][:n]
    for layer in range(LAYERS):
        h = f"h.{layer}."
        q, k, v = np.split(linear(norm(x, h + "ln_1"), h + "attn.c_attn"), 3, axis=-1)
        heads = []
        for part in np.split(np.arange(C), HEADS):
            scores = q[:, part] @ k[:, part].T / math.sqrt(C // HEADS)
            scores[np.triu_indices(n, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(heads, -1), h + "attn.c_proj")
        inner = linear(norm(x, h + "ln_2"), h + "mlp.c_fc")
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner ** 3)))
        x = x + linear(inner, h + "mlp.c_proj")
    return norm(x, "ln_f") @ tensors["wte.weight"].T


TEXT = "The house prices dropped down, and then the mill stood still for a hundred years; nobody in the village knew why. " * 2


def test_evaluate_takes_text_in_any_coat_and_nothing_else(foreign, tmp_path):
    folder, _ = foreign
    plain = TEXT.encode()
    coats = [plain, gzip.compress(plain), TEXT.encode("utf-16"), ("\ufeff" + TEXT).encode("utf-16-be"), b"\xef\xbb\xbf" + plain]
    said = set()
    for data in coats:
        (tmp_path / "text").write_bytes(data)
        said.add(call("evaluate", folder, "--text", tmp_path / "text", "--json"))
    assert len(said) == 1
    (tmp_path / "text").write_bytes(b"PAR1\x15\x04\x15" + bytes(100))
    assert f"{tmp_path}/text is Apache Parquet" in refusal("evaluate", folder, "--text", tmp_path / "text")
    (tmp_path / "text").write_bytes(gzip.compress(random.Random(5).randbytes(9000).hex().encode())[:-900])
    assert refusal("evaluate", folder, "--text", tmp_path / "text", code=1).count(f"{tmp_path}/text") == 1


def test_evaluate_is_the_mean_over_windows(foreign, tmp_path):
    import numpy as np
    folder, tensors = foreign
    (tmp_path / "text").write_text(TEXT)
    ids = [int(word) for word in call("tokenize", given=TEXT.encode()).split()]
    loss, count = 0.0, 0
    for begin in range(0, len(ids) - 1, P):
        targets = ids[begin + 1:begin + P + 1]
        rows = logits(tensors, ids[begin:begin + len(targets)])
        top = rows.max(-1)
        loss += float((np.log(np.exp(rows - top[:, None]).sum(-1)) + top - rows[range(len(targets)), targets]).sum())
        count += len(targets)
    told = [call("evaluate", folder, "--text", tmp_path / "text", "--json", "--threads", threads) for threads in (1, 2)]
    assert told[0] == told[1]
    assert all(len(number) <= 16 for number in re.findall(rb"\d+\.\d+", told[0]))  # fifteen digits and a point
    told = json.loads(told[0])
    assert told["tokens"] == count == len(ids) - 1
    assert told["loss"] == pytest.approx(loss / count, rel=1e-5)
    assert told["perplexity"] == pytest.approx(math.exp(told["loss"]), rel=1e-9)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_rounded_weights_change_the_loss_by_less_than_a_hundredth(foreign, tmp_path, dtype):
    (tmp_path / "text").write_text(TEXT)
    words = ["evaluate", foreign[0], "--text", tmp_path / "text", "--json"]
    whole = json.loads(call(*words))
    told = [call(*words, "--dtype", dtype, "--threads", threads) for threads in (1, 2)]
    assert told[0] == told[1]
    told = json.loads(told[0])
    assert told["tokens"] == whole["tokens"]
    assert told["loss"] != whole["loss"]
    assert told["loss"] == pytest.approx(whole["loss"], rel=0.01)


@pytest.mark.parametrize("dtype, bytes_each", [("fp32", 4), ("bf16", 2), ("int8", 1)])
def test_bench_generate_tells_what_it_read(dtype, bytes_each):
    told = json.loads(call("bench", "generate", "--n-layer", 2, "--n-head", 2, "--n-embd", 64, "--vocab-size", 1000, "--prompt-tokens", 5,
                           "--new-tokens", 9, "--dtype", dtype, "--json"))
    matrices = 1000 * 64 + 2 * 12 * 64 * 64
    assert matrices * bytes_each < told["bytes_of_weights"] < matrices * bytes_each * 1.1 + 10000 * 4
    assert told["parameters"] == matrices + 14 * 64 + 2 * 13 * 64 + 2 * 64
    assert told["tokens_per_second_best"] >= told["tokens_per_second_median"] > 0 < told["prefill_tokens_per_second"]
    assert told["gbytes_per_second"] == pytest.approx(told["bytes_of_weights"] * told["tokens_per_second_median"] / 1e9)
    assert told["peak_rss_bytes"] > 1 << 20 and told["kernels"] in ("portable", "avx2", "avx512")


def test_bench_train_tells_where_the_time_goes():
    words = ["bench", "train", "--n-layer", 8, "--n-head", 2, "--n-embd", 64, "--vocab-size", 1000, "--sequence", 256, "--batch", 8]
    words += ["--steps", 2, "--profile"]
    plain, bf16, again = (json.loads(call(*words, "--json", *more)) for more in ([], ["--dtype", "bf16"], ["--gradient-checkpointing"]))
    tokens, matrices = 8 * 256, 1000 * 64 + 8 * 12 * 64 * 64
    for told in (plain, bf16, again):
        assert told["parameters"] == matrices + 256 * 64 + 8 * 13 * 64 + 2 * 64
        assert told["tokens_per_second_best"] >= told["tokens_per_second_median"] > 0 and told["peak_rss_bytes"] > 1 << 20
        assert told["gflop_per_step"] == pytest.approx((6 * matrices + 12 * 8 * 64 * 256) * tokens / 1e9)
        assert told["gflops"] == pytest.approx(told["gflop_per_step"] * told["tokens_per_second_median"] / tokens)
        assert told["gradient_seconds"] + told["optimizer_seconds"] == pytest.approx(tokens / told["tokens_per_second_median"])
        names = [phase["name"] for phase in told["phases"]]
        assert len(set(names)) == len(names) and {"attention", "logits", "fc d weight", "AdamW"} <= set(names)
        assert all(set(phase) - {"gflops", "gbytes_per_second"} == {"name", "seconds", "cpu_seconds"} for phase in told["phases"])
        assert all(value >= 0 for phase in told["phases"] for field, value in phase.items() if field != "name")
        # The phases are the steps, without a gap: the mean step is no shorter than the best one.
        assert sum(phase["seconds"] for phase in told["phases"]) > 0.9 * tokens / told["tokens_per_second_best"]
    products = [phase for phase in plain["phases"] if "gflops" in phase and "attention" not in phase["name"]]
    assert sum(phase["gflops"] * phase["seconds"] for phase in products) == pytest.approx(6 * matrices * tokens / 1e9)
    for loss in ("loss_first", "loss_last"):
        assert bf16[loss] != plain[loss] and bf16[loss] == pytest.approx(plain[loss], rel=1e-3)
        assert again[loss] == plain[loss]
    assert again["peak_rss_bytes"] < plain["peak_rss_bytes"]
    table = call(*words).decode().splitlines()
    assert sum(line.split("  ")[0] in names for line in table) == len(names)


def test_bench_machine_tells_what_the_processor_has():
    told = json.loads(call("bench", "machine", "--threads", 1, "--seconds", 1, "--json"))
    flags = next((line for line in open("/proc/cpuinfo", encoding="ascii") if line.startswith("flags")), "").split()
    fields = {"threads", "fp32_gflops", "read_gbytes_per_second", "copy_gbytes_per_second", "triad_gbytes_per_second"}
    fields |= {"bf16_gflops"} if "avx512_bf16" in flags else set()
    fields |= {"int8_gops"} if "avx512_vnni" in flags else set()
    assert set(told) == fields and all(value > 0 for value in told.values())


BENCH_TRAIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench", "bench_train.py")


def test_bench_train_without_pytorch_shows_ours_alone(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    words = ["--cases", "2,2,64,2,32", "--dtypes", "bf16", "--rounds", "2", "--steps", "1", "--seconds", "0", "--threads", "1"]
    def run(*more):
        return subprocess.run([sys.executable, "-B", BENCH_TRAIN, "--program", MILLRACE, *words, *more], capture_output=True, text=True,
                              timeout=100, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    done = run("--json")
    assert done.returncode == 0 and "has no PyTorch" in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert [(row["case"], row["dtype"], row["pytorch"]) for row in told["train"]] == [("2,2,64,2,32", "bf16", None)]
    assert 0 < told["train"][0]["millrace"]["share_of_peak"] and told["generate"] == []
    assert [(row["program"], len(row["rounds"])) for row in told["results"]] == [("millrace", 2)] * 2
    assert "2,2,64,2,32      bf16 | " in run().stdout
    done = run("--cases", "2,2,64")
    assert done.returncode == 2 and "--cases 2,2,64: generate, 124m," in done.stderr


def test_bench_train_compares_medians_with_the_peak_of_their_kind():
    bench = runpy.run_path(BENCH_TRAIN)
    def run(speed, mib):
        return {"tokens_per_second_median": speed, "tokens_per_second_best": speed + 5, "gflops": speed / 10, "peak_rss_bytes": mib << 20}
    results = {("small", dtype, program): [run(speed * by, mib) for by in (1, 9, 2)]
               for program, speed, mib in (("millrace", 300, 100), ("pytorch", 200, 400)) for dtype in ("fp32", "bf16")}
    for machine, peak in (({"fp32_gflops": 120}, 120), ({"fp32_gflops": 120, "bf16_gflops": 240}, 240)):
        fp32, bf16 = bench["train_rows"](results, machine)
        assert fp32["ratio"] == bf16["ratio"] == 1.5 and fp32["memory_ratio"] == 0.25
        assert fp32["millrace"]["tokens_per_second_median"] == 600 and fp32["millrace"]["tokens_per_second_best"] == 2705
        assert fp32["millrace"]["share_of_peak"] == 60 / 120 and bf16["pytorch"]["share_of_peak"] == 40 / peak
    said = {**run(90, 500), "gbytes_per_second": 18, "bytes_of_weights": 2e8, "prefill_tokens_per_second": 7}
    row, = bench["generate_rows"]({("generate", "int8", "millrace"): [said]}, {"read_gbytes_per_second": 24})
    assert row["share_of_read_bandwidth"] == 0.75 and row["tokens_per_second_median"] == 90


def test_a_text_without_a_prediction_is_an_error(foreign, tmp_path):
    for text in (b"", b"a"):
        (tmp_path / "text").write_bytes(text)
        said = refusal("evaluate", foreign[0], "--text", tmp_path / "text", "--json", code=2)
        assert "at least two" in said and f"{tmp_path}/text: the text has" in said, said


@pytest.mark.parametrize("dtype, margin", [("fp32", 1e-3), ("bf16", 0.5), ("int8", 0.5)])
def test_greedy_takes_the_argmax_each_time(foreign, dtype, margin):
    folder, tensors = foreign
    prompt = [int(word) for word in call("tokenize", given=b"The house prices").split()]
    words = ["generate", folder, "--prompt", "The house prices", "--greedy", "--max-new-tokens", 15, "--json", "--dtype", dtype]
    text = call(*words)
    told = json.loads(text)
    assert told["ids"][:len(prompt)] == prompt and len(told["ids"]) == len(prompt) + 15
    for n in range(len(prompt), len(told["ids"])):
        row = logits(tensors, told["ids"][:n])[-1]
        assert row[told["ids"][n]] >= row.max() - margin  # the highest is some 10, the next ones 0.5 apart
    assert call(*words, "--threads", 3, env={**os.environ, "MILLRACE_KERNELS": "portable"}) == text
    assert call("tokenize", "--decode", given=" ".join(map(str, told["ids"])).encode()).decode(errors="replace") == told["text"]


def test_seeds_and_sequences(foreign):
    words = ["generate", foreign[0], "--prompt", "Once", "--max-new-tokens", 12, "--num-return-sequences", 3, "--json"]
    one, again, other = call(*words, "--seed", 1), call(*words, "--seed", 1, "--threads", 2), call(*words, "--seed", 2)
    assert one == again != other
    told = json.loads(one)
    assert len(told["sequences"]) == 3 and len({tuple(s["ids"]) for s in told["sequences"]}) == 3
    assert {"ids": told["ids"], "text": told["text"]} == told["sequences"][0]
    text = call(*words[:-3], "--seed", 1).decode(errors="strict")
    assert text == told["text"] + "\n"


def test_total_lengths_count_the_prompt(foreign):
    words = ["generate", foreign[0], "--prompt", "one two three four", "--json"]
    assert len(json.loads(call(*words, "--min-length", 30, "--max-length", 30))["ids"]) == 30
    assert "leaves nothing" in refusal(*words, "--max-length", 4)
    assert "at least 9" in refusal(*words, "--min-new-tokens", 9, "--max-new-tokens", 8)


def hears(pid, number):
    """Has the process a handler for the signal?"""
    caught = re.search(r"^SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1]
    return int(caught, 16) >> (number - 1) & 1


def test_an_interrupted_generation_ends_with_130(foreign):
    process = subprocess.Popen([MILLRACE, "generate", str(foreign[0]), "--max-new-tokens", "1000000", "--min-new-tokens", "1000000",
    "--json"],
                               stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: hears(process.pid, signal.SIGINT), 60, "it has begun")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        process.kill()


def test_a_folder_without_a_checkpoint_says_what_to_give(tmp_path):
    assert "holds no checkpoint" in refusal("generate", tmp_path, code=1)
    assert "No such file" in refusal("generate", tmp_path / "nothing", code=1)
