import runpy
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def fuzz():
    made = runpy.run_path(str(HERE / "fuzz_http.py"))
    yield made
    made["tried"].close()


@pytest.mark.parametrize("path", sorted((HERE / "corpus").iterdir()), ids=lambda path: path.name)
def test_inputs_that_fuzzing_began_with_or_found_do_no_harm(fuzz, path, caplog):
    caplog.set_level(100)
    fuzz["try_one"](path.read_bytes())


@pytest.mark.slow
def test_without_its_tool_fuzzing_is_skipped_with_a_word():
    hidden = "import sys, runpy; sys.modules['atheris'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", hidden, str(HERE / "fuzz_http.py")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "fuzz_http: skipped, atheris is not installed (pip install atheris)\n"
