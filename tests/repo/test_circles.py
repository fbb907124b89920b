"""No file of C calls another that calls it back, however many lie between: read from the symbols of what was built."""

import pathlib
import subprocess

import pytest

from test_layers import ROW_OF

# What is not in order yet. The list only shrinks: a circle that is gone must go from here, too.
KNOWN = []


def symbols(listing):
    """(defined, needed) of one object, as `nm -g` lists them."""
    rows = [line.split() for line in listing.splitlines()]
    return {row[2] for row in rows if len(row) == 3}, {row[1] for row in rows if len(row) == 2 and row[0] == "U"}


def calls(objects):
    """file -> files whose functions or data it uses. objects: file -> what `nm -g` says of it."""
    tables = {name: symbols(listing) for name, listing in objects.items()}
    home = {symbol: name for name, (defined, _) in tables.items() for symbol in defined}
    return {name: {home[symbol] for symbol in needed if symbol in home} - {name} for name, (_, needed) in tables.items()}


def reached(graph, start):
    seen, waiting = set(), [start]
    while waiting:
        for other in graph[waiting.pop()] - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def circles(graph):
    """Sets of files each of which reaches all others of its set."""
    reach = {name: reached(graph, name) for name in graph}
    found = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]}
    return sorted(map(set, found), key=sorted)


@pytest.fixture(scope="module")
def built(root, binary):
    folder = pathlib.Path(binary).parent
    objects = {}
    for layer in ROW_OF:
        for path in sorted((root / layer).rglob("*.c")):
            name = path.relative_to(root)
            listing = subprocess.run(["nm", "-g", folder / name.with_suffix(".o")], capture_output=True, text=True, timeout=20)
            assert listing.returncode == 0, listing.stderr
            objects[str(name)] = listing.stdout
    return calls(objects)


def test_files_are_in_an_order(built):
    assert len(built) > 100 and sum(map(len, built.values())) > 500, "the symbols were read"
    found = circles(built)
    new = [sorted(circle) for circle in found if not any(circle <= known for known in KNOWN)]
    gone = [sorted(known) for known in KNOWN if not any(known == circle for circle in found)]
    assert new == [] and gone == []


def test_a_circle_is_found():
    lines = {"a.c": "00 T a\n U b\n", "b.c": "00 T b\n U c\n", "c.c": "00 D c\n U a\n U printf\n", "d.c": "00 T d\n U a\n"}
    assert circles(calls(lines)) == [{"a.c", "b.c", "c.c"}]
    assert circles(calls({**lines, "c.c": "00 D c\n U printf\n"})) == []
