"""Rows of text as lines with columns of equal width."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int = 0) -> list[str]:
    """Lines, two spaces between columns and none at the end.

    Args:
      rows: of equally many cells, the heading among them.
      left: columns that are flush left, the first ones; the others are flush right.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        return "  ".join(c.ljust(width) if column < left else c.rjust(width) for column, (c, width) in pairs).rstrip()

    return [line(row) for row in rows]
