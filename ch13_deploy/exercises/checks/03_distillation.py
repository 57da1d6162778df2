import torch

import compress

NAME = "distillation_loss"
TITLE = {"en": "Distillation, and the temperature squared", "zh": "知识蒸馏与温度的平方"}
TEXT = {
    "en": """
A small network learns more from a large one's answers than from labels alone: that a picture is a cat, and a little
like a dog. Both answers are softened: logits / T before softmax. Write
`distillation_loss(student, teacher, temperature)`: logits (N, K) of both. The result is T^2 times the mean over the
rows of KL(teacher, student) = sum of p log(p / q), with p the teacher's softened probabilities and q the student's.
The factor keeps the gradients' size: without it a higher temperature would be a lower learning rate.
""",
    "zh": """
小网络从大网络的答案中学到的，比只从标签学到的更多：这张图片是猫，也有一点像狗。两者的答案都先软化：softmax 之前
logits 除以 T。写出 `distillation_loss(student, teacher, temperature)`：参数是两者的 logits (N, K)。结果是 T^2 乘以
KL(teacher, student) = sum p log(p / q) 在各行上的平均，其中 p 是教师软化后的概率，q 是学生的。这个因子保持梯度的大
小：没有它，温度越高就相当于学习率越低。
""",
}
HINTS = {
    "en": [
        "log_softmax of both softened logits; p is exp of the teacher's.",
        "Sum over the classes, mean over the rows (not over all N * K numbers), then times T squared.",
    ],
    "zh": [
        "对两者软化后的 logits 求 log_softmax；p 是教师那一个的 exp。",
        "在类别上求和，在行上求平均（不是对 N * K 个数求平均），再乘以 T 的平方。",
    ],
}


def made(power=2, soft=(True, True), swap=False, over_all=False):
    def distillation_loss(student, teacher, temperature):
        q, p = ((x / (temperature if s else 1)).log_softmax(1) for x, s in zip((student, teacher), soft, strict=True))
        q, p = (p, q) if swap else (q, p)
        kl = (p.exp() * (p - q)).sum(1).mean() / (q.shape[1] if over_all else 1)
        return temperature**power * kl

    return distillation_loss


MISTAKES = {
    "no T^2": made(power=0),
    "T": made(power=1),
    "only the teacher is softened": made(soft=(False, True)),
    "turned round": made(swap=True),
    "mean over all": made(over_all=True),
}
WHY = {
    "no T^2": ("the factor T^2 is missing", "缺少因子 T^2"),
    "T": ("the factor is T^2, not T", "因子是 T^2，不是 T"),
    "only the teacher is softened": ("the student's logits are not divided by T", "学生的 logits 没有除以 T"),
    "turned round": (
        "this is KL(student, teacher): the teacher's probabilities weigh",
        "这是 KL(student, teacher)：应由教师的概率加权",
    ),
    "mean over all": ("the mean is over the N rows, not over all N * K numbers", "应对 N 行求平均，不是对 N * K 个数"),
}


def check(function) -> tuple[str, str] | None:
    student, teacher = 3 * torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    for temperature in (4.0, 1.0, 10.0):
        words = student.clone().requires_grad_(), teacher.clone(), temperature
        found, right = function(*words), compress.distillation_loss(*words)
        if found.ndim or not torch.isclose(found, right, rtol=1e-4):
            value = f"{float(found.detach().mean()):.4f}", f"{float(right.detach()):.4f}"
            slips = (
                WHY[name] for name, slip in MISTAKES.items() if torch.isclose(found.mean(), slip(*words), rtol=1e-4)
            )
            english, chinese = next(slips, ("p log(p / q), summed over the classes", "p log(p / q)，在类别上求和"))
            return (
                f"T = {temperature:g}: {value[0]}, not {value[1]}: {english}",
                f"T = {temperature:g}：得到 {value[0]}，应为 {value[1]}：{chinese}",
            )
        if not found.requires_grad:
            return "the loss has no gradient in the student", "损失对学生没有梯度"
    return None
