"""Text in any form gives the dataset that the same documents as plain files give: formats, compression, archives in archives, standard
input and URLs, for any number of workers.
"""

import http.server
import itertools
import os
import shutil
import signal
import threading

import hypothesis
import pytest
from hypothesis import strategies

import cluster
import forms


@pytest.fixture(scope="module")
def texts():
    return forms.documents()


@pytest.fixture(scope="module")
def plain_digest(base_folder, texts):
    folder = base_folder / "forms"
    place = cluster.Workplace(folder, dataset__sources=[f"{forms.plain(folder / 'plain', texts)}/*.txt"], **forms.SHORT)
    try:
        yield forms.dataset_digest(place, "--workers", 1)
    finally:
        place.close()


@pytest.mark.parametrize("form", forms.FORMS)
def test_every_form_gives_the_same_dataset(workplaces, tmp_path, texts, plain_digest, form):
    source = forms.FORMS[form](tmp_path / "source", texts)
    assert forms.dataset_digest(workplaces(dataset__sources=[source], **forms.SHORT)) == plain_digest


# JSON lines, packed and put into archives with others, and that again: a name, or what is in what.
nestings = strategies.recursive(
    strategies.just("jsonl"),
    lambda inner: strategies.tuples(strategies.sampled_from([*forms.PACKERS]), inner)
    | strategies.tuples(strategies.sampled_from(["tar", "zip"]), strategies.lists(inner, min_size=1, max_size=3)),
    max_leaves=6,
)


def leaves_of(nesting):
    kind, inner = nesting if isinstance(nesting, tuple) else (nesting, None)
    return 1 if inner is None else sum(map(leaves_of, inner)) if isinstance(inner, list) else leaves_of(inner)


def nested(nesting, leaves, numbers):
    """The name and the bytes of it; leaves are taken one after the other."""
    if nesting == "jsonl":
        return f"{next(numbers)}.jsonl", next(leaves)
    kind, inner = nesting
    if kind in forms.PACKERS:
        name, data = nested(inner, leaves, numbers)
        return f"{name}.{kind}", forms.PACKERS[kind](data)
    members = [nested(one, leaves, numbers) for one in inner]
    return f"{next(numbers)}.{kind}", (forms.tar if kind == "tar" else forms.zipped)(members)


