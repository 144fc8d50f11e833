"""Reads the file of a measurement table, CSV or Parquet, with bounds on what it unpacks to."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from moesim.calibrate.importers.source import MAX_FILE_BYTES, MAX_TEXT_BYTES, read_bytes
from moesim.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd


def read_table(file: Path) -> "pd.DataFrame":
    """Return what is in a .csv, .csv.gz or .parquet file; CalibrationError where it cannot be."""
    import pandas as pd

    try:
        if file.suffix == ".parquet":
            return _read_parquet(file)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(io.BytesIO(read_bytes(file)), low_memory=False, index_col=False)
    except pd.errors.ParserWarning:
        raise CalibrationError(f"cannot read {file}: its rows have more cells than its head") from (
            None
        )
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0]
        raise CalibrationError(f"cannot read {file}: {first}") from None


def _read_parquet(file: Path) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow.parquet as pq

    if file.stat().st_size > MAX_FILE_BYTES:
        raise CalibrationError(f"{file} is larger than {MAX_FILE_BYTES // 2**20:,} MiB")
    about = pq.read_metadata(file)
    cells = about.num_rows * about.num_columns
    unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if max(unpacked, cells) > MAX_TEXT_BYTES:
        raise CalibrationError(f"{file} unpacks to more than {MAX_TEXT_BYTES // 2**20:,} MiB")
    return pd.read_parquet(file)
