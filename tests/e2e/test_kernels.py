"""MILLRACE_KERNELS chooses the set of kernels; sets whose bits differ never share a run."""

import os
import re

import pytest

from cluster import digests, millrace
from runs import free_port

REFUSED = "its arithmetic gives other bits"


def with_kernels(name):
    return {"env": {**os.environ, "MILLRACE_KERNELS": name}}


@pytest.fixture(scope="module")
def best():
    """The set that this machine runs unless told otherwise."""
    return re.search(r"kernels: (\w+)", millrace("version").stdout).group(1)


def test_an_unknown_set_is_refused_with_the_list_of_those_that_are_there(place, reference, corpus, best):
    text = corpus / "document-1.txt"
    generates = [("generate", reference.output, "--dtype", dtype) for dtype in ("fp32", "int8")]
    evaluates = [("evaluate", reference.output, "--text", text, "--dtype", dtype) for dtype in ("fp32", "bf16", "int8")]
    for words in (("run", place.file), ("worker", "--connect", f"tcp://127.0.0.1:{free_port()}"), ("bench", "train"),
                  ("bench", "generate"), *generates, *evaluates):
        process = place.start(*words, **with_kernels("sse9"))
        assert process.wait() == 1, process.stderr()
        assert re.search(rf"MILLRACE_KERNELS=sse9: this machine has ({best}, .*)?portable$", process.stderr(), re.M), process.stderr()
        assert not process.stdout()


def test_a_run_with_the_portable_set_has_weights_of_its_own(place, reference, best):
    result = place.finish(place.run(**with_kernels("portable")))
    assert "; portable;" in place.events()
    assert result["dataset_digest"] == reference.result["dataset_digest"]
    assert (result["weights_digest"] == reference.result["weights_digest"]) == (best == "portable")


def test_a_worker_whose_kernels_give_other_bits_is_refused_and_the_run_goes_on(place, reference, best):
    if best == "portable":
        pytest.skip("this machine has one set of kernels")
    address = f"tcp://127.0.0.1:{free_port()}"
    coordinator = place.start("coordinator", place.file, "--bind", address)
    first = place.start("worker", "--connect", address)
    place.wait_for_step(coordinator, 1)
    other = place.start("worker", "--connect", address, **with_kernels("portable"))
    assert other.wait() == 1
    assert REFUSED in other.stderr()
    assert coordinator.wait() == 0 and first.wait() == 0
    assert "worker-refused" in coordinator.stderr()
    assert digests(place.go()) == reference.digests
