"""The documents say what is there: the map of folders, the list of dependencies, the reference of keys, links and commands."""

import re
import subprocess

import pytest

LAYERS = ("base", "config", "proto", "dataset", "model", "estimate", "coordinator", "workers", "cli")


# ---- docs/ARCHITECTURE.md ----------------------------------------------------------------------------------------------------


def folders_of(tree):
    """Every folder at the top, and those of the layers."""
    for path in sorted(tree.iterdir()):
        output = path.name in (".git", "build", "corpus", "runs", "__pycache__") or path.name.startswith("corpus.partial")
        if path.is_dir() and not output:
            yield path.name
            if path.name in LAYERS:
                yield from (f"{path.name}/{inner.name}" for inner in sorted(path.iterdir()) if inner.is_dir() and any(inner.iterdir()))


def map_violations(tree, text):
    """The list of folders against the tree, both ways. A folder that is only the place of others that are named need not be."""
    section = text[text.index("## Folders") :]
    named = re.findall(r"^(?:- )?\*\*`([\w./-]+)/`\*\*|^\| `([\w./-]+)/` \|", section, flags=re.M)
    named = {paragraph or row for paragraph, row in named}
    yield from (f"{folder}/ is on the map and not there" for folder in sorted(named) if not (tree / folder).is_dir())
    for folder in folders_of(tree):
        if folder not in named and not any(other.startswith(folder + "/") for other in named):
            yield f"{folder}/ is there and not on the map"


MAP = "## Folders\n\n**`base/`** is x.\n\n- **`base/deep/`**: y\n\n## Beside\n\n| folder | what |\n|---|---|\n| `docs/` | x |\n"


@pytest.fixture
def small(tmp_path):
    for name in ("base/err.c", "base/deep/err.h", "docs/A.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_the_map_is_complete(root):
    violations = list(map_violations(root, (root / "docs" / "ARCHITECTURE.md").read_text()))
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


def test_what_is_not_on_the_map_is_found(small):
    assert list(map_violations(small, MAP)) == []
    (small / "base" / "new").mkdir()
    (small / "base" / "new" / "a.c").write_text("")
    (small / "extra").mkdir()
    assert list(map_violations(small, MAP.replace("`docs/`", "`docs/` | x |\n| `gone/`"))) == [
        "gone/ is on the map and not there",
        "base/new/ is there and not on the map",
        "extra/ is there and not on the map",
    ]


# ---- docs/DEPENDENCIES.md ----------------------------------------------------------------------------------------------------


def dependencies(makefile, setup):
    """pkg-config names of the Makefile, and packages of setup.sh's lists."""
    libraries = re.search(r"^PACKAGES := ((?:.*\\\n)*.*)$", makefile, flags=re.M).group(1).replace("\\\n", " ").split()
    lists = re.findall(r'^(run|test|outside|bench|develop)="([^"]*)"', setup, flags=re.M)
    return libraries + [package for _, names in lists for package in names.split()]


def undocumented(names, text):
    return [name for name in names if f"`{name}`" not in text]


def test_every_dependency_is_explained(root):
    names = dependencies((root / "Makefile").read_text(), (root / "deploy" / "setup.sh").read_text())
    assert {"libzmq", "libzmq3-dev", "gcc", "libcmocka-dev", "python3-torch", "valgrind"} <= set(names)
    assert undocumented(names, (root / "docs" / "DEPENDENCIES.md").read_text()) == []


def test_an_unexplained_dependency_is_found():
    names = dependencies("PACKAGES := libzmq \\\n  newlib\n", 'run="gcc libzmq3-dev\n     newlib-dev"\ntest="python3"\n')
    assert undocumented(names, "`libzmq` `gcc` `libzmq3-dev` `python3`") == ["newlib", "newlib-dev"]


# ---- docs/CONFIG.md and the rest ---------------------------------------------------------------------------------------------


def test_the_reference_of_keys_is_the_program_s_own(root, binary):
    printed = subprocess.run([binary, "config", "--reference"], capture_output=True, text=True, timeout=120)
    assert printed.returncode == 0, printed.stderr
    assert (root / "docs" / "CONFIG.md").read_text() == printed.stdout, "run 'make docs'"


def headings(text):
    """Their names in links, as GitHub makes them."""
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in re.findall(r"^#+ .*$", text, flags=re.M)}


