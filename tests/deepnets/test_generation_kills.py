"""A generator of DeepNets-1M that is killed before any of its operations on files goes on to whole files."""

import pathlib

import kill_points

KILLED = """
import pathlib, shutil, sys
import h5py
import kill_points
from ghn_jax.deepnets import DatasetReader, GenerationPlan, generate_dataset
from ghn_jax.deepnets.files.generation import plan_text
from ghn_jax.deepnets.files.meta_file import meta_path
from ghn_jax.deepnets.files.parts import make_part

plan = GenerationPlan("train", seed=3, count=3, part_size=2)
path, made, place = pathlib.Path("place/a.hdf5"), pathlib.Path("made"), pathlib.Path("place")

def generate():
    return generate_dataset(path, plan, 1, lambda *_: None)

place.mkdir()
for number, part in enumerate(plan.parts):
    make_part(made / f"{number:06d}.hdf5", plan.split, plan.seed, part)
shutil.copytree(made, path.with_suffix(".parts"))
(path.with_suffix(".parts") / "plan.json").write_text(plan_text(plan))
expected = generate()
text, data = meta_path(path).read_text(), path.read_bytes()

def prepare():
    shutil.rmtree(place)
    place.mkdir()
    shutil.copytree(made, path.with_suffix(".parts"))
    (path.with_suffix(".parts") / "plan.json").write_text(plan_text(plan))

waiting = []

def check(number):
    for final in (meta_path(path), path):
        if final.exists():
            waiting.append((meta_path(path).exists(), path.exists(), path.with_suffix(".parts").exists()))
            assert final.read_bytes() == (data if final == path else text.encode()), number
    parts = path.with_suffix(".parts").exists()
    again = generate()
    assert (again is not None) == parts, number
    if again is not None:
        assert again.rejections == expected.rejections
        assert again.rows.tobytes() == expected.rows.tobytes()
    assert meta_path(path).read_text() == text, number
    assert path.read_bytes() == data, number
    assert not path.with_suffix(".parts").exists()

operations = kill_points.kill_everywhere(prepare, generate, check)
assert (True, False, True) in waiting and (True, True, True) in waiting and (True, True, False) in waiting, set(waiting)
print(operations)
"""


def test_a_run_killed_while_it_joins_the_parts_goes_on(tmp_path: pathlib.Path):
    """Before each of its file operations: reading parts, writing, naming the two files, removing the parts."""
    (operations,) = kill_points.run(KILLED, tmp_path)
    assert int(operations) > 8


KILLED_PART = """
import pathlib
import kill_points
from ghn_jax.deepnets.files.parts import make_part

file = pathlib.Path("parts/000000.hdf5")

def make():
    make_part(file, "train", 3, range(2))

make()
whole = file.read_bytes()

def check(number):
    assert not file.exists() or file.read_bytes() == whole, number
    make()
    assert file.read_bytes() == whole
    assert list(file.parent.iterdir()) == [file], number

print(kill_points.kill_everywhere(lambda: file.unlink(missing_ok=True), make, check))
"""


def test_a_part_is_whole_wherever_its_maker_is_killed(tmp_path: pathlib.Path):
    (operations,) = kill_points.run(KILLED_PART, tmp_path)
    assert int(operations) >= 4
