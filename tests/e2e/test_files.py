"""What a finished run leaves: every promised file, read with other tools than millrace's."""

import hashlib
import json
import math
import pathlib
import struct
import subprocess

import pytest

from cluster import END_OF_TEXT, GPT2, STEPS, millrace

CHECKPOINT_FILES = {
    "model.safetensors",
    "optimizer.safetensors",
    "config.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "trainer_state.json",
    "millrace_state.json",
}
N_LAYER, C, P, V = 2, 32, 32, 50257


def raw_tokens(place, split):
    """`zstd -dc` of all shards of a split, in their order."""
    return b"".join(
        subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
        for path in sorted(place.output.glob(f"dataset/{split}-*.tok.zst"))
    )


def documents_of(place, split):
    raw = raw_tokens(place, split)
    document, documents = [], []
    for token in struct.unpack(f"<{len(raw) // 2}H", raw):
        if token == END_OF_TEXT:
            documents.append(tuple(document))
            document = []
        else:
            document.append(token)
    assert not document, f"{split}: the last document is not ended"
    return documents


def retokenized(corpus):
    """{file: ids}, each file alone through `millrace tokenize`."""
    return {path: tuple(map(int, millrace("tokenize", stdin=path.read_bytes()).stdout.split())) for path in sorted(corpus.rglob("*.txt"))}


def tensors_of(path):
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    return header, raw[8 + size :]


@pytest.fixture
def reference(gpt2_reference):
    return gpt2_reference


# ---- the folder ----------------------------------------------------------------------------------------------------------------


def test_layout_of_output_dir(reference):
    there = {path.name for path in reference.output.iterdir()}
    assert there == {"dataset", "metrics.jsonl", "state", "logs", "checkpoint-8", "checkpoint-16", f"checkpoint-{STEPS}"}
    for name in ("checkpoint-8", f"checkpoint-{STEPS}"):
        assert {path.name for path in (reference.output / name).iterdir()} == CHECKPOINT_FILES
    shards = sorted(path.name for path in (reference.output / "dataset").glob("*.tok.zst"))
    train = [name for name in shards if name.startswith("train-")]
    validation = [name for name in shards if name.startswith("validation-")]
    assert len(train) >= 2 and validation and sorted(train + validation) == shards
    assert train == [f"train-{i:05}.tok.zst" for i in range(len(train))]
    assert {path.name for path in (reference.output / "logs").iterdir()} == {"coordinator.log", "worker-1.log", "worker-2.log"}


def test_result_object(reference):
    result = reference.result
    assert set(result) == {"state", "steps", "dataset_digest", "weights_digest", "train_loss", "eval_loss", "checkpoint",
                           "account", "warnings"}
    assert (result["state"], result["steps"]) == ("done", STEPS)
    assert pathlib.Path(result["checkpoint"]) == reference.output / f"checkpoint-{STEPS}"
    assert 5 < result["train_loss"] < math.log(V) and 5 < result["eval_loss"] < math.log(V)


def test_metrics_tell_every_step(reference):
    lines = reference.metrics()
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all({"step", "loss", "learning_rate", "grad_norm", "tokens_per_second"} <= set(line) for line in steps)
    assert [line["step"] for line in lines if "eval_loss" in line] == [10, 20, STEPS]
    assert all(line["perplexity"] == pytest.approx(math.exp(line["eval_loss"])) for line in lines if "eval_loss" in line)
    assert steps[-1]["loss"] == reference.result["train_loss"] < steps[0]["loss"] - 0.3
    assert steps[0]["learning_rate"] == 0 and max(line["learning_rate"] for line in steps) == pytest.approx(0.003)


# ---- digests -------------------------------------------------------------------------------------------------------------------


def test_weights_digest_is_that_of_the_file(reference):
    path = pathlib.Path(reference.result["checkpoint"]) / "model.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == reference.result["weights_digest"]


def test_dataset_digest_is_that_of_the_tokens(reference):
    raw = raw_tokens(reference, "train") + raw_tokens(reference, "validation")
    assert hashlib.sha256(raw).hexdigest() == reference.result["dataset_digest"]


# ---- the dataset ---------------------------------------------------------------------------------------------------------------


def test_each_document_is_there_once_and_on_one_side(reference, corpus):
    expected = retokenized(corpus)
    train, validation = documents_of(reference, "train"), documents_of(reference, "validation")
    assert sorted(train + validation) == sorted(ids for ids in expected.values() if ids)
    assert train and validation and not set(train) & set(validation)


