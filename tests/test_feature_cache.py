from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import files_of
from torch import Tensor

from dspt.errors import UserError
from dspt.feature_cache import FeatureCache, FeatureType

N, D = 60, 24


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def some_features() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=-1)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspt.feature_cache.SHARD_SIZE", 16)


def taken(cache: FeatureCache, keys: list[bytes]) -> Tensor:
    """Features that are there, [n, D] fp32."""
    found = [cache.get(key) for key in keys]
    return torch.stack([torch.from_numpy(row.copy()).float() for row in found if row is not None])


def known(cache: FeatureCache, key: bytes) -> bool:
    return cache.get(key) is not None


def filled(folder: Path, dtype: FeatureType = "fp32") -> FeatureCache:
    cache = FeatureCache(folder, 0, dtype)
    for number, feature in enumerate(some_features()):
        cache.add(digest(number), feature)
    return cache


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_new_and_stored_values_are_the_same_bits(tmp_path: Path, dtype: FeatureType) -> None:
    cache = filled(tmp_path, dtype)  # 48 of 60 are on disk, 12 are not
    asked = [digest(number) for number in (59, 0, 47, 48, 0, 17)]
    expected = some_features()[[59, 0, 47, 48, 0, 17]]
    if dtype == "fp16":
        expected = expected.half().float()
    assert torch.equal(taken(cache, asked), expected)
    cache.flush()
    assert torch.equal(taken(cache, asked), expected)
    fresh = FeatureCache(tmp_path, 0, dtype)
    assert torch.equal(taken(fresh, asked), expected)
    assert fresh.get(digest(N)) is None


def test_types_and_views_never_mix(tmp_path: Path) -> None:
    filled(tmp_path).flush()
    assert known(FeatureCache(tmp_path, 0), digest(0))
    assert not known(FeatureCache(tmp_path, 0, "fp16"), digest(0))
    assert not known(FeatureCache(tmp_path, 1), digest(0))
    full = sum(map(len, files_of(tmp_path).values()))
    filled(tmp_path / "half", "fp16").flush()
    half = sum(map(len, files_of(tmp_path / "half").values()))
    assert full - half == N * D * 2


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path).flush()
    hashed: list[int] = []
    original = hashlib.sha256

    def counting(data: bytes = b"") -> hashlib._Hash:
        hashed.append(len(data))
        return original(data)

    cache = FeatureCache(tmp_path, 0)
    keys = [digest(0), digest(15), digest(40)]
    monkeypatch.setattr("dspt.feature_cache.hashlib.sha256", counting)
    assert known(cache, keys[0])
    assert len(hashed) == 1
    for _ in range(2):
        assert all(known(cache, key) for key in keys)
    assert len(hashed) == 2, "two shards hold the three pictures, each is checked once"


def test_features_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    filled(tmp_path).flush()
    cache = FeatureCache(tmp_path, 0)
    row = cache.get(digest(0))
    assert row is not None
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("this system does not list what is mapped")
    ranges = [line.split()[0] for line in maps.read_text().splitlines() if str(tmp_path) in line]
    spans = [[int(end, 16) for end in span.split("-")] for span in ranges]
    assert any(first <= row.ctypes.data < last for first, last in spans)


def test_few_shards_are_mapped_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspt.feature_cache.MAPPED", 2)
    cache = filled(tmp_path)
    cache.flush()
    order = [0, 59, 17, 33, 1, 58, 16, 32] * 2
    fresh = FeatureCache(tmp_path, 0)
    for used in (cache, fresh):
        assert torch.equal(
            taken(used, [digest(number) for number in order]), some_features()[order]
        )
        assert len(used._mapped) == 2


def test_a_shard_that_is_exchanged_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspt.feature_cache.MAPPED", 1)
    filled(tmp_path).flush()
    cache = FeatureCache(tmp_path, 0)
    assert known(cache, digest(0))
    assert known(cache, digest(16))  # the first is no longer mapped
    shard = shard_of(tmp_path, 0)
    content = bytearray(shard.read_bytes())
    content[places_of(shard)["features"]] ^= 1
    shard.unlink()
    shard.write_bytes(content)
    assert not known(cache, digest(0))
    assert cache.damaged == [shard]


