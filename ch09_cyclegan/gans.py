"""CycleGAN, pix2pix, DCGAN and WGAN-GP: the networks that each trains, and one update of them, step by step.

A GAN (Goodfellow et al. 2014) is a game of two: a generator makes pictures, a discriminator tells them from real ones, and
each learns from the other's answers. All four here share one shape, so that train.py has one loop for them:

  networks    by name, in one dict; optimizers   by name, Adam with the betas of the papers
  step(a, b)  one update on a batch of each domain -> the losses by name, tensors that stay on the device
  rows(a, b)  what a reader wants to see of these pictures, a row of the sample grid each
"""

import random
from argparse import Namespace
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import models
import utils
from utils import fail, world


class ImagePool:
    """The last fakes, mixed: a discriminator that sees only the newest ones forgets what it knew about the older ones
    (Shrivastava et al. 2017, "Learning from Simulated and Unsupervised Images through Adversarial Training")."""

    def __init__(self, size: int):
        self.size, self.pictures = size, []

    def exchange(self, fakes: Tensor) -> Tensor:
        """(N, 3, S, S) -> as many: each, with probability 1/2, an older fake, whose place in the pool it then takes."""
        chosen = []
        for fake in fakes.detach():
            if len(self.pictures) < self.size:  # not full yet: keep it, and give it too
                self.pictures.append(fake.clone())
            elif self.size and random.random() < 0.5:
                place = random.randrange(self.size)
                fake, self.pictures[place] = self.pictures[place], fake.clone()
            chosen.append(fake)
        return torch.stack(chosen).contiguous(memory_format=torch.channels_last)


