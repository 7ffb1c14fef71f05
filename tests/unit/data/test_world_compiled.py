"""What a compiler makes of the tracer, which costs every start of a training on a GPU time.

That a GPU makes the same clips with it is in test_world_images.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = 5
SCRIPT = Path(__file__).with_name("world_programs.py")


@pytest.fixture(scope="module")
def found():
    repository = SCRIPT.parents[3]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)], check=True, timeout=120, cwd=repository, capture_output=True
    )
    return json.loads(ran.stdout)


def test_one_program_a_part_serves_every_number_of_scenes_and_frames(found):
    assert found["counts"] == [PARTS] * len(found["counts"])
    assert found["same"]


def test_no_constant_is_an_input_for_which_everything_is_traced_twice(found):
    assert [program["lone"] for program in found["programs"]] == [0] * PARTS


def test_a_cache_finds_programs_whether_or_not_a_process_allows_tf32(found):
    assert not any(program["tf32"] for program in found["programs"])
    assert found["after"]
