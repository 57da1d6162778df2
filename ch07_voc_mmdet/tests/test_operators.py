"""operators.py: what stands in for mmcv's compiled operators computes the same, forward and backward.

compiled_mmcv.safetensors holds inputs and what the compiled operators of mmcv 2.1.0 made of them (torch 2.13.0, on a CPU).
Where such an mmcv is installed, `python tests/test_operators.py` writes it anew.
"""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

import operators

USED = operators.provide()

from mmcv import ops  # noqa: E402
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss  # noqa: E402

attention = sys.modules["mmcv.ops.multi_scale_deform_attn"]
STORED = Path(__file__).with_name("compiled_mmcv.safetensors")


# ---- the same as compiled mmcv ----------------------------------------------------------------------------------------


def with_gradients(function, inputs: dict, wanted: tuple[str, ...]) -> dict:
    """-> the output of function(**inputs), and the gradients of its sum of squares with respect to `wanted`."""
    inputs = {name: t.clone().requires_grad_(name in wanted) for name, t in inputs.items()}
    output = function(**inputs)
    (output**2).sum().backward()
    return {"output": output.detach()} | {f"grad_{name}": inputs[name].grad for name in wanted}


def run_nms(boxes, scores, offset=0):
    return {"kept": ops.nms(boxes, scores, 0.4, offset=offset)[1]}


def run_soft_nms(boxes, scores, method, offset=0):
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    return {"dets": dets, "kept": kept}


def run_nms_match(boxes, scores):
    groups = ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    group_of = torch.zeros(len(boxes), dtype=torch.long)
    for number, group in enumerate(sorted(groups, key=lambda group: group.tolist())):
        group_of[group] = number
    return {"group_of": group_of}


def run_roi_align(features, rois, **settings):
    return with_gradients(
        lambda features: ops.roi_align(features, rois, (3, 2), 0.5, *settings.values()),
        {"features": features},
        ("features",),
    )


def run_deform_conv(x, offset, weight, groups, deform_groups):
    return with_gradients(
        lambda x, offset, weight: ops.deform_conv2d(x, offset, weight, (2, 1), (1, 0), (1, 2), groups, deform_groups),
        {"x": x, "offset": offset, "weight": weight},
        ("x", "offset", "weight"),
    )


def run_modulated(x, offset, mask, weight, bias=None):
    inputs = {"x": x, "offset": offset, "mask": mask, "weight": weight} | ({} if bias is None else {"bias": bias})
    return with_gradients(
        lambda x, offset, mask, weight, bias=None: ops.modulated_deform_conv2d(
            x, offset, mask, weight, bias, (2, 1), (1, 0), (1, 2), 1, 2
        ),
        inputs,
        tuple(inputs),
    )


def make_cases() -> dict:
    """-> name: (function, its inputs). The tensors are random; what compiled mmcv made of them is stored with them."""
    g = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(60, 2, generator=g)
    boxes = torch.cat([corners, corners + 1 + 40 * torch.rand(60, 2, generator=g)], 1)
    scored = {"boxes": boxes, "scores": torch.rand(60, generator=g)}
    regions = {"features": torch.randn(2, 3, 12, 10, generator=g)}
    regions["rois"] = torch.cat([torch.tensor([0.0, 1, 1, 0, 0])[:, None], boxes[:5] / 4], 1)
    x, weight = torch.randn(2, 4, 7, 9, generator=g), torch.randn(6, 4, 3, 3, generator=g)
    offset = 2 * torch.randn(2, 36, 4, 5, generator=g)
    deformed = {"x": x, "offset": offset, "weight": weight}
    masked = deformed | {"mask": torch.rand(2, 18, 4, 5, generator=g)}
    cases = {f"nms, offset {offset}": (run_nms, scored, {"offset": offset}) for offset in (0, 1)}
    for method in ("naive", "linear", "gaussian"):
        cases |= {f"soft-nms, {method}": (run_soft_nms, scored, {"method": method, "offset": method == "linear"})}
    cases["nms_match"] = (run_nms_match, scored, {})
    for ratio, aligned in ((0, True), (2, True), (2, False)):
        how = {"sampling_ratio": ratio, "pool_mode": "avg", "aligned": aligned}
        cases[f"roi_align, {ratio}, {aligned}"] = (run_roi_align, regions, how)
    cases["deform_conv"] = (run_deform_conv, deformed, {"groups": 1, "deform_groups": 2})
    grouped = deformed | {"weight": weight[:, :2].contiguous()}
    cases["deform_conv, 2 groups"] = (run_deform_conv, grouped, {"groups": 2, "deform_groups": 2})
    cases["modulated"] = (run_modulated, masked, {})
    cases["modulated, with bias"] = (run_modulated, masked | {"bias": torch.randn(6, generator=g)}, {})
    return cases