def test_a_picture_in_two_shards_outlives_the_loss_of_one(tmp_path: Path) -> None:
    for numbers in ((0, 1), (0, 2)):
        cache = FeatureCache(tmp_path / str(numbers[1]), 0)
        for number in numbers:
            cache.add(digest(number), some_features()[number])
        cache.flush()
    one, other = (next((tmp_path / name).rglob("*.safetensors")) for name in "12")
    other = other.rename(one.parent / other.name)
    for damaged in (one, other):
        whole = damaged.read_bytes()
        content = bytearray(whole)
        content[places_of(damaged)["features"]] ^= 1
        damaged.write_bytes(content)
        cache = FeatureCache(tmp_path / "1", 0)
        assert torch.equal(taken(cache, [digest(0)])[0], some_features()[0])
        assert cache.get(digest(1 if damaged == one else 2)) is None
        assert cache.damaged == [damaged]
        damaged.write_bytes(whole)


def shard_of(folder: Path, number: int) -> Path:
    """The shard whose first picture is this one."""
    for shard in folder.rglob("*.safetensors"):
        if bytes(load_file(shard)["digests"][0].tolist()) == digest(number):
            return shard
    raise AssertionError(f"no shard begins with {number}")


def places_of(shard: Path) -> dict[str, int]:
    """Offset of a byte of each part of a shard."""
    content = shard.read_bytes()
    stored = load_file(shard)
    return {
        "header": 12,
        **{name: content.index(tensor.numpy().tobytes()) + 5 for name, tensor in stored.items()},
    }


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("where", ["header", "digests", "features"])
def test_a_flipped_bit_costs_its_shard_only(tmp_path: Path, where: str, dtype: FeatureType) -> None:
    filled(tmp_path, dtype).flush()
    damaged = shard_of(tmp_path, 16)
    content = bytearray(damaged.read_bytes())
    content[places_of(damaged)[where]] ^= 0x04
    damaged.write_bytes(content)
    cache = FeatureCache(tmp_path, 0, dtype)
    kept = [number for number in range(N) if known(cache, digest(number))]
    lost = set(range(N)) - set(kept)
    assert lost == set(range(16, 32))
    assert not damaged.exists()
    assert cache.damaged == [damaged]
    expected = some_features() if dtype == "fp32" else some_features().half().float()
    assert torch.equal(taken(cache, [digest(number) for number in kept]), expected[kept])
    cache.add(digest(16), some_features()[16])
    assert torch.equal(taken(cache, [digest(16)])[0], expected[16])


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    filled(tmp_path).flush()
    shard = min(tmp_path.rglob("*.safetensors"))
    whole = shard.read_bytes()
    held = [bytes(row) for row in load_file(shard)["digests"].tolist()]
    for place in range(0, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 1 << place // 3 % 8
        shard.write_bytes(content)
        cache = FeatureCache(tmp_path, 0)
        assert not any(known(cache, key) for key in held), place
        assert cache.damaged == [shard], place
        assert not shard.exists(), place


def test_a_shard_that_another_process_removed_is_no_damage(tmp_path: Path) -> None:
    filled(tmp_path).flush()
    cache = FeatureCache(tmp_path, 0)
    for shard in tmp_path.rglob("*.safetensors"):
        shard.unlink()
    assert not known(cache, digest(0))
    assert cache.damaged == []


def test_a_shard_under_another_name_is_not_believed(tmp_path: Path) -> None:
    filled(tmp_path).flush()
    shard = min(tmp_path.rglob("*.safetensors"))
    shard.rename(shard.with_stem("0" * 32))
    assert len(FeatureCache(tmp_path, 0).damaged) == 1


def test_what_cannot_be_read_back_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path, 0)
    cache.add(digest(0), some_features()[0])
    monkeypatch.setattr("dspt.feature_cache._read", lambda *given: None)
    with pytest.raises(UserError, match="cannot be read back; check the disk"):
        cache.flush()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file", 0)
    cache.add(digest(0), some_features()[0])
    with pytest.raises(UserError, match="choose a folder that is writable"):
        cache.flush()
