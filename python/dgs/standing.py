# SPDX-License-Identifier: Apache-2.0
"""Where an optimizer stands in the run: how far it is, who it is, what it has sent, and what its loop tells."""

from __future__ import annotations

from torch import Tensor

from .config import Settings
from .exchange import Traffic
from .metrics.alone import Alone
from .observed import Observed
from .replica import Replica


class Standing:
    """The part of GradientSGD that says where it stands; with `overlap`, as of the last reply that was applied."""

    settings: Settings
    _replica: Replica | None
    _local_steps: int
    _alone: Alone | None  # of mode sgd
    _observed: Observed  # there

    @property
    def version(self) -> int:
        """Pushes that the server had applied at the last reply (mode sgd: steps taken)."""
        return self._local_steps if self._replica is None else self._replica.session.version

    @property
    def progress(self) -> float:
        """version / max_version, in [0, 1]; 0 where the run has no end."""
        end = self._end
        return min(1.0, self.version / end) if end else 0.0

    @property
    def done(self) -> bool:
        """Whether the run has reached max_version: further steps do nothing."""
        if self._replica is not None:
            return self._replica.session.done
        return self._end is not None and self.version >= self._end

    @property
    def _end(self) -> int | None:
        welcome = None if self._replica is None else self._replica.session.welcome
        return welcome.max_version if welcome else self.settings.max_version

    @property
    def rank(self) -> int:
        """This worker's rank, from 1 (mode sgd: 0)."""
        welcome = None if self._replica is None else self._replica.session.welcome
        return welcome.rank if welcome else 0

    @property
    def worker_index(self) -> int:
        """This worker's number from 0, for a data sampler."""
        return max(0, self.rank - 1)

    @property
    def num_workers(self) -> int:
        """Workers in the run, for a data sampler: world_size - 1, or those active when the world size is open."""
        if self._replica is None:
            return 1
        session, world = self._replica.session, self.settings.world_size
        known = session.welcome.workers if session.welcome else 1
        return world - 1 if world else max(known, session.active)

    @property
    def traffic(self) -> Traffic:
        """Bytes, exchanges, waiting time and staleness so far."""
        return Traffic() if self._replica is None else self._replica.session.traffic

    def observe(self, loss: Tensor | float | None = None, samples: int = 1) -> None:
        """Tells of a step for what the run shows and keeps (docs/metrics.md); in any run, watched or not.

        Costs a few additions where the loss is: no step waits for a GPU. It travels with a push, once a second or so.

        Args:
            loss: the mean over the batch, one number.
            samples: in the batch.
        """
        self._seen.batch(loss, samples)

    def evaluated(self, **values: float) -> None:
        """Tells what an evaluation in this process gave, such as accuracy=0.93; the server's own need no telling."""
        if self._alone is not None:
            self._alone.evaluated(self.version, values)
        else:
            self._seen.measured(values)

    @property
    def _seen(self) -> Observed:
        return self._observed if self._replica is None else self._replica.session.observed
