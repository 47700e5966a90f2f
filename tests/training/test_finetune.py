"""Fine-tuning learns, its checkpoints are cached by everything that shapes them, and its errors are one sentence."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.fine_tune import thin_classes
from cnnsens_bench.models import Classifier, load_checkpoint
from cnnsens_bench.training.data import Share, TrainingImages, random_crop
from cnnsens_bench.training.finetune import finetune, starting_network
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trainer import head_layer, parameter_groups, train_network
from cnnsens_bench.utils.errors import StorageError, UserError
from tests.conftest import TINY, tiny_checkpoint

RECIPE = Recipe(epochs=8, batch_size=8, lr_head=5e-3, lr_body=5e-3)


def train(samples: Samples, cache: Path, recipe: Recipe = RECIPE, **changes: object):
    arguments = {"weights": "random", "input_size": 48, "seed": 0, "cache": cache, **changes}
    return finetune(TINY, samples, recipe, **arguments)  # type: ignore[arg-type]


def test_it_learns_and_a_second_call_trains_nothing(samples: Samples, tmp_path: Path) -> None:
    steps: list[tuple[int, int, float]] = []
    first = train(samples, tmp_path, report=lambda *a: steps.append(a))
    assert not first.cached
    assert steps[-1][0] == steps[-1][1] == len(steps)
    checkpoint = load_checkpoint(first.path)
    assert checkpoint.classes == samples.classes
    assert checkpoint.preprocessing.input_size == 48
    test = samples.split("test")
    views = [images.render(images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h)), 48) for r in test.itertuples()]
    pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        right = checkpoint.classifier()(pixels).argmax(1).numpy() == test["label"].to_numpy()
    assert right.mean() > 0.8
    steps.clear()
    second = train(samples, tmp_path, report=lambda *a: steps.append(a))
    assert second.cached
    assert second.path == first.path
    assert not steps
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]


def test_the_cache_key_is_everything_that_shapes_it(samples: Samples, tmp_path: Path) -> None:
    short = dataclasses.replace(RECIPE, epochs=1)
    base = train(samples, tmp_path, short).path
    tiny_checkpoint(1).save(tmp_path / "w.pt")
    others = [
        train(samples, tmp_path, dataclasses.replace(short, lr_body=1e-3)).path,
        train(samples, tmp_path, short, seed=1).path,
        train(samples, tmp_path, short, input_size=40).path,
        train(samples, tmp_path, short, weights=str(tmp_path / "w.pt")).path,
        train(samples.with_table(samples.split("train").iloc[1:]), tmp_path, short).path,
    ]
    assert len({base, *others}) == 6
    # Test images shape nothing.
    test_rows = samples.table.index[samples.table["split"] == "test"]
    fewer = samples.with_table(samples.table.drop(index=test_rows[0]))
    assert train(fewer, tmp_path, short).cached


def test_the_same_seed_trains_the_same_network(samples: Samples, tmp_path: Path) -> None:
    short = dataclasses.replace(RECIPE, epochs=2)
    one, two = (load_checkpoint(train(samples, tmp_path / name, short).path) for name in "ab")
    assert one.digest() == two.digest()


def test_no_epochs_keep_the_weights_as_they_are(samples: Samples, tmp_path: Path) -> None:
    tiny_checkpoint(3).save(tmp_path / "w.pt")
    result = train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=0), weights=str(tmp_path / "w.pt"))
    assert load_checkpoint(result.path).digest() == tiny_checkpoint(3).digest()


def test_unreadable_training_images_are_reported_not_fatal(samples: Samples, tmp_path: Path) -> None:
    table = samples.table.copy()
    first = table.index[table["split"] == "train"][0]
    table.loc[first, "uri"] = str(tmp_path / "missing.jpg")
    result = train(samples.with_table(table), tmp_path, dataclasses.replace(RECIPE, epochs=1))
    assert [(i, "no such file" in text) for i, text in result.failures] == [(table.loc[first, "image_id"], True)]
    again = train(samples.with_table(table), tmp_path, dataclasses.replace(RECIPE, epochs=1))
    assert again.cached
    assert again.failures == result.failures
    # Once the file is there, the network is another.
    (tmp_path / "missing.jpg").write_bytes(Path(samples.table.loc[first, "uri"]).read_bytes())
    mended = train(samples.with_table(table), tmp_path, dataclasses.replace(RECIPE, epochs=1))
    assert not mended.cached
    assert not mended.failures


def test_a_loss_that_diverges_says_so(samples: Samples, tmp_path: Path) -> None:
    wild = Recipe(epochs=3, batch_size=8, lr_head=1e30, lr_body=1e30)
    with pytest.raises(UserError, match="diverged"):
        train(samples, tmp_path, wild)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_disk_without_room_for_the_images_says_so(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match=r"cannot have \S+ GB in the cache folder \(No space left.*cache="):
        train(samples, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match="No space left"):  # as a search keeps them
        TrainingImages(samples.table, 32, tmp_path, shared_file=tmp_path / "kept")


def test_an_empty_training_split_says_so(samples: Samples, tmp_path: Path) -> None:
    only_test = samples.with_table(samples.split("test"))
    with pytest.raises(UserError, match="no training images"):
        train(only_test, tmp_path)


def test_training_that_was_stopped_goes_on_as_if_it_had_not_been(samples: Samples, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=3, input_dropout=0.2, input_noise=8.0)
    table = samples.split("train")
    states = []

    def fresh():
        torch.manual_seed(0)
        classifier = tiny_checkpoint().classifier()
        return Classifier(classifier.network, classifier.preprocessing, recipe.input_dropout)

    def save(done: int, _: Classifier, state: object) -> None:
        torch.save(state(), tmp_path / f"{done}.pt")  # type: ignore[operator]
        states.append(done)

    data = TrainingImages(table, 48, tmp_path)
    try:
        whole, resumed = fresh(), fresh()
        train_network(whole, data, recipe, 0, after_epoch=save)
        assert states == [1, 2, 3]
        torch.manual_seed(77)
        state = torch.load(tmp_path / "2.pt", weights_only=True)
        train_network(resumed, data, recipe, 0, after_epoch=save, state=state)
        assert states == [1, 2, 3, 3]
    finally:
        data.close()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_kept_images_are_decoded_once_and_shared(samples: Samples, tmp_path: Path) -> None:
    table = samples.split("train").copy()
    table.loc[1, "uri"] = str(tmp_path / "missing.jpg")
    shared_file = tmp_path / "canvases" / "x"
    own = TrainingImages(table, 32, tmp_path)
    first = TrainingImages(table, 32, tmp_path, shared_file=shared_file)
    # Here they would fail if they were decoded again.
    again = TrainingImages(table.assign(uri="nowhere"), 32, tmp_path, shared_file=shared_file)
    try:
        for other in (first, again):
            assert (other.failures, other.labels.tolist()) == (own.failures, own.labels.tolist())
            ours, theirs = (
                next(iter(data.batches(RECIPE, np.random.default_rng(3)))) for data in (own, other)
            )  # fmt: skip
            assert torch.equal(ours[0], theirs[0])
        # The shares of several processes are the batch of one.
        parts = [next(iter(again.batches(RECIPE, np.random.default_rng(3), Share(rank, 2)))) for rank in (0, 1)]
        assert torch.equal(torch.stack([parts[0][0], parts[1][0]], 1).flatten(0, 1), ours[0])
        assert torch.equal(torch.stack([parts[0][1], parts[1][1]], 1).flatten(), ours[1])
    finally:
        for data in (own, first, again):
            data.close()


@pytest.mark.slow
def test_two_processes_train_what_one_would(samples: Samples, tmp_path: Path) -> None:
    """Without batch statistics and dropout the only difference is rounding."""
    recipe = dataclasses.replace(RECIPE, epochs=2, freeze_norm=True)
    one = tiny_checkpoint().classifier()
    data = TrainingImages(samples.split("train"), 48, tmp_path)
    try:
        train_network(one, data, recipe, 0)
    finally:
        data.close()
    torch.multiprocessing.spawn(_share, (samples.split("train"), recipe, tmp_path), nprocs=2)
    two = torch.load(tmp_path / "together.pt", weights_only=True)
    for key, value in one.network.state_dict().items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


def _share(rank: int, table: object, recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    classifier = tiny_checkpoint().classifier()
    data = TrainingImages(table, 48, folder)  # type: ignore[arg-type]
    train_network(classifier, data, recipe, 0, share=Share(rank, 2))
    if rank == 0:
        torch.save(classifier.network.state_dict(), folder / "together.pt")
    torch.distributed.destroy_process_group()


def test_a_warm_up_of_exactly_one_step_trains(samples: Samples, tmp_path: Path) -> None:
    table = samples.split("train").iloc[:16]
    assert not train(samples.with_table(table), tmp_path, dataclasses.replace(RECIPE, epochs=2)).cached


def test_classes_that_cannot_be_learnt_get_a_note(samples: Samples) -> None:
    train_rows = samples.table["split"] == "train"
    assert thin_classes(samples) == []
    without = samples.with_table(samples.table[~(train_rows & (samples.table["label"] == 1))])
    (sentence,) = thin_classes(without)
    assert sentence.startswith("note: class 'class_1' has no training image: no network can learn it")
    first = samples.table.index[train_rows & (samples.table["label"] == 2)][0]
    few = samples.table[~train_rows | (samples.table["label"] == 0) | (samples.table.index == first)]
    one = thin_classes(samples.with_table(few))
    assert [s.partition(":")[2].partition(":")[0] for s in one] == [
        " class 'class_1' has no training image", " class 'class_2' has one training image"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: tiny_checkpoint(model="timm/test_efficientnet").save(path), "not of 'timm/test_resnet'"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "cannot be read as weights"),
        (lambda path: torch.save({"a": Path}, path), "would run code"),
    ],
)
def test_weights_that_cannot_be_started_from(make, sentence: str, samples: Samples, tmp_path: Path) -> None:
    make(tmp_path / "w.pt")
    with pytest.raises(UserError, match=sentence):
        train(samples, tmp_path, weights=str(tmp_path / "w.pt"))


def test_weights_of_another_class_count_keep_their_body(samples: Samples, tmp_path: Path) -> None:
    theirs = tiny_checkpoint(classes=7)
    ours = starting_network(TINY, 3, theirs.preprocessing, theirs.state_dict, 0).state_dict()
    other = [key for key in ours if ours[key].shape != theirs.state_dict[key].shape]
    assert len(other) == 2
    assert not any(ours[key].any() for key in other)
    assert all(torch.equal(ours[key], theirs.state_dict[key]) for key in ours if key not in other)
    torch.save(theirs.state_dict, tmp_path / "w.pt")
    train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=1), weights=str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match="has 7 outputs without names, and the data set has 3 classes"):
        train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=0), weights=str(tmp_path / "w.pt"))


def test_another_checkpoint_under_a_cached_name_is_refused(samples: Samples, tmp_path: Path) -> None:
    path = train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=0), weights="random").path
    tiny_checkpoint(classes=7).save(path)
    with pytest.raises(UserError, match="is not the checkpoint that its name says: delete it"):
        train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=0), weights="random")


def test_a_damaged_checkpoint_in_the_cache_is_one_sentence(samples: Samples, tmp_path: Path) -> None:
    path = train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=1)).path
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged"):
        train(samples, tmp_path, dataclasses.replace(RECIPE, epochs=1))


def test_batches_are_whole_epochs_of_plain_crops_and_flips(samples: Samples, tmp_path: Path) -> None:
    table = samples.split("train")
    data = TrainingImages(table, 32, tmp_path)
    try:
        whole = dataclasses.replace(RECIPE, min_area=1.0, flip=False, batch_size=4)
        seen = [(x, y) for x, y in data.batches(whole, np.random.default_rng(0))]
        assert sum(len(y) for _, y in seen) == len(table) // 4 * 4
        again = [(x, y) for x, y in data.batches(whole, np.random.default_rng(0))]
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(seen, again, strict=True))
        # Class colours are so different that a picture's mean tells its label: pixels and labels belong together.
        for pixels, labels in seen:
            assert torch.equal(pixels.float().mean((2, 3)).argmax(1), labels)
    finally:
        data.close()


def test_random_crops_keep_their_bounds() -> None:
    rng = np.random.default_rng(0)
    crops = np.array([random_crop(100, 0.5, rng) for _ in range(2000)])
    x, y, w, h = crops.T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + w <= 100 + 1e-9).all()
    assert (y + h <= 100 + 1e-9).all()
    assert (w * h > 0.38 * 100**2).all()
    assert (w / h <= 4 / 3 + 1e-9).all()
    assert (w / h >= 3 / 4 - 1e-9).all()


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_norm_keeps_its_statistics(samples: Samples, tmp_path: Path, freeze: bool) -> None:
    classifier = tiny_checkpoint().classifier()
    before = {k: v.clone() for k, v in classifier.state_dict().items() if "running_mean" in k}
    data = TrainingImages(samples.split("train"), 48, tmp_path)
    try:
        train_network(classifier, data, dataclasses.replace(RECIPE, epochs=1, freeze_norm=freeze), 0)
    finally:
        data.close()
    same = all(torch.equal(before[k], classifier.state_dict()[k]) for k in before)
    assert same == freeze
    assert not classifier.training


def test_groups_split_head_from_body_and_decay_from_none() -> None:
    network = tiny_checkpoint().classifier().network
    groups = parameter_groups(network, Recipe(lr_head=1.0, lr_body=0.1, weight_decay=0.5))
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
    head = {id(p) for p in head_layer(network).parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["lr"] == (1.0 if id(parameter) in head else 0.1)
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)
