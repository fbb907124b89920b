"""Who may include whom, and which library lives in which file. Every check is a function from a tree to its violations, and is shown
made-up trees that break the rule, so that it is known to be able to fail."""

import re

import pytest

# One row may include the rows above it and itself; folders of one row never include each other.
ROWS = [["base"], ["config"], ["proto"], ["dataset", "model"], ["estimate"], ["coordinator", "workers"], ["cli"]]
ROW_OF = {folder: number for number, row in enumerate(ROWS) for folder in row}

# Inside these, one subject a folder: each may include those before it, and itself.
SUBJECTS = {
    "dataset": ["unicode", "source", "tokenizer", "filter", "shard", "ingest", "plan", "convert"],
    "model": ["kernels", "gpt2", "optim", "checkpoint", "generate", "trial"],
}

# Inside these, one part a file (its .c and .h): each may include those before it, and itself. A name with an ending is that file alone:
# coordinator.h is what others see of its folder, coordinator.c comes last.
ORDERED = {
    "coordinator": [
        "coordinator.h",
        # decide
        "queue", "tries", "trainer.h", "majority", "trainer.c", "stall", "self_test_votes", "listing", "arrivals",
        # what all of them stand on
        "store.h", "store_check", "store_copy", "store.c", "files", "output", "spool", "context", "restart",
        # workers and their jobs
        "roster", "self_tests", "download", "dispatch", "evaluating",
        # the dataset
        "sourcing", "runs", "tokenizing", "dataset", "trained", "packing", "repair", "changes",
        # training
        "lost_rows", "ledger_behind", "doubts", "metrics", "saving", "training",
        # all of it
        "serve", "stages", "waiting", "status", "parts", "preview", "coordinator",
    ],
    "workers": [
        "worker", "mailbox", "addresses", "asked", "parked", "feed",
        # decide
        "offer", "exchange", "partials", "join", "membership",
        # do
        "summing", "shared", "outputs", "questions", "serve", "learner", "jobs", "work", "agent",
    ],
}

# A library's header -> the only places that may know it; `millrace version` asks each for its version and no more.
VERSION = "cli/cmd_version.c"
HOMES = {
    "zmq.h": ["proto/link.c", "proto/key.c", "proto/admission.c", VERSION],
    "sqlite3.h": ["coordinator/store_check.h", VERSION],
    "yaml.h": ["config/yaml.c", VERSION],
    "openssl/evp.h": ["base/hash.c"],
    "zstd.h": ["proto/", "dataset/", VERSION],
    "cblas.h": ["model/"],
    "archive.h": ["dataset/source/unpack.c", VERSION],
    "archive_entry.h": ["dataset/source/unpack.c"],
    "curl/curl.h": ["dataset/source/http.c", VERSION],
    "zlib.h": ["dataset/source/gunzip.c", VERSION],
    "lzma.h": ["dataset/source/unxz.c", VERSION],
    "bzlib.h": ["dataset/source/unbzip2.c", VERSION],
    "utf8proc.h": ["dataset/unicode/unicode.c", VERSION],
    "pcre2.h": ["dataset/tokenizer/pattern.c", VERSION],
    "jansson.h": ["dataset/", "model/", "coordinator/", "workers/", "cli/"],
}
GENERATED = re.compile(r"proto/\w+\.pb-c\.h$")


def sources(tree):
    """Paths of the C files of all layers, relative to the tree."""
    return sorted(path.relative_to(tree) for folder in ROW_OF for path in (tree / folder).rglob("*.[ch]"))


