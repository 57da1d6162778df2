"""The operators of mmcv that mmdet's detectors call, by torchvision and plain PyTorch: nothing has to be compiled (course 7-4).

    python operators.py          # says whose operators are used: torchvision's, or those of a compiled mmcv

mmcv's layers call a compiled module, mmcv._ext. PyPI has no built package with it: it would have to be compiled here, for a
GPU with NVIDIA's compiler. The package mmcv-lite is mmcv without that module. provide() puts the functions of this file in its
place; call it before mmdet is imported. On a GPU they run torchvision's CUDA kernels. If a compiled mmcv is installed, it is
used, and this file does nothing.

The functions keep mmcv's calling convention, which is why they look the way they do: the caller hands over the tensor that
receives the result (`output`, `grad_input`, ...), and the backward pass is a function of its own. Here a backward function
computes the forward one again and asks autograd for the gradients. An operator that is missing here (there are about 200 in
all) can be imported, and ends the program with one line when it is called.
"""

import importlib
import sys
import types
import warnings
from importlib.machinery import ModuleSpec

import torch
import torch.nn.functional as F
import torchvision.ops

from utils import fail, say

NAME = "mmcv._ext"


class Operators(types.ModuleType):
    """The module that stands in for mmcv._ext."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            fail(f"this network calls mmcv's operator {name}, which operators.py does not have: compile mmcv (README)")

        return missing


def provide() -> str:
    """Makes `import mmcv.ops` work -> whose operators are used: "torchvision" or "compiled mmcv"."""
    warnings.filterwarnings("ignore", ".*invalid escape sequence", SyntaxWarning)  # in mmdet, since Python 3.12
    if NAME not in sys.modules:
        try:
            importlib.import_module(NAME)
        except ImportError:  # there is none, or it was compiled for another version of torch
            sys.modules[NAME] = module = Operators(NAME)
            module.__spec__ = ModuleSpec(NAME, __loader__)  # mmcv looks here to learn whether the module exists
            vars(module).update({function.__name__: function for function in FUNCTIONS})
    return "torchvision" if isinstance(sys.modules[NAME], Operators) else "compiled mmcv"


def write_gradients(function, inputs: list, grad_output: torch.Tensor, results: list) -> None:
    """Writes the gradients with respect to `inputs`, given that with respect to function(*inputs), into `results`."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        gradients = torch.autograd.grad(function(*inputs), inputs, grad_output)
    for result, gradient in zip(results, gradients, strict=True):
        result.copy_(gradient)


# ---- boxes ------------------------------------------------------------------------------------------------------------


def outer(boxes: torch.Tensor, offset: int) -> torch.Tensor:
    """(N, 4) -> (N, 4): boxes with offset 1 reach to the end of their last pixel, those with offset 0 to its beginning."""
    return boxes.float() + boxes.new_tensor([0, 0, offset, offset])


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """(N, 4), (N) -> (K): the indices of the boxes that overlap with no box of a higher score, highest score first."""
    return torchvision.ops.nms(outer(boxes, offset), scores.float(), iou_threshold)


def softnms(boxes, scores, dets, iou_threshold: float, sigma: float, min_score: float, method: int, offset: int):
    """Soft-NMS (Bodla et al. 2017): a box that overlaps with a better one is not dropped; its score becomes smaller.

    boxes (N, 4), scores (N) -> (K): the indices of the boxes whose score stays above `min_score`, in the order in which
    they were taken. Writes these boxes and their new scores into the first K rows of dets (N, 5).
    method: 0 is plain NMS, 1 multiplies a score by 1 - IoU, 2 by exp(-IoU^2 / sigma).
    """
    ends, scores = outer(boxes, offset), scores.clone()
    candidates, taken = torch.arange(len(boxes)), []
    while len(candidates):
        best = candidates[scores[candidates].argmax()]
        dets[len(taken), :4], dets[len(taken), 4] = boxes[best], scores[best]
        taken.append(int(best))
        candidates = candidates[candidates != best]
        iou = torchvision.ops.box_iou(ends[best, None], ends[candidates])[0]
        near = iou >= iou_threshold
        factors = (~near, torch.where(near, 1 - iou, 1), (-(iou**2) / sigma).exp())[method]
        scores[candidates] *= factors
        candidates = candidates[scores[candidates] >= min_score]
    return torch.tensor(taken, dtype=torch.long)


def nms_match(dets: torch.Tensor, iou_threshold: float) -> list[list[int]]:
    """(N, 5) -> one list for each box that NMS keeps: its index, then those of the boxes that it removes."""
    iou = torchvision.ops.box_iou(dets[:, :4], dets[:, :4]).fill_diagonal_(1)
    candidates, groups = dets[:, 4].argsort(descending=True, stable=True), []
    while len(candidates):
        same = iou[candidates[0], candidates] >= iou_threshold
        groups.append(candidates[same].tolist())
        candidates = candidates[~same]
    return groups


# ---- features of regions ----------------------------------------------------------------------------------------------


def make_roi_align(rois, aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned):
    """-> the function (N, C, H, W) -> (R, C, height, width) for regions (R, 5) of (image, x1, y1, x2, y2)."""
    if pool_mode != 1:
        fail("RoIAlign with the maximum instead of the mean: torchvision does not have it; compile mmcv (README)")
    size = aligned_height, aligned_width

    def roi_align(input):  # in float32: torchvision has no bfloat16
        result = torchvision.ops.roi_align(input.float(), rois.float(), size, spatial_scale, sampling_ratio, aligned)
        return result.to(input.dtype)

    return roi_align


