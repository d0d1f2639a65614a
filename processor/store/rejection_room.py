"""Cut new rejections of a holder at its limit: the head of the body, its length and its digest are kept.

    rows of insert_rejections, bytes per holder ─▶ the rows, whole or cut

The holder is the tenant or sender responsible for a rejection; see the column `holder`. Small rejections
stay whole.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from processor.errors import Reason

HEAD_BYTES = 1024
WHOLE_BYTES_MAX = 2 * HEAD_BYTES
"""Up to this size a rejection stays whole, since a cut would save little."""

_WORDS = (
    "; its sender or tenant keeps as much in open rejections as may be (STORAGE_REJECTED_BYTES), so the head "
    "of this one is kept alone: it can't be replayed; discard the others, and have it sent again"
)

Columns = dict[str, list[Any]]


def make_fit(columns: Columns, held: Sequence[tuple[str, int]], bytes_max: int) -> int:
    """Add the size columns, cut rejections beyond the limit, and return the number of cut ones.

    `held` has for each row its holder and the bytes that this holder keeps already.
    """
    kept = dict(held)
    columns |= {"holder": [], "kept_bytes": [], "body_bytes": [], "body_sha256": []}
    cut = 0
    for place, (holder, _) in enumerate(held):
        size, body = _size(columns, place), columns["body"][place]
        # An import deletes messages from the dead-letter queue, so there would be no other copy.
        small = size <= WHOLE_BYTES_MAX or columns["reason"][place] == Reason.DEAD_LETTERED
        whole = small or kept[holder] + size <= bytes_max
        columns["body_bytes"].append(None if whole else len(body))
        columns["body_sha256"].append(None if whole else sha256(body).digest())
        if not whole:
            cut += 1
            columns["body"][place] = body[:HEAD_BYTES]
            columns["attributes"][place] = _head_of(columns["attributes"][place])
            columns["detail"][place] = _short(columns["detail"][place])
            size = _size(columns, place)
        columns["holder"].append(holder)
        columns["kept_bytes"].append(size)
        kept[holder] += size
    return cut


def _size(columns: Mapping[str, Sequence[Any]], place: int) -> int:
    texts = len(columns["attributes"][place].encode()) + len(columns["detail"][place].encode())
    return len(columns["body"][place]) + texts


def _head_of(attributes: str) -> str:
    """Keep attributes in their order, up to HEAD_BYTES of JSON."""
    found: dict[str, Any] = {}
    room = HEAD_BYTES
    for name, value in json.loads(attributes).items():
        room -= len(json.dumps({name: value}))
        if room >= 0:
            found[name] = value
    return json.dumps(found)


def _short(detail: str) -> str:
    said: dict[str, Any] = json.loads(detail)
    return json.dumps({"message": f"{said.get('message', '')}{_WORDS}", "errors_left_out": "errors" in said})
