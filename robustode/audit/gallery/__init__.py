"""Models, attacks and data of which it is known whether their numbers deserve belief: what the audit is tested on."""

from robustode.audit.gallery import attacks, behaviour, data, gradients, held_out, honest, outputs, solver
from robustode.audit.gallery.exhibit import Exhibit, Scene, examine
from robustode.audit.gallery.table import SelfTest, self_test

IMPOSTORS: tuple[Exhibit, ...] = (
    *gradients.IMPOSTORS,
    *outputs.IMPOSTORS,
    *behaviour.IMPOSTORS,
    *solver.IMPOSTORS,
    *attacks.IMPOSTORS,
    *data.IMPOSTORS,
    *held_out.IMPOSTORS,
)
HONEST: tuple[Exhibit, ...] = honest.HONEST
EXHIBITS: tuple[Exhibit, ...] = (*IMPOSTORS, *HONEST)

__all__ = ["EXHIBITS", "HONEST", "IMPOSTORS", "Exhibit", "Scene", "SelfTest", "examine", "self_test"]