def roi_align_forward(input, rois, output, argmax_y, argmax_x, **settings):
    """RoIAlign (He et al. 2017, "Mask R-CNN"): a grid of bilinear samples in each region."""
    output.copy_(make_roi_align(rois, **settings)(input))


def roi_align_backward(grad_output, rois, argmax_y, argmax_x, grad_input, **settings):
    anything = torch.zeros_like(grad_input)  # the operator is linear: its gradient is the same everywhere
    write_gradients(make_roi_align(rois, **settings), [anything], grad_output, [grad_input])


# ---- deformable convolution (Dai et al. 2017; with a mask: Zhu et al. 2019) -------------------------------------------
# torchvision reads the two numbers of groups from the shapes.


def deform_conv(input, offset, weight, bias, mask, stride, padding, dilation):
    """(N, C, H, W), offset (N, 2 G K, H', W'), weight (D, C / groups, k, k), mask (N, G K, H', W') or None -> (N, D, H', W').

    G groups of channels have offsets of their own; K = k * k places of the kernel.
    """
    wide = [None if tensor is None else tensor.float() for tensor in (input, offset, weight, bias, mask)]
    return torchvision.ops.deform_conv2d(*wide[:4], stride, padding, dilation, wide[4]).to(input.dtype)


def make_deform_conv(dH, dW, padH, padW, dilationH, dilationW, **from_the_shapes):
    how = (dH, dW), (padH, padW), (dilationH, dilationW)
    return lambda input, offset, weight: deform_conv(input, offset, weight, None, None, *how)


def deform_conv_forward(input, weight, offset, output, columns, ones, **settings):
    output.copy_(make_deform_conv(**settings)(input, offset, weight))


def deform_conv_backward_input(input, offset, grad_output, grad_input, grad_offset, weight, columns, **settings):
    function = make_deform_conv(**settings)
    results = [grad_input, grad_offset]
    write_gradients(lambda x, places: function(x, places, weight), [input, offset], grad_output, results)


def deform_conv_backward_parameters(input, offset, grad_output, grad_weight, columns, ones, scale=1, **settings):
    function = make_deform_conv(**settings)
    anything = torch.zeros_like(grad_weight)  # linear in the weights
    write_gradients(lambda w: function(input, offset, w), [anything], grad_output, [grad_weight])
    grad_weight *= scale


def make_modulated_deform_conv(
    out_size, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, **from_the_shapes
):  # fmt: skip
    how = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)

    def fit(tensor):
        """mmcv reads a larger map (DyHead gives it some) as if its values in memory had the size of the output."""
        values = tensor.flatten(1)[:, : tensor.shape[1] * out_size.numel()]
        return values.unflatten(1, (tensor.shape[1], *out_size))

    def function(input, offset, mask, weight, bias=None):
        return deform_conv(input, fit(offset), weight, bias, fit(mask), *how)

    return function


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, with_bias, **settings
):  # fmt: skip
    function = make_modulated_deform_conv(output.shape[2:], **settings)
    output.copy_(function(input, offset, mask, weight, bias if with_bias else None))


def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns, grad_input, grad_weight, grad_bias, grad_offset, grad_mask,
    grad_output, with_bias, **settings,
):  # fmt: skip
    inputs, results = [input, offset, mask, weight], [grad_input, grad_offset, grad_mask, grad_weight]
    if with_bias:
        inputs, results = [*inputs, bias], [*results, grad_bias]
    write_gradients(make_modulated_deform_conv(grad_output.shape[2:], **settings), inputs, grad_output, results)


# ---- called on a GPU only: on a CPU, mmdet and mmcv compute these in plain PyTorch themselves -------------------------


def make_focal_loss(target, weight, gamma: float, alpha: float):
    """-> the function logits (N, C) -> losses (N, C) for labels (N), of which C and above mean background.

    Focal loss (Lin et al. 2017): binary cross-entropy in which examples that are classified well count less.
    """

    def focal_loss(logits):
        hit = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
        x, p = logits.float(), logits.float().sigmoid()
        positive, negative = alpha * (1 - p) ** gamma * F.logsigmoid(x), (1 - alpha) * p**gamma * F.logsigmoid(-x)
        losses = -torch.where(hit, positive, negative)
        return losses * weight[target.clamp(max=len(weight) - 1), None] if len(weight) else losses

    return focal_loss


def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    output.copy_(make_focal_loss(target, weight, gamma, alpha)(input))


def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    ones = torch.ones_like(input, dtype=torch.float32)
    write_gradients(make_focal_loss(target, weight, gamma, alpha), [input], ones, [grad_input])


def make_attention(shapes):
    """-> multi-scale deformable attention (Zhu et al. 2021, "Deformable DETR") as mmcv has it in plain PyTorch."""
    attend = sys.modules["mmcv.ops.multi_scale_deform_attn"].multi_scale_deformable_attn_pytorch
    return lambda value, locations, weights: attend(value, shapes, locations, weights)


def ms_deform_attn_forward(value, shapes, level_starts, locations, weights, im2col_step):
    return make_attention(shapes)(value, locations, weights)


def ms_deform_attn_backward(value, shapes, level_starts, locations, weights, grad_output, *results, im2col_step):
    write_gradients(make_attention(shapes), [value, locations, weights], grad_output, list(results))


FUNCTIONS = (
    nms, softnms, nms_match, roi_align_forward, roi_align_backward, deform_conv_forward, deform_conv_backward_input,
    deform_conv_backward_parameters, modulated_deform_conv_forward, modulated_deform_conv_backward,
    sigmoid_focal_loss_forward, sigmoid_focal_loss_backward, ms_deform_attn_forward, ms_deform_attn_backward,
)  # fmt: skip

if __name__ == "__main__":
    say(f"mmcv's operators are those of {provide()}")
