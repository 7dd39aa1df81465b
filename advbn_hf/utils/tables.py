"""Lines of cells as text: aligned for a terminal, or a pipe table in Markdown."""

import html
import re
from collections.abc import Sequence


def align_text(grid: Sequence[Sequence[str]]) -> str:
    """A table for a terminal.

    Args:
        grid: lines of cells, the header first; all but the first column are flush right.
    """
    header, *body = grid
    widths = [max(len(line[i]) for line in grid) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(_align(line, widths) for line in (header, rule, *body))


def align_markdown(grid: Sequence[Sequence[str]]) -> str:
    """A pipe table in Markdown; header and first column are escaped.

    Args:
        grid: lines of cells, the header first; all but the first column are flush right.
    """
    header, *body = grid
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [list(map(escape_markdown, header)), rule, *([escape_markdown(name), *rest] for name, *rest in body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape_markdown(text: str) -> str:
    """Makes a name safe within a line or a table cell of Markdown.

    Args:
        text: any text.

    Returns:
        One line in which no character is markup for Markdown or HTML.
    """
    return re.sub(r"([\\`*_~\[\]|#$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _align(line: list[str], widths: list[int]) -> str:
    numbers = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([line[0].ljust(widths[0]), *numbers]).rstrip()
