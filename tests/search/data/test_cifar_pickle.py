import pickle

import numpy as np
import pytest

from gumbax.search.data.cifar_pickle import load_plain
from tests.search.data_files import Trap

# {'data': uint8 [1, 2] = (5, 255), 'labels': [7]} as Python 2 wrote it: text is bytes,
# modules have their old names, and `align` is an integer.
OLD_PICKLE = (
    b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    b"K\x00\x85U\x01b\x87R(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x05\xfftb"
    b"U\x06labels]K\x07au."
)


def test_pickles_of_python_2():
    record = load_plain(OLD_PICKLE)
    assert (record["data"].dtype, record["data"].tolist()) == (np.uint8, [[5, 255]])
    assert record["labels"] == [7]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickled_arrays_are_rebuilt(order, protocol):
    array = np.asarray(np.arange(6, dtype=">i4").reshape(2, 3), order=order)
    found = load_plain(pickle.dumps({"x": array}, protocol))["x"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_foreign_objects_are_not_made(tmp_path):
    trap = tmp_path / "trap"
    with pytest.raises(pickle.UnpicklingError, match=r"object, subprocess.call"):
        load_plain(pickle.dumps({"data": [Trap(trap)]}))
    assert not trap.exists()


def test_stand_ins_cannot_be_changed():
    build = b"cnumpy\ndtype\n(dV__init__\nI1\nsb."
    with pytest.raises(TypeError):
        load_plain(build)
    test_pickles_of_python_2()
