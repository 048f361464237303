"""A worker on a node that has no PyAV."""

import sys
from typing import Any, Self

from ursa_core.encoding.on_ray import _EncodeTask


class WithoutAv(_EncodeTask):
    """Encodes images alone."""

    def moved(self, *given: Any) -> Self:
        for name in [each for each in sys.modules if each.startswith(("av.", "ursa_core.media."))]:
            del sys.modules[name]
        sys.modules["av"] = None  # type: ignore[assignment]  # how Python marks what isn't there
        return super().moved(*given)
