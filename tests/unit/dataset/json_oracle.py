"""What is in records, as Python's json reads them: json_oracle.py check IN OUT, json_oracle.py write OUT

check: IN has records, OUT gets a line for each: "+" and the text in field "text", or "-". Records and texts are hexadecimal.
write: records that json.dumps wrote of random values, a line each: the record, its text, and the path to it."""
import json
import os
import random
import sys


def text_bytes(text):
    """UTF-8, in which bytes that were none stay as they were and a surrogate that stands alone is 0xFF."""
    out = b""
    for c in text:
        if 0xDC80 <= ord(c) <= 0xDCFF:
            out += bytes([ord(c) - 0xDC00])
        else:
            out += b"\xff" if 0xD800 <= ord(c) <= 0xDFFF else c.encode()
    return out


def text_of(record):
    try:
        value = json.loads(record.decode("utf-8", "surrogateescape"), strict=False)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = value.get("text")
    return text_bytes(value) if isinstance(value, str) else None


def check(source, target):
    with open(source) as records, open(target, "w") as out:
        for line in records:
            text = text_of(bytes.fromhex(line))
            out.write("-\n" if text is None else f"+{text.hex()}\n")


def some_text(rng, size):
    kinds = ["abc", " \t\n\r\b\f\v\0\x1b\x7f", "\"\\/{}[]:,", "äßéñ", "日本語", "😀🏳", "\ud83d\udc00\ud800",
             "\u2028\ufeff\ufffd"]
    return "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(0, size)))


def some_value(rng, depth):
    kind = rng.randint(0, 9)
    if kind < 2 and depth < 5:
        return {some_text(rng, 5): some_value(rng, depth + 1) for _ in range(rng.randint(0, 4))}
    if kind < 4 and depth < 5:
        return [some_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    numbers = [float("nan"), float("inf"), float("-inf"), 1e300,
               5e-324, -0.0, 0, 10**rng.randint(0, 400), -rng.randint(0, 99), rng.random()]
    return rng.choice([some_text(rng, 9), True, False, None] + numbers)


def write(target):
    seed = int(os.environ.get("MILLRACE_SEED") or random.randrange(1 << 32))
    print(f"json_oracle.py: MILLRACE_SEED={seed}")
    rng = random.Random(seed)
    with open(target, "w") as out:
        for _ in range(4000):
            text, path = some_text(rng, 30), rng.choice(["text", "a.b", "ä.text.c d"])
            record = text
            for name in reversed(path.split(".")):
                others = [(some_text(rng, 6), some_value(rng, 0)) for _ in range(rng.randint(0, 5))]
                others = [(key, value) for key, value in others if key not in (name, path)]
                others.insert(rng.randint(0, len(others)), (name, record))
                record = dict(others)
            ascii_only = rng.random() < 0.5
            written = json.dumps(record, ensure_ascii=ascii_only, indent=rng.choice([None, None, 0, 2]),
                                 separators=rng.choice([None, (",", ":")]))
            record = written.encode("utf-8", "surrogatepass")  # as open(..., errors="surrogatepass") would
            wanted = text_bytes(json.loads(json.dumps(text))) if ascii_only else text.encode("utf-8", "surrogatepass")
            out.write(f"{record.hex()} {wanted.hex()} {path.encode().hex()}\n")


if sys.argv[1] == "check":
    sys.setrecursionlimit(5000)
    check(sys.argv[2], sys.argv[3])
else:
    write(sys.argv[2])
