import pytest
import torch

from wn_rl.agents.losses import huber, q_learning_loss, q_learning_td_error

Q_TM1 = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
A_TM1 = torch.tensor([1, 2, 0])
R_T = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
DISCOUNT_T = torch.tensor([0.9, 0.0, 0.99], dtype=torch.float64)
Q_T = torch.tensor([[0.0, 5.0, 1.0], [9.0, 9.0, 9.0], [-3.0, -2.0, -1.0]], dtype=torch.float64)


def test_td_error_golden() -> None:
    # 1 + .9*5 - 2;  -1 + 0*9 - 4;  .5 + .99*(-1) - 0
    expected = torch.tensor([3.5, -5.0, -0.49], dtype=torch.float64)
    torch.testing.assert_close(q_learning_td_error(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T), expected)


def test_huber_golden_and_its_gradient_is_the_clipped_error() -> None:
    error = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = huber(error)
    torch.testing.assert_close(value, torch.tensor([2.5, 0.5, 0.125, 0.0, 0.03125, 0.5, 1.5], dtype=torch.float64))
    value.sum().backward()
    torch.testing.assert_close(error.grad, error.detach().clamp(-1, 1))
    torch.testing.assert_close(
        value, torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")
    )


def test_gradient_reaches_the_taken_action_alone() -> None:
    q_tm1, q_t = Q_TM1.clone().requires_grad_(), Q_T.clone().requires_grad_()
    r_t = R_T.clone().requires_grad_()
    td_error = q_learning_td_error(q_tm1, A_TM1, r_t, DISCOUNT_T, q_t)
    q_learning_loss(td_error, torch.ones(3, dtype=torch.float64)).backward()
    # d loss / d q = -clip(td): errors 3.5, -5, -.49
    expected = torch.tensor([[0, -1.0, 0], [0, 0, 1.0], [0.49, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(q_tm1.grad, expected)
    assert q_t.grad is None


def test_loss_is_a_sum_and_weight_zero_removes_a_slot() -> None:
    td_error = torch.tensor([2.0, 0.5, 7.0])
    assert q_learning_loss(td_error, torch.tensor([1.0, 1.0, 0.0])).item() == pytest.approx(1.5 + 0.125)


@pytest.mark.parametrize("position", range(5))
def test_wrong_ranks_are_refused(position: int) -> None:
    arguments = [Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T]
    arguments[position] = arguments[position].unsqueeze(-1)
    with pytest.raises(ValueError, match="must have rank"):
        q_learning_td_error(*arguments)
