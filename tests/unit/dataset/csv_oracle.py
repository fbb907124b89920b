"""Tables as Python's csv writes them: csv_oracle.py whole|damaged OUT

A line for each table: format, how many of its documents may be missing, its bytes, how many documents; the table and its documents in
hexadecimal. damaged: one quote is gone or one too many, anywhere; at most the row that it is in may be missing."""
import csv
import io
import os
import random
import sys


def field(rng, plain):
    if rng.random() < 0.5:
        return "".join(rng.choice("ab cdé日.") for _ in range(rng.randint(0, 8)))
    text = "".join(rng.choice('ab"",\n \r;é' if not plain else 'ab"", ;é') for _ in range(rng.randint(0, 12)))
    return text


def table(rng, kind):
    columns, rows = rng.randint(1, 4), rng.randint(0, 12)
    tsv = kind == "whole" and rng.random() < 0.2
    at = rng.randrange(columns)
    names = [("text" if i == at else f"n{i}") for i in range(columns)]
    end = rng.choice(["\n", "\r\n", "\r", ""])  # "": each row with another one
    # Damaged: no two alike; and a field that began with a comma would look, behind a quote too many, like the next one.
    body = [[(f"{row}x" if kind == "damaged" else "") + field(rng, tsv) for _ in names] for row in range(rows)]
    for c in "\r\n":  # csv writes it without quotes, where it is no part of a row's end
        body = body if c in end else [[text.replace(c, "") for text in row] for row in body]
    if columns == 1 and tsv:
        body = [row for row in body if row != [""]]
    out = io.StringIO(newline="")
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    for row in [names] + body:
        of_row = end or rng.choice(["\n", "\r\n", "\r"])
        if tsv:
            writer = csv.writer(out, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator=of_row)
        else:
            writer = csv.writer(out, lineterminator=of_row, quoting=quoting)
        writer.writerow(row)
    return "tsv" if tsv else "csv", out.getvalue(), [row[at] for row in body]


def damage(rng, text):
    quotes = [i for i, c in enumerate(text) if c == '"']
    first = len(text.splitlines(keepends=True)[0])  # the row of names stays as it is
    quotes = [i for i in quotes if i >= first]
    if quotes and rng.random() < 0.5:
        at = rng.choice(quotes)
        return text[:at] + text[at + 1:]
    at = rng.randint(first, len(text))
    return text[:at] + '"' + text[at:]


def main(kind, target):
    seed = int(os.environ.get("MILLRACE_SEED") or random.randrange(1 << 32))
    print(f"csv_oracle.py: MILLRACE_SEED={seed}")
    rng = random.Random(seed)
    with open(target, "w") as out:
        for _ in range(3000):
            form, text, documents = table(rng, kind)
            lost = 0
            if kind == "damaged":
                text, lost = damage(rng, text), 1
            elif form == "csv":
                rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
                at = rows[0].index("text")
                assert [row[at] for row in rows[1:]] == documents
            data = text.encode()
            out.write(" ".join([form, str(lost), str(len(data)), str(len(documents)), data.hex()] +
                               [document.encode().hex() for document in documents]) + "\n")


main(sys.argv[1], sys.argv[2])
