"""One finished run for the tests with programs from PyPI; `make outside` sets MILLRACE_BUILD."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import cluster  # noqa: E402


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    corpus = cluster.make_corpus(folder / "text")
    place = cluster.Workplace(folder / "place", corpus, **cluster.GPT2)
    try:
        place.result = place.go()
        yield place
    finally:
        place.close()


@pytest.fixture(scope="session")
def checkpoint(run):
    """Not the last one: there is something left to train."""
    return run.output / "checkpoint-8"
