"""Results as a Parquet file, by pyarrow: typed columns, row groups written as they come."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from pigeonholed.errors import Unavailable
from pigeonholed.exporting import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.exporting import Cells, Column

_GROUP_ROWS = 50_000  # some 30 MB of memory, and enough for a reader to skip by


class ParquetTable:
    """Writes rows to an open file; some ten thousand of them are in memory at a time.

    Args:
        stream: binary; it need not be seekable.
        columns: of each row.

    Raises:
        Unavailable: pyarrow is not installed.
    """

    def __init__(self, stream: IO[bytes], columns: Sequence[Column]) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise Unavailable(
                "Parquet needs pyarrow, which is not installed: pip install pigeonholed[parquet]"
            ) from None
        types = {
            Kind.TEXT: pa.string(),
            Kind.WORD: pa.dictionary(pa.int32(), pa.string()),
            Kind.INTEGER: pa.int64(),
            Kind.NUMBER: pa.float64(),
            Kind.TIME: pa.timestamp("us", tz="UTC"),
        }
        self._record_batch: Any = pa.record_batch
        self._array: Any = pa.array
        self._schema = pa.schema([(column.name, types[column.kind]) for column in columns])
        self._writer = parquet.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[Cells] = []

    def write(self, rows: Sequence[Cells]) -> None:
        """Take rows; they are in the file when `close` has returned."""
        self._rows += rows
        if len(self._rows) >= _GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Write what is left, and the index without which it is no Parquet file."""
        if self._rows:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        arrays = [
            self._array(cells, type=field.type)
            for cells, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_batch(self._record_batch(arrays, schema=self._schema))
        self._rows = []
