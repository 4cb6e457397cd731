"""
What a policy is made from.

Knows no policy; holds what comes in from outside.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen(slots=True, kw_only=True)
class Means:
    """
    What a policy may use besides its servers.

    @ivar random: a number in [0, 1).
    @ivar now: seconds that never run backwards.
    @ivar freed: to be called when a release has made a full server usable;
        whoever waits for one is served from within.
    @ivar consistent: of C{hash}: by a ring of points, so that a change of
        membership moves few keys.
    """

    random: Callable[[], float]
    now: Callable[[], float]
    freed: Callable[[], None]
    consistent: bool = True
