"""What the tests of whole runs share: the corpus and one undisturbed run, made once, and workplaces whose processes end with the test."""
import os
import pathlib
import shutil
import tempfile

import hypothesis
import pytest

import cluster

# What is drawn follows from the test's text alone: a failure comes again, and is shown when it is as small as it gets. Runs take what
# they take.
hypothesis.settings.register_profile(
    "millrace",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("millrace")
hypothesis.configuration.set_hypothesis_home_dir(pathlib.Path(cluster.MILLRACE).parent / "hypothesis")


# Some tests act as another user, who must get to what is made here: a private folder for temporary files will not do.
if os.geteuid() == 0 and not all(above.stat().st_mode & 0o001 for above in pathlib.Path(tempfile.gettempdir(), "x").resolve().parents):
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"


@pytest.fixture(scope="session")
def base_folder():
    """Everything of this folder's tests; readable by other users, and removed at the end, because checkpoints are large."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="millrace-e2e-"))
    folder.chmod(0o755)
    assert pathlib.Path(cluster.MILLRACE).exists(), f"{cluster.MILLRACE} is not there; run 'make'"
    cluster.make_tokenizer(folder / "tokenizer", cluster.make_corpus(folder / "corpus"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def corpus(base_folder):
    return base_folder / "corpus"


def undisturbed(folder, corpus, **changes):
    """A finished run that others are compared with: .result and .digests beside a Workplace. Nobody changes it."""
    place = cluster.Workplace(folder, corpus, **changes)
    try:
        place.result = place.go()
        place.digests = cluster.digests(place.result)
        assert place.events().count("started: generation") == 1, place.events()
        assert not any(word in place.events() for word in ("worker-lost", "worker-left", "roll-back", "warn", "error")), place.events()
        yield place
    finally:
        place.close()


@pytest.fixture(scope="session")
def reference(base_folder, corpus):
    yield from undisturbed(base_folder / "reference", corpus)


@pytest.fixture(scope="session")
def gpt2_reference(base_folder, corpus):
    """One with GPT-2's tokenizer and a context that is no longer than its sequences."""
    few = {"training__global_batch": 2, "training__slices": 2, "training__eval_sequences": 8}
    yield from undisturbed(base_folder / "gpt2-reference", corpus, **cluster.GPT2, **few)


@pytest.fixture(scope="session")
def large_corpus(base_folder):
    return cluster.make_large_corpus(base_folder / "large-corpus", 60)


LARGE = {"training__max_steps": 2, "training__save_steps": 0, "dataset__shard_tokens": 400_000}


@pytest.fixture(scope="session")
def large_reference(base_folder, large_corpus):
    """An undisturbed run on the large corpus: many tokenize and pack jobs, little training."""
    place = cluster.Workplace(base_folder / "large-reference", large_corpus, **LARGE)
    try:
        place.digests = cluster.digests(place.go())
        yield place
    finally:
        place.close()


@pytest.fixture
def workplaces(base_folder, request):
    """workplaces(corpus, **changes) makes one; all of them are gone after the test."""
    made = []

    def make(corpus=None, **changes):
        place = cluster.Workplace(base_folder / f"{request.node.name[:60].replace('/', '_')}-{len(made)}", corpus, **changes)
        made.append(place)
        return place

    yield make
    for place in made:
        place.close()
    for place in made:
        shutil.rmtree(place.folder, ignore_errors=True)


@pytest.fixture
def place(workplaces, corpus):
    """A workplace with the pipeline of the reference."""
    return workplaces(corpus)


@pytest.fixture
def large_place(workplaces, large_corpus):
    return workplaces(large_corpus, **LARGE)
