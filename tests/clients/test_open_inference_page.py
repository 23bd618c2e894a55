import json
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "open-inference.md"
EXAMPLES = re.findall(r"## ([^\n]+)\n\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
PUMPS = [{"pressure": 8, "flow": 12, "speed": 1}, {"pressure": 20, "flow": 3, "speed": 0}]
FLIGHTS = [
    {"dep_hour": 8, "distance": 12.5, "carrier": "AA", "is_holiday": True},
    {"dep_hour": 20, "distance": 3.0, "carrier": "UA", "is_holiday": False},
]


@pytest.mark.parametrize(("heading", "example"), EXAMPLES, ids=[heading for heading, _ in EXAMPLES])
def test_an_example_of_the_page_gets_the_answer_of_plain_rows(interpreter, url, plain, heading, example):
    text = example.replace("127.0.0.1:8080", url.removeprefix("http://"))
    assert text != example
    done = subprocess.run(
        [str(interpreter), "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == (plain("flights", *FLIGHTS) if "flights" in text else plain("pumps", *PUMPS))


def test_each_client_has_an_example():
    assert [heading for heading, _ in EXAMPLES] == ["tritonclient", "KServe", "MLServer's codecs"]
