"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def replaced_atomically(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that takes its name when the block ends well, and is removed otherwise.

    The block may make a file or a folder of it; a folder that stood under the name is removed just before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = pathlib.Path(folder) / path.name
        yield temporary
        if path.is_dir():
            shutil.move(path, pathlib.Path(folder) / "replaced")
        os.replace(temporary, path)
