"""Changes of an input: of its bytes, its text, its JSON or YAML, or the chunks of its container.

All take the random numbers of the case, and so follow from its seed.
"""

import json
import struct
import zlib
from random import Random

HOSTILE_JSON = (
    *("null", "true", "[]", "{}", '""', "0", "-1", "1", "2.0", "3.5", "16777217", "1e308", "-0.0"),
    *("9223372036854775808", "1" * 400, "1" * 5000, "1e400", "NaN", "-Infinity", "[" * 2000),
    *("[" * 60 + "]" * 60, r'"\ud800"', r'"\u0000"', '"../x"', '"' + "x" * 5000 + '"'),
    *('"\\u001b]0;x\\u0007"', "[null]", '{"a": {"b": []}}', "[1, 2, 3]", '"256"', '"nan"'),
)
HOSTILE_YAML = (
    *("!!bool maybe", "!!set {x}", "2024-99-99", "!!binary x", "&a [*a]", "*b", "{<<: [{a: 1}]}"),
    *("!!int x", "1:59:59", "0x", "~", "=", "<<", "[" * 300, ".nan", ".inf", "1" * 400, "1_0"),
    *("!!python/name:os.system", "'", '"\\x', "- -", "? :", "18446744073709551616", "1e400"),
)
HOSTILE_TEXT = ("\0", "\ud800", "\u2028", "\r", '"', ",", "\x1b", "é", "🦊", "\ufeff", "{", "\n")
EXTREMES = (0, 1, 127, 128, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 24)
_MARK = "\ue000mark\ue000"


def mutate_bytes(random: Random, data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Flips, cuts, repeats, extreme numbers and splices, one to four of them."""
    for _ in range(random.randint(1, 4)):
        if not data:
            return data
        at = random.randrange(len(data))
        kind = random.randrange(6 if others else 5)
        if kind == 0:
            data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[at : at + random.randint(1, 64)] * 2 + data[at + 1 :]
        elif kind == 3:
            packing = random.choice("<>") + random.choice("IQ")
            data = data[:at] + struct.pack(packing, random.choice(EXTREMES)) + data[at + 4 :]
        elif kind == 4:
            data = data[:at] + data[at + random.randint(1, 64) :]
        else:
            other = random.choice(others)
            data = data[:at] + other[random.randrange(len(other)) :]
    return data


def mutate_text(random: Random, data: bytes) -> bytes:
    """Lines moved, repeated or left out, hostile characters, or changed bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    lines = data.split(b"\n")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        kind = random.randrange(4)
        if kind == 0:
            lines[at] = random.choice(lines)
        elif kind == 1:
            del lines[at : at + 1]
            lines = lines or [b""]
        else:
            place = random.randint(0, len(lines[at]))
            inserted = random.choice(HOSTILE_TEXT).encode("utf-8", "surrogatepass")
            lines[at] = lines[at][:place] + inserted + lines[at][place:]
    return b"\n".join(lines)


def mutate_json(random: Random, data: bytes) -> bytes:
    """A value of JSON replaced, taken out, given twice or renamed; sometimes its bytes change."""
    if random.random() < 0.15:
        return mutate_bytes(random, data)
    root = [json.loads(data)]
    raw = []
    for _ in range(random.randint(1, 2)):
        holder, key = root, 0
        while isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.8:
            holder = holder[key]
            key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        kind = random.randrange(5)
        if kind == 0 and holder is not root:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[random.choice([*holder, "x", "type", ""])] = holder.pop(key)
        else:
            raw.append(random.choice(HOSTILE_JSON))
            holder[key] = f"{_MARK}{len(raw) - 1}"
    text = json.dumps(root[0])
    for number, value in enumerate(raw):
        text = text.replace(json.dumps(f"{_MARK}{number}"), value)
    return text.encode()


def mutate_json_lines(random: Random, data: bytes) -> bytes:
    """JSON of one line changed, or the text."""
    if random.random() < 0.3:
        return mutate_text(random, data)
    lines = data.rstrip(b"\n").split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = mutate_json(random, lines[at])
    return b"\n".join(lines) + b"\n"


def mutate_yaml(random: Random, data: bytes) -> bytes:
    """A value of YAML replaced or a line repeated, or the text changed."""
    if random.random() < 0.3:
        return mutate_text(random, data)
    lines = data.decode().split("\n")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        key, colon, _ = lines[at].partition(": ")
        value = random.choice(HOSTILE_YAML + HOSTILE_JSON)
        lines[at] = f"{key}: {value}" if colon else f"x{at}: {value}"
    return "\n".join(lines).encode()


def mutate_safetensors(random: Random, data: bytes) -> bytes:
    """A value of the header replaced, in a header that stays whole; or the bytes changed."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    (size,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + size], data[8 + size :]
    kind = random.randrange(3)
    if kind == 0:
        header = mutate_json(random, header)
    elif kind == 1:  # a text of the metadata may hold JSON itself
        content = json.loads(header)
        texts = content.get("__metadata__", {})
        for key in [random.choice(sorted(texts))] if texts else []:
            whole = texts[key].startswith("{")
            changed = mutate_json(random, texts[key].encode()) if whole else b"x"
            texts[key] = changed.decode("utf-8", "replace")
        header = json.dumps(content).encode()
    else:  # numbers that aren't finite
        count = min(len(body), 4 * random.randint(1, 64)) // 4
        number = struct.pack("<f", random.choice([float("nan"), float("inf"), 1e38, -1e-45]))
        body = number * count + body[4 * count :]
    return struct.pack("<Q", len(header)) + header + body


def mutate_png(random: Random, data: bytes) -> bytes:
    """A chunk changed, moved or put in, with the right checksum; or the bytes changed."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    chunks, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    place = random.randrange(len(chunks))
    name, content = chunks[place]
    kind = random.randrange(4)
    if kind == 0:
        chunks[place] = (name, mutate_bytes(random, content))
    elif kind == 1:
        chunks.insert(place, random.choice(chunks))
    elif kind == 2:
        keyword = random.choice([b"comment", b"Comment", b"fps", b"Software"])
        text = random.choice(HOSTILE_JSON).encode()
        chunks.insert(1, (b"tEXt", keyword + b"\0" + text))
    else:
        field = random.choice([0, 4])
        width = struct.pack(">I", random.choice(EXTREMES))
        header = chunks[0][1]
        chunks[0] = (b"IHDR", header[:field] + width + header[field + 4 :])
    written = (
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks
    )
    return data[:8] + b"".join(written)
