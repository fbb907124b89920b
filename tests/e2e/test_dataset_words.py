"""What `run`, `plan` and `dataset` say of a dataset, so that a person knows what became of their text and what to do about it."""

import re

import forms
from cluster import millrace

WHOLE = {**forms.SHORT, "dataset__validation_fraction": 0, "dataset__shard_tokens": 4096, "dataset__sequence_length": 32}


def build(place, *arguments, code=0):
    done = millrace("dataset", "build", place.file, "--workers", 1, *arguments, code=code)
    return done.stdout + done.stderr


def lines(said, word):
    """The lines that begin with a word, without it."""
    return [line[10:] for line in said.splitlines() if line.startswith(f"{word:<10}")]


def test_numbers_look_alike_in_all_lines_of_all_commands(workplaces, tmp_path):
    """Thousands have their comma, and no share is written with an exponent."""
    texts = [" water" * 1500] * 3 + [f" stone {i}" * 700 for i in range(2)]
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines(texts))
    place = workplaces(dataset__sources=[source], dataset__deduplicate="exact", **WHOLE)
    said = build(place)
    for name in ("info", "inspect", "verify"):
        said += millrace("dataset", name, place.output).stdout
    said += millrace("dataset", "export", place.output, "--format", "bin", "--output", tmp_path / "ids.bin").stdout
    said += millrace("dataset", "import", tmp_path / "ids.bin", "--output", tmp_path / "new", "--sequence-length", 32).stdout
    assert not re.search(r"\d{4,} (?:token|document|sequence|byte)|\de[+-]\d", said), said
    assert said.count("4,303 tokens") >= 3, said
    broken = workplaces(dataset__sources=[forms.written(tmp_path, "bad.jsonl", b"x\n" * 5)], dataset__max_left_out=0, **WHOLE)
    assert "5 of 5 documents (100 %) cannot be used" in build(broken, code=2)