@hypothesis.settings(max_examples=16)
@hypothesis.given(nestings)
def test_whatever_is_packed_in_what_the_dataset_is_the_same(workplaces, texts, plain_digest, nesting):
    count = leaves_of(nesting)
    borders = [len(texts) * i // count for i in range(count + 1)]
    leaves = (forms.json_lines(texts[begin:end]) for begin, end in itertools.pairwise(borders))
    name, data = nested(nesting, leaves, itertools.count())
    place = workplaces()
    place.write(dataset__sources=[forms.written(place.folder / "text", name, data)], **forms.SHORT)
    assert forms.dataset_digest(place, "--workers", 1) == plain_digest


def test_lines_are_documents(workplaces, tmp_path, texts):
    folded = forms.lines(texts)
    files = workplaces(dataset__sources=[f"{forms.plain(tmp_path / 'plain', folded)}/*.txt"], **forms.SHORT)
    source = forms.written(tmp_path, "all.txt.zst", forms.PACKERS["zst"]("\n".join(folded).encode()), format="lines")
    assert forms.dataset_digest(workplaces(dataset__sources=[source], **forms.SHORT)) == forms.dataset_digest(files)


def test_a_source_in_parts_is_the_sum_of_them(workplaces, tmp_path, texts, plain_digest):
    """Several entries of several forms, in the order of the documents."""
    sources = [
        forms.FORMS["jsonl.zst"](tmp_path / "a", texts[:11]),
        f"{forms.plain(tmp_path / 'b', texts[11:15])}/*.txt",
        {"paths": [forms.FORMS["tar"](tmp_path / "c", texts[15:22])["path"], forms.FORMS["zip"](tmp_path / "d", texts[22:30])["path"]]},
        forms.FORMS["csv"](tmp_path / "e", texts[30:]),
    ]
    assert forms.dataset_digest(workplaces(dataset__sources=sources, **forms.SHORT), "--workers", 3) == plain_digest


def test_standard_input_is_a_source(workplaces, texts, plain_digest):
    place = workplaces(dataset__sources=[{"path": "-", "format": "jsonl"}], **forms.SHORT)
    process = place.run(*forms.ONLY, stdin=forms.json_lines(texts))
    assert place.finish(process)["dataset_digest"] == plain_digest
    assert place.go()["dataset_digest"] == plain_digest  # what was read is kept: training goes on without it


def test_a_copy_of_standard_input_that_is_damaged_on_the_disk_is_not_read(workplaces):
    text = "".join(f"a line of text, number {i}\n" for i in range(3000)).encode()
    place = workplaces(dataset__sources=["-"], **forms.SHORT)
    whole = place.finish(place.run(*forms.ONLY, stdin=text))["dataset_digest"]
    shutil.rmtree(place.output / "dataset")
    shutil.rmtree(place.output / "state/runs")
    copy = place.output / "state/stdin"
    try:
        os.getxattr(copy, "user.millrace.sha256")
    except OSError:
        pytest.skip("a file system without extended attributes")
    damaged = bytearray(copy.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    with open(copy, "r+b") as file:  # in place: another file would have no digest
        file.write(damaged)
    process = place.run(*forms.ONLY, stdin=b"")
    assert process.wait() == 1 and "give the same command the same text again" in process.stderr(), process.stderr()
    assert (place.output / "state/stdin.damaged").read_bytes() == damaged
    assert place.finish(place.run(*forms.ONLY, stdin=text))["dataset_digest"] == whole


def test_standard_input_that_was_refused_is_read_anew(workplaces, texts, plain_digest):
    place = workplaces(dataset__sources=[{"path": "-"}], **forms.SHORT)
    process = place.run(*forms.ONLY, stdin=b"PAR1" + bytes(100) + b"PAR1")
    place.finish(process, 2)
    assert "dataset.sources: standard input is Apache Parquet" in process.stderr(), process.stderr()
    place.finish(again := place.run(*forms.ONLY), 2)
    assert "standard input is Apache Parquet" in again.stderr(), again.stderr()
    place.write(dataset__sources=[{"path": "-", "format": "jsonl"}], **forms.SHORT)
    good = place.run(*forms.ONLY, stdin=forms.json_lines(texts))
    assert place.finish(good)["dataset_digest"] == plain_digest
    assert place.go(*forms.ONLY)["dataset_digest"] == plain_digest


class Server(http.server.BaseHTTPRequestHandler):
    """Serves server.content, with ranges unless server.without_ranges, after server.late seconds; counts its answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        data, span = self.server.content, self.headers.get("Range")
        self.server.asked.append(span)
        if self.server.ended.wait(self.server.late):
            self.close_connection = True
            return
        if span and not self.server.without_ranges:
            first, last = span.removeprefix("bytes=").split("-")
            first, last = int(first), min(int(last), len(data) - 1) if last else len(data) - 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"one"')
        if not self.server.without_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads, server.without_ranges, server.content, server.asked = True, False, b"", []
    server.late, server.ended = 0, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name, without_ranges", [("all.jsonl", False), ("all.tar.xz", False), ("all.jsonl.gz", True)])
def test_a_url_is_a_source(workplaces, tmp_path, texts, plain_digest, server, name, without_ranges):
    made = forms.FORMS[{"all.jsonl": "jsonl", "all.tar.xz": "tar.xz", "all.jsonl.gz": "jsonl.gz"}[name]](tmp_path, texts)
    server.content, server.without_ranges = open(made["path"], "rb").read(), without_ranges
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    assert forms.dataset_digest(workplaces(dataset__sources=[url], **forms.SHORT), "--workers", 2) == plain_digest
    assert server.asked


def test_a_url_that_is_not_there_is_named(workplaces, server):
    server.shutdown()
    server.server_close()
    place = workplaces(dataset__sources=[f"http://127.0.0.1:{server.server_port}/x.txt"], **forms.SHORT)
    process = place.run(*forms.ONLY)
    assert process.wait() in (1, 2)
    assert "x.txt" in process.stderr() + place.logs()


@pytest.fixture
def waiting(workplaces, texts, server):
    """A coordinator that has jobs about a server's file, and no worker; worker() starts one."""
    server.content = forms.json_lines(texts)
    url = f"http://127.0.0.1:{server.server_port}/all.jsonl"
    place = workplaces(dataset__sources=[url], cluster={"lease_seconds": 1, "attempts_max": 2}, **forms.SHORT)
    place.coordinator = place.start("coordinator", place.file, *forms.ONLY)
    cluster.wait_until((place.output / "state" / "endpoint").exists, what="the coordinator is up")
    cluster.wait_until(lambda: place.status()["state"] == "running", what="it has jobs")
    server.asked.clear()
    place.worker = lambda: place.start("worker", "--connect", (place.output / "state" / "endpoint").read_text(), "--grace", 1)
    return place


def test_a_server_that_takes_longer_than_a_lease_to_answer_is_waited_for(waiting, server, plain_digest):
    server.late = 2.5
    waiting.worker()
    assert waiting.coordinator.wait() == 0, waiting.coordinator.stderr()
    assert waiting.status()["dataset"]["digest"] == plain_digest


def test_a_server_that_goes_while_text_is_tokenized_ends_the_run_which_names_it(waiting, server):
    server.shutdown()
    server.server_close()
    waiting.worker()
    assert waiting.coordinator.wait() == 1
    last = waiting.coordinator.stderr().splitlines()[-1]
    assert all(word in last for word in (f"{server.server_port}/all.jsonl: ", "6 times in a row; check the URL", "tried 2 times")), last


def test_a_worker_that_waits_for_a_silent_server_goes_when_it_is_asked_to(waiting, server):
    server.late = 1000
    worker = waiting.worker()
    cluster.wait_until(lambda: server.asked, what="the worker asks the server")
    cluster.send(signal.SIGTERM, worker.pid)
    assert worker.wait() == 130
    assert len(server.asked) == 1, "it did not ask again"


def test_members_are_chosen_by_their_names(workplaces, tmp_path, texts):
    members = [("doc/a.txt", texts[0].encode()), ("doc/b.bin", b"\0\1\2" * 99), ("doc/deep/c.txt", texts[1].encode()), ("d.md", b"# no")]
    tar = forms.written(tmp_path / "a", "all.tar.gz", forms.PACKERS["gz"](forms.tar(members)), members=["doc/**/*.txt"])
    both = f"{forms.plain(tmp_path / 'b', texts[:2])}/*.txt"
    assert forms.dataset_digest(workplaces(dataset__sources=[tar], **forms.SHORT)) == forms.dataset_digest(
        workplaces(dataset__sources=[both], **forms.SHORT)
    )


@pytest.mark.parametrize("suffix", ["gz", "zst", "xz"])
def test_a_damaged_archive_is_named(workplaces, tmp_path, texts, suffix):
    data = bytearray(forms.PACKERS[suffix](forms.tar(forms.members_of(texts))))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    place = workplaces(dataset__sources=[forms.written(tmp_path, f"all.tar.{suffix}", bytes(data))], **forms.SHORT)
    process = place.run(*forms.ONLY)
    assert process.wait() == 2
    assert f"all.tar.{suffix}" in process.stderr() + place.logs()
