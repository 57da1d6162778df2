import io
import pickle

import torch

from exercises.small_training import make, train_one_epoch

NAME = "train"
TITLE = {"en": "Make resume exact", "zh": "让断点续训精确一致"}
TEXT = {
    "en": """
A training that was stopped and goes on should give the same network as one that was never stopped, bit for bit. Else
nobody knows whether a better result comes from an idea or from a stop. Loading the weights is not enough. Write
`train(epochs, saved=None)` with `make` and `train_one_epoch` of exercises/small_training.py: it trains until `epochs`
epochs are done, and returns a checkpoint with "model", "losses" (of every step so far), "rates" (of every epoch so
far), and what else you need. train(4) must equal train(4, saved), where saved is what train(2) returned, written to a
file and read in another process. The checkpoint may hold tensors, numbers, strings, lists and dicts.
""",
    "zh": """
训练中断后继续，应当得到与从未中断的训练逐位相同的网络。否则没人知道更好的结果是来自一个想法，还是来自一次中断。只加载
权重是不够的。用 exercises/small_training.py 里的 `make` 和 `train_one_epoch` 写出 `train(epochs, saved=None)`：训练到
完成 `epochs` 轮为止，返回检查点，其中有 "model"、"losses"（至今每一步的损失）、"rates"（至今每一轮的学习率），以及你需
要的其他内容。train(4) 必须等于 train(4, saved)，其中 saved 是 train(2) 的返回值，写入文件后在另一个进程中读出。检查点里
可以有张量、数、字符串、列表和字典。
""",
}
HINTS = {
    "en": [
        "What changes in a training besides the weights? The optimizer's momentum, the schedule's place, the random numbers.",
        "All three have a state: state_dict() of optimizer and scheduler, torch.get_rng_state(). make() draws random numbers "
        "too, so that torch.set_rng_state comes after it. And only the epochs that are left are to be trained.",
    ],
    "zh": [
        "除了权重，训练中还有什么在变？优化器的动量、学习率计划的进度、随机数。",
        "三者都有状态：优化器和 scheduler 的 state_dict()，以及 torch.get_rng_state()。make() 也会抽取随机数，所以 "
        "torch.set_rng_state 要放在它后面。并且只训练剩下的轮次。",
    ],
}


def through_a_file(saved: dict) -> dict:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def elsewhere(function, seed: int, *words) -> dict:
    """What the function returns in a process whose random numbers are others; ours stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return function(*words)


def check(function) -> tuple[str, str] | None:
    whole, half = (elsewhere(function, 5, epochs) for epochs in (4, 2))
    for saved in (whole, half):
        if not isinstance(saved, dict) or {"model", "losses", "rates"} - saved.keys():
            return 'the result must hold "model", "losses" and "rates"', '返回值必须有 "model"、"losses" 和 "rates"'
    try:
        half = through_a_file(half)
    except pickle.UnpicklingError:
        return (
            "the checkpoint holds objects: save their state_dict(), which is safe to load",
            "检查点里有对象：应保存它们的 state_dict()，这样才能安全加载",
        )
    one, two = (elsewhere(function, seed, 4, through_a_file(half)) for seed in (6, 7))
    return fault(whole, half, one, two)


def fault(whole: dict, half: dict, one: dict, two: dict) -> tuple[str, str] | None:
    """What the first difference between the whole training and the resumed one comes from."""
    done, steps = len(half["rates"]), len(half["losses"])
    if (len(whole["rates"]), done) != (4, 2) or len(one["rates"]) not in (4, 2):
        return (
            f"after resuming from epoch 2 of 4, {len(one['rates'])} epochs are noted: train only those that are left",
            f"从 4 轮中的第 2 轮恢复之后，记录了 {len(one['rates'])} 轮：只训练剩下的轮次",
        )
    if one["losses"][:steps] != half["losses"] or len(one["rates"]) == 2:
        return (
            "the losses and rates of the first two epochs are gone after resuming",
            "恢复之后，前两轮的损失和学习率不见了",
        )
    if one["rates"][2] != whole["rates"][2]:
        return (
            f"epoch 3 has the learning rate {one['rates'][2]:g} after resuming, else {whole['rates'][2]:g}: the optimizer "
            "holds it, and the optimizer is new",
            f"恢复之后第 3 轮的学习率是 {one['rates'][2]:g}，不中断时是 {whole['rates'][2]:g}：学习率在优化器里，"
            "而优化器是新建的",
        )
    if one["rates"] != whole["rates"]:
        return (
            f"epoch 4 has the learning rate {one['rates'][3]:g} after resuming, else {whole['rates'][3]:g}: the schedule "
            "begins anew",
            f"恢复之后第 4 轮的学习率是 {one['rates'][3]:g}，不中断时是 {whole['rates'][3]:g}：学习率计划从头开始了",
        )
    if one["losses"] != two["losses"]:
        return (
            "resuming twice gives two results: order and dropout come from random numbers that nobody saved",
            "恢复两次得到两个结果：数据顺序和 dropout 用的随机数没有保存",
        )
    if one["losses"][steps] != whole["losses"][steps]:
        return (
            f"the first step after resuming has the loss {one['losses'][steps]:.4f}, else {whole['losses'][steps]:.4f}: "
            "other weights, or order and dropout of another epoch",
            f"恢复后第一步的损失是 {one['losses'][steps]:.4f}，不中断时是 {whole['losses'][steps]:.4f}：权重不同，或者用了别"
            "的轮次的顺序和 dropout",
        )
    if one["losses"] != whole["losses"]:
        return (
            "the first step after resuming is right, the second is not: the optimizer has lost its momentum",
            "恢复后第一步是对的，第二步不对：优化器丢失了动量",
        )
    if not all(torch.equal(one["model"][name], value) for name, value in whole["model"].items()):
        return "the losses agree, the weights in the end do not", "损失一致，最后的权重却不同"
    return None


# ---- mistakes: the solution without one of its parts ---------------------------------------------------------------


def made(
    restores=("optimizer", "scheduler", "random"), again=False, forgets=False, seeds=True, objects=False, momentum=True
):
    def train(epochs, saved=None):
        if seeds or not saved:
            torch.manual_seed(0)
        model, optimizer, scheduler = make()
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        for name in ("model", *restores) if saved else ():
            torch.set_rng_state(saved[name]) if name == "random" else parts[name].load_state_dict(saved[name])
        if not momentum:
            optimizer.state.clear()
        losses, rates = ([], []) if forgets or not saved else (saved["losses"], saved["rates"])
        for _ in range(0 if again else len(saved["rates"]) if saved else 0, epochs):
            new_losses, rate = train_one_epoch(model, optimizer, scheduler)
            losses, rates = [*losses, *new_losses], [*rates, rate]
        states = {name: part.state_dict() for name, part in parts.items()}
        states |= {"optimizer": optimizer} if objects else {}
        return states | {"losses": losses, "rates": rates, "random": torch.get_rng_state()}

    return train


MISTAKES = {
    "trains all epochs again": made(again=True),
    "loses the history": made(forgets=True),
    "loses the schedule": made(("optimizer", "random")),
    "loses the random numbers": made(("optimizer", "scheduler"), seeds=False),
    "seeds anew": made(("optimizer", "scheduler")),
    "loses the optimizer": made(("scheduler", "random")),
    "loses the momentum": made(momentum=False),
    "saves objects": made(objects=True),
}