def includes(tree, path):
    """(line number, quoted or not, name) of each #include."""
    for number, line in enumerate((tree / path).read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s+(["<])([^">]+)', line)
        if found:
            yield number, found.group(1) == '"', found.group(2)


def place_in_order(order, name):
    """None: it has none."""
    known = [known for known in (name, name.rsplit(".", 1)[0]) if known in order]
    return order.index(known[0]) if known else None


def layer_violations(tree):
    for path in sources(tree):
        here = path.parts[0]
        for number, quoted, name in includes(tree, path):
            there = name.split("/")[0]
            where = f"{path}:{number}: "
            if not quoted:
                if there in ROW_OF and "/" in name:
                    yield where + f"<{name}> is ours: use quotes"
            elif there not in ROW_OF or "/" not in name:
                yield where + f'"{name}" does not begin with the folder of a layer'
            elif there != here and ROW_OF[there] >= ROW_OF[here]:
                yield where + f"{here} may not include {there}"
            elif not (tree / name).exists() and not GENERATED.search(name):
                yield where + f'"{name}" is not there'
            elif there == here and there in SUBJECTS:
                order, mine, its = SUBJECTS[here], path.parts[1], name.split("/")[1]
                if mine in order and its in order and order.index(its) > order.index(mine):
                    yield where + f"{here}/{mine} may not include {here}/{its}"
            elif there == here and there in ORDERED:
                mine, its = place_in_order(ORDERED[here], path.name), place_in_order(ORDERED[here], name.split("/")[-1])
                if mine is not None and its is not None and its > mine:
                    yield where + f"{path} may not include {name}"


def subject_violations(tree):
    """Every file of a layer with subjects belongs to one of them, and lies in its folder."""
    for path in sources(tree):
        subjects = SUBJECTS.get(path.parts[0])
        if subjects and (len(path.parts) != 3 or path.parts[1] not in subjects):
            yield f"{path} is in none of {', '.join(subjects)}"


def order_violations(tree):
    """Every file of a layer whose files have an order has its place in it, and no place is empty."""
    for folder, order in ORDERED.items():
        files = [path for path in sources(tree) if path.parts[0] == folder]
        for path in files:
            if len(path.parts) != 2 or place_in_order(order, path.name) is None:
                yield f"{path} has no place in the order of {folder}/"
        names = {path.name for path in files} | {path.stem for path in files}
        yield from (f"{folder}/{name} is not there, and has a place in the order" for name in order if files and name not in names)


def home_violations(tree):
    for path in sources(tree):
        for number, _, name in includes(tree, path):
            homes = HOMES.get(name)
            if homes and not any(str(path) == home or home.endswith("/") and str(path).startswith(home) for home in homes):
                yield f"{path}:{number}: {name} belongs into {' or '.join(homes)}"


def folder_violations(tree, known=("build", "corpus", "runs", "tests", "deploy", "docs")):
    """A folder of C files that is no layer would escape the rules."""
    for path in sorted(tree.iterdir()):
        if path.is_dir() and path.name not in ROW_OF and path.name not in known and next(path.rglob("*.[ch]"), None):
            yield f"{path.name}/ holds C files and is no layer"


@pytest.mark.parametrize("check", [layer_violations, subject_violations, order_violations, home_violations, folder_violations])
def test_the_tree_keeps(check, root):
    assert sources(root)
    violations = list(check(root))
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


@pytest.fixture
def tree(tmp_path):
    def plant(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return plant


GOOD = {
    "base/err.h": "",
    "config/config.h": '#include "base/err.h"\n',
    "model/gpt2/gpt2.h": '#include "config/config.h"\n#include "model/gpt2/gpt2.h"\n',
    "proto/link.c": "#include <zmq.h>\n#include \"proto/millrace.pb-c.h\"\n",
}


def test_includes_of_rows_above_are_fine(tree):
    planted = tree(GOOD)
    assert list(layer_violations(planted)) == [] and list(subject_violations(planted)) == [] and list(order_violations(planted)) == []
    assert list(home_violations(planted)) == [] and list(folder_violations(planted)) == []


@pytest.mark.parametrize(
    "path, line",
    [
        ("base/bad.c", '#include "config/config.h"'),  # upward
        ("config/bad.h", '  #  include "model/gpt2/gpt2.h"'),  # upward, oddly spaced
        ("dataset/bad.c", '#include "model/gpt2/gpt2.h"'),  # sideways
        ("model/gpt2/bad.c", '#include "cli/main.h"'),  # upward from a subfolder
        ("model/kernels/bad.c", '#include "model/gpt2/gpt2.h"'),  # upward inside a layer
        ("model/gpt2/bad.c", '#include "gpt2.h"'),  # without its folder
        ("model/gpt2/bad.c", '#include "../base/err.h"'),
        ("model/gpt2/bad.c", '#include "base/no_such.h"'),
        ("model/gpt2/bad.c", "#include <base/err.h>"),
    ],
)
def test_another_include_is_found(tree, path, line):
    found = list(layer_violations(tree({**GOOD, "cli/main.h": "", path: "// a file\n" + line + "\n"})))
    assert len(found) == 1 and found[0].startswith(f"{path}:2:")


@pytest.mark.parametrize(
    "path, header",
    [("proto/frame.c", "zmq.h"), ("coordinator/queue.c", "sqlite3.h"), ("cli/link.c", "zmq.h"), ("coordinator/plan.c", "cblas.h")],
)
def test_a_library_away_from_home_is_found(tree, path, header):
    homes = " or ".join(HOMES[header])
    assert list(home_violations(tree({**GOOD, path: f"#include <{header}>\n"}))) == [f"{path}:1: {header} belongs into {homes}"]


@pytest.mark.parametrize("path", ["model/stray.c", "model/odd/stray.c", "model/gpt2/deep/stray.c"])
def test_a_file_of_no_subject_is_found(tree, path):
    assert [line.split()[0] for line in subject_violations(tree({**GOOD, path: ""}))] == [path]


@pytest.mark.parametrize(
    "path, name",
    [
        ("workers/exchange.c", "membership"),
        ("workers/offer.h", "exchange"),
        ("workers/serve.c", "work"),
        ("coordinator/roster.c", "training"),
        ("coordinator/coordinator.h", "queue"),
    ],
)
def test_an_include_of_a_later_file_is_found(tree, path, name):
    folder = path.split("/")[0]
    planted = tree({**GOOD, f"{folder}/{name}.h": "", path: f'#include "{folder}/{name}.h"\n'})
    assert list(layer_violations(planted)) == [f"{path}:1: {path} may not include {folder}/{name}.h"]


@pytest.mark.parametrize("path, name", [("coordinator/context.h", "coordinator"), ("coordinator/coordinator.c", "roster"),
                                        ("coordinator/store_check.h", "store"), ("coordinator/store.c", "store_check")])
def test_an_include_of_an_earlier_file_is_fine(tree, path, name):
    planted = tree({**GOOD, f"coordinator/{name}.h": "", path: f'#include "coordinator/{name}.h"\n'})
    assert list(layer_violations(planted)) == []


@pytest.mark.parametrize("path", ["workers/internal.h", "workers/deep/join.c", "coordinator/internal.h"])
def test_a_file_without_a_place_in_the_order_is_found(tree, path):
    assert [line.split()[0] for line in order_violations(tree({**GOOD, path: ""})) if "no place" in line] == [path]


def test_a_place_in_the_order_without_a_file_is_found(tree):
    found = list(order_violations(tree({"coordinator/roster.h": ""})))
    assert "coordinator/queue is not there, and has a place in the order" in found and not any("roster" in line for line in found)


def test_a_folder_that_is_no_layer_is_found(tree):
    assert list(folder_violations(tree({**GOOD, "utils/misc.c": ""}))) == ["utils/ holds C files and is no layer"]
