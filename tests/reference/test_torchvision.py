"""torchvision's network and its files against PyTorch: `pip install -r tests/torch-requirements.txt`."""

import argparse
import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.formats import imported, torchvision
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import layers, recipes, sharding
from alexnet_jax.network.tower import make_tower
from tests import small

torch = pytest.importorskip("torch", reason="pip install -r tests/torch-requirements.txt")
nn = torch.nn


def alexnet(width=1.0, classes=10, seed=0):
    """The module of torchvision/models/alexnet.py, `width` times as wide, with dropout as there."""
    torch.manual_seed(seed)
    a, b, c, d, e, f = (int(maps * width) for maps in (64, 192, 384, 256, 256, 4096))

    class AlexNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
                nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
                nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
                nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
                nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
            )  # fmt: skip
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Dropout(), nn.Linear(36 * e, f), nn.ReLU(), nn.Dropout(), nn.Linear(f, f), nn.ReLU(),
                nn.Linear(f, classes),
            )  # fmt: skip

        def forward(self, x):
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    return AlexNet().eval()


def logits_of(read, images):
    found = read.settings.network
    tower = make_tower(found.recipe, num_classes=len(read.preprocessing.class_names), width=found.width)
    mesh = sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1])
    return np.asarray(jax.jit(forwards.make_forward(tower, mesh))(read.params, {}, images)[0])


def torch_logits(module, images):
    with torch.no_grad():
        return module(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()


@pytest.mark.parametrize(("width", "sizes"), [(1.0, [224]), (0.25, [63, 65, 191, 225, 300])])
def test_logits_are_pytorch_s(width, sizes, tmp_path):
    module = alexnet(width)
    torch.save(module.state_dict(), tmp_path / "alexnet.pth")
    read = imported.read(tmp_path / "alexnet.pth")
    for size in sizes:
        images = np.random.default_rng(size).standard_normal((2, size, size, 3), np.float32)
        expected = torch_logits(module, images)
        np.testing.assert_allclose(logits_of(read, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 8, 12, 13])
def test_adaptive_pooling_and_its_gradient_are_pytorch_s(size):
    x, dy = (np.random.default_rng(size).standard_normal((2, n, n, 3)) for n in (size, 6))
    there = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = nn.functional.adaptive_avg_pool2d(there, 6)
    y.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    with jax.enable_x64(True):
        here, pull = jax.vjp(lambda x: layers.adaptive_average_pool(x, 6), jnp.asarray(x))
        (dx,) = pull(jnp.asarray(dy))
        np.testing.assert_allclose(here, y.detach().numpy().transpose(0, 2, 3, 1), atol=1e-12)
        np.testing.assert_allclose(dx, there.grad.numpy().transpose(0, 2, 3, 1), atol=1e-12)


@pytest.mark.parametrize("size", [63, 66, 224])
def test_gradients_are_pytorch_s(size):
    """Without dropout, in float64."""
    module = alexnet(1 / 16).double()
    images = np.random.default_rng(size).standard_normal((2, size, size, 3))
    tower = make_tower("torchvision", num_classes=10, width=1 / 16)
    shapes = small.shapes(tower, size)[0]
    labels = np.array([3, 7])
    loss = nn.functional.cross_entropy(module(torch.tensor(images.transpose(0, 3, 1, 2))), torch.tensor(labels))
    loss.backward()
    state = {name: leaf.grad.numpy() for name, leaf in module.named_parameters()}
    values = {name: leaf.detach().numpy() for name, leaf in module.named_parameters()}
    mesh = sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1])
    forward = forwards.make_forward(tower, mesh)

    def ours(params):
        log_probs = jax.nn.log_softmax(forward(params, {}, jnp.asarray(images))[0])
        return -jnp.take_along_axis(log_probs, labels[:, None], axis=1).mean()

    with jax.enable_x64(True):
        gradients = jax.device_get(jax.jit(jax.grad(ours))(params_of(values, shapes)))
    for name, found in expected_of(gradients).items():
        assert np.abs(found - state[name]).max() < 1e-9 * np.abs(state[name]).max(), name


def params_of(values, shapes):
    """Parameters in float64 from a state dict, written out here once more."""
    params = {}
    for layer, name in torchvision.NAMES.items():
        weight, shape = values[f"{name}.weight"], shapes[layer]["kernel"].shape
        if weight.ndim == 4:
            kernel = weight.transpose(2, 3, 1, 0)
        elif layer == "fc6":
            kernel = weight.reshape(len(weight), -1, 6, 6).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            kernel = weight.T
        params[layer] = {"kernel": kernel.reshape(shape), "bias": values[f"{name}.bias"][None]}
    return jax.tree.map(jnp.asarray, params)


