"""Archives from anywhere: no array is unpickled, or takes more memory than its file has bytes."""

import io
import zipfile

import numpy as np
import pytest

from skillbank import archives

ARRAYS = {
    "a": np.arange(6.0).reshape(2, 3),
    "b/c": np.array([1, 2, 3], np.uint8),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 3), np.float32),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "words": np.array(["a", "bc"]),
}


def test_arrays_come_back_as_they_were_saved(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    found = archives.arrays_of(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
        assert found[name].flags.writeable


def compressed(path):
    np.savez_compressed(path, a=np.zeros(10_000_000))


def overlapping(path):
    """One array under many names: the directory points to the same bytes again and again."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _npy(np.zeros(1000)))
        one = archive.filelist[0]
        for number in range(50):
            again = zipfile.ZipInfo(f"a{number}.npy")
            again.file_size, again.compress_size = one.file_size, one.compress_size
            again.CRC, again.header_offset = one.CRC, one.header_offset
            archive.filelist.append(again)
        archive._didModify = True


def pickled(path):
    np.savez(path, a=np.array([{}], object))


def bare_pickle(path):
    path.write_bytes(b"\x80\x04N.")


def immense(path):
    """A header that claims eight terabytes."""
    honest = _npy(np.zeros(1000))
    claimed = honest.replace(b"(1000,), }" + 10 * b" ", b"(1000000000000,), }" + b" ", 1)
    assert len(claimed) == len(honest)
    assert claimed != honest
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", claimed)


def cut(path):
    np.savez(path, **ARRAYS)
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path):
    np.savez(path, a=np.zeros(1000))
    image = bytearray(path.read_bytes())
    image[4000] ^= 1
    path.write_bytes(image)


def flipped_header(path):
    np.savez(path, a=np.zeros((64, 64)))
    image = path.read_bytes()
    path.write_bytes(image.replace(b"(64, 64)", b"(44, 64)", 1))


def with_header(header):
    def make(path):
        text = header + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)

    return make


def no_array(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"hello")


HEADERS = {
    "unclosed": b"(((",
    "vast": b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % 10**30,
    "nothing many times": b"{'descr': '|S0', 'fortran_order': False, 'shape': (9000000000,), }",
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-5,), }",
    "code": b"{'descr': '|u1', 'fortran_order': False, 'shape': (2**1,), }",
    "not ASCII": b"\xff\xfe{}",
}
MADE = {
    one.__name__: one
    for one in (
        *(compressed, overlapping, pickled, bare_pickle, immense, cut, flipped),
        *(flipped_header, no_array),
    )
}
BAD = MADE | {name: with_header(header) for name, header in HEADERS.items()}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_plain_archive_is_a_value_error(name, tmp_path):
    BAD[name](tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"\w"):
        archives.arrays_of(tmp_path / "a.npz")


def test_an_archive_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        archives.arrays_of(tmp_path / "a.npz")


def test_an_array_that_is_not_there_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    assert archives.arrays_of(tmp_path / "a.npz", "a").keys() == {"a"}
    with pytest.raises(ValueError, match="it has no array b"):
        archives.arrays_of(tmp_path / "a.npz", "a", "b")


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
