"""Uniform discrete diffusion with a metric path: the library behind the ``ursa`` command.

``import ursa_core as ursa`` gives the names below, each loaded on first use; see docs/python.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ursa_core.bundle.options import SamplingOptions as SamplingOptions
    from ursa_core.clips.clip import Clip as Clip
    from ursa_core.clips.model import Model as Model
    from ursa_core.clips.model import load as load
    from ursa_core.encoding.options import TokenizeOptions as TokenizeOptions
    from ursa_core.encoding.run import tokenize as tokenize
    from ursa_core.errors import UrsaError as UrsaError
    from ursa_core.errors import UrsaWarning as UrsaWarning
    from ursa_core.media import read_media as read_media
    from ursa_core.places import located as located
    from ursa_core.places import published as published

__version__ = "0.1.0"
_HOMES = {
    "Clip": "clips.clip",
    "Model": "clips.model",
    "SamplingOptions": "bundle.options",
    "TokenizeOptions": "encoding.options",
    "UrsaError": "errors",
    "UrsaWarning": "errors",
    "load": "clips.model",
    "located": "places",
    "published": "places",
    "read_media": "media",
    "tokenize": "encoding.run",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """A public name, its module loaded now."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
