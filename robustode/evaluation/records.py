"""The records: one row per model, sample, attack and budget; the only thing that tables, figures and reports read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.base import Status
from robustode.errors import RunError
from robustode.files import atomic

DTYPES: dict[str, str] = {
    "model": "string",
    "model_hash": "string",
    "data": "string",
    "sample": "int64",  # index in the full split
    "label": "int64",
    "clean_pred": "int64",
    "attack": "string",
    "params": "string",  # canonical JSON, see `canonical_json`
    "norm": "string",
    "eps": "Float64",  # null for a minimal-norm attack
    "target": "Int64",  # null if untargeted
    "seed": "int64",
    "protocol": "string",  # hash
    "status": "string",
    "distance": "float64",  # 0 if misclassified, +inf if no adversarial was found
    "adv_pred": "Int64",  # null where no point was returned (skipped, error)
    "clean_margin": "float64",
    "adv_margin": "Float64",  # null where no point was returned
    "converged": "boolean",  # null where the attack has no stopping test
    "kkt": "Float64",  # null where the attack has no optimality residual
    "forwards": "Float64",  # null where not counted
    "backwards": "Float64",
    "nfe": "Float64",
    "message": "string",  # "" if there is nothing to say
}
COLUMNS: tuple[str, ...] = tuple(DTYPES)
NULLABLE = frozenset(name for name, dtype in DTYPES.items() if dtype in ("Float64", "Int64", "boolean"))
KEY = ["model", "attack", "norm", "eps", "sample"]
_COMPRESSION, _ROW_GROUP = "zstd", 1 << 17


def canonical_json(params: Mapping[str, Any]) -> str:
    """Return the one JSON text of a mapping: sorted keys, no spaces, no NaN (the `params` column)."""
    return json.dumps(dict(params), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def empty() -> pd.DataFrame:
    """Return records without rows, with every column in its dtype."""
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in DTYPES.items()})


def joined(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several frames of records, in order; without any, records without rows."""
    frames = list(parts)
    return pd.concat(frames, ignore_index=True) if frames else empty()


def validate(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records with the columns in order and in their dtypes.

    Checked: columns, dtypes, nulls, `status` ∈ `Status`, one row per (model, attack, norm, eps, sample), canonical
    `params`, eps > 0, and that status, distance and clean prediction agree: misclassified ⇔ distance 0 and
    clean_pred ≠ label; success ⇒ finite distance ≥ 0; failed, skipped, error ⇒ distance +inf.

    Raises:
        RunError: naming the column or the first row that is wrong.
    """
    missing = [name for name in COLUMNS if name not in records.columns]
    extra = [str(name) for name in records.columns if name not in DTYPES]
    if missing or extra:
        parts = ([f"missing {', '.join(missing)}"] if missing else []) + (
            [f"extra {', '.join(extra)}"] if extra else []
        )
        raise RunError("records columns", expected=f"exactly {', '.join(COLUMNS)}", got="; ".join(parts))
    frame = pd.DataFrame({name: _cast(pd.Series(records[name]), dtype) for name, dtype in DTYPES.items()})
    frame = frame.reset_index(drop=True)
    known = [status.value for status in Status]
    _require(frame, frame.status.isin(known), "status", f"one of {', '.join(known)}")
    _require(frame, ~frame.duplicated(KEY), "sample", f"one row for each ({', '.join(KEY)})")
    _require(frame, ~(frame.eps <= 0).fillna(False), "eps", "a positive number, or null for a minimal-norm attack")
    _check_status(frame)
    for text in frame.params.unique():
        if not _is_canonical(text):
            raise RunError("records column 'params'", expected="canonical JSON of an object", got=f"'{text}'")
    return frame


def sort(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows ordered by model, attack, norm, eps (null last), sample: the order in the file.

    The key is unique, so the order is total and equal sets of rows give equal files.
    """
    return records.sort_values(KEY, kind="stable", na_position="last", ignore_index=True)


def write(records: pd.DataFrame, path: Path) -> Path:
    """Validate, sort and write Parquet atomically; equal records give equal bytes under one pyarrow version.

    Compression is fixed and the pandas metadata, which name library versions, are left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(sort(validate(records)), schema=_arrow_schema(), preserve_index=False)
    with atomic(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(None), temporary, compression=_COMPRESSION, row_group_size=_ROW_GROUP
        )
    return path


def read(path: Path) -> pd.DataFrame:
    """Read and validate the records of a run.

    Raises:
        RunError: if the file is missing, is not Parquet, or breaks the schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise RunError(f"no records '{path}'", fix="Give the directory of a finished run")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"records '{path}'", expected="a Parquet file", got=str(error).splitlines()[0]) from error
    return validate(table.to_pandas(types_mapper=_nullable_types().get))


