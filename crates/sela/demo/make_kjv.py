#!/usr/bin/env python3
"""Writes kjv.txt.gz beside this script: the King James Bible, one verse a line.

A line is `Psalms 23:1<TAB>The LORD is my shepherd; I shall not want.` in canon order. The text
comes from the Debian packages bible-kjv and bible-kjv-text, whose `bible` command prints verses.
The same input always gives the same bytes.
"""

import argparse
import gzip
import io
import re
import subprocess
from pathlib import Path

VERSES = 31_102

# What `bible` calls a book -> its usual name, in canon order.
BOOKS = {
    "Ge": "Genesis", "Exo": "Exodus", "Lev": "Leviticus", "Num": "Numbers", "Deu": "Deuteronomy",
    "Josh": "Joshua", "Jdgs": "Judges", "Ruth": "Ruth", "1Sm": "1 Samuel", "2Sm": "2 Samuel",
    "1Ki": "1 Kings", "2Ki": "2 Kings", "1Chr": "1 Chronicles", "2Chr": "2 Chronicles",
    "Ezra": "Ezra", "Neh": "Nehemiah", "Est": "Esther", "Job": "Job", "Psa": "Psalms",
    "Prv": "Proverbs", "Eccl": "Ecclesiastes", "SSol": "Song of Solomon", "Isa": "Isaiah",
    "Jer": "Jeremiah", "Lam": "Lamentations", "Eze": "Ezekiel", "Dan": "Daniel", "Hos": "Hosea",
    "Joel": "Joel", "Amos": "Amos", "Obad": "Obadiah", "Jonah": "Jonah", "Mic": "Micah",
    "Nahum": "Nahum", "Hab": "Habakkuk", "Zep": "Zephaniah", "Hag": "Haggai", "Zec": "Zechariah",
    "Mal": "Malachi", "Mat": "Matthew", "Mark": "Mark", "Luke": "Luke", "John": "John",
    "Acts": "Acts", "Rom": "Romans", "1Cor": "1 Corinthians", "2Cor": "2 Corinthians",
    "Gal": "Galatians", "Eph": "Ephesians", "Phi": "Philippians", "Col": "Colossians",
    "1Th": "1 Thessalonians", "2Th": "2 Thessalonians", "1Tim": "1 Timothy", "2Tim": "2 Timothy",
    "Titus": "Titus", "Phmn": "Philemon", "Heb": "Hebrews", "Jas": "James", "1Pet": "1 Peter",
    "2Pet": "2 Peter", "1Jn": "1 John", "2Jn": "2 John", "3Jn": "3 John", "Jude": "Jude",
    "Rev": "Revelation",
}


def clean(text):
    """Drops markup and stray blanks; every word stays."""
    text = re.sub(r"[{}\[\]<>]", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.;:?!])", r"\1", text)
    return re.sub(r"([,;:?!])(?=[A-Za-z])", r"\1 ", text)


def verses(command):
    """Yields (book, chapter, verse, text) as the `bible` command prints them."""
    printed = subprocess.run(
        [command, "-f", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True
    ).stdout
    for line in printed.splitlines():
        match = re.fullmatch(r"(\d?[A-Za-z]+)(\d+):(\d+)\s+(.*)", line)
        if not match:
            raise SystemExit(f"not a verse: {line!r}")
        book, chapter, verse, text = match.groups()
        yield BOOKS[book], int(chapter), int(verse), clean(text)


def check(rows):
    """Stops unless the rows are the whole canon, in order, in plain ASCII."""
    if len(rows) != VERSES:
        raise SystemExit(f"{len(rows)} verses, expected {VERSES}")
    if list(dict.fromkeys(row[0] for row in rows)) != list(BOOKS.values()):
        raise SystemExit("books missing or out of order")
    before = None
    for book, chapter, verse, text in rows:
        place = (book, chapter, verse)
        if before and before[0] == book:
            follows = {(book, before[1], before[2] + 1), (book, before[1] + 1, 1)}
        else:
            follows = {(book, 1, 1)}
        if place not in follows:
            raise SystemExit(f"{place} cannot follow {before}")
        if not text or not text.isascii() or not text.isprintable() or "  " in text:
            raise SystemExit(f"unclean text at {place}: {text!r}")
        before = place


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bible", default="bible", help="the command that prints verses")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("kjv.txt.gz"))
    options = parser.parse_args()

    rows = list(verses(options.bible))
    check(rows)
    text = "".join(f"{book} {chapter}:{verse}\t{words}\n" for book, chapter, verse, words in rows)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(text.encode())
    options.out.write_bytes(packed.getvalue())
    print(f"{len(rows)} verses, {len(BOOKS)} books, {len(text)} bytes, packed {len(packed.getvalue())}")


if __name__ == "__main__":
    main()
