"""Fetches modules that moved to Kaggle with Kaggle's own library, an extra of this package."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from featurewire_exporter.errors import ModuleError, one_line
from featurewire_exporter.progress import Progress
from featurewire_exporter.source.archive import module_folder

_PAGE = re.compile(
    r"https?://(?:www\.)?kaggle\.com/models/((?:[\w.-]+/){3}[\w.-]+(?:/\d+)?)/?(?:\?.*)?"
)
"""The page of a model: owner, model, framework, variation and version."""


def model_of(address: str) -> str | None:
    """The kagglehub name of the model whose page is at `address`; None for another page."""
    found = _PAGE.fullmatch(address)
    return found[1] if found else None


def download(model: str, handle: str, progress: Progress) -> Path:
    """The folder with the model's files, in kagglehub's cache.

    `handle`: what errors call the module. Raises `ModuleError`.
    """
    # Hide its log and its progress bars, which would mix with the lines of a command.
    os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import kagglehub
    except ModuleNotFoundError:
        raise ModuleError(
            f"{handle} leads to a page of kaggle.com, not to an archive; "
            "pip install 'featurewire-exporter[kaggle]'"
        ) from None
    progress.step(f"Fetching {model} from Kaggle")
    try:
        with contextlib.redirect_stdout(None):
            directory = Path(kagglehub.model_download(model))
    except Exception as error:  # of kagglehub, kagglesdk and requests
        raise ModuleError(
            f"{handle} cannot be fetched from Kaggle ({one_line(error)}); check the network and "
            "your KAGGLE_API_TOKEN, or download the archive and give the .tar.gz"
        ) from error
    return module_folder(directory, f"the model {model}")