def best_distance(records: pd.DataFrame, by: Sequence[str] = ("model", "norm")) -> pd.DataFrame:
    """Return the worst case per sample: the smallest distance over all attacks and budgets of each group.

    Args:
        records: validated records.
        by: the columns that form a group; ("model", "attack", "norm") gives it for each attack alone.

    Returns:
        One row per group and sample, sorted so: `*by, sample, label, clean_pred, distance` (0 if the clean prediction
        is wrong, +inf if nothing broke the sample)`, found_by, found_eps` (attack and budget that found it; null if
        none was needed or none succeeded; ties go to the first attack by name)`, errors, skipped` (numbers of rows).
    """
    keys = [*by, "sample"]
    wrong = (records["clean_pred"] != records["label"]).to_numpy()
    distance = np.where(wrong, 0.0, records["distance"].to_numpy())
    found = pd.Series(np.isfinite(distance) & ~wrong, index=records.index)
    columns = {
        **{name: records[name] for name in dict.fromkeys([*keys, "label", "clean_pred"])},
        "distance": distance,
        "found_by": records["attack"].where(found),
        "found_eps": records["eps"].where(found),
        "errors": (records["status"] == Status.ERROR.value).astype("int64"),
        "skipped": (records["status"] == Status.SKIPPED.value).astype("int64"),
    }
    order = [*keys, "distance", "found_by", "found_eps"]
    frame = pd.DataFrame(columns, index=records.index).sort_values(by=order, kind="stable", na_position="last")
    frame[["errors", "skipped"]] = frame.groupby(keys)[["errors", "skipped"]].transform("sum")
    return frame.drop_duplicates(keys).reset_index(drop=True)


def rows(records: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows whose columns equal the values: `rows(records, model="a", norm="l2")`; None selects nulls."""
    keep = np.ones(len(records), dtype=bool)
    for name, value in values.items():
        column = records[name]
        keep &= (column.isna() if value is None else (column == value).fillna(False)).to_numpy(dtype=bool)
    return pd.DataFrame(records.loc[keep])


def _cast(column: pd.Series, dtype: str) -> pd.Series:
    """Cast one column without losing anything, or raise `RunError`."""
    what = f"records column '{column.name}'"
    if column.name not in NULLABLE and bool(column.isna().any()):
        raise RunError(
            what, expected="a value in every row", got=f"null in row {int(column.isna().to_numpy().argmax())}"
        )
    if dtype == "string" and len(column) and not pd.api.types.infer_dtype(column, skipna=True) == "string":
        raise RunError(what, expected="text", got=f"dtype {column.dtype}")
    try:
        return column.astype("Int64").astype("int64") if dtype == "int64" else column.astype(dtype)  # pyright: ignore
    except (TypeError, ValueError) as error:
        raise RunError(what, expected=f"dtype {dtype}", got=f"dtype {column.dtype} ({error})") from error


def _check_status(frame: pd.DataFrame) -> None:
    """Raise `RunError` where status, distance and clean prediction contradict each other."""
    status, distance = frame.status, frame.distance
    wrong = status == Status.MISCLASSIFIED.value
    found = status == Status.SUCCESS.value
    lost = status.isin([Status.FAILED.value, Status.SKIPPED.value, Status.ERROR.value])
    _require(frame, ~wrong | (distance == 0), "distance", "0 for a misclassified sample")
    _require(frame, ~found | (np.isfinite(distance) & (distance >= 0)), "distance", "a finite number ≥ 0 for a success")
    _require(frame, ~lost | (distance == np.inf), "distance", "+inf where no adversarial was found")
    differs = frame.clean_pred != frame.label
    _require(frame, ~wrong | differs, "clean_pred", "other than the label for a misclassified sample")
    attacked = found | (status == Status.FAILED.value)
    _require(frame, ~attacked | ~differs, "clean_pred", "equal to the label for an attacked sample")
    returned = frame.adv_pred.notna() & frame.adv_margin.notna()
    _require(frame, ~(attacked | wrong) | returned, "adv_pred", "a value where a point was returned")


def _require(frame: pd.DataFrame, holds: pd.Series, column: str, expected: str) -> None:
    """Raise `RunError` for the first row where the condition does not hold."""
    if bool(holds.all()):
        return
    row = frame.loc[~holds.astype(bool)].iloc[0]
    where = f"model '{row.model}', attack '{row.attack}', sample {row['sample']}, status '{row.status}'"
    raise RunError(f"records column '{column}'", expected=expected, got=f"{row[column]} ({where})")


def _is_canonical(text: str) -> bool:
    try:
        value = json.loads(text)
        return isinstance(value, dict) and canonical_json(value) == text
    except ValueError:
        return False


def _arrow_schema() -> Any:
    import pyarrow as pa

    kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "boolean": pa.bool_()}
    return pa.schema([pa.field(name, kinds[dtype.lower()], name in NULLABLE) for name, dtype in DTYPES.items()])


def _nullable_types() -> dict[Any, Any]:
    import pyarrow as pa

    return {
        pa.string(): pd.StringDtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