def broken_links(tree, name, text):
    """Relative links, and paths of ours in back quotes, that lead nowhere."""
    for page, heading in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", text):
        there = (tree / name).parent / page if page else None
        if (not there or there.exists()) and heading not in headings(there.read_text() if there else text):
            yield f"{name}: link to {page}#{heading}"
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
        if not ((tree / name).parent / target).exists():
            yield f"{name}: link to {target}"
    for target in re.findall(r"`((?:%s|tests|deploy|docs)/[\w./-]+)`" % "|".join(LAYERS), text):
        generated = re.match(r"dataset/(train|validation|dataset\.pb)|.*\.pb-c\.", target)
        if "LAYER" not in target and not generated and not (tree / target).exists():
            yield f"{name}: {target}"


def test_documents_lead_somewhere(root):
    pages = ["README.md", "CONTRIBUTING.md"] + [f"docs/{path.name}" for path in sorted((root / "docs").glob("*.md"))]
    violations = [broken for page in pages for broken in broken_links(root, page, (root / page).read_text())]
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


def test_a_broken_link_is_found(small):
    (small / "docs" / "A.md").write_text("# A\n\n## A part: `x.y`, z\n")
    text = "[a](docs/A.md#a-part-xy-z) [b](docs/B.md) `base/err.c` `base/gone.c` `dataset/train-00000.tok.zst` [c](https://example.org/x)"
    assert list(broken_links(small, "README.md", text)) == ["README.md: link to docs/B.md", "README.md: base/gone.c"]
    assert list(broken_links(small, "README.md", "# B\n[b](#b) [c](#c) [d](docs/A.md#d)")) == [
        "README.md: link to #c",
        "README.md: link to docs/A.md#d",
    ]


CODE = (".c", ".h", ".py", ".proto", ".sh", ".service")


def unknown_names(page, text, sources):
    """Functions, files without a folder, and names with an underscore, in back quotes, that no source has: {path: text}."""
    whole, files = "\n".join(sources.values()), {path.split("/")[-1] for path in sources}
    words, called = set(re.findall(r"\w+", whole)), set(re.findall(r"\b(\w+)\(", whole))
    for quoted in sorted(set(re.findall(r"`([^`\n]+)`", text))):
        name = re.fullmatch(r"(?:(?:struct|enum) )?(\w*_\w*)(?:\[\])?", quoted)
        gone = [f"{function}()" for function in re.findall(r"\b([a-z_]\w*)\(\)", quoted) if function not in called]
        gone += [name[1]] if name and name[1] not in words else []
        gone += [quoted] if re.fullmatch(r"[\w-]+\.(c|h|py)", quoted) and quoted not in files else []
        yield from (f"{page}: {what}" for what in gone)


def test_documents_name_what_the_code_has(root):
    folders = [root / folder for folder in LAYERS + ("tests", "deploy") if (root / folder).is_dir()]
    sources = {str(path): path.read_text() for folder in folders for path in folder.rglob("*") if path.suffix in CODE}
    sources["Makefile"] = (root / "Makefile").read_text()
    pages = ["README.md"] + [f"docs/{path.name}" for path in sorted((root / "docs").glob("*.md"))]
    violations = [unknown for page in pages for unknown in unknown_names(page, (root / page).read_text(), sources)]
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


