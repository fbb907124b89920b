"""Every bug of tests/mutants/list.py still finds its place in the code; `make mutants` plants them."""
import importlib.util

import pytest


def load(root):
    spec = importlib.util.spec_from_file_location("mutants_list", root / "tests" / "mutants" / "list.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTANTS


def place(root, mutant):
    """What is wrong with where it is to be planted, or None."""
    path = root / mutant.file
    if not path.exists():
        return f"{mutant.file} is not there"
    found = path.read_text().count(mutant.old)
    if found != 1:
        return f"{mutant.file}: the text of '{mutant.name}' is there {found} times; write down what it is now in tests/mutants/list.py"
    return None if mutant.old != mutant.new else f"'{mutant.name}' changes nothing"


def test_every_mutant_applies(root):
    wrong = [text for text in (place(root, mutant) for mutant in load(root)) if text]
    assert not wrong, "\n".join(wrong)


def test_every_mutant_names_tests_that_are_there(root):
    for mutant in load(root):
        for test in mutant.tests:
            assert (root / test.split("::")[0]).exists(), f"'{mutant.name}' names {test}"


def test_there_are_mutants_of_every_layer_and_no_two_are_alike(root):
    mutants = load(root)
    assert len({mutant.name for mutant in mutants}) == len(mutants) == len({(m.file, m.old, m.new) for m in mutants}) >= 26
    assert {mutant.file.split("/")[0] for mutant in mutants} >= {
        "base", "config", "proto", "dataset", "model", "estimate", "coordinator", "workers", "cli"
    }


@pytest.mark.parametrize("text, says", [("one\n", None), ("none\n", "0 times"), ("one\none\n", "2 times")])
def test_a_mutant_that_lost_its_place_is_found(root, tmp_path, text, says):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "x.c").write_text(text.replace("one", "int one;") if says != "0 times" else text)
    mutant = type(load(root)[0])("a bug", "base/x.c", "int one;", "int two;", ())
    found = place(tmp_path, mutant)
    assert (found is None) if says is None else (says in found)