class Gan:
    """What all have in common: where the networks run, how an optimizer steps, what is saved."""

    plain = False  # bench.py has a plain one to compare with: channels first, Adam as it comes

    def __init__(self, args: Namespace, device: torch.device, networks: dict[str, nn.Module], betas: tuple):
        self.args, self.device, self.pools = args, device, {}
        layout = torch.contiguous_format if self.plain else torch.channels_last  # how fast convolutions want it
        self.networks = {name: net.to(device, memory_format=layout) for name, net in networks.items()}
        if world() > 1:  # every process drew its own weights; all start from the first one's
            for net in self.networks.values():
                for tensor in net.state_dict().values():
                    dist.broadcast(tensor, 0)
        self.optimizers = {
            part: torch.optim.Adam(
                [p for name, net in networks.items() if name[0] == part[0] for p in net.parameters()],
                args.lr,
                betas,
                weight_decay=args.weight_decay,
                fused=device.type in ("cpu", "cuda") and not self.plain,  # one kernel for all parameters
            )
            for part in ("generators", "discriminators")  # the networks' names begin with g or d
        }
        if args.compile:
            self.networks = {name: torch.compile(net) for name, net in self.networks.items()}

    def run(self, name: str, x: Tensor) -> Tensor:
        """A network's forward pass, in bfloat16 where that is asked for; weights, results and losses are float32."""
        bf16 = self.args.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
            return self.networks[name](x).float()

    def judge_only(self, judging: bool) -> None:
        """While the discriminators judge for the generators' update, gradients flow through them but not into them."""
        for group in self.optimizers["discriminators"].param_groups:
            for p in group["params"]:
                p.requires_grad_(not judging)

    def update(self, part: str, loss: Tensor) -> None:
        """One optimizer step down the gradient of `loss`."""
        optimizer = self.optimizers[part]
        optimizer.zero_grad()
        loss.backward()
        if world() > 1:
            # DistributedDataParallel wants one forward pass for one backward; here a network has several, or judges only
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            flat = torch.cat([g.flatten() for g in grads])
            dist.all_reduce(flat)
            for g, mean in zip(grads, (flat / world()).split([g.numel() for g in grads]), strict=True):
                g.copy_(mean.view(g.shape))
        optimizer.step()

    def set_lr(self, lr: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr

    def train(self, training: bool = True) -> None:
        for net in self.networks.values():
            net.train(training)

    def weights(self, only: str = "") -> dict[str, Tensor]:
        """All networks' tensors by name, `g_ab.1.weight`; with `only`, those of networks whose names begin so."""
        return {
            f"{name}.{key}": tensor.detach().contiguous()
            for name, net in self.networks.items()
            if name.startswith(only)
            for key, tensor in utils.unwrap(net).state_dict().items()
        }

    def state(self) -> dict:
        """All that a resumed run needs; the pools of all processes, which differ. The learning rate follows from the epoch."""
        pools = [{name: pool.pictures for name, pool in self.pools.items()}]
        if world() > 1:
            pools = [None] * world()
            dist.all_gather_object(pools, {n: [p.cpu() for p in pool.pictures] for n, pool in self.pools.items()})
        optimizers = {part: optimizer.state_dict() for part, optimizer in self.optimizers.items()}
        return {"model": self.weights(), "optimizers": optimizers, "pools": pools}

    def load_state(self, saved: dict, path) -> None:
        if len(saved["pools"]) != world():
            fail(f"this run was trained by {len(saved['pools'])} process(es), not {world()}; resume it with as many")
        for name, net in self.networks.items():
            keys = {k.removeprefix(f"{name}."): t for k, t in saved["model"].items() if k.startswith(f"{name}.")}
            utils.load_state(utils.unwrap(net), keys, path, saved["meta"]["arch"])
        for part, optimizer in self.optimizers.items():
            utils.load_state(optimizer, saved["optimizers"][part], path, saved["meta"]["arch"])
        for name, pool in self.pools.items():
            pool.pictures = [p.to(self.device) for p in saved["pools"][utils.rank()][name]]


def generator(args: Namespace, **more) -> nn.Module:
    return models.build(args.arch, args.image_size, args.width, args.upsample, **more)


def least_squares(scores: Tensor, target: float) -> Tensor:
    """LSGAN (Mao et al. 2017): the squared distance of the scores from 1 for real, 0 for fake. Unlike the logarithm, it
    still pulls at fakes that are already on the right side."""
    return ((scores - target) ** 2).mean()


def log_loss(scores: Tensor, target: float) -> Tensor:
    """The loss of the first GANs: binary cross-entropy of the scores as logits."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


# ---- CycleGAN ---------------------------------------------------------------------------------------------------------


class CycleGAN(Gan):
    """Zhu et al. 2017: A to B and B to A, from two heaps of pictures without a single pair.

    The discriminators ask that a translated picture looks like its new domain; the cycle (there and back again is the
    picture itself) asks that it is still the same picture; the identity loss (a picture that is in B already stays as it is)
    keeps colours from drifting.
    """

    def __init__(self, args: Namespace, device: torch.device):
        networks = {
            "g_ab": generator(args),
            "g_ba": generator(args),
            "d_a": models.initialise(models.PatchDiscriminator(args.patch, args.width)),
            "d_b": models.initialise(models.PatchDiscriminator(args.patch, args.width)),
        }
        super().__init__(args, device, networks, betas=(0.5, 0.999))
        self.pools = {"a": ImagePool(args.pool), "b": ImagePool(args.pool)}

    def step(self, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        """One update on real pictures of both domains, each (N, 3, S, S) in -1..1."""
        # 1. Translate A to B, and let the same network try B, which it should leave alone; likewise the other way. Instance
        #    norm takes each picture by itself, so both may go through in one batch: half the passes, fuller ones.
        fake_b, same_b = self.run("g_ab", torch.cat([real_a, real_b])).chunk(2)
        fake_a, same_a = self.run("g_ba", torch.cat([real_b, real_a])).chunk(2)
        # 2. Translate the fakes back.
        back_a, back_b = self.run("g_ba", fake_b), self.run("g_ab", fake_a)
        # 3. What the generators want: fakes that pass for real, a closed cycle, no change where none is due.
        self.judge_only(True)
        losses = {
            "gan_ab": least_squares(self.run("d_b", fake_b), 1),
            "gan_ba": least_squares(self.run("d_a", fake_a), 1),
            "cycle_a": F.l1_loss(back_a, real_a),
            "cycle_b": F.l1_loss(back_b, real_b),
            "identity_a": F.l1_loss(same_a, real_a),
            "identity_b": F.l1_loss(same_b, real_b),
        }
        cycle, identity = self.args.lambda_cycle, self.args.lambda_identity
        wanted = losses["gan_ab"] + losses["gan_ba"] + cycle * (losses["cycle_a"] + losses["cycle_b"])
        # 4. Update both generators.
        self.update("generators", wanted + identity * (losses["identity_a"] + losses["identity_b"]))
        # 5. What the discriminators want: 1 for real pictures, 0 for fakes, new and old ones from the pool.
        self.judge_only(False)
        for domain, real, fake in (("a", real_a, fake_a), ("b", real_b, fake_b)):
            old_and_new = self.pools[domain].exchange(fake)
            of_real, of_fake = self.run(f"d_{domain}", torch.cat([real, old_and_new])).chunk(2)
            losses[f"disc_{domain}"] = (least_squares(of_real, 1) + least_squares(of_fake, 0)) / 2
        # 6. Update both discriminators.
        self.update("discriminators", losses["disc_a"] + losses["disc_b"])
        return losses

    def rows(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        fake_b, fake_a = self.run("g_ab", a), self.run("g_ba", b)
        there = {"real A": a, "fake B": fake_b, "back to A": self.run("g_ba", fake_b)}
        return there | {"real B": b, "fake A": fake_a, "back to B": self.run("g_ab", fake_a)}


# ---- pix2pix ----------------------------------------------------------------------------------------------------------


class Pix2Pix(Gan):
    """Isola et al. 2017: A to B, learnt from pairs. The discriminator sees the input beside the output, so a picture that
    is fine but belongs to another input does not pass; the L1 loss asks for this very output.

    Dropout is on in training alone. The paper leaves it on in testing too, as the only source of chance, and finds that it
    changes the result little; here an input has one output.
    """

    def __init__(self, args: Namespace, device: torch.device):
        noise = {"dropout": True} if args.arch.startswith("unet") else {}  # the paper's only source of chance
        networks = {
            "g_ab": generator(args, **noise),
            "d_b": models.initialise(models.PatchDiscriminator(args.patch, args.width, in_channels=6)),
        }
        super().__init__(args, device, networks, betas=(0.5, 0.999))

    def step(self, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        """One update on pairs, each (N, 3, S, S) in -1..1."""
        # 1. Translate.
        fake_b = self.run("g_ab", real_a)
        real_pair, fake_pair = torch.cat([real_a, real_b], 1), torch.cat([real_a, fake_b], 1)  # (N, 6, S, S)
        # 2. What the discriminator wants: 1 for real pairs, 0 for fake ones. Update it.
        of_real, of_fake = self.run("d_b", torch.cat([real_pair, fake_pair.detach()])).chunk(2)
        losses = {"disc_b": (log_loss(of_real, 1) + log_loss(of_fake, 0)) / 2}
        self.update("discriminators", losses["disc_b"])
        # 3. What the generator wants: a pair that passes for real, and the picture that was asked for. Update it.
        self.judge_only(True)
        losses |= {"gan_ab": log_loss(self.run("d_b", fake_pair), 1), "l1": F.l1_loss(fake_b, real_b)}
        self.update("generators", losses["gan_ab"] + self.args.lambda_l1 * losses["l1"])
        self.judge_only(False)
        return losses

    def rows(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"input A": a, "fake B": self.run("g_ab", a), "real B": b}


# ---- DCGAN ------------------------------------------------------------------------------------------------------------


class Dcgan(Gan):
    """Radford et al. 2016: pictures like those of domain B, out of noise."""

    norm, betas = nn.BatchNorm2d, (0.5, 0.999)

    def __init__(self, args: Namespace, device: torch.device):
        size = models.power_of_two(args.image_size)
        discriminator = models.initialise(models.DcganDiscriminator(size, args.width, self.norm))
        super().__init__(args, device, {"g": generator(args), "d": discriminator}, self.betas)
        self.shown = noise(32, device, torch.Generator().manual_seed(args.seed))  # the same in every grid

    def step(self, _, real: Tensor) -> dict[str, Tensor]:
        """One update on real pictures (N, 3, S, S) in -1..1."""
        # 1. Make as many fakes.
        fake = self.run("g", noise(len(real), self.device))
        # 2. What the discriminator wants: 1 for real pictures, 0 for fakes. Real and fake go through apart, each with the
        #    batch norm's statistics of its own kind. Update it.
        losses = {"disc": (log_loss(self.run("d", real), 1) + log_loss(self.run("d", fake.detach()), 0)) / 2}
        self.update("discriminators", losses["disc"])
        # 3. What the generator wants: fakes that pass for real. Update it.
        self.judge_only(True)
        losses["gan"] = log_loss(self.run("d", fake), 1)
        self.update("generators", losses["gan"])
        self.judge_only(False)
        return losses

    def rows(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        fakes = self.run("g", self.shown).split(8)
        return {"real B": b} | {f"fake B, {i + 1}": row for i, row in enumerate(fakes)}


# ---- WGAN-GP ----------------------------------------------------------------------------------------------------------


class WganGp(Dcgan):
    """Gulrajani et al. 2017, "Improved Training of Wasserstein GANs": DCGAN's game for another prize.

    The discriminator becomes a critic: a score without limits, as much higher for real pictures as it can be, but nowhere
    steeper than 1. The difference of its mean scores is then the distance of the two kinds of pictures (Wasserstein's:
    how much must be carried how far), and falls as the fakes get better, which no other loss here does. No batch norm in the
    critic: its slope is asked for at one picture, which must not depend on the others."""

    norm, betas = staticmethod(lambda channels: nn.GroupNorm(1, channels)), (0.0, 0.9)
    critic_steps, penalty = 5, 10.0  # the paper's; there each of the five has real pictures of its own

    def step(self, _, real: Tensor) -> dict[str, Tensor]:
        """One update on real pictures (N, 3, S, S) in -1..1."""
        # 1. The critic first, several times, each time with new fakes: its scores are a distance only if it is at its best.
        for _ in range(self.critic_steps):
            with torch.no_grad():
                fake = self.run("g", noise(len(real), self.device))
            # 2. What it wants: real pictures high, fakes low. The difference, with its sign turned, is the distance.
            distance = self.run("d", real).mean() - self.run("d", fake).mean()
            losses = {"disc_distance": distance, "disc_slope": self.slope_penalty(real, fake)}
            self.update("discriminators", self.penalty * losses["disc_slope"] - distance)
        # 3. What the generator wants: high scores. Update it.
        self.judge_only(True)
        losses["gan"] = -self.run("d", self.run("g", noise(len(real), self.device))).mean()
        self.update("generators", losses["gan"])
        self.judge_only(False)
        return losses

    def slope_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """How far the critic's slope is from 1, squared, at a random place between each real picture and a fake."""
        share = torch.rand(len(real), 1, 1, 1, device=self.device)
        between = torch.lerp(fake, real, share).requires_grad_()
        (slope,) = torch.autograd.grad(self.run("d", between).sum(), between, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def noise(count: int, device: torch.device, source: torch.Generator | None = None) -> Tensor:
    """-> (count, 100, 1, 1), drawn on the CPU: the same on every device."""
    drawn = torch.randn(count, models.DcganGenerator.noise_channels, 1, 1, generator=source)
    return drawn.to(device, non_blocking=True)


MODES = {"cyclegan": CycleGAN, "pix2pix": Pix2Pix, "dcgan": Dcgan, "wgan_gp": WganGp}
