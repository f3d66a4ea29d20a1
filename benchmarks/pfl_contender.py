"""The work of ``simulation.py`` in pfl's own simulation: run by that script, in an environment where pfl is installed.

Prints one line of JSON: the seconds at which each round had ended, counted from the end of the first.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from simulation_work import BATCH, LR, MODELS


class _Clock:
    """A callback that notes when each central iteration has ended."""

    def __init__(self) -> None:
        from pfl.callback.base import TrainingProcessCallback
        from pfl.metrics import Metrics

        ends = self.ends = []

        class Ends(TrainingProcessCallback):
            def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
                ends.append(time.perf_counter())
                return False, Metrics()

        self.callback = Ends()


def main(name: str, cohort: int, rounds: int, sizes: list[int]) -> None:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    silos = {
        str(silo): Dataset(
            raw_data=[
                torch.from_numpy(rng.standard_normal((rows, 784), dtype=np.float32)),
                torch.from_numpy(rng.integers(0, 10, rows)),
            ],
            user_id=str(silo),
        )
        for silo, rows in enumerate(sizes)
    }
    net = MODELS[name]()

    def loss(x, y, eval=False):
        return torch.nn.functional.cross_entropy(net(x), y)

    def metrics(x, y, eval=False):
        with torch.no_grad():
            return {"loss": Weighted(loss(x, y).item() * len(y), len(y))}

    net.loss, net.metrics = loss, metrics
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0))
    users = FederatedDataset(silos.__getitem__, get_user_sampler("random", list(silos)))
    clock = _Clock()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(rounds, rounds + 1, cohort, None),
        backend=SimulatedBackend(users, None),
        model=model,
        model_train_params=NNTrainHyperParams(BATCH, local_num_epochs=1, local_learning_rate=LR),
        model_eval_params=NNEvalHyperParams(None),
        callbacks=[clock.callback],
    )
    print(json.dumps([end - clock.ends[0] for end in clock.ends]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