def test_dataset_commands_tell_the_same(reference, corpus):
    sources = retokenized(corpus)
    files = {path: ids for path, ids in sources.items() if ids}
    info = json.loads(millrace("dataset", "info", reference.output, "--json").stdout)
    assert info["digest"] == reference.result["dataset_digest"]
    assert info["tokens"] == sum(len(ids) + 1 for ids in files.values())
    assert info["documents"] in (len(files), len(files) + 1)  # an empty file may count as an empty document
    assert info["shards"] == len(list(reference.output.glob("dataset/*.tok.zst")))
    assert info["sequences"] == info["train"]["sequences"] + info["validation"]["sequences"]
    assert info["train"]["sequences"] == (info["train"]["tokens"] - 1) // 32
    assert json.loads(millrace("dataset", "info", reference.output / "dataset", "--json").stdout) == info
    assert info["digest"] in millrace("dataset", "verify", reference.output).stdout
    train = raw_tokens(reference, "train")
    ids = millrace("dataset", "cat", reference.output, "--sequence", 3, "--tokens").stdout.split()
    assert tuple(map(int, ids)) == struct.unpack("<32H", train[3 * 64 : 4 * 64])
    path_of = {ids: path for path, ids in files.items()}
    placed = documents_of(reference, "train") + documents_of(reference, "validation")
    for number, ids in enumerate(placed):  # documents are numbered by their places
        words = ["dataset", "cat", reference.output, "--document", number]
        path = path_of[ids]
        if path.name == "not-utf8.txt":
            assert "good \ufffd\ufffd\ufffd bad \ufffd cut " in millrace(*words).stdout
        else:
            assert millrace(*words, text=False).stdout == path.read_bytes()
    assert info["replaced"] >= 4
    millrace("dataset", "cat", reference.output, "--document", len(placed), code=1)
    millrace("dataset", "cat", reference.output, "--sequence", info["train"]["sequences"], code=1)


# ---- checkpoints ---------------------------------------------------------------------------------------------------------------


def expected_tensors():
    layer = {
        "ln_1.weight": [C],
        "ln_1.bias": [C],
        "attn.c_attn.weight": [C, 3 * C],
        "attn.c_attn.bias": [3 * C],
        "attn.c_proj.weight": [C, C],
        "attn.c_proj.bias": [C],
        "ln_2.weight": [C],
        "ln_2.bias": [C],
        "mlp.c_fc.weight": [C, 4 * C],
        "mlp.c_fc.bias": [4 * C],
        "mlp.c_proj.weight": [4 * C, C],
        "mlp.c_proj.bias": [C],
    }
    tensors = {"wte.weight": [V, C], "wpe.weight": [P, C], "ln_f.weight": [C], "ln_f.bias": [C]}
    tensors.update({f"h.{i}.{name}": shape for i in range(N_LAYER) for name, shape in layer.items()})
    return {"transformer." + name: shape for name, shape in tensors.items()}


def test_weights_are_gpt2lmheadmodels(reference):
    header, data = tensors_of(pathlib.Path(reference.result["checkpoint"]) / "model.safetensors")
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {name: tensor["shape"] for name, tensor in header.items()} == expected_tensors()
    assert {tensor["dtype"] for tensor in header.values()} == {"F32"}
    place = 0
    for tensor in sorted(header.values(), key=lambda tensor: tensor["data_offsets"]):
        begin, end = tensor["data_offsets"]
        assert begin == place and end - begin == 4 * math.prod(tensor["shape"])
        place = end
    assert place == len(data)
    begin, end = header["transformer.ln_f.weight"]["data_offsets"]
    values = struct.unpack(f"<{C}f", data[begin:end])
    assert all(abs(value - 1) < 0.1 for value in values) and any(value != 1 for value in values)


def test_json_files_are_what_transformers_reads(reference):
    folder = pathlib.Path(reference.result["checkpoint"])
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "gpt2" and config["architectures"] == ["GPT2LMHeadModel"]
    assert [config[key] for key in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")] == [N_LAYER, 2, C, P, V]
    vocabulary = json.loads((folder / "vocab.json").read_text())
    assert len(vocabulary) == V and vocabulary["<|endoftext|>"] == END_OF_TEXT and vocabulary["Ġthe"] == 262
    assert len((folder / "merges.txt").read_text().splitlines()) == 50001
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert (settings["tokenizer_class"], settings["model_max_length"]) == ("GPT2Tokenizer", P)
    state = json.loads((folder / "millrace_state.json").read_text())
    assert reference.result["weights_digest"] in json.dumps(state) and STEPS in state.values()


def test_trained_models_can_be_tried(reference, tmp_path):
    told = millrace("generate", reference.output, "--prompt", "The mill", "--greedy", "--max-new-tokens", 6, "--json").stdout
    assert (
        told
        == millrace("generate", reference.result["checkpoint"], "--prompt", "The mill", "--greedy", "--max-new-tokens", 6, "--json").stdout
    )
    assert json.loads(told)["ids"][:2] == [464, 3939] and len(json.loads(told)["ids"]) == 8
    text = tmp_path / "text"
    text.write_text("the water of the mill and the wheel " * 30)
    first, last = (
        json.loads(millrace("evaluate", reference.output / name, "--text", text, "--json").stdout)
        for name in ("checkpoint-8", f"checkpoint-{STEPS}")
    )
    assert first["tokens"] == last["tokens"] == len(millrace("tokenize", stdin=text.read_bytes()).stdout.split()) - 1
    assert last["loss"] < first["loss"] < math.log(V) + 0.1
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))


def test_an_untrained_model_knows_nothing(workplaces, corpus):
    """One step at learning rate 0 (the first of the warm-up): the loss is the logarithm of the vocabulary."""
    place = workplaces(corpus, **GPT2, training__max_steps=1)
    result = place.go()
    text = place.folder / "text"
    text.write_text("nobody in the village has ever seen the end of this river " * 20)
    told = json.loads(millrace("evaluate", result["checkpoint"], "--text", text, "--json").stdout)
    assert told["loss"] == pytest.approx(math.log(V), abs=0.05)
    assert result["train_loss"] == pytest.approx(math.log(V), abs=0.05)
    assert result["eval_loss"] == pytest.approx(math.log(V), abs=0.05)
