"""Butcher tableaux of the explicit fixed-step methods; each checks its own coefficients."""

from __future__ import annotations

from dataclasses import dataclass

from robustode.errors import ModelError, unknown


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method: k_i = f(θ(t + θ_i h), x + h Σ_j a_ij k_j), x⁺ = x + h Σ b_i k_i.

    Attributes:
        a: strictly lower triangular stage coefficients, one row per stage.
        b: weights of the stages, summing to 1.
        depth: abscissa, in steps, at which stage i takes the weights θ. It is the usual c_i = Σ_j a_ij except for
            Euler, which takes the weights at the middle of its step: with as many knots as steps it is then exactly a
            layered net.
        order: order of convergence for weights that are smooth in depth.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    depth: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        if [len(row) for row in self.a] != list(range(len(self.b))) or len(self.depth) != len(self.b):
            raise ModelError(f"tableau '{self.name}'", expected="a strictly lower triangular and one depth per stage")
        c = [sum(row) for row in self.a]
        conditions = [(sum(self.b), 1.0), (sum(b * ci for b, ci in zip(self.b, c, strict=True)), 0.5)]
        conditions.append((sum(b * ci**2 for b, ci in zip(self.b, c, strict=True)), 1 / 3))
        conditions.append((sum(b * ci**3 for b, ci in zip(self.b, c, strict=True)), 1 / 4))
        for p, (got, want) in enumerate(conditions[: self.order], start=1):
            if abs(got - want) > 1e-14:
                raise ModelError(f"tableau '{self.name}', condition of order {p}", expected=want, got=got)

    @property
    def stages(self) -> int:
        """Evaluations of the right-hand side in one step."""
        return len(self.b)


_ALL = (
    Tableau("euler", a=((),), b=(1.0,), depth=(0.5,), order=1),
    Tableau("midpoint", a=((), (0.5,)), b=(0.0, 1.0), depth=(0.0, 0.5), order=2),
    # The 3/8 rule, which is what torchdiffeq calls rk4.
    Tableau(
        "rk4",
        a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
        depth=(0.0, 1 / 3, 2 / 3, 1.0),
        order=4,
    ),
)
TABLEAUX: dict[str, Tableau] = {tableau.name: tableau for tableau in _ALL}


def tableau(name: str) -> Tableau:
    """Return the method of that name; raise `ModelError` with the nearest name if there is none."""
    if name not in TABLEAUX:
        raise unknown("solver", name, TABLEAUX, ModelError)
    return TABLEAUX[name]
