"""Media to codes: clips are found, cut, filtered and encoded into token shards.

::

    from ursa_core.encoding import TokenizeOptions, tokenize
    done = tokenize(["clips/"], "data/mine", TokenizeOptions(clips="chunk"), model="nano")
    print(done.writer.shards, done.summary()["psnr"])
"""

from typing import TYPE_CHECKING, Any

from ursa_core.encoding.options import TokenizeOptions

if TYPE_CHECKING:
    from ursa_core.encoding.run import tokenize

__all__ = ["TokenizeOptions", "tokenize"]


def __getattr__(name: str) -> Any:  # late, since it loads torch
    if name == "tokenize":
        from ursa_core.encoding.run import tokenize

        return tokenize
    raise AttributeError(name)
