"""Files and folders appear whole or not at all, whenever their writer is killed."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

import kill_points
import pytest

from ghn_jax import files
from ghn_jax.files import atomic_file, atomic_folder, whole_folder

FOLDERS_WITHOUT_SWAP = (False, True)


def tree(folder: pathlib.Path) -> dict[str, str]:
    """Text of all files of a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


KILLED_FILE = """
import pathlib, shutil, sys
import kill_points
from ghn_jax.files import atomic_file

place = pathlib.Path("place")
final = place / "name.txt"
contents = {old!r}, "new " * 10_000

def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if contents[0]:
        final.write_text(contents[0])

def act():
    with atomic_file(final) as new, new.open("w") as file:
        file.write(contents[1][:100])
        file.flush()
        sys.audit(kill_points.STEP)
        file.write(contents[1][100:])

def check(number):
    found = final.read_text() if final.exists() else ""
    assert found in contents, (number, found[:50])
    act()
    assert final.read_text() == contents[1]
    assert [path.name for path in place.iterdir()] == ["name.txt"], (number, list(place.iterdir()))

print(kill_points.kill_everywhere(prepare, act, check))
"""


@pytest.mark.parametrize("old", ["", "old"])
def test_a_file_is_whole_wherever_its_writer_is_killed(tmp_path: pathlib.Path, old: str) -> None:
    (operations,) = kill_points.run(KILLED_FILE.format(old=old), tmp_path)
    assert int(operations) >= 6  # open, half-way, open and fsync, rename, open and fsync the folder


KILLED_FOLDER = """
import pathlib, shutil, sys
import kill_points
from ghn_jax import files

if {without_swap}:
    files.swap_folders = lambda one, other: False
else:
    swap = files.swap_folders
    files.swap_folders = lambda one, other: (sys.audit(kill_points.STEP), swap(one, other))[1]
place = pathlib.Path("place")
final = place / "name"
contents = [{old!r}, {{"a": "new " * 1000, "inner/b": "new"}}]

def tree(folder):
    return {{str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}}

def fill(folder, content):
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    fill(final, contents[0])

def act():
    with files.atomic_folder(final) as new:
        fill(new, contents[1])

def check(number):
    if not {without_swap} and contents[0]:
        assert final.is_dir(), number
    hidden = place / ".name.ghn_jax-replaced"
    assert not hidden.exists() or tree(hidden) in contents, (number, sorted(tree(hidden)))
    found = tree(files.whole_folder(final))
    assert found in contents, (number, sorted(found))
    act()
    assert tree(final) == contents[1]
    assert [path.name for path in place.iterdir()] == ["name"], (number, list(place.iterdir()))

print(kill_points.kill_everywhere(prepare, act, check))
"""


@pytest.mark.parametrize("without_swap", FOLDERS_WITHOUT_SWAP)
@pytest.mark.parametrize("old", [{}, {"a": "old", "c": "old", "other/d": "old"}])
def test_a_folder_is_whole_wherever_its_writer_is_killed(
    tmp_path: pathlib.Path, old: dict[str, str], without_swap: bool
) -> None:
    (operations,) = kill_points.run(KILLED_FOLDER.format(old=old, without_swap=without_swap), tmp_path)
    assert int(operations) >= 13


