"""How a data set lies on disk: one small file per format, behind one interface."""

from robustode.data.formats.base import Format, Layout
from robustode.data.formats.huggingface import HuggingFace
from robustode.data.formats.npz import Npz
from robustode.data.formats.parquet import Parquet
from robustode.data.formats.png import Png
from robustode.data.formats.safetensors import Safetensors
from robustode.errors import DataError, unknown

FORMATS: dict[str, Format] = {form.name: form for form in (Npz(), Safetensors(), Parquet(), HuggingFace(), Png())}


def format_of(name: str) -> Format:
    """Return the format of this name; raise `DataError`, with the nearest name, if there is none."""
    if name not in FORMATS:
        raise unknown("data set format", name, FORMATS, DataError)
    return FORMATS[name]


__all__ = ["FORMATS", "Format", "Layout", "format_of"]
