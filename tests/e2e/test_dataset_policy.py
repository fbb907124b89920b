"""Which documents are kept, and what becomes of their text: each setting gives the dataset that the documents give when they are chosen and
changed by hand, for any number of workers.
"""

import unicodedata

import pytest

import cluster
import forms

GOOD = (
    "The river had been rising since the morning, and by the evening the people of the village were standing on the bridge. "
    "Nobody had seen the water so high in all of their lives, and the older men said that it would be higher before the night was over. "
    "They brought the boats up to the church, tied them to the trees that have stood there for centuries, and waited for the rain to end. "
    "When it did, it was with a silence that none of them would ever forget, because they had lost the sound of the mill as well. "
)


def distinct(count):
    """English paragraphs that no filter minds, each with words of its own."""
    return [
        f"This is what was written of the year {1600 + 7 * i} in the book of the parish. {GOOD}"
        f"It was the house number {i + 1} that was taken by the flood, and with it the garden, the stable and the old wall behind them."
        for i in range(count)
    ]


@pytest.fixture
def made(workplaces, tmp_path):
    """made(texts, ...): the dataset's digest and place, from JSON lines, with 2 workers unless told."""
    count = [0]

    def make(texts, *arguments, **changes):
        count[0] += 1
        source = forms.written(tmp_path / str(count[0]), "all.jsonl", forms.json_lines(texts))
        place = workplaces(dataset__sources=[source], **{**forms.SHORT, **changes})
        return forms.dataset_digest(place, *arguments), place

    return make


def every_number_of_workers(made, wanted, texts, **changes):
    """The digest of 1 and 3 workers is the wanted one; the place of the last."""
    for workers in (1, 3):
        digest, place = made(texts, "--workers", workers, **changes)
        assert digest == wanted
    return place


def test_exact_duplicates_are_left_out(made):
    texts = forms.documents(20)
    repeated = [*texts, texts[3], *texts[5:9], texts[3] + " ", texts[0]]
    wanted, _ = made([*texts, texts[3] + " "])
    place = every_number_of_workers(made, wanted, repeated, dataset__deduplicate="exact")
    assert forms.info(place)["documents"] == 21
    assert made(repeated)[0] != wanted


def test_near_duplicates_are_left_out(made):
    texts = forms.documents(12, size=4000)
    texts = [text for text in texts if len(text.split()) > 120]
    near = [text.replace(" the ", " The ", 1) + " and so on" for text in texts[:4]]
    wanted, _ = made(texts)
    place = every_number_of_workers(made, wanted, [*texts, *near, texts[2]], dataset__deduplicate="near")
    assert forms.info(place)["documents"] == len(texts)
    assert made([*texts, *near], dataset__deduplicate="exact")[0] != wanted


def test_the_quality_filters_keep_prose_and_leave_out_the_rest(made):
    good = distinct(12)
    bad = [
        "lorem ipsum dolor sit amet. " * 40,
        "buy now buy now buy now buy now " * 60,
        "{ int main() { return 0; } }",
        "12 34 56 78 90 " * 80,
        "too short",
        "\n".join(["- a list", "- of points"] * 60),
    ]
    mixed = [text for pair in zip(good, bad) for text in pair] + good[len(bad) :]
    wanted, _ = made(good)
    filters = ["gopher_quality", "gopher_repetition", "c4"]
    place = every_number_of_workers(made, wanted, mixed, dataset__filters=filters)
    assert forms.info(place)["documents"] == len(good)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normalization_is_unicode_s(made, form):
    texts = forms.documents(20) + ["A\u030a\u212b\uf900\ufb01\u1e9b\u0323 \u00bd \uac00 \u1100\u1161 e\u0301\u0323 x" * 50]
    wanted, _ = made([unicodedata.normalize(form, text) for text in texts])
    every_number_of_workers(made, wanted, texts, dataset__normalization=form)
    assert made(texts)[0] != wanted


def test_length_is_counted_in_characters(made):
    texts = [letter * count + " end" for letter in ("a", "ä", "語", "🏳") for count in (10, 96, 97, 200)] + forms.documents(9)
    wanted, _ = made([text for text in texts if 100 <= len(text) <= 1500])
    place = every_number_of_workers(made, wanted, texts, dataset__min_characters=100, dataset__max_characters=1500)
    assert forms.info(place)["documents"] == sum(100 <= len(text) <= 1500 for text in texts)


BROKEN = b"good words, many enough to be a text, and then \xff\xfe bad \xe2\x82 cut \xed\xa0\x80 surrogate"


def test_what_is_not_utf8_is_replaced_dropped_or_refused(workplaces, tmp_path):
    texts = forms.documents(20)
    clean = forms.plain(tmp_path / "clean", texts)
    broken = forms.plain(tmp_path / "broken", texts)
    (broken / "0010b.txt").write_bytes(BROKEN)
    replaced = forms.plain(tmp_path / "replaced", texts)
    (replaced / "0010b.txt").write_text(BROKEN.decode("utf-8", "replace"))

    def digest(folder, **changes):
        return forms.dataset_digest(workplaces(dataset__sources=[f"{folder}/*.txt"], **forms.SHORT, **changes))

    assert digest(broken) == digest(replaced)
    assert digest(broken, dataset__invalid_utf8="drop") == digest(clean)
    place = workplaces(dataset__sources=[f"{broken}/*.txt"], dataset__invalid_utf8="refuse", **forms.SHORT)
    process = place.run(*forms.ONLY)
    assert process.wait() in (1, 2)
    said = process.stderr() + place.logs()
    assert "0010b.txt" in said and "UTF-8" in said


def test_what_was_left_out_is_told(made):
    texts = forms.documents(20)
    _, place = made([*texts, "short", "also short", texts[0]], dataset__min_characters=30, dataset__deduplicate="exact")
    assert forms.info(place)["left_out"] == {"duplicate": 1, "min_characters": 2}
    assert "min_characters 2" in cluster.millrace("dataset", "info", place.output).stdout
