"""Where numba keeps the kernels it compiled, so that only the first start waits for them.

Beside the source, like Python's own ``.pyc`` files, or, where that cannot be written (a read-only
image), under the state directory. What is kept are pickles around machine code: whoever writes
them decides what this process runs. So the folder is this user's alone, and what lay in one that
others could write is thrown away.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
"""Names the folder to numba, and to the processes started from here."""


def keep_compiled(state_dir: Path, source: Path = Path(__file__).parent) -> None:
    """Find a folder to keep compiled kernels in; call it before a kernel is imported.

    A folder that ``NUMBA_CACHE_DIR`` names already is whoever's who named it.

    Args:
        state_dir: where to make one if need be; in it each user has one of their own.
        source: folder of the modules that hold kernels.

    Raises:
        OSError: no folder can be made.
    """
    beside = source / "__pycache__"
    if os.environ.get(VARIABLE) or os.access(beside if beside.exists() else source, os.W_OK):
        return
    folder = state_dir.absolute() / f"kernels-{os.geteuid()}"
    if folder.exists() and not _is_ours_alone(folder):
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ[VARIABLE] = str(folder)


def _is_ours_alone(folder: Path) -> bool:
    status = folder.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not others_write
