"""A short run of every fuzzer: its seeds, and thousands of mutations of them. `make fuzz` is the long one."""
import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
# Of a whole coordinator or worker an input takes a tenth of a second and more, and the seeds are long stories already.
FEW = {"dispatch": 100, "dispatch_worker": 5}
NAMES = sorted({path.stem for path in HERE.glob("*.c")} - {"driver", "libfuzzer"})


@pytest.mark.parametrize("name", NAMES)
def test_nothing_breaks(name, root, build):
    program = build / "tests" / "fuzz" / name
    assert program.exists(), f"{program} is not there; run 'make unit-tests'"
    count = str(FEW.get(name, 5000))
    environment = {"MILLRACE_FUZZ_INPUTS": count, **os.environ}
    done = subprocess.run([program], cwd=root, env=environment, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    assert f" {count} mutations" in done.stdout
