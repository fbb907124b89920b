"""Sources by weight, validation from a source of its own, packing: seen in the tokens themselves, read with zstd."""

import pytest

import cluster
import forms

LENGTH = 32
SHORT = {**forms.SHORT, **cluster.GPT2}  # with which a word is a token


def words(word, count, documents):
    """Documents of one word, which is one token with its space."""
    return [f" {word}" * count for _ in range(documents)]


@pytest.fixture
def sources(tmp_path):
    """300 documents of " water", and 300 of " stone", which differ from each other by their lengths."""
    return [
        forms.written(tmp_path / word, "all.jsonl", forms.json_lines([f" {word}" * (60 + i % 80) for i in range(300)]))
        for word in ("water", "stone")
    ]


ID = {"water": 1660, "stone": 7815, "river": 7850}


def share(tokens):
    water, stone = (tokens.count(ID[word]) for word in ("water", "stone"))
    return water / (water + stone)


def test_the_words_are_one_token_each():
    for word, number in ID.items():
        assert cluster.millrace("tokenize", stdin=f" {word}".encode()).stdout.split() == [str(number)]


@pytest.mark.parametrize("weights, wanted", [((3, 1), 0.75), ((1, 9), 0.1), ((0.5, 0.5), 0.5)])
@pytest.mark.parametrize("strategy", ["first_exhausted", "all_exhausted"])
def test_weights_are_shares_of_the_training_tokens(workplaces, sources, weights, wanted, strategy):
    for source, weight in zip(sources, weights):
        source["weight"] = weight
    changes = {**SHORT, "dataset__stopping_strategy": strategy, "dataset__validation_fraction": 0}
    one, three = (workplaces(dataset__sources=sources, **changes) for _ in range(2))
    assert forms.dataset_digest(one, "--workers", 1) == forms.dataset_digest(three, "--workers", 3)
    tokens = forms.tokens(one)
    assert abs(share(tokens) - wanted) < 0.03
    assert abs(share(tokens[: len(tokens) // 2]) - wanted) < 0.06, "the mixture is not even"
    there = sum(60 + i % 80 for i in range(300))  # tokens of each source, without the ends
    used = [tokens.count(ID[word]) for word in ("water", "stone")]
    if strategy == "first_exhausted":
        assert max(used) <= there * 1.01
    else:
        assert min(used) >= there * 0.97


def test_without_weights_all_of_each_is_used(workplaces, sources):
    place = workplaces(dataset__sources=sources, dataset__validation_fraction=0, **SHORT)
    forms.dataset_digest(place)
    tokens = forms.tokens(place)
    there = sum(60 + i % 80 for i in range(300))
    assert [tokens.count(ID[word]) for word in ("water", "stone")] == [there, there]


def test_validation_may_have_a_source_of_its_own(workplaces, sources, tmp_path):
    held = forms.written(tmp_path / "held", "all.jsonl", forms.json_lines(words("river", 90, 20)), split="validation")
    sources[0]["split"] = sources[1]["split"] = "train"
    digests = set()
    for workers in (1, 3):
        place = workplaces(dataset__sources=[*sources, held], dataset__validation_fraction=0.5, **SHORT)
        digests.add(forms.dataset_digest(place, "--workers", workers))
    assert len(digests) == 1
    assert set(forms.tokens(place, "validation")) == {ID["river"], cluster.END_OF_TEXT}
    assert ID["river"] not in forms.tokens(place)
    assert forms.info(place)["train"]["documents"] == 600 and forms.info(place)["validation"]["documents"] == 20


@pytest.mark.parametrize("packing", ["pad", "best_fit"])
def test_padded_documents_are_whole(workplaces, tmp_path, packing):
    texts = [" water" * (1 + 7 * i % 30) for i in range(400)]  # all fit into one sequence
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines(texts))
    place = workplaces(dataset__sources=[source], dataset__packing=packing, dataset__validation_fraction=0, **SHORT)
    forms.dataset_digest(place)
    tokens = forms.tokens(place)
    assert tokens.count(ID["water"]) == sum(text.count("water") for text in texts)
    row = len(tokens) // forms.info(place)["train"]["sequences"]
    assert LENGTH <= row <= LENGTH + 1
    rows = [tokens[i : i + row] for i in range(0, len(tokens), row)]
    lengths = sorted(
        len(run) for line in rows for run in "".join("w" if t == ID["water"] else " " for t in line).split()
    )
    assert lengths == sorted(text.count("water") for text in texts), "a document was cut"
    if packing == "pad":
        assert len(rows) == len(texts)
    else:
        assert len(rows) < len(texts) * 0.7


@pytest.mark.parametrize("packing, pad_in_loss", [("pad", False), ("best_fit", False), ("best_fit", True)])
def test_packed_documents_train_and_resume_to_the_same_weights(workplaces, tmp_path, packing, pad_in_loss):
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines(forms.documents(60, size=300)))
    changes = {"dataset__packing": packing, "dataset__document_mask": True, "dataset__pad_in_loss": pad_in_loss}
    changes.update(dataset__sources=[source], training__max_steps=6, training__save_steps=2, training__eval_steps=0)
    changes.update(training__eval_sequences=20, cluster__lease_seconds=3)
    one, two = (workplaces(**changes) for _ in range(2))
    wanted = one.go("--workers", 1)
    process = two.run("--workers", 2)
    two.wait_for_step(process, 3)
    process.kill()
    assert cluster.digests(two.go("--workers", 2)) == cluster.digests(wanted)
