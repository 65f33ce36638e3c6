"""Frames of event files: checksums, truncation, damage."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from gradwatch.log.checksums import crc32c, masked
from gradwatch.log.event_file import DamageError, EventFile, make_frame, scan_frames


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 63, 64, 200, 511, 512, 513, 1024, 70_001])
def test_checksum_agrees_with_tensorboards(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert masked(crc32c(data)) == masked_crc32c(data)


def test_checksum_has_the_published_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def read_all(path, head_bytes: int = 1 << 20) -> list[bytes]:
    return [frame.head for frame in scan_frames(path, head_bytes)]


@pytest.fixture
def written(tmp_path):
    file = EventFile(tmp_path)
    for data in (b"first", b"", b"third" * 1000):
        file.append(data)
    return file


def test_frames_come_back_in_order(written) -> None:
    assert read_all(written.path) == [b"first", b"", b"third" * 1000]


def test_only_heads_are_read_and_lengths_are_whole(written) -> None:
    assert [(frame.head, frame.length) for frame in scan_frames(written.path, 3)] == [
        (b"fir", 5),
        (b"", 0),
        (b"thi", 5000),
    ]


@pytest.mark.parametrize("missing", [1, 4, 5, 3000, 5003, 5004, 5010])
def test_a_cut_last_frame_ends_the_file_without_complaint(written, missing: int) -> None:
    os.truncate(written.path, written.path.stat().st_size - missing)
    assert read_all(written.path) == [b"first", b""]


def test_a_broken_header_is_damage_after_what_came_before(written) -> None:
    with written.path.open("r+b") as file:
        file.seek(len(make_frame(b"first")))
        file.write(b"\xff")
    frames = scan_frames(written.path, 99)
    assert next(frames).head == b"first"
    with pytest.raises(DamageError, match="byte 21"):
        next(frames)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_flipped_bit_in_any_frame_is_seen_and_the_others_are_read(tmp_path, place) -> None:
    file = EventFile(tmp_path)
    for data in (b"first", b"second", b"third"):
        file.append(data)
    offset = list(scan_frames(file.path, 9))[place].offset
    content = bytearray(file.path.read_bytes())
    content[offset + 2] ^= 0x10
    file.path.write_bytes(content)
    sound = [frame.is_sound for frame in scan_frames(file.path, 9)]
    assert sound == [index != place for index in range(3)]


def test_zeros_in_the_last_frame_are_damage(written) -> None:
    with written.path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(500))
    frames = list(scan_frames(written.path, 99))
    assert [(frame.position, frame.is_sound) for frame in frames] == [
        (0, True),
        (21, True),
        (37, False),
    ]


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
def test_what_is_no_regular_file_is_not_opened(tmp_path) -> None:
    pipe = tmp_path / "events.out.tfevents.1"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="regular file"):
            next(scan_frames(path, 99))


def test_a_frame_of_20_gib_without_content_is_stepped_over(tmp_path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    whole = make_frame(b"x")
    length = struct.pack("<Q", 20 << 30)
    head = length + struct.pack("<I", masked(crc32c(length)))
    path.write_bytes(whole + head)
    os.truncate(path, len(whole) + len(head) + (20 << 30) + 4)
    assert [frame.length for frame in scan_frames(path, 99)] == [1, 20 << 30]


def test_a_fork_writes_nothing_through_its_copy(written) -> None:
    written._process += 1
    written.append(b"from the fork")
    assert len(read_all(written.path)) == 3


def test_a_file_being_written_is_read_as_far_as_it_stands(written) -> None:
    frames = scan_frames(written.path, 99)
    assert next(frames).head == b"first"
    written.append(b"fourth")
    assert len(list(frames)) == 2
    assert read_all(written.path)[-1] == b"fourth"


def test_a_closed_file_swallows_late_writes(written) -> None:
    written.close()
    written.close()
    written.append(b"late")
    assert len(read_all(written.path)) == 3


def test_a_full_disk_leaves_no_half_frame(written) -> None:
    class FullDisk:
        def __init__(self, file) -> None:
            self.file, self.room = file, 7

        def write(self, data) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            n_bytes = self.file.write(bytes(data)[: self.room])
            self.room -= n_bytes
            return n_bytes

        def __getattr__(self, name):
            return getattr(self.file, name)

    whole, written._file = written._file, FullDisk(written._file)
    with pytest.raises(OSError, match="No space"):
        written.append(b"does not fit")
    written._file = whole
    written.append(b"after")
    assert read_all(written.path)[-1] == b"after"
