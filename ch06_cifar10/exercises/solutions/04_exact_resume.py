import torch

from exercises.small_training import make, train_one_epoch


def train(epochs: int, saved: dict | None = None) -> dict:
    """Trains until `epochs` epochs are done, from the beginning or from where `saved`, an earlier result, stopped -> the
    checkpoint: "model" (a state dict), "losses" (every step's so far), "rates" (every epoch's so far), and more."""
    torch.manual_seed(0)
    model, optimizer, scheduler = make()
    losses, rates = [], []
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])  # momentum: what the steps so far add up to
        scheduler.load_state_dict(saved["scheduler"])
        losses, rates = saved["losses"], saved["rates"]
        # Last: make() has drawn first weights. Without this, dropout and the order of the data would be those of epoch 1.
        # The chapter's train.py needs no such state: it seeds each epoch with the run's seed and the epoch's number.
        torch.set_rng_state(saved["random"])
    for _ in range(len(rates), epochs):  # only the epochs that are left
        new_losses, rate = train_one_epoch(model, optimizer, scheduler)
        losses, rates = [*losses, *new_losses], [*rates, rate]
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    return states | {"losses": losses, "rates": rates, "random": torch.get_rng_state()}
