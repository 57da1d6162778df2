"""The networks of the torchvision engine, and build(arch, ...) over one dict of names.

    python models.py              # arch, parameters, FLOPs of a picture

Mask R-CNN (He et al. 2017) in five steps, for a picture x:
  backbone     x -> feature maps of several sizes (a feature pyramid: Lin et al. 2017)
  RPN          each place of each map -> is there an object near these anchor boxes, and where exactly? -> proposals
  RoIAlign     each proposal -> a 7 x 7 (boxes) or 14 x 14 (masks) piece of the map of fitting size
  box head     -> which category, and a better box; double boxes are struck out (NMS)
  mask head    -> a 28 x 28 mask for each category, of which the found one's is scaled into the box
"""

import difflib
from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.misc import Conv2dNormActivation

from utils import fail


class MiniBackbone(nn.Module):
    """A pyramid of three maps from eight convolutions. (N, 3, H, W) -> {"0": (N, 64, H/4, W/4), "1": /8, "2": /16}.

    The same network serves both engines. Group normalisation in the pyramid, as batches are small (Wu and He 2018).
    """

    out_channels = 64

    def __init__(self):
        super().__init__()
        conv = partial(Conv2dNormActivation, kernel_size=3, norm_layer=nn.BatchNorm2d)
        self.stem = conv(3, 24, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(a, b, stride=2), conv(b, b)) for a, b in ((24, 48), (48, 96), (96, 128))
        )
        self.pyramid = FeaturePyramidNetwork([48, 96, 128], self.out_channels, norm_layer=partial(nn.GroupNorm, 8))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, maps = self.stem(x), OrderedDict()
        for i, stage in enumerate(self.stages):
            maps[str(i)] = x = stage(x)
        return self.pyramid(maps)


def mini(num_classes: int, frozen: bool = False, **transform) -> MaskRCNN:
    """Mask R-CNN for small pictures and CPUs: a tiny backbone, thin heads, few anchors and few proposals."""
    backbone = MiniBackbone()
    channels, maps = backbone.out_channels, ["0", "1", "2"]
    return MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3),
        rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=100, rpn_batch_size_per_image=64,
        rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=100, box_batch_size_per_image=32,
        box_roi_pool=MultiScaleRoIAlign(maps, output_size=7, sampling_ratio=1),
        box_head=TwoMLPHead(channels * 7 * 7, 256),
        box_predictor=FastRCNNPredictor(256, num_classes),
        mask_roi_pool=MultiScaleRoIAlign(maps, output_size=14, sampling_ratio=1),
        mask_head=MaskRCNNHeads(channels, (64, 64), 1),
        mask_predictor=MaskRCNNPredictor(64, 64, num_classes),
        **transform,
    )  # fmt: skip


def mask_rcnn_r50_fpn(num_classes: int, frozen: bool = False, **transform) -> MaskRCNN:
    """He et al. 2017 with the pyramid of Lin et al. 2017, torchvision's. `frozen` (for pretrained weights) keeps the batch
    statistics and the first layers as they are; from random weights the fixed statistics would make training diverge."""
    norm = partial(FrozenBatchNorm2d, eps=0.0) if frozen else nn.BatchNorm2d
    layers = 3 if frozen else 5  # how many of the backbone's five train, from the last
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm, trainable_layers=layers)
    return MaskRCNN(backbone, num_classes, **transform)


MODELS = {"mini": mini, "mask_rcnn_r50_fpn": mask_rcnn_r50_fpn}


def build(arch: str, num_classes: int, frozen: bool = False, **transform) -> MaskRCNN:
    """-> the network. `num_classes` counts the background; `transform`: min_size, max_size, image_mean, image_std."""
    if arch not in MODELS:
        close = difflib.get_close_matches(arch, MODELS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(MODELS)}"
        fail(f"no architecture {arch!r}; {hint}")
    return MODELS[arch](num_classes, frozen, **transform)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    from torch.utils.flop_counter import FlopCounterMode

    for arch, size in (("mini", 128), ("mask_rcnn_r50_fpn", 800)):
        model = build(arch, 81, min_size=size, max_size=2 * size).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model([torch.rand(3, size, size)])
        print(f"{arch:<20}{count_parameters(model):>12,} parameters {counter.get_total_flops() / 1e9:>8.1f} GFLOP")
