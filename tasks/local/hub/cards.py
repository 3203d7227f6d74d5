"""What a repository says of itself: the YAML at the head of its README.md, which the Hub calls a model card."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tasks.local.hub.repositories import CommitRecord, blob_path

CARD = "README.md"
LARGEST_CARD = 2**20


def read_card(root: Path, commit: CommitRecord) -> dict[str, Any]:
    """Return the card's data; empty where there is none, or none that can be read, as on the real Hub."""
    file = commit.file(CARD)
    if file is None or file.size > LARGEST_CARD:
        return {}
    text = blob_path(root, file).read_text(encoding="utf-8", errors="replace")
    head = re.match(r"---\r?\n(.*?)\r?\n---\s*(\r?\n|$)", text, re.DOTALL)
    try:
        card = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, ValueError):
        return {}
    # YAML knows dates, JSON does not.
    return json.loads(json.dumps(card, default=str)) if isinstance(card, dict) else {}


def card_tags(card: dict[str, Any]) -> list[str]:
    """Return the tags that the Hub makes of a card: its own, and its licence's."""
    tags = card.get("tags") or []
    own = [str(tag) for tag in tags] if isinstance(tags, list) else []
    return own + ([f"license:{card['license']}"] if card.get("license") else [])
