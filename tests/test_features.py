from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.tiny import (
    Pictures,
    count_encoded,
    draw,
    encoded,
    files_of,
    some_pictures,
    write_model,
)

from dspt.backbones import Backbone, load_backbone
from dspt.data import open_image
from dspt.errors import UserError
from dspt.features import (
    _Preparation,
    augment,
    batch_size,
    default_cache,
    extract_features,
    group_size,
)

BATCH_SIZE = batch_size(torch.device("cpu"))
GROUP_SIZE = group_size(torch.device("cpu"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("tiny") / "model"), device="cpu")


def shards(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def test_values_are_the_models_own(backbone: Backbone, tmp_path: Path) -> None:
    images = some_pictures(70)
    found = extract_features(backbone, images, [3, 69, 0], cache=tmp_path)
    assert found.values.shape == (3, 1, 16)
    for row, index in enumerate([3, 69, 0]):
        picture = open_image(images.read(index), "")
        direct = backbone.encode_image(backbone.preprocess(picture)[None])[0]
        torch.testing.assert_close(found.values[row, 0], direct, rtol=0, atol=2e-6)
    assert found.readable.all()
    assert found.unreadable == []


def test_a_second_call_reads_the_cache(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_pictures(40)
    first = extract_features(backbone, images, range(40), cache=tmp_path)
    rows = count_encoded(monkeypatch)
    again = extract_features(backbone, images, range(39, -1, -1), cache=tmp_path)
    assert rows() == 0
    assert torch.equal(again.values, first.values.flip(0))


def test_the_same_bytes_under_another_name_are_known(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract_features(
        backbone, Pictures({"a.png": encoded(draw("red", 1))}), [0], cache=tmp_path
    )
    rows = count_encoded(monkeypatch)
    renamed = Pictures({"b/c.png": encoded(draw("red", 1)), "a.png": encoded(draw("red", 2))})
    again = extract_features(backbone, renamed, [0, 1], cache=tmp_path)
    assert rows() == 1
    assert torch.equal(again.values[0], first.values[0])
    assert not torch.equal(again.values[1], first.values[0])


def test_other_weights_or_preprocessing_are_not_mixed(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_pictures(3)
    extract_features(backbone, images, range(3), cache=tmp_path / "cache")
    rows = count_encoded(monkeypatch)
    for number, fields in enumerate(({"seed": 1}, {"mean": 0.4}), 1):
        folder = write_model(tmp_path / f"model{number}", **fields)  # type: ignore[arg-type]
        other = load_backbone(folder, device="cpu")
        extract_features(other, images, range(3), cache=tmp_path / "cache")
        assert rows() == 3 * number
    half = load_backbone(backbone.name, device="cpu", precision="bf16")
    extract_features(half, images, range(3), cache=tmp_path / "cache")
    assert rows() == 9
    extract_features(backbone, images, range(3), cache=tmp_path / "cache")
    assert rows() == 9


def test_a_model_with_the_same_image_tower_shares_the_cache(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_pictures(3)
    extract_features(backbone, images, range(3), cache=tmp_path / "cache")
    moved = write_model(tmp_path / "moved")
    file = tmp_path / "moved" / "open_clip_model.safetensors"
    state = load_file(file)
    state["logit_scale"] += 1  # the text side plays no part in an image's feature
    save_file(state, file)
    twin = load_backbone(moved, device="cpu")
    assert twin.fingerprint != backbone.fingerprint
    rows = count_encoded(monkeypatch)
    extract_features(twin, images, range(3), cache=tmp_path / "cache")
    assert rows() == 0


@pytest.mark.parametrize("where", ["feature", "digest", "header", "cut", "empty"])
def test_a_damaged_shard_is_noticed_and_made_again(
    backbone: Backbone, tmp_path: Path, where: str
) -> None:
    images = some_pictures(5)
    first = extract_features(backbone, images, range(5), cache=tmp_path)
    (shard,) = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    stored = content[start:]
    digests_first = (
        len(stored) - 5 * 32 if stored[: 5 * 16 * 4] == first.values.numpy().tobytes() else 0
    )
    features_at = start if digests_first else start + 5 * 32
    position = {
        "feature": features_at + 7,
        "digest": start + digests_first + 3,
        "header": 12,
    }.get(where)
    if position is not None:
        content[position] ^= 0x10
    shard.write_bytes({"cut": content[:-1], "empty": b""}.get(where, content))
    told: list[str] = []
    again = extract_features(backbone, images, range(5), cache=tmp_path, on_note=told.append)
    torch.testing.assert_close(again.values, first.values, rtol=0, atol=2e-6)
    assert len(told) == 1
    assert str(shard) in told[0]
    extract_features(backbone, images, range(5), cache=tmp_path, on_note=told.append)
    assert len(told) == 1, "what was made again is sound"


def test_equal_weights_under_another_activation_are_not_mixed(
    backbone: Backbone, tmp_path: Path
) -> None:
    images = some_pictures(3)
    first = extract_features(backbone, images, range(3), cache=tmp_path / "cache")
    folder = write_model(tmp_path / "quick")
    file = tmp_path / "quick" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["quick_gelu"] = True
    file.write_text(json.dumps(config))
    quick = load_backbone(folder, device="cpu")
    assert quick.fingerprint == backbone.fingerprint
    found = extract_features(quick, images, range(3), cache=tmp_path / "cache")
    expected = extract_features(quick, images, range(3), cache=tmp_path / "other")
    assert torch.equal(found.values, expected.values)
    assert not torch.equal(found.values, first.values)


def test_a_tower_that_overflows_in_half_precision_is_an_error_and_not_a_number(
    tmp_path: Path,
) -> None:
    folder = write_model(tmp_path / "model")
    file = tmp_path / "model" / "open_clip_model.safetensors"
    state = load_file(file)
    state["visual.ln_post.weight"] *= 1e5  # fine in fp32 and bf16, beyond the range of fp16
    state["visual.proj"] = state["visual.proj"] * 1e3
    save_file(state, file)
    images = some_pictures(3)
    for precision in ("fp32", "bf16"):
        sound = load_backbone(folder, device="cpu", precision=precision)
        assert extract_features(sound, images, range(3), cache=tmp_path / "c").readable.all()
    half = load_backbone(folder, device="cpu", precision="fp16")
    with pytest.raises(UserError, match=r"image tower.*fp16.*not finite; try bf16 or fp32"):
        extract_features(half, images, range(3), cache=tmp_path / "c")
    with pytest.raises(UserError, match="not finite"):
        half.encode_image(torch.rand(1, 3, 32, 32))
    cached = tmp_path / "c" / "features" / half.image_fingerprint[:32]
    assert not list(cached.rglob("*.safetensors"))


@pytest.mark.parametrize("after", [1, BATCH_SIZE + 1, GROUP_SIZE, GROUP_SIZE + 1])
def test_an_interrupted_extraction_keeps_what_was_done(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    n = 2 * GROUP_SIZE
    images = some_pictures(n)
    whole = extract_features(backbone, images, range(n), cache=tmp_path / "whole")

    def interrupt(done: int, total: int) -> None:
        assert total == n
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(
            backbone, images, range(n), cache=tmp_path / "cache", on_progress=interrupt
        )
    rows = count_encoded(monkeypatch)
    again = extract_features(backbone, images, range(n), cache=tmp_path / "cache")
    assert n - after <= rows() <= n - after + 1
    assert torch.equal(again.values, whole.values)


def test_progress_counts_every_picture(backbone: Backbone, tmp_path: Path) -> None:
    images = some_pictures(5)
    images.files["red/2.png"] = b"broken"
    seen: list[tuple[int, int]] = []
    extract_features(
        backbone, images, range(5), cache=tmp_path, on_progress=lambda *a: seen.append(a)
    )
    assert seen == [(i, 5) for i in range(1, 6)]


def test_unreadable_pictures_are_named_and_left_zero(backbone: Backbone, tmp_path: Path) -> None:
    images = some_pictures(6)
    images.files["red/1.png"] = b""
    images.files["red/4.png"] = images.files["red/4.png"][:60]
    for _ in range(2):  # the second time from the cache
        found = extract_features(backbone, images, range(6), cache=tmp_path, views=1)
        assert found.readable.tolist() == [True, False, True, True, False, True]
        assert not found.values[[1, 4]].any()
        assert found.values[found.readable].any(-1).all()
        assert ["red/1.png" in found.unreadable[0], "red/4.png" in found.unreadable[1]] == [
            True
        ] * 2
        assert len(found.unreadable) == 2


def test_nothing_to_do(backbone: Backbone, tmp_path: Path) -> None:
    found = extract_features(backbone, some_pictures(1), [], cache=tmp_path)
    assert found.values.shape == (0, 1, 16)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("apart", [1, BATCH_SIZE + 1, 2 * BATCH_SIZE])
def test_the_same_picture_twice_is_encoded_once(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    loaded = threading.Event()

    class Watched(Pictures):
        def read(self, i: int) -> bytes:
            if i > apart:  # with one worker, the twin was loaded before
                loaded.set()
            return super().read(i)

    images = Watched(some_pictures(80).files)
    images.files[images.key(apart)] = images.files[images.key(0)]
    rows = count_encoded(monkeypatch)
    counting = Backbone.encode_image

    def late(self: Backbone, batch: torch.Tensor) -> torch.Tensor:
        assert loaded.wait(60)
        return counting(self, batch)

    monkeypatch.setattr(Backbone, "encode_image", late)
    found = extract_features(backbone, images, [*range(80), 0], cache=tmp_path, workers=1)
    assert rows() == 79
    assert torch.equal(found.values[0], found.values[apart])
    assert torch.equal(found.values[0], found.values[80])


def test_views_are_always_the_same_and_differ_from_each_other(
    backbone: Backbone, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 50, 40, 3), dtype=np.uint8)
    images = Pictures({f"{i}.png": encoded(Image.fromarray(n)) for i, n in enumerate(noise)})
    found = extract_features(backbone, images, range(4), views=3, cache=tmp_path / "a")
    assert found.values.shape == (4, 4, 16)
    again = extract_features(backbone, images, range(4), views=3, cache=tmp_path / "b", workers=1)
    assert torch.equal(again.values, found.values)
    plain = extract_features(backbone, images, range(4), cache=tmp_path / "c")
    torch.testing.assert_close(found.values[:, 0], plain.values[:, 0], rtol=0, atol=2e-6)
    for picture in found.values:
        assert len({tuple(view) for view in picture.tolist()}) == 4


def test_more_views_only_add_what_is_missing(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_pictures(5)
    rows = count_encoded(monkeypatch)
    for views, total in ((0, 5), (2, 15), (1, 15), (3, 20)):
        extract_features(backbone, images, range(5), views=views, cache=tmp_path)
        assert rows() == total


def test_augmentation_is_a_pure_function_of_content_and_view() -> None:
    picture = draw("green", 1, 60)
    crops = [augment(picture, b"x" * 32, view) for view in range(1, 40)]
    assert all(np.array_equal(a, augment(picture, b"x" * 32, v)) for v, a in enumerate(crops, 1))
    assert len({crop.tobytes() for crop in crops}) > 30
    assert all(crop.size[0] == crop.size[1] <= 60 * 1.2 for crop in crops)
    assert augment(picture, b"y" * 32, 1).tobytes() != crops[0].tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 3)])
def test_augmentation_of_odd_shapes(size: tuple[int, int]) -> None:
    picture = draw("red", 1).resize(size)
    for view in range(1, 30):
        crop = augment(picture, b"x" * 32, view)
        assert crop.size[0] == crop.size[1] >= 1


def test_crops_cover_the_areas_of_the_field() -> None:
    marked = draw("red", 1, 100)
    sides = np.array([augment(marked, bytes([v]) * 32, 1).size[0] for v in range(250)])
    assert sides.max() > 95
    assert sides.min() < 45  # 8 % of the area
    flips = 0
    left = draw("white", 1, 100).crop((0, 0, 100, 100))
    left.paste((0, 0, 0), (0, 0, 50, 100))
    for v in range(250):
        pixels = np.asarray(augment(left, bytes([v]) * 32, 1)).mean(axis=(0, 2))
        flips += int(pixels[0] > pixels[-1] + 50)
    assert 60 < flips < 180  # half of the crops that straddle the edge


def test_few_pictures_are_in_memory_at_once(backbone: Backbone, tmp_path: Path) -> None:
    lock = threading.Lock()

    class Watched(Pictures):
        started = finished = most = 0

        def read(self, i: int) -> bytes:
            with lock:
                self.started += 1
                self.most = max(self.most, self.started - self.finished)
            return super().read(i)

    n = 5 * GROUP_SIZE
    images = Watched(some_pictures(n).files)

    def progress(done: int, total: int) -> None:
        images.finished = done

    extract_features(backbone, images, range(n), cache=tmp_path, workers=3, on_progress=progress)
    assert images.started == n
    assert images.most <= 2 * GROUP_SIZE + 1  # a group that is encoded, one that is read ahead


def test_large_results_are_the_same_in_a_file(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_pictures(50)
    images.files["red/7.png"] = b"broken"
    order = [*range(40), 3, 7, *range(30, 50)]
    small = extract_features(backbone, images, order, cache=tmp_path / "a", views=1)
    monkeypatch.setattr("dspt.features.IN_MEMORY", 100)
    monkeypatch.setattr("dspt.features.RELEASED", 3)
    monkeypatch.setattr("dspt.feature_cache.SHARD_SIZE", 8)
    for _ in range(2):  # the second time from the cache
        large = extract_features(backbone, images, order, cache=tmp_path / "b", views=1)
        assert torch.equal(large.values, small.values)
        assert large.readable.tolist() == small.readable.tolist()
        assert large.unreadable == small.unreadable
    assert all(name.endswith(".safetensors") for name in files_of(tmp_path))
    large.values.add_(1)  # it is the caller's own
    again = extract_features(backbone, images, order, cache=tmp_path / "b", views=1)
    assert torch.equal(again.values, small.values)


def test_the_same_pictures_again_and_again_do_not_pile_up(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspt.features.RELEASED", 10)
    images = some_pictures(3)
    rows = count_encoded(monkeypatch)
    began: list[int] = []
    read = [0]

    class Counted(Pictures):
        def read(self, i: int) -> bytes:
            read[0] += 1
            return super().read(i)

    def progress(done: int, total: int) -> None:
        began.append(read[0] - done)

    order = [i % 3 for i in range(1000)]
    found = extract_features(
        backbone, Counted(images.files), order, cache=tmp_path, workers=1, on_progress=progress
    )
    assert rows() == 3
    assert torch.equal(found.values, found.values[:3].repeat(334, 1, 1)[:1000])
    assert max(began) <= 10 + 3 + GROUP_SIZE + 1


def test_many_shards_when_there_are_many_pictures(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspt.feature_cache.SHARD_SIZE", 10)
    images = some_pictures(35)
    first = extract_features(backbone, images, range(35), cache=tmp_path)
    assert len(shards(tmp_path)) == 4
    rows = count_encoded(monkeypatch)
    assert torch.equal(
        extract_features(backbone, images, range(35), cache=tmp_path).values, first.values
    )
    assert rows() == 0
    assert all(name.endswith(".safetensors") for name in files_of(tmp_path))  # no temporary files


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setenv("DSPT_CACHE", str(tmp_path / "d"))
    assert default_cache() == tmp_path / "d"
    monkeypatch.delenv("DSPT_CACHE")
    assert default_cache() == tmp_path / "x" / "dspt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache().parts[-2:] == (".cache", "dspt")


def test_a_feature_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    """Not in a single bit: what the cache already holds must not change a run."""
    backbone = load_backbone("default")
    images = some_pictures(40)
    together = extract_features(backbone, images, range(40), cache=tmp_path / "a").values
    for start in (0, 5, 39):
        alone = extract_features(backbone, images, [start], cache=tmp_path / str(start)).values
        assert torch.equal(alone[0], together[start])


def test_half_precision_is_rounding_and_nothing_else(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a row was just computed or lay in the cache."""
    images = some_pictures(12)
    full = extract_features(backbone, images, range(12), cache=tmp_path, views=1)
    rows = count_encoded(monkeypatch)
    first = extract_features(backbone, images, [3, 4], cache=tmp_path, views=1, dtype="fp16")
    assert rows() == 4, "entries of another precision are not used"
    mixed = extract_features(backbone, images, range(12), cache=tmp_path, views=1, dtype="fp16")
    assert rows() == 24
    again = extract_features(backbone, images, range(12), cache=tmp_path, views=1, dtype="fp16")
    assert rows() == 24
    for found in (mixed, again):
        assert found.values.dtype == torch.float32
        assert torch.equal(found.values, full.values.half().float())
    assert torch.equal(first.values, mixed.values[[3, 4]])
    unchanged = extract_features(backbone, images, range(12), cache=tmp_path, views=1)
    assert rows() == 24
    assert torch.equal(unchanged.values, full.values)


def test_a_broken_picture_is_named_at_each_of_its_places(
    backbone: Backbone, tmp_path: Path
) -> None:
    images = some_pictures(5)
    for key in ("red/1.png", "red/3.png"):
        images.files[key] = b"broken"
    found = extract_features(backbone, images, [3, 0, 1, 3], cache=tmp_path)
    assert found.readable.tolist() == [False, True, False, False]
    keys = [line.split(" cannot")[0] for line in found.unreadable]
    assert keys == ["picture red/3.png", "picture red/1.png", "picture red/3.png"]


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_preprocessing_in_two_parts_is_the_models_own(backbone: Backbone, name: str) -> None:
    used = backbone if name == "tiny" else load_backbone("default", device="cpu")
    prepare = _Preparation.of(used)
    assert prepare.mean is not None, "open_clip's preprocessing is no longer recognised"
    noise = np.random.default_rng(0).integers(0, 256, (3, 61, 47, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels) for pixels in noise]
    batch = prepare.batch([prepare.picture(picture) for picture in pictures], used.device)
    whole = torch.stack([used.preprocess(picture) for picture in pictures])
    assert torch.equal(batch, whole)


def test_any_other_preprocessing_is_left_whole(backbone: Backbone, tmp_path: Path) -> None:
    def halved(picture: Image.Image) -> torch.Tensor:
        return backbone.preprocess(picture) / 2

    other = dataclasses.replace(backbone, preprocess=halved)
    images = some_pictures(3)
    found = extract_features(other, images, range(3), cache=tmp_path)
    direct = backbone.encode_image(halved(open_image(images.read(1), ""))[None])[0]
    torch.testing.assert_close(found.values[1, 0], direct, rtol=0, atol=2e-6)


def test_too_little_gpu_memory_is_one_line(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Backbone, batch: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 96.00 MiB.")

    monkeypatch.setattr(Backbone, "encode_image", full)
    with pytest.raises(UserError, match=r"image features: too little GPU memory \(96.00 MiB"):
        extract_features(backbone, some_pictures(3), range(3), cache=tmp_path)
