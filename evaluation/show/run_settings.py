"""Settings, versions and provenance of results folders as foldable HTML."""

import json
from collections.abc import Mapping, Sequence
from html import escape

from evaluation.show.markup import MISSING, Column, Text, html
from evaluation.show.report_page import wide


def settings_html(
    names: Sequence[str], configs: Sequence[Mapping], infos: Sequence[Mapping]
) -> str:
    """Tables of what differs between the folders and of their versions, and all of it below.

    Args:
        names: names of the folders.
        configs: their settings.
        infos: their versions and provenance.
    """
    parts = []
    if len(names) > 1:
        differing = "Settings that differ"
        table = tree_table(differing, names, configs, only_different=True)
        parts.append(f"<h3>{differing}</h3>\n{table}" if table else "")
    versions = "Versions and provenance"
    parts.append(f"<h3>{versions}</h3>\n{tree_table(versions, names, infos)}")
    for name, config, info in zip(names, configs, infos, strict=True):
        for what, content in (("settings", config), ("provenance", info)):
            text = escape(json.dumps(content, indent=2, ensure_ascii=False, default=str))
            summary = f"<summary>{escape(name)}: all {what}</summary>"
            parts.append(f"<details>{summary}\n<pre>{text}</pre></details>")
    return "\n".join(parts)


def _flat(tree: Mapping, prefix: str = "") -> dict[str, str]:
    """Leaves of nested mappings as text, by dotted name."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            found[prefix + name] = str(value)
    return found


def tree_table(
    title: str, names: Sequence[str], trees: Sequence[Mapping], *, only_different: bool = False
) -> str:
    """Table with a row a leaf of nested mappings and a column a folder; "" if there is no row.

    Args:
        title: what screen readers call it.
        names: names of the folders.
        trees: a nested mapping of each.
        only_different: whether to leave out what is the same in all.
    """
    columns, rows = [_flat(tree) for tree in trees], []
    for field in dict.fromkeys(field for column in columns for field in column):
        values = [column.get(field, MISSING) for column in columns]
        if not only_different or len(set(values)) > 1:
            rows.append([Text(field), *map(Text, values)])
    if not rows:
        return ""
    head = [Column("", number=False), *(Column(name, number=False) for name in names)]
    return wide(title, html(head, rows))
