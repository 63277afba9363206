from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wn_rl.agents.dqn import q_learning_loss, q_learning_target

R_T = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
DISCOUNT_T = torch.tensor([0.9, 0.0, 0.99], dtype=torch.float64)
Q_T = torch.tensor([[0.0, 5.0, 1.0], [9.0, 9.0, 9.0], [-3.0, -2.0, -1.0]], dtype=torch.float64)
# Errors of the actions taken, target - Q: 5.5 - 2, -1 - 4, -.49 - 0
TARGET_T = torch.tensor([5.5, -1.0, -0.49], dtype=torch.float64)
Q_TM1 = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
A_TM1 = torch.tensor([1, 2, 0])
ONES = torch.ones(3, dtype=torch.float64)
LOSS = [Q_TM1, A_TM1, TARGET_T, ONES]


def test_target_golden() -> None:
    # 1 + .9*5;  -1 + 0*9;  .5 + .99*(-1)
    torch.testing.assert_close(q_learning_target(R_T, DISCOUNT_T, Q_T), TARGET_T)


def test_no_gradient_passes_the_target() -> None:
    assert not q_learning_target(
        R_T.clone().requires_grad_(), DISCOUNT_T, Q_T.clone().requires_grad_()
    ).requires_grad


def loss_of_errors(errors: list[float]) -> tuple[Tensor, Tensor]:
    """The loss where Q is zero and the targets are the errors, and its gradient in Q [B, 1]."""
    q_tm1 = torch.zeros(len(errors), 1, dtype=torch.float64, requires_grad=True)
    target_t = torch.tensor(errors, dtype=torch.float64)
    loss = q_learning_loss(q_tm1, torch.zeros(len(errors), dtype=torch.int64), target_t, torch.ones_like(target_t))
    loss.backward()
    assert q_tm1.grad is not None
    return loss.detach(), q_tm1.grad


def test_loss_is_quadratic_within_one_and_linear_beyond() -> None:
    golden = {-3.0: 2.5, -1.0: 0.5, -0.5: 0.125, 0.0: 0.0, 0.25: 0.03125, 1.0: 0.5, 2.0: 1.5}
    for error, value in golden.items():
        assert loss_of_errors([error])[0].item() == pytest.approx(value)


def test_gradient_is_minus_the_clipped_error() -> None:
    errors = [-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0]
    expected = -torch.tensor(errors, dtype=torch.float64).clamp(-1, 1)
    torch.testing.assert_close(loss_of_errors(errors)[1].squeeze(1), expected)


def test_gradient_reaches_the_taken_action_alone() -> None:
    q_tm1 = Q_TM1.clone().requires_grad_()
    q_learning_loss(q_tm1, A_TM1, TARGET_T, ONES).backward()
    # d loss / d q = -clip(error): errors 3.5, -5, -.49
    expected = torch.tensor([[0, -1.0, 0], [0, 0, 1.0], [0.49, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(q_tm1.grad, expected)


def test_loss_is_a_sum_and_weight_zero_removes_a_slot() -> None:
    weight = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    loss = q_learning_loss(Q_TM1, A_TM1, TARGET_T, weight)
    assert loss.item() == pytest.approx(3.0 + 0.49**2 / 2)


@pytest.mark.parametrize(
    ("function", "arguments"), [(q_learning_target, [R_T, DISCOUNT_T, Q_T]), (q_learning_loss, LOSS)]
)
def test_wrong_ranks_are_refused(function: Callable[..., Tensor], arguments: list[Tensor]) -> None:
    for position, argument in enumerate(arguments):
        wrong = [*arguments[:position], argument.unsqueeze(-1), *arguments[position + 1 :]]
        with pytest.raises(ValueError, match="must have rank"):
            function(*wrong)