def test_a_name_that_the_code_has_no_more_is_found():
    sources = {"x/a.c": "enum old_kind { OLD_ONE };\nint old_names[2];\nvoid run_old(void) { call(old_names); }\n"}
    text = "`run_old()` of `a.c`, `enum old_kind`, `OLD_ONE`, `old_names[]`, `make run` and `word`"
    assert list(unknown_names("A.md", text, sources)) == []
    renamed = {"x/b.c": sources["x/a.c"].replace("old", "new").replace("OLD", "NEW")}
    gone = ("run_old()", "a.c", "old_kind", "OLD_ONE", "old_names")
    assert set(unknown_names("A.md", text, renamed)) == {f"A.md: {name}" for name in gone}


def test_commands_of_the_readme_exist(root, binary):
    text = (root / "README.md").read_text() + (root / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^\w[\w-]*(?=:.*##)", (root / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)\b(?= |`|$)", text, flags=re.M)) - targets - {"sure", "the"} == set()
    listed = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=120).stdout
    commands = set(re.findall(r"^  (\w+) ", listed, flags=re.M))
    assert commands
    assert set(re.findall(r"(?:^    |`|build/)millrace ([a-z]+)\b", text, flags=re.M)) - commands == set()


def test_licences_are_there(root):
    assert "Apache License" in (root / "LICENSE").read_text() and "Version 2.0" in (root / "LICENSE").read_text()
    notice = (root / "NOTICE").read_text()
    assert "dataset/tokenizer/gpt2_vocab.bpe" in notice and "Copyright (c) 2019 OpenAI" in notice


# ---- docs/FORMATS.md ---------------------------------------------------------------------------------------------------------


def untold_keys(code, text):
    """Keys that the status has, and the table of them has not."""
    section = text[text.index("## status --json") :]
    told = set(re.findall(r"`(\w+)", section))
    return sorted(set(re.findall(r'json_object_set_new\(\*?\w+, "(\w+)"', code)) - told)


def test_every_key_of_the_status_is_told(root):
    code = (root / "coordinator" / "status.c").read_text() + (root / "cli" / "status_file.c").read_text()
    assert len(re.findall("json_object_set_new", code)) > 80
    assert untold_keys(code, (root / "docs" / "FORMATS.md").read_text()) == []


def test_a_key_of_the_status_that_is_not_told_is_found():
    code = 'json_object_set_new(object, "old", x);\njson_object_set_new(*out, "new", x);'
    assert untold_keys(code, "`new`\n## status --json\n| `old` | x |\n") == ["new"]


# ---- docs/RELIABILITY.md -----------------------------------------------------------------------------------------------------


def reliability_violations(text, sources):
    """A class of fault has one row, and the tests that a row names are there."""
    lines = text.splitlines()
    heads = {line for line, below in zip(lines, lines[1:]) if below.startswith("|---")}
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("| ") and line not in heads]
    names = [row[0] for row in rows]
    yield from (f"{name} has {names.count(name)} rows" for name in sorted(set(names)) if names.count(name) > 1)
    for row in rows:
        for name in re.findall(r"`((?:[a-z0-9]+_){3,}[a-z0-9]+)`", row[2]):
            if name not in sources:
                yield f"{name}, which a row names, is no test"


def test_each_class_of_fault_has_one_row_and_its_tests_are_there(root):
    header = "| what | happens | test | how often |\n|---|---|---|---|\n"
    row = "| a | b | `test_that_it_is_so` | c |\n"
    assert not list(reliability_violations(header + row, "def test_that_it_is_so("))
    assert not list(reliability_violations(header + row + "\n## b\n\n" + header + row.replace("| a |", "| b |"), "def test_that_it_is_so("))
    assert len(list(reliability_violations(header + row + row, "def test_that_it_is_so("))) == 1
    assert len(list(reliability_violations(header + row + "\n## b\n\n" + header + row, "def test_that_it_is_so("))) == 1
    assert len(list(reliability_violations(header + row, "def test_that_it_was_so("))) == 1
    sources = "".join(path.read_text() for path in (root / "tests").rglob("*.[pch]*") if path.suffix in (".py", ".c", ".h"))
    assert not list(reliability_violations((root / "docs" / "RELIABILITY.md").read_text(), sources))
