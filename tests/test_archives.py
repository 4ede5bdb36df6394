"""Archives from anywhere: no array is unpickled, or takes more memory than its file has bytes."""

import io
import zipfile

import numpy as np
import pytest

from skillbank import archives

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.array([1, 2, 3], np.uint8)}


def test_arrays_come_back_as_they_were_saved(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    found = archives.arrays_of(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


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


def absent(_path):
    pass


@pytest.mark.parametrize(
    "make",
    [compressed, overlapping, pickled, bare_pickle, immense, cut, flipped, absent],
    ids=lambda make: make.__name__,
)
def test_what_is_not_a_plain_archive_is_damage(make, tmp_path):
    make(tmp_path / "a.npz")
    with pytest.raises(archives.DAMAGE):
        archives.arrays_of(tmp_path / "a.npz")


@pytest.mark.parametrize("make", [compressed, overlapping], ids=lambda make: make.__name__)
def test_an_archive_that_would_grow_is_refused_before_it_is_read(make, tmp_path):
    make(tmp_path / "a.npz")
    with (
        pytest.raises(ValueError, match="compressed, or overlap"),
        archives.opened(tmp_path / "a.npz"),
    ):
        pass


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