CASES = make_cases()


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_that_of_compiled_mmcv(name):
    function, inputs, settings = CASES[name]
    stored = load_file(STORED)
    stored = {key.removeprefix(f"{name}/"): tensor for key, tensor in stored.items() if key.startswith(f"{name}/")}
    found = function(**{key: stored[f"in/{key}"] for key in inputs}, **settings)
    assert {f"out/{key}" for key in found} == {key for key in stored if key.startswith("out/")}
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, stored[f"out/{key}"], rtol=1e-4, atol=1e-4)


def record() -> None:
    if USED != "compiled mmcv":
        sys.exit("there is no compiled mmcv here")
    tensors = {}
    for name, (function, inputs, settings) in CASES.items():
        found = function(**inputs, **settings)
        tensors |= {f"{name}/in/{key}": t.contiguous() for key, t in inputs.items()}
        tensors |= {f"{name}/out/{key}": t.contiguous() for key, t in found.items()}
    save_file({key: t.clone() for key, t in tensors.items()}, STORED)
    print(f"wrote {STORED}")


# ---- the same as their definitions ------------------------------------------------------------------------------------


def test_soft_nms_lowers_the_score_of_a_box_that_overlaps():
    boxes, scores = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]]), torch.tensor([0.9, 0.8, 0.7])
    for method, factor in (("linear", 0.5), ("gaussian", torch.tensor(-0.5).exp())):  # their IoU is 1/2, sigma 1/2
        dets, kept = ops.soft_nms(boxes, scores, 0.3, sigma=0.5, method=method)
        assert kept.tolist() == [0, 2, 1] and torch.allclose(dets[:, 4], torch.tensor([0.9, 0.7, 0.8 * factor]))


def test_batched_nms_compares_boxes_of_the_same_class():
    boxes, scores = torch.tensor([[0.0, 0, 10, 10]] * 3), torch.tensor([0.5, 0.9, 0.7])
    kept = ops.batched_nms(boxes, scores, torch.tensor([0, 1, 1]), {"type": "nms", "iou_threshold": 0.5})[1]
    assert kept.tolist() == [1, 0]


def test_nms_of_no_boxes_keeps_none():
    dets, kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and kept.tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_roi_align_of_a_flat_region_is_its_value_and_spreads_the_gradient_inside_it(dtype):
    features = torch.full((1, 2, 16, 16), 3.0, dtype=dtype, requires_grad=True)
    found = ops.roi_align(features, torch.tensor([[0, 2.0, 2, 10, 10]], dtype=dtype), 4, 1.0, 2, "avg", True)
    assert found.dtype == dtype and torch.equal(found, torch.full((1, 2, 4, 4), 3.0, dtype=dtype))
    found.sum().backward()
    assert features.grad.dtype == dtype and features.grad.sum().item() == pytest.approx(32, rel=1e-2)
    assert not features.grad[:, :, 12:].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_a_deformable_convolution_without_offsets_is_a_convolution(groups):
    x, weight, bias = torch.randn(2, 4, 9, 7), torch.randn(6, 4 // groups, 3, 3), torch.randn(6)
    ours, theirs = ([t.clone().requires_grad_() for t in (x, weight, bias)] for _ in range(2))
    offset, mask = torch.zeros(2, 18, 5, 4, requires_grad=True), torch.ones(2, 9, 5, 4, requires_grad=True)
    masked = ops.modulated_deform_conv2d(ours[0], offset, mask, *ours[1:], 2, 1, 1, groups, 1)
    plain = F.conv2d(*theirs, 2, 1, 1, groups)
    torch.testing.assert_close(masked, plain, rtol=1e-4, atol=1e-4)
    without_bias = F.conv2d(x, weight, None, 2, 1, 1, groups)
    torch.testing.assert_close(
        ops.deform_conv2d(x, offset, weight, 2, 1, 1, groups, 1), without_bias, rtol=1e-4, atol=1e-4
    )
    (masked**2).sum().backward()
    (plain**2).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3)
    assert offset.grad.any() and mask.grad.any()


