"""Which small files share a blob."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import CorruptArtifact
from trainyard.store.manifests import FileEntry, Pack, blobs_of
from trainyard.store.packs import LEAST_FILES, MOST_IN_A_PACK, PACK_BYTES, group

SIZES = st.lists(st.integers(0, 2 * MOST_IN_A_PACK), max_size=300)


@given(SIZES)
def test_every_file_has_exactly_one_place(sizes: list[int]) -> None:
    grouped = group(sizes)
    placed = [*grouped.alone, *(index for pack in grouped.packs for index in pack)]
    assert sorted(placed) == list(range(len(sizes)))


@given(SIZES)
def test_a_pack_holds_small_files_only_and_fits_into_one_request(sizes: list[int]) -> None:
    for pack in group(sizes).packs:
        assert all(sizes[index] <= MOST_IN_A_PACK for index in pack)
        assert sum(sizes[index] for index in pack) <= PACK_BYTES


def test_a_few_small_files_stay_blobs_of_their_own_that_other_trees_may_share() -> None:
    assert group([10] * (LEAST_FILES - 1)).packs == ()
    assert len(group([10] * LEAST_FILES).packs) == 1


def test_the_blobs_of_a_manifest_are_its_packs_and_its_large_files() -> None:
    files = (
        FileEntry("a", 3, "a" * 64, Pack("f" * 64, 0)),
        FileEntry("b", 4, "b" * 64, Pack("f" * 64, 3)),
        FileEntry("c", 5, "c" * 64),
    )
    assert blobs_of(files) == {"f" * 64: 7, "c" * 64: 5}


def test_a_packed_file_is_written_and_read_and_one_without_a_pack_looks_as_it_always_did() -> None:
    packed, plain = FileEntry("a", 3, "a" * 64, Pack("f" * 64, 9)), FileEntry("c", 5, "c" * 64)
    assert FileEntry.from_json(json.loads(json.dumps(packed.to_json())), "m").pack == packed.pack
    assert plain.to_json() == {"path": "c", "size": 5, "sha256": "c" * 64}
    assert FileEntry.from_json(plain.to_json(), "m").pack is None


@pytest.mark.parametrize(
    "pack", [{"sha256": "x", "offset": 0}, {"sha256": "f" * 64, "offset": -1}, {"offset": 0}, [], "f" * 64]
)
def test_a_pack_that_lies_is_refused(pack: object) -> None:
    with pytest.raises(CorruptArtifact):
        FileEntry.from_json({"path": "a", "size": 1, "sha256": "a" * 64, "pack": pack}, "m")
