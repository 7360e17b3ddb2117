"""What the benchmark calls the same network and the same update in PyTorch is that."""

import pytest

torch = pytest.importorskip("torch", reason="pip install -r tests/torch-requirements.txt")


@pytest.mark.parametrize("norm", [True, False])
def test_the_network(norm, monkeypatch):
    from alexnet_jax.benchmarks import torch_step
    from tests.reference import torch_network

    torch.manual_seed(0)
    network = torch_step.network(norm=norm).eval()
    layers = [module for module in network if hasattr(module, "weight")]
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    weights = {(name, "kernel"): layer.weight for name, layer in zip(names, layers, strict=True)}
    weights |= {(name, "bias"): layer.bias for name, layer in zip(names, layers, strict=True)}
    # PyTorch's own norm goes on into the other tower.
    monkeypatch.setattr(torch_network, "per_tower", lambda x, towers, operation: operation(x))
    if not norm:
        monkeypatch.setattr(torch_network, "lrn", lambda x, towers, k: x)
        monkeypatch.setattr(torch_network, "same_map_norm", lambda x: x)
    images = torch.randn(2, 3, 224, 224) * 60
    with torch.inference_mode():
        expected = torch_network.forward("original", weights, images)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_the_update():
    from alexnet_jax.benchmarks import torch_step
    from tests.reference import torch_network

    torch.manual_seed(0)
    module = torch.nn.Linear(5, 4)
    copies = {
        ("fc", leaf): getattr(module, name).detach().clone() for leaf, name in (("kernel", "weight"), ("bias",) * 2)
    }
    optimizer, reference = torch_step.sgd(module), torch_network.Sgd(copies)
    for _ in range(3):
        for (_, leaf), copy in copies.items():
            copy.grad = torch.randn_like(copy)
            getattr(module, "weight" if leaf == "kernel" else "bias").grad = copy.grad.clone()
        optimizer.step()
        reference.step(0.01)
    torch.testing.assert_close(module.weight, copies["fc", "kernel"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(module.bias, copies["fc", "bias"], rtol=1e-5, atol=1e-7)
