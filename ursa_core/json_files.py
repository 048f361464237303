"""JSON that comes from outside: image comments, headers, manifests, reports, configs.

What ``json`` accepts and the code behind it can't take is refused here, with one kind of error:
nesting that no recursion follows, numbers beyond floats, NaN and infinity, and lone surrogates,
which no file or terminal can be given.
"""

import json
import re
from typing import Any

MAX_DEPTH = 64
"""Objects and lists inside one another; files of ours have at most 6."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_MAX_DIGITS = 300  # so that every number fits a float; transformers writes 10**30 for no limit


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON, bytes in UTF-8.
        finite: Refuse NaN and infinite numbers.

    Raises:
        ValueError: The text isn't JSON, or is beyond what is read; says why in one line.
    """
    if isinstance(text, bytes):
        text = text.decode()
    checks: dict[str, Any] = {"parse_int": _whole}
    if finite:
        checks |= {"parse_float": _finite, "parse_constant": _finite}
    try:
        value = json.loads(text, **checks)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    if _SURROGATE.search(text):  # whole pairs are fine, and halves are found by encoding them
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            place = f"U+{ord(error.object[error.start]):04X}"
            raise ValueError(f"a text in it holds {place}, half a character") from None
    return value


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The object of a JSON text.

    Raises:
        ValueError: The text is no JSON object, or is beyond what is read; says why in one line.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004  (all faults are of one kind)
    return value


_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} deep"


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        containers = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for inside in containers for v in inside if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"the number {_shortened(digits)} has more than {_MAX_DIGITS} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"the number {_shortened(text)} isn't finite")
    return number


def _shortened(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}…"
