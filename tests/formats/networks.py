"""Random networks in the layouts of other programs, with independent writers: Google's protobuf, pickle and zipfile."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Maps or units of both towers side by side, window, and groups of each layer.
CAFFE = {
    "conv1": (96, 11, 1), "conv2": (256, 5, 2), "conv3": (384, 3, 1), "conv4": (384, 3, 2), "conv5": (256, 3, 2),
    "fc6": (4096, 0, 1), "fc7": (4096, 0, 1),
}  # fmt: skip
TORCHVISION = {
    "conv1": (64, 11, 1), "conv2": (192, 5, 1), "conv3": (384, 3, 1), "conv4": (256, 3, 1), "conv5": (256, 3, 1),
    "fc6": (4096, 0, 1), "fc7": (4096, 0, 1),
}  # fmt: skip
STATE_NAMES = dict(
    conv1="features.0", conv2="features.3", conv3="features.6", conv4="features.8", conv5="features.10",
    fc6="classifier.1", fc7="classifier.4", fc8="classifier.6",
)  # fmt: skip


def whole(sizes, *, width=1.0, classes=10, side=6, seed=0):
    """Kernels `[out, in / groups, rows, columns]` or `[out, in]` and biases that keep signals alive."""
    rng = np.random.default_rng(seed)
    layers, before = {}, 3
    for name, (full, window, groups) in (sizes | {"fc8": (None, 0, 1)}).items():
        out = classes if full is None else int(full * width)
        if window:
            shape = (out, before // groups, window, window)
        else:
            shape = (out, before * side**2 if name == "fc6" else before)
        kernel = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        layers[name] = (kernel, rng.standard_normal(out, np.float32))
        before = out
    return layers


def by_tower(layers, towers):
    """The layers as `tests.reference.network` wants them."""
    return {
        name: [
            (k.astype(np.float64), b.astype(np.float64))
            for k, b in zip(np.split(kernel, towers), np.split(bias, towers), strict=True)
        ]
        for name, (kernel, bias) in layers.items()
    }


def state_dict(layers):
    return {
        f"{STATE_NAMES[name]}.{leaf}": array
        for name, arrays in layers.items()
        for leaf, array in zip(("weight", "bias"), arrays, strict=True)
    }


# ---- Caffe, by Google's library ------------------------------------------------------------------------------------

_F = descriptor_pb2.FieldDescriptorProto
SCHEMA = {  # message: field: (number, type, repeated, packed)
    "Shape": {"dim": (1, _F.TYPE_INT64, True, True)},
    "Blob": {
        "num": (1, _F.TYPE_INT32, False, False), "channels": (2, _F.TYPE_INT32, False, False),
        "height": (3, _F.TYPE_INT32, False, False), "width": (4, _F.TYPE_INT32, False, False),
        "data": (5, _F.TYPE_FLOAT, True, True), "shape": (7, "Shape", False, False),
        "double_data": (8, _F.TYPE_DOUBLE, True, True),
    },
    "Convolution": {
        "num_output": (1, _F.TYPE_UINT32, False, False), "pad": (3, _F.TYPE_UINT32, True, False),
        "kernel_size": (4, _F.TYPE_UINT32, True, False), "group": (5, _F.TYPE_UINT32, False, False),
        "stride": (6, _F.TYPE_UINT32, True, False),
    },
    "Lrn": {
        "local_size": (1, _F.TYPE_UINT32, False, False), "alpha": (2, _F.TYPE_FLOAT, False, False),
        "beta": (3, _F.TYPE_FLOAT, False, False), "k": (5, _F.TYPE_FLOAT, False, False),
    },
    "Pooling": {
        "pool": (1, _F.TYPE_INT32, False, False), "kernel_size": (2, _F.TYPE_UINT32, False, False),
        "stride": (3, _F.TYPE_UINT32, False, False),
    },
    "InnerProduct": {"num_output": (1, _F.TYPE_UINT32, False, False)},
    "Dropout": {"dropout_ratio": (1, _F.TYPE_FLOAT, False, False)},
    "Transform": {
        "scale": (1, _F.TYPE_FLOAT, False, False), "crop_size": (3, _F.TYPE_UINT32, False, False),
        "mean_value": (5, _F.TYPE_FLOAT, True, False),
    },
    "Input": {"shape": (1, "Shape", True, False)},
    "Layer": {
        "name": (1, _F.TYPE_STRING, False, False), "type": (2, _F.TYPE_STRING, False, False),
        "bottom": (3, _F.TYPE_STRING, True, False), "top": (4, _F.TYPE_STRING, True, False),
        "blobs": (7, "Blob", True, False), "transform": (100, "Transform", False, False),
        "convolution": (106, "Convolution", False, False), "lrn": (118, "Lrn", False, False),
        "pooling": (121, "Pooling", False, False), "inner_product": (117, "InnerProduct", False, False),
        "dropout": (108, "Dropout", False, False), "input": (143, "Input", False, False),
    },
    "OldLayer": {
        "bottom": (2, _F.TYPE_STRING, True, False), "top": (3, _F.TYPE_STRING, True, False),
        "name": (4, _F.TYPE_STRING, False, False), "type": (5, _F.TYPE_INT32, False, False),
        "blobs": (6, "Blob", True, False), "blobs_lr": (7, _F.TYPE_FLOAT, True, False),
        "convolution": (10, "Convolution", False, False), "lrn": (18, "Lrn", False, False),
        "pooling": (19, "Pooling", False, False), "transform": (36, "Transform", False, False),
    },
    "Net": {
        "name": (1, _F.TYPE_STRING, False, False), "old_layers": (2, "OldLayer", True, False),
        "input_dim": (4, _F.TYPE_INT32, True, False), "input_shape": (8, "Shape", True, False),
        "layers": (100, "Layer", True, False),
    },
}  # fmt: skip


def _messages():
    file = descriptor_pb2.FileDescriptorProto(name="caffe_in_tests.proto", package="t", syntax="proto2")
    for message, fields in SCHEMA.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, repeated, packed) in fields.items():
            field = made.field.add(name=name, number=number, label=3 if repeated else 1)
            if isinstance(kind, str):
                field.type, field.type_name = _F.TYPE_MESSAGE, f".t.{kind}"
            else:
                field.type = kind
            if packed:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in SCHEMA}


MESSAGES = _messages()
OLD_TYPES = {"Convolution": 4, "Data": 5, "Dropout": 6, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18}
GRAPHS = {
    "bvlc": "data conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    " fc6 relu6 drop6 fc7 relu7 drop7 fc8",
    "caffenet": "data conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    " fc6 relu6 drop6 fc7 relu7 drop7 fc8",
    "weights alone": "conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8",
    "no norms": "data conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    " fc6 relu6 drop6 fc7 relu7 drop7 fc8",
}
KINDS = dict(
    conv="Convolution", relu="ReLU", norm="LRN", pool="Pooling", fc="InnerProduct", drop="Dropout", data="Data"
)
PADDING = dict(conv2=2, conv3=1, conv4=1, conv5=1)


def caffemodel(layers, graph="bvlc", *, old=False, double=False, names=None, change=lambda name, layer: None):
    """A file as Caffe writes: blue first in conv1."""
    net = MESSAGES["Net"](name="AlexNet")
    bottom = "data"
    for name in GRAPHS[graph].split():
        kind = KINDS[name[:-1] if name[-1].isdigit() else name]
        layer = (net.old_layers if old else net.layers).add(name=(names or {}).get(name, name))
        layer.type = OLD_TYPES[kind] if old else kind
        in_place = kind in ("ReLU", "Dropout")
        if kind != "Data":
            layer.bottom.append(bottom)
        bottom = bottom if in_place else name
        layer.top.append(bottom)
        if kind == "Data":
            layer.transform.crop_size = 227
        if name in layers:
            kernel, bias = layers[name]
            kernel = kernel[:, ::-1] if name == "conv1" else kernel
            for array in (kernel, bias):
                fill(layer.blobs.add(), array, old=old, double=double)
        if kind == "Convolution":
            options = layer.convolution
            options.num_output = len(layers[name][1])
            options.kernel_size.append(layers[name][0].shape[-1])
            if name in PADDING:
                options.pad.append(PADDING[name])
            if name in ("conv2", "conv4", "conv5"):
                options.group = 2
            if name == "conv1":
                options.stride.append(4)
        elif kind == "LRN":
            layer.lrn.local_size, layer.lrn.alpha, layer.lrn.beta = 5, 1e-4, 0.75
        elif kind == "Pooling":
            layer.pooling.pool, layer.pooling.kernel_size, layer.pooling.stride = 0, 3, 2
        change(name, layer)
    return net.SerializeToString()


def fill(blob, array, *, old=False, double=False):
    if old:  # four sizes, ones in front
        blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
    else:
        blob.shape.dim.extend(array.shape)
    (blob.double_data if double else blob.data).extend(array.reshape(-1).tolist())


def binaryproto(mean):
    """The mean image `[rows, columns, 3]` of red, green and blue as Caffe writes it."""
    blob = MESSAGES["Blob"]()
    fill(blob, mean.transpose(2, 0, 1)[None, ::-1], old=True)
    return blob.SerializeToString()


# ---- PyTorch, by pickle and zipfile ----------------------------------------------------------------------------------


class _Storage:
    """Stands for a storage of a tensor in the pickles written here."""

    def __init__(self, array, key):
        self.array, self.key = array, key


class _Tensor:
    def __init__(self, storage, shape, strides):
        self.storage, self.shape, self.strides = storage, shape, strides

    def __reduce__(self):
        return _rebuild_tensor_v2, (self.storage, 0, self.shape, self.strides, False, OrderedDict())


def _rebuild_tensor_v2():
    raise AssertionError("a reader runs no function of a pickle")


class FloatStorage:
    pass


_rebuild_tensor_v2.__module__, FloatStorage.__module__ = "torch._utils", "torch"


class _Pickler(pickle._Pickler):  # the one in Python, which can be told what a name is
    dispatch = dict(pickle._Pickler.dispatch)

    def save_global(self, obj, name=None):
        if obj in (_rebuild_tensor_v2, FloatStorage):
            self.write(f"c{obj.__module__}\n{obj.__name__}\n".encode())
        else:
            super().save_global(obj, name)

    dispatch[type(_rebuild_tensor_v2)] = save_global
    dispatch[type] = save_global

    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            view = (None,) if self.legacy else ()
            return ("storage", FloatStorage, obj.key, "cpu", obj.array.size, *view)
        return None


def _pickled(value, *, legacy=False):
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=2)
    pickler.legacy = legacy
    pickler.dump(value)
    return file.getvalue()


def _tensors(state):
    storages, tensors = [], OrderedDict()
    for number, (name, array) in enumerate(state.items()):
        array = np.ascontiguousarray(array, np.float32)
        storages.append(_Storage(array, str(number)))
        strides = tuple(stride // 4 for stride in array.strides)
        tensors[name] = _Tensor(storages[-1], array.shape, strides)
    return storages, tensors


def pth(state, wrap=lambda state: state, *, order="little"):
    """A file as `torch.save` writes since PyTorch 1.6."""
    storages, tensors = _tensors(state)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("alexnet/data.pkl", _pickled(wrap(tensors)))
        archive.writestr("alexnet/byteorder", order)
        for storage in storages:
            archive.writestr(f"alexnet/data/{storage.key}", storage.array.tobytes())
        archive.writestr("alexnet/version", "3\n")
    return file.getvalue()


def legacy_pth(state, *, listed=lambda keys: keys, order="little"):
    """A file as `torch.save` wrote before PyTorch 1.6. `listed` changes the keys in its list of storages."""
    storages, tensors = _tensors(state)
    parts = [
        _pickled(0x1950A86A20F9469CFC6C),
        _pickled(1001),
        _pickled(
            {
                "protocol_version": 1001,
                "little_endian": order == "little",
                "type_sizes": {"short": 2, "int": 4, "long": 4},
            }
        ),
        _pickled(tensors, legacy=True),
        _pickled(listed([storage.key for storage in storages])),
    ]
    for storage in storages:
        parts += [struct.pack("<q", storage.array.size), storage.array.tobytes()]
    return b"".join(parts)