def test_a_whole_pixel_of_offset_moves_the_picture():
    x, weight = torch.randn(1, 1, 8, 8), torch.ones(1, 1, 1, 1)
    offset = torch.zeros(1, 2, 8, 8)
    offset[:, 0], offset[:, 1] = 1, 2  # down, then to the right
    found = ops.deform_conv2d(x, offset, weight)
    assert torch.equal(found[0, 0, :7, :6], x[0, 0, 1:, 2:]) and not found[0, 0, 7].any()


def test_a_larger_mask_is_read_as_mmcv_reads_it():
    """Its values in memory, in the order in which they lie; the gradient goes back to those alone."""
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 1, 1)
    mask = torch.rand(1, 1, 6, 6, requires_grad=True)
    found = ops.modulated_deform_conv2d(x, torch.zeros(1, 2, 6, 6), mask, weight, None, 1, 0, 1, 1, 1)
    torch.testing.assert_close(found, F.conv2d(x, weight) * mask.flatten()[:9].view(1, 1, 3, 3))
    found.sum().backward()
    assert mask.grad.flatten()[:9].all() and not mask.grad.flatten()[9:].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_focal_loss_is_mmdets_plain_one(weighted):
    logits, labels = 4 * torch.randn(50, 7), torch.randint(0, 7 if weighted else 8, (50,))  # 7: background
    weight = torch.rand(7) if weighted else None
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    ours = ops.sigmoid_focal_loss(a, labels, 2.0, 0.25, weight, "sum")
    plain = py_sigmoid_focal_loss(b, F.one_hot(labels, 8)[:, :7], reduction="none")
    plain = (plain * (weight[labels, None] if weighted else 1)).sum()
    ours.backward()
    plain.backward()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_deformable_attention_is_mmcvs_plain_one():
    shapes = torch.tensor([[6, 4], [3, 2]])
    tensors = [torch.randn(2, 30, 2, 4), torch.rand(2, 5, 2, 2, 3, 2), torch.rand(2, 5, 2, 2, 3)]
    a, b = ([t.clone().requires_grad_() for t in tensors] for _ in range(2))
    ours = attention.MultiScaleDeformableAttnFunction.apply(a[0], shapes, torch.tensor([0, 24]), a[1], a[2], 64)
    plain = attention.multi_scale_deformable_attn_pytorch(b[0], shapes, b[1], b[2])
    (ours**2).sum().backward()
    (plain**2).sum().backward()
    torch.testing.assert_close(ours, plain)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


# ---- what is missing, and what is there -------------------------------------------------------------------------------


def test_a_missing_operator_ends_the_program_with_one_line():
    with pytest.raises(SystemExit, match="this network calls mmcv's operator carafe_forward, .* compile mmcv"):
        operators.Operators(operators.NAME).carafe_forward(1, 2)
    features, rois = torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]])
    with pytest.raises(SystemExit, match="RoIAlign with the maximum"):
        operators.roi_align_forward(
            features, rois, features, None, None, aligned_height=1, aligned_width=1, spatial_scale=1, sampling_ratio=0,
            pool_mode=0, aligned=True,
        )  # fmt: skip


def test_a_compiled_mmcv_is_used_where_there_is_one(monkeypatch):
    compiled = type(sys)(operators.NAME)
    monkeypatch.setitem(sys.modules, operators.NAME, compiled)
    assert operators.provide() == "compiled mmcv" and sys.modules[operators.NAME] is compiled
    monkeypatch.delitem(sys.modules, operators.NAME)
    monkeypatch.setattr(operators.importlib, "import_module", lambda name: sys.modules.setdefault(name, compiled))
    assert operators.provide() == "compiled mmcv"

    def broken(name):
        raise ImportError("undefined symbol: another torch")

    monkeypatch.delitem(sys.modules, operators.NAME)
    monkeypatch.setattr(operators.importlib, "import_module", broken)
    assert operators.provide() == "torchvision" and sys.modules[operators.NAME].nms is operators.nms


if __name__ == "__main__":
    record()
