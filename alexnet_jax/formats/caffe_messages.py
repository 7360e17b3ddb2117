"""The protocol-buffer messages of Caffe that an AlexNet uses.

Numbers, types and defaults are those of K/src/caffe/proto/caffe.proto, but for types of the same encoding: `bytes` for
packed floats, of which no Python number is made, for names, which may hold any bytes, and for a message that no reader
opens; `int32` for enumerations.
"""

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

MESSAGES = {
    "BlobShape": "repeated int64 dim = 1",
    "BlobProto": """
        optional int32 num = 1; optional int32 channels = 2; optional int32 height = 3; optional int32 width = 4;
        repeated bytes data = 5; optional BlobShape shape = 7; repeated bytes double_data = 8""",
    "InputParameter": "repeated BlobShape shape = 1",
    "TransformationParameter": """
        optional float scale = 1 [default = 1]; optional uint32 crop_size = 3; repeated float mean_value = 5""",
    "ConvolutionParameter": """
        optional uint32 num_output = 1; repeated uint32 pad = 3; repeated uint32 kernel_size = 4;
        optional uint32 group = 5 [default = 1]; repeated uint32 stride = 6; optional uint32 pad_h = 9;
        optional uint32 pad_w = 10; optional uint32 kernel_h = 11; optional uint32 kernel_w = 12;
        optional uint32 stride_h = 13; optional uint32 stride_w = 14; repeated uint32 dilation = 18""",
    "DropoutParameter": "optional float dropout_ratio = 1 [default = 0.5]",
    "InnerProductParameter": "optional uint32 num_output = 1",
    "LRNParameter": """
        optional uint32 local_size = 1 [default = 5]; optional float alpha = 2 [default = 1];
        optional float beta = 3 [default = 0.75]; optional int32 norm_region = 4; optional float k = 5 [default = 1]""",
    "PoolingParameter": """
        optional int32 pool = 1; optional uint32 kernel_size = 2; optional uint32 stride = 3 [default = 1];
        optional uint32 pad = 4""",
    "ReLUParameter": "",
    "LayerParameter": """
        optional bytes name = 1; optional bytes type = 2; repeated bytes bottom = 3; repeated bytes top = 4;
        repeated BlobProto blobs = 7; optional TransformationParameter transform_param = 100;
        optional ConvolutionParameter convolution_param = 106; optional DropoutParameter dropout_param = 108;
        optional InnerProductParameter inner_product_param = 117; optional LRNParameter lrn_param = 118;
        optional PoolingParameter pooling_param = 121; optional ReLUParameter relu_param = 123;
        optional InputParameter input_param = 143""",
    "V1LayerParameter": """
        optional bytes layer = 1; repeated bytes bottom = 2; repeated bytes top = 3; optional bytes name = 4;
        optional int32 type = 5; repeated BlobProto blobs = 6; optional ConvolutionParameter convolution_param = 10;
        optional LRNParameter lrn_param = 18; optional PoolingParameter pooling_param = 19;
        optional TransformationParameter transform_param = 36""",
    "NetParameter": """
        optional bytes name = 1; repeated V1LayerParameter layers = 2; repeated int32 input_dim = 4;
        repeated BlobShape input_shape = 8; repeated LayerParameter layer = 100""",
}
FIELD = re.compile(r"(\w+) (\w+) (\w+) = (\d+)(?: \[default = (\S+)\])?")


def _classes() -> dict[str, Any]:
    """The classes of the messages by name."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe", package="caffe", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, kind, field, number, default in FIELD.findall(fields):
            added = message.field.add(name=field, number=int(number), label=kinds.Label.Value(f"LABEL_{label.upper()}"))
            if kind in MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
            if default:
                added.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in MESSAGES}


_made = _classes()
NetParameter, LayerParameter, BlobProto = _made["NetParameter"], _made["LayerParameter"], _made["BlobProto"]
