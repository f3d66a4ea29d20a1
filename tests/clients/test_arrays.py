"""The array codec: agrees with Flower's own, and takes nothing on trust."""

import io
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quire.clients.arrays import MalformedArray, byte_size, decode, encode, fingerprint

dtypes = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]).map(np.dtype)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(arrays)
def test_what_is_encoded_decodes_to_the_same_bits(array):
    record = encode({"w": array})
    back = decode(record)["w"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(arrays)
def test_flower_reads_what_we_write_and_we_read_what_flower_writes(array):
    ours = encode({"w": array})["w"]
    assert ours.numpy().tobytes() == array.tobytes()
    assert (ours.dtype, ours.shape, ours.stype) == (str(array.dtype), array.shape, "numpy.ndarray")
    theirs = decode(ArrayRecord({"w": Array(array)}))["w"]
    assert theirs.tobytes() == array.tobytes()


def test_fortran_order_and_strides_survive():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (np.asfortranarray(array), array[::2, ::-1], array.T):
        assert (decode(encode({"w": view}))["w"] == view).all()
        assert (decode(ArrayRecord({"w": Array(view)}))["w"] == view).all()


def test_decoded_arrays_share_the_bytes_and_cannot_be_written():
    back = decode(encode({"w": np.zeros(3, np.float32)}))["w"]
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1.0


def test_object_arrays_and_pickles_are_refused():
    payload = io.BytesIO()
    np.save(payload, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for data in (payload.getvalue(), pickle.dumps([1, 2])):
        with pytest.raises(MalformedArray):
            decode(ArrayRecord({"w": Array("object", (1,), "numpy.ndarray", data)}))
    with pytest.raises(MalformedArray):
        encode({"w": np.array(["text"])})
    with pytest.raises(MalformedArray):
        decode(ArrayRecord({"w": Array("float32", (1,), "another", encode({"w": np.ones(1)})["w"].data)}))


@settings(max_examples=300)
@given(st.binary(max_size=200), st.data())
def test_damaged_bytes_are_refused_or_decode_never_crash(noise, data):
    good = encode({"w": np.arange(6, dtype=np.float32).reshape(2, 3)})["w"].data
    cut = data.draw(st.integers(0, len(good)))
    for candidate in (noise, good[:cut], good[:cut] + noise, good[:cut] + noise + good[cut:], good[:10] + noise):
        record = ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", candidate)})
        try:
            array = decode(record)["w"]
        except MalformedArray:
            continue
        assert array.dtype.kind in "fiub"
        assert array.nbytes <= len(candidate)


def test_a_header_cannot_claim_more_than_its_bytes_hold():
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(MalformedArray, match="does not fit"):
        decode(ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", data)}))


@pytest.mark.parametrize("shape", ["1, " * 65, "0, 999999999999999999, 999999999999999999"])
def test_a_shape_that_numpy_itself_refuses_is_malformed(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + (b"" if "0," in shape else b"\0" * 4)
    with pytest.raises(MalformedArray, match="no array has"):
        decode(ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", data)}))


def test_the_fingerprint_sees_names_shapes_dtypes_and_bits_but_not_order():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    same = fingerprint(base)
    assert fingerprint(dict(reversed(base.items()))) == same
    others = [
        {**base, "a": np.zeros((3, 2), np.float32)},
        {**base, "a": np.zeros((2, 3), np.int32)},
        {**base, "a": -np.zeros((2, 3), np.float32)},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({same, *(fingerprint(other) for other in others)}) == 5


def test_byte_size_counts_what_is_carried():
    record = encode({"a": np.zeros(100, np.float32), "b": np.zeros(())})
    assert byte_size(record) == sum(len(array.data) for array in record.values()) > 408
