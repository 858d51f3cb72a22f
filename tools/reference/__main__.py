"""``python -m tools.reference``: bring docs/ up to date with the program."""

from __future__ import annotations

from tools.reference.pages import files, stale

behind = set(stale())
for path, text in files().items():
    if path in behind:
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")
