"""The guard against steps whose loss can't be right: it stops the run, or skips the step."""

import math

from ursa_core.errors import UrsaError

MOST_IN_A_ROW = 10
_MEMORY = 0.98
_LEARNING_STEPS = 20


class Guard:
    """Judges each step by its loss and its gradient, before the weights change.

    A loss of more than ``spike`` times the recent mean is a fault; None allows any.
    """

    def __init__(self, on_fault: str, spike: float | None) -> None:
        self.on_fault, self.spike = on_fault, spike
        # State to store in checkpoints: sound steps, their mean loss, faults in a row.
        self.state = {"seen": 0.0, "mean": 0.0, "in_a_row": 0.0}

    def fault(self, step: int, loss: float, norm: float) -> str | None:
        """Why a step (from 1) with this loss and gradient norm is skipped; None if it is sound.

        Raises:
            UrsaError: The step has a fault and the run has to stop, or too many had in a row.
        """
        seen, mean = self.state["seen"], self.state["mean"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            reason = f"the loss is {loss} and the gradient norm {norm}"
        elif self.spike and seen >= _LEARNING_STEPS and loss > self.spike * mean > 0:
            reason = f"the loss is {loss:.4g}, {loss / mean:.3g} times its recent mean,"
        else:
            memory = min(_MEMORY, seen / (1 + seen))
            mean = memory * mean + (1 - memory) * loss
            self.state = {"seen": seen + 1, "mean": mean, "in_a_row": 0.0}
            return None
        self.state["in_a_row"] += 1
        restart = "start another run with a lower optimizer.learning_rate"
        if self.on_fault == "stop":
            hint = f"give the same command with train.on_fault=skip, or {restart}"
            raise UrsaError(f"{reason} at step {step}", hint)
        if self.state["in_a_row"] >= MOST_IN_A_ROW:
            several = f"the last of {MOST_IN_A_ROW} such steps in a row"
            raise UrsaError(f"{reason} at step {step}, {several}", restart)
        return reason
