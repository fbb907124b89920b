"""`make mutants`: plants the bugs of list.py one at a time in a copy of the tree, and says which test catches each. A bug that no test
catches, or that does not apply any more, fails it.

The tests that a bug names are tried first, then all tests of its layer, then all whole runs. ARGS="part of a name" plants only those. Each
processor has a copy of its own and takes the next bug of the list.
"""
import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time

from list import MUTANTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEST_SECONDS = 900  # of one round of tests; a hang is a catch, too


def copy_tree(folder):
    """What git knows or would know of, and what is built already."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    build = ROOT / "build"
    if build.exists():
        shutil.copytree(build, folder / "build", symlinks=True, ignore=shutil.ignore_patterns("asan", "tsan", "fuzz", "lint-*", "debug"))


def build(folder, tests):
    """Makes what these tests need; what went wrong, or None."""
    targets = ["all"]
    for test in tests:
        found = re.match(r"tests/unit/(\w+)/(\w+)\.c", test)
        targets += [f"build/tests/{found[1]}/{found[2]}"] if found else ["unit-tests"] if test.endswith("unit") else []
        if test.startswith("tests/e2e"):
            targets += [f"build/tests/hostile/{path.stem}" for path in (folder / "tests" / "hostile").glob("*.c")]
    done = subprocess.run(["make", "-j1", *dict.fromkeys(targets)], cwd=folder, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stdout + done.stderr)[-1500:]


def catch(folder, tests, without=()):
    """The first test that fails, or None."""
    environment = dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", MILLRACE_TEST_LANES="1", MILLRACE_BUILD=str(folder / "build"))
    command = [sys.executable, "-B", "-m", "pytest", "-c", "tests/pytest.ini", "-x", "-q", "-rfE", *tests]
    command += [part for name in without for part in ("--deselect", name.removeprefix("tests/"))]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS)
    except subprocess.TimeoutExpired:
        return f"{' '.join(tests)}: still running after {TEST_SECONDS} s"
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.M)
    if done.returncode == 0:
        return None
    if not failed:
        raise SystemExit(f"the tests could not be run:\n{done.stdout[-1500:]}\n{done.stderr[-500:]}")
    return failed[0].split("[")[0]  # names of parameters may hold anything


def rounds(mutant):
    """Tests to try, one list after the other."""
    layer = mutant.file.split("/")[0]
    if mutant.tests:
        yield list(mutant.tests)
    if (ROOT / "tests" / "unit" / layer).is_dir():
        yield sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "unit" / layer).glob("*.c"))
    yield ["tests/e2e"]


def try_tests(folder, mutant, tests, sound, broken):
    """The first of these tests that fails because of the bug: without it, it passes (once seen, it is one of `sound`). Those that fail
    anyway go to `broken`."""
    path = folder / mutant.file
    before = path.read_text()
    while True:
        path.write_text(before.replace(mutant.old, mutant.new))
        try:
            why = build(folder, tests)
            if why:
                raise ValueError(f"it does not build:\n{why}")
            caught = catch(folder, tests, broken)
        finally:
            path.write_text(before)
        if not caught or caught in sound:
            return caught
        why = build(folder, tests)
        if why:
            raise SystemExit(f"the tree does not build:\n{why}")
        if not catch(folder, [caught] if "::" in caught else tests, broken):
            sound.append(caught)
            return caught
        print(f"    {caught} fails without any bug, too", flush=True)
        broken.append(caught)


def plant(folder, mutant, sound, broken):
    """The test that catches it; None when it survives. The tree is as before afterwards."""
    found = (folder / mutant.file).read_text().count(mutant.old)
    if found != 1:
        raise ValueError(f"its text is {found} times in {mutant.file}")
    for tests in rounds(mutant):
        caught = try_tests(folder, mutant, tests, sound, broken)
        if caught:
            return caught
    return None


def judge(mutant, copies, sound, broken):
    """Whether it is caught; prints by what."""
    folder, began = copies.get(), time.monotonic()
    try:
        caught = plant(folder, mutant, sound, broken)
        text = f"caught by {caught}" if caught else "SURVIVES"
    except ValueError as failure:
        caught, text = None, str(failure)
    finally:
        copies.put(folder)
    print(f"{mutant.file}: {mutant.name}\n    {text} ({time.monotonic() - began:.0f} s)", flush=True)
    return bool(caught)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help="only bugs whose name or file holds one of these")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.part or any(part in m.name or part in m.file for part in options.part)]
    lanes, copies, sound, broken = min(os.cpu_count(), len(chosen)), queue.Queue(), [], []
    root = pathlib.Path(tempfile.mkdtemp(prefix="millrace-mutants-"))
    root.chmod(0o755)
    try:
        for lane in range(lanes):
            copy_tree(root / str(lane))
            copies.put(root / str(lane))
        with concurrent.futures.ThreadPoolExecutor(lanes or 1) as pool:
            caught = sum(pool.map(lambda mutant: judge(mutant, copies, sound, broken), chosen))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{caught} of {len(chosen)} caught")
    return 0 if chosen and caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
