"""The built-in sample: houses with prices, made from a seed, and scikit-learn's small handwritten digits.

    python sample.py                   # writes sample.csv (500 houses) and sample.png (digits): look at them
    python sample.py --rows 2000 --seed 1

Expect: "500 houses; the noise in their prices has a standard deviation of 2.0", the RMSE no model can beat on new houses.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.utils import make_grid

import utils

HOUSING_COLUMNS = ("rooms", "area", "age", "distance", "crime", "pupils", "river")
HOUSING_TARGET = "price"
HOUSING_NOISE = 2.0  # thousand dollars
DIGIT_SEED = 1998


def make_houses(rows: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """-> features (rows, 7) and prices (rows,) in thousand dollars, with normal noise of a standard deviation HOUSING_NOISE.

    The prices are no linear function of the features: age takes its share of what the area is worth, the centre's pull
    fades with the distance, and crowded classes matter only to families, who take many rooms.
    """
    rng = np.random.default_rng(seed)
    rooms = rng.integers(3, 10, rows).astype(float)
    area = 17 * rooms * rng.lognormal(0, 0.15, rows)  # square metres
    age = rng.uniform(0, 100, rows)  # years
    distance = rng.gamma(2.0, 3.0, rows)  # kilometres to the centre
    crime = rng.lognormal(0, 1.2, rows)  # cases a year and thousand heads
    pupils = rng.normal(18, 3, rows)  # a teacher
    river = (rng.random(rows) < 0.1).astype(float)
    price = 6 + 0.16 * area * (1 - 0.006 * age) + 14 * np.exp(-distance / 4)
    price += 3 * river - 2 * np.log1p(crime) - 1.2 * (pupils - 18) * (rooms > 6)
    price += HOUSING_NOISE * rng.standard_normal(rows)
    return np.stack([rooms, area, age, distance, crime, pupils, river], 1), price


def make_digits() -> tuple[Tensor, Tensor]:
    """-> (1797, 1, 28, 28) uint8 and (1797,): scikit-learn's 8x8 digits (Alpaydin and Kaynak 1998), real handwriting.

    Enlarged to 20x20 in the middle of 28x28, white on black, as MNIST's are; in an order that is always the same.
    """
    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16 * 255  # (N, 1, 8, 8)
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).round().clamp(0, 255)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(DIGIT_SEED))
    return F.pad(large, (4, 4, 4, 4)).to(torch.uint8)[order], torch.from_numpy(bunch.target).long()[order]


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500, help="houses (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    features, price = make_houses(args.rows, args.seed)
    header = ",".join((*HOUSING_COLUMNS, HOUSING_TARGET))
    np.savetxt("sample.csv", np.column_stack([features, price]), "%.4f", ",", header=header, comments="")
    print(
        f"{args.rows} houses; the noise in their prices has a standard deviation of {HOUSING_NOISE}; wrote sample.csv"
    )
    images, labels = make_digits()
    rows = torch.cat([images[labels == label][:12] for label in range(10)])
    Image.fromarray(make_grid(rows, nrow=12, padding=1)[0].numpy()).save("sample.png")
    print(f"{len(images):,} digits; wrote sample.png, a row each of 0 to 9")


if __name__ == "__main__":
    utils.start(main)
