"""What is written by hand equals torch's, in value and in gradient: float64, largest difference 1e-10."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lessons import (
    activations_losses,
    architectures,
    arithmetic,
    attention,
    autograd,
    convolutions,
    modules,
    normalisation,
    optimisation,
    pooling,
    recurrent,
    regularisation,
)

TOLERANCE = 1e-10


@pytest.fixture(autouse=True)
def seeded_float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def results(function, inputs, parameters=()) -> list[torch.Tensor]:
    """The output of a function and the gradients of a weighted sum of it by its inputs and its parameters."""
    inputs = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    total = sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs)
    wanted = [x for x in inputs if x.requires_grad] + list(parameters)
    return [*(out.detach() for out in outputs), *torch.autograd.grad(total, wanted)]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float64 and a.shape == b.shape
        assert (a - b).abs().max() <= TOLERANCE


def same_modules(ours: nn.Module, theirs: nn.Module, *inputs, call=None) -> None:
    """Copies the weights, by name and made irregular, and compares outputs and all gradients."""
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.3 * torch.randn_like(p))
    ours.load_state_dict(theirs.state_dict())
    ordered = [dict(ours.named_parameters())[name] for name, _ in theirs.named_parameters()]
    reference = call or theirs
    assert_same(results(ours, inputs, ordered), results(reference, inputs, theirs.parameters()))


def probes() -> torch.Tensor:
    return torch.cat([torch.randn(50) * 4, torch.tensor([0.0, -30.0, 30.0, -700.0, 700.0])])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "leaky_relu", "hardswish"])
def test_activations(name):
    theirs = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(name) or getattr(F, name)
    z = probes()
    assert_same(results(getattr(activations_losses, name), [z]), results(theirs, [z]))


def test_log_softmax():
    z = torch.randn(6, 5) * 20
    assert_same(results(activations_losses.log_softmax, [z]), results(lambda z: F.log_softmax(z, 1), [z]))


def losses() -> dict:
    x, y, p, t = torch.randn(7, 4), torch.randn(7, 4), torch.rand(7), torch.rand(7)
    z, labels, weight = torch.randn(7, 4) * 10, torch.randint(0, 4, (7,)), torch.rand(4)
    x[0], z[0] = y[0], 0.0  # a zero difference and a zero logit: where a slope has a corner
    t01 = (t > 0.5).double()
    ours = activations_losses
    return {
        "l1": (ours.l1_loss, F.l1_loss, [x, y]),
        "mse": (ours.mse_loss, F.mse_loss, [x, y]),
        "nll": (ours.nll_loss, F.nll_loss, [F.log_softmax(z, 1), labels]),
        "nll, weighted": (lambda z: ours.nll_loss(z, labels, weight), lambda z: F.nll_loss(z, labels, weight), [z]),
        "cross entropy": (ours.cross_entropy, F.cross_entropy, [z, labels]),
        "cross entropy, weighted": (
            lambda z: ours.cross_entropy(z, labels, weight),
            lambda z: F.cross_entropy(z, labels, weight),
            [z],
        ),
        "bce": (lambda p: ours.bce_loss(p, t), lambda p: F.binary_cross_entropy(p, t), [p]),
        "bce, weighted": (
            lambda p: ours.bce_loss(p, t01, t),
            lambda p: F.binary_cross_entropy(p, t01, t),
            [p],
        ),
        "bce with logits": (
            lambda z: ours.bce_with_logits(z, t01),
            lambda z: F.binary_cross_entropy_with_logits(z, t01),
            [torch.cat([z[:, 0][:5], torch.tensor([0.0, 300.0])])],
        ),
    }


@pytest.mark.parametrize("name", list(losses()))
def test_losses(name):
    ours, theirs, inputs = losses()[name]
    inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    assert_same(results(ours, inputs), results(theirs, inputs))


def test_linear_and_convolution():
    same_modules(modules.Linear(5, 3), nn.Linear(5, 3), torch.randn(4, 5))
    for stride, padding in ((1, 0), (2, 1), (3, 2)):
        reference = nn.Conv2d(3, 4, 3, stride, padding)
        same_modules(modules.Conv2d(3, 4, 3, stride, padding), reference, torch.randn(2, 3, 8, 9))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 7), (6, 4, 5, 3)])
def test_batch_norm(shape, training):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    ours, theirs, x = normalisation.BatchNorm(4), kind(4), torch.randn(shape) * 3 + 5
    del theirs.num_batches_tracked
    theirs.register_buffer("num_batches_tracked", None)
    for _ in range(3):  # so that there are running statistics
        theirs(x + torch.randn(shape))
    same_modules(ours.train(training), theirs.train(training), x)
    assert_same([ours.running_mean, ours.running_var], [theirs.running_mean, theirs.running_var])


def test_other_norms():
    x = torch.randn(3, 6, 5, 4) * 2 + 1
    same_modules(normalisation.LayerNorm((6, 5, 4)), nn.LayerNorm((6, 5, 4)), x)
    same_modules(normalisation.LayerNorm((4,)), nn.LayerNorm(4), x)
    same_modules(normalisation.InstanceNorm(6), nn.InstanceNorm2d(6, affine=True), x)
    same_modules(normalisation.GroupNorm(3, 6), nn.GroupNorm(3, 6), x)


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_switchable_norm_is_each_of_its_three_when_it_chooses_one(choice):
    x = torch.randn(3, 6, 5, 4) * 2 + 1
    layer = normalisation.SwitchableNorm(6)
    layer.mean_logits.data = layer.var_logits.data = torch.eye(3)[choice].log()
    theirs = (nn.InstanceNorm2d(6), nn.LayerNorm((6, 5, 4)), nn.BatchNorm2d(6))[choice]
    assert_same(results(layer, [x]), results(theirs, [x]))


def test_switchable_norm_mixes_and_learns():
    x = torch.randn(3, 6, 5, 4) * 2 + 1
    layer = normalisation.SwitchableNorm(6)
    assert torch.autograd.gradcheck(layer, x.clone().requires_grad_())
    layer(x).square().sum().backward()
    assert layer.mean_logits.grad.abs().sum() > 0 and layer.var_logits.grad.abs().sum() > 0
    before = layer.running_mean.clone()
    layer.eval()(x)
    assert torch.equal(layer.running_mean, before)


@pytest.mark.parametrize("size, stride", [(2, None), (3, 2)])
def test_pooling(size, stride):
    x = torch.rand(2, 3, 9, 8)
    for ours, theirs in ((pooling.max_pool, F.max_pool2d), (pooling.average_pool, F.avg_pool2d)):
        assert_same(
            results(lambda x, f=ours: f(x, size, stride), [x]), results(lambda x, f=theirs: f(x, size, stride), [x])
        )
    ours, theirs = (lambda x: pooling.power_pool(x, 2, 3.0)), (lambda x: F.lp_pool2d(x, 3.0, 2))
    assert_same(results(ours, [x]), results(theirs, [x]))


def test_max_pool_of_equal_values_gives_the_gradient_to_one():
    x = torch.ones(1, 1, 2, 2)
    ours, theirs = results(lambda x: pooling.max_pool(x, 2), [x]), results(lambda x: F.max_pool2d(x, 2), [x])
    assert sorted(ours[1].flatten().tolist()) == sorted(theirs[1].flatten().tolist())


def test_convolutions():
    kernel, image = torch.randn(3, 2), torch.randn(5, 6)
    conv = F.conv2d(image[None, None], kernel[None, None])[0, 0]
    assert_same([convolutions.slide(image, kernel)], [conv])
    matrix = convolutions.convolution_matrix(kernel, 5, 6)
    assert_same([(matrix @ image.flatten()).view(conv.shape)], [conv])
    up = F.conv_transpose2d(conv[None, None], kernel[None, None])[0, 0]
    assert_same([convolutions.transposed_convolution(conv, kernel, 5, 6)], [up])
    x, weight = torch.randn(2, 6, 7, 7), torch.randn(4, 3, 3, 3)
    ours, theirs = (lambda x, w: convolutions.grouped_convolution(x, w, 2)), (lambda x, w: F.conv2d(x, w, groups=2))
    assert_same(results(ours, [x, weight]), results(theirs, [x, weight]))
    spread = convolutions.spread_kernel(kernel, 3)
    dilated = F.conv2d(image.repeat(2, 2)[None, None], kernel[None, None], dilation=3)
    assert_same([F.conv2d(image.repeat(2, 2)[None, None], spread[None, None])], [dilated])
    layer = convolutions.DeformableConv2d(3, 4)
    assert_same([layer(x[:, :3])], [F.conv2d(x[:, :3], layer.weight, padding=1)])


@pytest.mark.parametrize("n", [7, 12])
@pytest.mark.parametrize("kernel, stride, padding, dilation", [(3, 1, 0, 1), (3, 2, 1, 1), (5, 3, 2, 1), (3, 2, 2, 2)])
def test_output_size(n, kernel, stride, padding, dilation):
    size = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, kernel), None, stride, padding, dilation).shape[2]
    assert convolutions.output_size(n, kernel, stride, padding, dilation) == size


def test_squeeze_excitation():
    from torchvision.ops import SqueezeExcitation

    same_modules(architectures.SqueezeExcitation(8, 3), SqueezeExcitation(8, 3), torch.randn(2, 8, 5, 5))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_cells_and_layers(kind):
    cell_kind = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}[kind]
    ours = {nn.RNN: recurrent.RNNCell, nn.LSTM: recurrent.LSTMCell, nn.GRU: recurrent.GRUCell}[kind]
    x, h, c = torch.randn(3, 4), torch.randn(3, 5), torch.randn(3, 5)
    one, two = ours(4, 5), cell_kind(4, 5)
    if kind is nn.LSTM:  # a cell takes its state as a pair; results() wants plain inputs
        one.load_state_dict(two.state_dict())
        first = results(lambda x, h, c: one(x, (h, c)), [x, h, c], one.parameters())
        assert_same(first, results(lambda x, h, c: two(x, (h, c)), [x, h, c], two.parameters()))
    else:
        same_modules(one, two, x, h)

    sequence, zeros = torch.randn(6, 3, 4), torch.zeros(3, 5)
    state = (zeros, zeros) if kind is nn.LSTM else zeros
    layer = kind(4, 5)
    run = results(lambda s: recurrent.unroll(recurrent.cell_of(layer), s, state)[0], [sequence])
    assert_same(run, results(lambda s: layer(s)[0], [sequence]))
    both = kind(4, 5, bidirectional=True)
    run = results(lambda s: recurrent.bidirectional(both, s, state), [sequence])
    assert_same(run, results(lambda s: both(s)[0], [sequence]))


def test_attention():
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    ours = results(lambda q, k, v: attention.attention(q, k, v)[0], [q, k, v])
    assert_same(ours, results(F.scaled_dot_product_attention, [q, k, v]))
    mask = torch.rand(5, 7) > 0.5
    mask[:, 0] = True
    ours = results(lambda q, k, v: attention.attention(q, k, v, mask)[0], [q, k, v])
    theirs = results(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), [q, k, v])
    assert_same(ours, theirs)


def test_multi_head_attention_and_transformer_layers():
    x, memory = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    call = lambda x, memory: reference(x, memory, memory, need_weights=False)[0]  # noqa: E731
    same_modules(attention.MultiHeadAttention(8, 2), reference, x, memory, call=call)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    same_modules(attention.TransformerLayer(8, 2, 16), encoder, x)
    decoder = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    call = lambda x, memory: decoder(x, memory, tgt_mask=~attention.causal_mask(5))  # noqa: E731
    same_modules(attention.TransformerDecoderLayer(8, 2, 16), decoder, x, memory, call=call)


OPTIMIZERS = {
    "sgd": (lambda p: optimisation.SGD(p, 0.03), lambda p: torch.optim.SGD(p, 0.03)),
    "momentum": (lambda p: optimisation.SGD(p, 0.03, 0.9), lambda p: torch.optim.SGD(p, 0.03, 0.9)),
    "nesterov, decay": (
        lambda p: optimisation.SGD(p, 0.03, 0.9, 0.1, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.03, 0.9, weight_decay=0.1, nesterov=True),
    ),
    "rmsprop": (lambda p: optimisation.RMSprop(p, 0.02), lambda p: torch.optim.RMSprop(p, 0.02)),
    "adam": (lambda p: optimisation.Adam(p, 0.02), lambda p: torch.optim.Adam(p, 0.02)),
    "adam, decay": (
        lambda p: optimisation.Adam(p, 0.02, (0.8, 0.95), weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.02, (0.8, 0.95), weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizers(name):
    """30 steps on a network, with a stop half-way: the state is saved and loaded into a new optimizer."""
    x, y = torch.randn(20, 3), torch.randn(20, 1)
    weights = []
    for make in OPTIMIZERS[name]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = make(model.parameters())
        for step in range(30):
            if step == 15:
                state, optimizer = optimizer.state_dict(), make(model.parameters())
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
        weights.append([p.detach() for p in model.parameters()])
    assert_same(*weights)


def test_schedules():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for epoch in range(10):
        assert abs(optimisation.cosine_schedule(0.3, epoch, 10) - optimizer.param_groups[0]["lr"]) <= TOLERANCE
        optimizer.step()
        cosine.step()


def test_derivatives():
    def f(p):
        return torch.sin(p[0]) * p[1] ** 2 + p[2]

    p = torch.randn(3)
    (gradient,) = torch.autograd.grad(f(q := p.clone().requires_grad_()), q)
    assert torch.allclose(autograd.numeric_gradient(f, p), gradient, atol=1e-7)
    inputs = [torch.randn(3, 2, requires_grad=True) for _ in range(3)]
    plain = results(lambda w, x, b: w * x + b, inputs)
    assert_same(results(autograd.Line.apply, inputs), plain)
    x, w1, w2, target = torch.randn(4), torch.randn(5, 4), torch.randn(5), torch.randn(())
    leaves = [w1.requires_grad_(), w2.requires_grad_()]
    theirs = torch.autograd.grad((w2 @ torch.relu(w1 @ x) - target) ** 2, leaves)
    assert_same(list(autograd.two_layer_gradients(x, w1.detach(), w2.detach(), target)), list(theirs))


def test_dropout_and_running_mean():
    x = torch.randn(1000)
    layer = regularisation.Dropout(0.3)
    torch.manual_seed(1)
    ours = results(layer, [x])
    torch.manual_seed(1)
    assert_same(ours, results(lambda x: F.dropout(x, 0.3), [x]))
    mean = torch.randn(3)
    expected = 0.9 * mean + 0.1 * torch.ones(3)
    assert_same([arithmetic.running_mean_(mean, torch.ones(3))], [expected])
