"""Penalised logistic regression around given logits: the solver of heals and of the diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

MAX_ITERATIONS = 25
NEAR = 1e-3  # gain below which the last Hessian, the dearest part of a step, is used once more
ENOUGH = 1e-8  # gain of the objective below which it counts as reached
TOLERANCES = {"maxiter": 200, "ftol": 1e-10, "gtol": 1e-6}
ARMIJO, SHORTEST = 1e-4, 1e-4  # share of the promised gain that a step must make; smallest step


def fit(a: Matrix, offset: Matrix, target: Matrix, ridge: Matrix, start: Matrix) -> Matrix:
    """The theta (columns, outputs) that minimises

    mean logsumexp(offset + a theta) - sum(target theta) + sum(ridge theta^2) / 2n

    over the n rows of ``a`` (n, columns) with ``offset`` (n, outputs); ``target`` (columns,
    outputs) is the mean of y a over the rows, or what is assumed of it, and ``ridge`` (columns,).
    Two classes (one output): Newton's method with step halving, where ``start`` (columns, outputs)
    changes the last digits at most; more: L-BFGS. float64 throughout but for the Hessian.
    """
    solve = _newton if offset.shape[1] == 1 else _lbfgs
    return solve(a, offset, target, ridge / len(a), start)


def row_losses(logits: Matrix, y: Any) -> Matrix:
    """Log loss (n,) of each row, from logits (n, outputs) and labels (n,)."""
    if logits.shape[1] == 1:
        losses: Matrix = np.logaddexp(0.0, logits[:, 0]) - y * logits[:, 0]
        return losses
    chosen = np.take_along_axis(logits, np.asarray(y, dtype=np.int64)[:, None], axis=1)[:, 0]
    lost: Matrix = np.logaddexp.reduce(logits, axis=1) - chosen
    return lost


def targets(a: Matrix, y: Any, outputs: int) -> Matrix:
    """Mean (columns, outputs) of y a over labelled rows: ``a`` (n, columns), ``y`` (n,)."""
    if outputs == 1:
        binary: Matrix = (np.asarray(y, dtype=np.float64) @ a / len(a))[:, None]
        return binary
    one_hot = np.eye(outputs)[np.asarray(y, dtype=np.int64)]
    means: Matrix = a.T @ one_hot / len(a)
    return means


def sigmoid(logits: Matrix) -> Matrix:
    """1 / (1 + exp(-z)) without overflow."""
    probabilities: Matrix = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return probabilities


def _newton(a: Matrix, offset: Matrix, target: Matrix, ridge: Matrix, start: Matrix) -> Matrix:
    theta, goal, base = start[:, 0].copy(), target[:, 0], offset[:, 0]
    # the Hessian only chooses the direction, so its rounding costs no accuracy
    narrow = a.astype(np.float32)

    def objective(theta: Matrix, z: Matrix) -> float:
        penalty = 0.5 * float((ridge * theta) @ theta)
        return float(np.logaddexp(0.0, z).mean()) - float(theta @ goal) + penalty

    z = base + a @ theta
    value = objective(theta, z)
    gain = NEAR
    for _ in range(MAX_ITERATIONS):
        p = sigmoid(z)
        gradient = p @ a / len(a) - goal + ridge * theta
        if gain >= NEAR:
            hessian = _hessian(narrow, p, ridge)
        step = np.linalg.solve(hessian, -gradient)
        # the logits are linear in theta: halving the step needs no other product with a
        slope, direction, size = float(gradient @ step), a @ step, 1.0
        while size >= SHORTEST:
            lower = objective(theta + size * step, z + size * direction)
            if lower <= value + ARMIJO * size * slope:
                break
            size /= 2
        else:
            break
        theta, z = theta + size * step, z + size * direction
        gain, value = value - lower, lower
        if gain < ENOUGH:
            break
    return theta[:, None]


def _hessian(a: Any, p: Matrix, ridge: Matrix) -> Matrix:
    root = np.sqrt(p * (1.0 - p) / len(a)).astype(np.float32)
    scaled = a * root[:, None]
    hessian: Matrix = (scaled.T @ scaled).astype(np.float64)
    hessian[np.diag_indices_from(hessian)] += ridge + 1e-9  # regular where all p are 0 or 1
    return hessian


def _lbfgs(a: Matrix, offset: Matrix, target: Matrix, ridge: Matrix, start: Matrix) -> Matrix:
    from scipy.optimize import minimize

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        theta = flat.reshape(start.shape)
        z = offset + a @ theta
        top = z.max(axis=1, keepdims=True)
        powers = np.exp(z - top)
        total = powers.sum(axis=1, keepdims=True)
        shrunk = ridge[:, None] * theta
        value = float((np.log(total) + top).mean()) - float((theta * target).sum())
        gradient = a.T @ (powers / total) / len(a) - target + shrunk
        return value + 0.5 * float((shrunk * theta).sum()), gradient.ravel()

    minimum = minimize(
        objective,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options=TOLERANCES,
    )
    theta: Matrix = minimum.x.reshape(start.shape)
    return theta
