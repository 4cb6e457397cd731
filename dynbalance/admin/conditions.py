"""
On which revision a request insists.

The C{ETag} of an upstream's status is its revision in quotes.  Knows the header
fields (RFC 9110, section 13.1); refuses to know who keeps the revision.
"""

from __future__ import annotations

import re

from dynbalance.admin.answers import Refused, etag

_TAG = re.compile(rb'"([0-9]{1,18})"')


def only_at(if_match: bytes | None) -> int | None:
    """
    @return: the revision that an order was made for; C{None} for any.
    @raise Refused: for what is no single tag of ours: one order is made for one
        revision.
    """
    if if_match is None or if_match.strip() == b"*":
        return None
    tag = _TAG.fullmatch(if_match.strip())
    if tag is None:
        raise Refused(400, 'Invalid If-Match: not a revision in quotes, such as "17"')
    return int(tag[1])


def has_seen(if_none_match: bytes | None, revision: int) -> bool:
    """Whether the caller knows this revision.  The comparison is the weak one."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return b"*" in tags or etag(revision) in tags