def test_a_killed_replacement_is_undone_even_after_later_ones(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renamings of a system that cannot swap, then read, written and read again."""
    monkeypatch.setattr(files, "swap_folders", lambda one, other: False)
    final, hidden = tmp_path / "name", tmp_path / ".name.ghn_jax-replaced"
    hidden.mkdir()
    (hidden / "a").write_text("old")
    assert tree(whole_folder(final)) == {"a": "old"}
    assert not hidden.exists()
    hidden.mkdir()  # killed before it could remove the folder that it had replaced
    (hidden / "a").write_text("older")
    assert tree(whole_folder(final)) == {"a": "old"}
    with atomic_folder(final) as new:
        (new / "a").write_text("new")
    assert tree(tmp_path) == {"name/a": "new"}


def test_a_folder_that_cannot_get_its_name_back_is_read_where_it_lies(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / ".name.ghn_jax-replaced"
    hidden.mkdir()

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "rename", refuse)
    assert whole_folder(tmp_path / "name") == hidden
    assert whole_folder(tmp_path / "other") == tmp_path / "other"


def test_folders_are_swapped_here_in_one_step(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    if sys.platform != "linux":
        pytest.skip("only Linux has renameat2")
    assert files.swap_folders(tmp_path / "one", tmp_path / "other")
    assert tree(tmp_path) == {"one/a": "other", "other/a": "one"}
    assert not files.swap_folders(tmp_path / "one", tmp_path / "absent")
    assert tree(tmp_path) == {"one/a": "other", "other/a": "one"}


READING = """
import pathlib, sys
from ghn_jax.files import whole_folder
final, ended, reads = pathlib.Path("name"), pathlib.Path("ended"), 0
print("ready", flush=True)
while not ended.exists():
    folder = whole_folder(final)
    reads += 1
    assert folder.is_dir() or whole_folder(final).is_dir(), "there was no folder"
print(reads)
"""


@pytest.mark.parametrize("without_swap", FOLDERS_WITHOUT_SWAP)
def test_a_reader_beside_a_writer_always_finds_a_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, without_swap: bool
) -> None:
    if without_swap:
        monkeypatch.setattr(files, "swap_folders", lambda one, other: False)
    (tmp_path / "name").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(kill_points.ROOT)}
    reader = subprocess.Popen(
        [sys.executable, "-c", READING], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(300):
            with atomic_folder(tmp_path / "name") as new:
                (new / "a").write_text(str(number))
        (tmp_path / "ended").touch()
        reads = int(reader.stdout.read())
    assert reader.returncode == 0
    assert reads > 10
    assert tree(tmp_path / "name") == {"a": "299"}


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match="half-way"):
        _write_half(atomic_file(tmp_path / "file"), "")
    with pytest.raises(RuntimeError, match="half-way"):
        _write_half(atomic_folder(tmp_path / "folder"), "a")
    assert tree(tmp_path) == before
    with pytest.raises(ValueError, match=r"folder is a folder, where a file is to be written"):
        atomic_file(tmp_path / "folder").__enter__()
    with pytest.raises(ValueError, match=r"file is a file, where a folder is to be written"):
        atomic_folder(tmp_path / "file").__enter__()
    assert tree(tmp_path) == before


def _write_half(target: contextlib.AbstractContextManager[pathlib.Path], name: str) -> None:
    with target as new:
        (new / name).write_text("new")
        raise RuntimeError("half-way")


def test_names_links_and_permissions(tmp_path: pathlib.Path) -> None:
    """The suffix is kept while writing, folders on the way are made, links stay links, modes are the usual ones."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "disk" / "real.json")
    (tmp_path / "linked").symlink_to(tmp_path / "disk" / "folder")
    with atomic_file(tmp_path / "link.json") as new:
        assert new.suffix == ".json"
        new.write_text("a")
    for text in ("b", "c"):
        with atomic_folder(tmp_path / "linked") as new:
            (new / "x").write_text(text)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "linked").is_symlink()
    assert tree(tmp_path / "disk") == {"real.json": "a", "folder/x": "c"}
    (tmp_path / "plain").touch()
    (tmp_path / "made").mkdir()
    assert (tmp_path / "disk" / "real.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "disk" / "folder").stat().st_mode == (tmp_path / "made").stat().st_mode
    long = tmp_path / "new" / ("n" * 250)
    with atomic_file(long) as new:
        new.write_text("d")
    assert long.read_text() == "d"


def test_only_what_nobody_writes_any_more_is_cleared_away(tmp_path: pathlib.Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    machine, other = files.machine_id(), "0" * 8
    dead = tmp_path / f".a.ghn_jax-{machine}-{child.pid}-01234567.txt"
    living = tmp_path / f".a.ghn_jax-{machine}-{os.getppid()}-01234567.txt"
    elsewhere = tmp_path / f".a.ghn_jax-{other}-{child.pid}-01234567.txt"
    old = tmp_path / f".a.ghn_jax-{other}-{child.pid}-76543210"
    mine = tmp_path / ".a.ghn_jax-notes.txt"
    for file in (dead, living, elsewhere, mine):
        file.write_text("")
    old.mkdir()
    (old / "part").write_text("")
    two_days_ago = time.time() - 2 * 24 * 3600
    for file in (old / "part", old, mine):
        os.utime(file, (two_days_ago, two_days_ago))
    with atomic_file(tmp_path / "b") as new:
        new.write_text("")
    assert set(tmp_path.iterdir()) == {living, elsewhere, mine, tmp_path / "b"}