def expected_of(params):
    state = {}
    for layer, name in torchvision.NAMES.items():
        kernel = params[layer]["kernel"][0]
        if kernel.ndim == 4:
            weight = kernel.transpose(3, 2, 0, 1)
        elif layer == "fc6":
            weight = kernel.reshape(6, 6, -1, kernel.shape[-1]).transpose(3, 2, 0, 1).reshape(kernel.shape[-1], -1)
        else:
            weight = kernel.T
        state |= {f"{name}.weight": weight, f"{name}.bias": params[layer]["bias"][0]}
    return state


def test_pytorch_loads_what_goes_out(tmp_path):
    from safetensors.numpy import save_file

    tower = make_tower("torchvision", num_classes=5, width=0.125)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), small.shapes(tower, 224)[0])
    save_file(torchvision.to_state_dict(params, tower, "torchvision"), tmp_path / "out.safetensors")
    module = alexnet(0.125, classes=5, seed=1)

    from safetensors.torch import load_file

    module.load_state_dict(load_file(tmp_path / "out.safetensors"))
    images = rng.standard_normal((1, 224, 224, 3), np.float32)
    expected = torch_logits(module, images)
    found = logits_of(imported.read(tmp_path / "out.safetensors"), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def training_script(module):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.zeros(1, 3, 224, 224)).sum().backward()
    optimizer.step()
    return {"epoch": 90, "arch": "alexnet", "state_dict": module.state_dict(), "best_acc1": torch.tensor(56.5)} | {
        "optimizer": optimizer.state_dict()
    }


KINDS = {
    "zip": lambda module, file: torch.save(module.state_dict(), file),
    "before 1.6": lambda module, file: torch.save(module.state_dict(), file, _use_new_zipfile_serialization=False),
    "parameters": lambda module, file: torch.save(dict(module.named_parameters()), file),
    "training script": lambda module, file: torch.save(training_script(module), file),
    "data parallel": lambda module, file: torch.save(nn.DataParallel(module).state_dict(), file),
    "half": lambda module, file: torch.save(module.half().state_dict(), file),
    "bfloat16": lambda module, file: torch.save(module.bfloat16().state_dict(), file),
    "one storage": lambda module, file: torch.save(in_one_storage(module.state_dict()), file),
    "transposed": lambda module, file: torch.save(
        {name: t.t().contiguous().t() if t.ndim == 2 else t for name, t in module.state_dict().items()}, file
    ),
    "channels last": lambda module, file: torch.save(module.to(memory_format=torch.channels_last).state_dict(), file),
}


def in_one_storage(state):
    """Views of one long tensor, as some trainers have."""
    long = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    parts = long.split([tensor.numel() for tensor in state.values()])
    return collections.OrderedDict(
        (name, part.view_as(tensor)) for (name, tensor), part in zip(state.items(), parts, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_torch_save(kind, tmp_path):
    module = alexnet(1 / 16, classes=4)
    KINDS[kind](module, tmp_path / "alexnet.pth")
    read = imported.read(tmp_path / "alexnet.pth")
    tower = make_tower("torchvision", num_classes=4, width=1 / 16)
    found = torchvision.to_state_dict(read.params, tower, "torchvision")
    for name, tensor in module.state_dict().items():
        assert np.array_equal(found[name], tensor.float().numpy()), name


@pytest.mark.parametrize(
    ("wrong", "asks"),
    [
        (lambda module: module, "__main__|AlexNet|nn.modules"),
        (lambda module: {"model": module.state_dict(), "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    ],
)
def test_files_with_objects_of_python(wrong, asks, tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 11))
    torch.save(wrong(module), tmp_path / "alexnet.pth")
    with pytest.raises(UsageError, match=rf"asks for '.*({asks}).*', .* torch.save\(model.state_dict"):
        imported.read(tmp_path / "alexnet.pth")


def test_dropout_before_fc6_and_fc7_drops_half():
    tower = make_tower("torchvision", num_classes=4, width=1 / 16)
    images = jnp.ones((64, 63, 63, 3))
    variables = {"params": jax.jit(lambda: tower.init(jax.random.key(0), images, train=False)["params"])()}
    _, changed = jax.jit(
        lambda: tower.apply(variables, images, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["signals"])
    )()
    signals = changed["signals"]
    for layer, operation in (("conv5", 3), ("fc6", 1)):
        before, after = (signals[f"{layer}_then{number}"][0][0] for number in (operation - 1, operation))
        kept = np.asarray(after)[np.asarray(before) > 0] > 0
        assert abs(kept.mean() - 0.5) < 0.05
        np.testing.assert_allclose(after, np.where(np.asarray(after) > 0, 2 * np.asarray(before), 0), rtol=1e-6)
    assert "fc7_then1" not in signals


def test_kernels_start_with_the_deviation_of_pytorchs():
    drawn = torch.nn.Linear(4096, 50).weight.std().item()
    [fc7] = [layer for layer in recipes.layers_of("torchvision") if layer.name == "fc7"]
    assert fc7.std == pytest.approx(drawn, rel=0.02)
