"""A Hugging Face tokenizer folder in GPT-2's place. Made from the merges in the tree: GPT-2's own numbers have to come out."""

import json

import pytest

import cluster
import forms

MERGES = cluster.ROOT / "dataset" / "tokenizer" / "gpt2_vocab.bpe"
END = "<|endoftext|>"


def byte_letters():
    """GPT-2's letters for bytes, in the order of its vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def write_tokenizer(folder, more=0):
    """tokenizer.json and tokenizer_config.json of GPT-2, with `more` words at the end that no text has."""
    merges = [line for line in MERGES.read_text().splitlines() if " " in line and not line.startswith("#version")]
    words = [*byte_letters(), *(line.replace(" ", "") for line in merges), END, *(f"<unused-{i}>" for i in range(more))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = {"id": words.index(END), "content": END, **flags}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [end],
                "normalizer": None,
                "pre_tokenizer": byte_level,
                "post_processor": byte_level,
                "decoder": byte_level,
                "model": {
                    "type": "BPE",
                    "dropout": None,
                    "unk_token": None,
                    "continuing_subword_prefix": "",
                    "end_of_word_suffix": "",
                    "fuse_unk": False,
                    "vocab": {word: i for i, word in enumerate(words)},
                    "merges": merges,
                },
            }
        )
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END, "tokenizer_class": "GPT2Tokenizer"}))
    return folder


@pytest.fixture
def source(tmp_path):
    return forms.written(tmp_path / "text", "all.jsonl", forms.json_lines(forms.documents(30)))


def test_a_tokenizer_folder_gives_the_tokens_of_gpt2(workplaces, source, tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer")
    few = {**forms.SHORT, "training__max_steps": 2, "model__n_positions": 32}
    built_in = workplaces(dataset__sources=[source], **{**few, **cluster.GPT2})
    wanted = cluster.digests(built_in.go())
    for path, workers in ((folder, 1), (folder / "tokenizer.json", 3)):
        place = workplaces(dataset__sources=[source], dataset__tokenizer=str(path), **few)
        assert cluster.digests(place.go("--workers", workers)) == wanted
    assert forms.info(place)["token_bytes"] == 2
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (place.output / "checkpoint-2" / name).exists()


def test_a_large_vocabulary_makes_wide_shards_with_the_same_tokens(workplaces, source, tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer", more=20_000)
    narrow = workplaces(dataset__sources=[source], **forms.SHORT, **cluster.GPT2)
    forms.dataset_digest(narrow)
    digests = []
    for workers in (1, 2):
        wide = workplaces(dataset__sources=[source], dataset__tokenizer=str(folder), **{**forms.SHORT, "training__max_steps": 3})
        digests.append(cluster.digests(wide.go("--workers", workers)))
    assert digests[0] == digests[1]
    assert forms.info(wide)["token_bytes"] == 4
    assert forms.tokens(wide) == forms.tokens(narrow)
    assert json.loads((wide.output / "checkpoint-3" / "config.json").read_text())["vocab_size"] == 70_257


def test_a_vocabulary_that_is_too_small_is_refused(workplaces, source, tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer")
    place = workplaces(dataset__sources=[source], dataset__tokenizer=str(folder), model__vocab_size=50256)
    cluster.refused("run", place.file, code=2, says=["vocab_size", "50256", "50257"])


def test_config_shows_what_the_model_takes_from_the_tokenizer(workplaces, source, tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer", more=3)
    place = workplaces(dataset__sources=[source], dataset__tokenizer=str(folder))
    shown = cluster.millrace("config", place.file).stdout
    assert "\n  vocab_size: 50260\n" in shown and "\n  eos_token_id: 50256\n" in shown
    assert cluster.millrace("config", place.file, "--check", "--set", "dataset.tokenizer=./no", code=None).returncode in (1, 2)


def test_a_tokenizer_that_is_not_there_is_named(workplaces, source, tmp_path):
    place = workplaces(dataset__sources=[source], dataset__tokenizer=str(tmp_path / "nowhere"))
    done = cluster.millrace("run", place.file, code=None)
    assert done.returncode in (1, 2) and "nowhere" in done.stderr
