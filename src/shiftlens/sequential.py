"""How many images are enough: one band around a whole map of means that holds at every look, so also at the last.

A population of N images is measured in a fixed order that is as good as random and keeps the classes' shares. After n
of them, each cell of a map has an accuracy over n images; the question is how far it can be from the accuracy over all
N. `RunningBand` answers with one number for all cells, the half-width:

* *All cells at once.* The images' outcomes are centred and summed with random signs, the same sign for an image in all
  cells (a multiplier bootstrap). The largest absolute sum over the cells has the distribution of the largest error,
  with whatever correlation the cells have: V. Chernozhukov, D. Chetverikov and K. Kato, Ann. Statist. 41 (2013); as a
  simultaneous band, J. P. Romano and M. Wolf, JASA 100 (2005). The band has the same width everywhere: the errors
  are not divided by their own standard errors, which would let a cell near 0 or 1 decide by a chance zero. The
  critical value is the order statistic that is exact for a finite number of draws (A. C. A. Hope, JRSS B 30 (1968)).
* *Finite population.* Variances shrink by 1 - n/N, to nothing when all images are measured (W. G. Cochran, Sampling
  Techniques (1977), sections 2.6 and 5.3). Outcomes are centred by class, as the order is stratified in proportion;
  where a class has fewer than `LEAST_OF_A_CLASS` images yet, they are centred as a whole, which is wider: a stratified
  sample in proportion is at least as precise as a simple random one, up to terms of 1/N. What the shares of the classes
  in the sample, which are whole numbers of images, move the accuracy by is added to the half-width.
* *Rare outcomes.* If an outcome has not occurred in n images it may still have a share of about ln(1/a)/n: the
  half-width is never below the exact bound for sampling without replacement, taken for all cells at once. And the
  images not yet seen cannot move a mean by more than their share: it is never above that.
* *Stopping.* The looks are declared before the first image: a geometric sequence and N. The error probability is
  shared among them equally (Bonferroni, a Pocock-like spending in the words of K. K. G. Lan and D. L. DeMets,
  Biometrika 70 (1983)), so all bands of a run hold together. Whatever rule chooses the last look, and however often
  that rule is changed on the way, the band there holds. It costs about a fifth of width against a single look whose
  time was fixed beforehand.

What is measured is a share (each outcome is 0 or 1) or any number. Two things change for a number:

* *Rare values.* What has not been seen in n images may lie anywhere in the metric's bounds: both limits above are
  multiplied by their distance. A metric without bounds (an absolute error) gets the range of the values seen so far
  instead, and no upper limit: a single image whose error exceeds all that were seen is not provided for.
* *Values that are missing.* A mean is then over the images that have a value, a ratio of two sums, and its error is
  that of the linearised ratio (Cochran, section 2.11). Only cells are counted where at least half of the images have a
  value; where there are none, the half-width is infinite.

The probability is over the order of the images, of which the fixed one is a single draw; model and images are given. It
is an asymptotic statement for the bootstrap's part: `benchmarks/adaptive.py` counts how often it holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.stats import CONFIDENCE, FloatArray

FIRST_LOOK = 200
"""Images before the first look: fewer than that are no ground for a normal approximation over thousands of cells."""

FIRST_SHARE = 40
"""The first look is no earlier than at this part of the population, which bounds the number of looks."""

RATIO = 1.25
"""From one look to the next. Finer looks stop nearer to the width asked for, and each is paid with a wider band."""

LAST_SHARE = 0.95
"""Beyond this share of the population there is one look, at all of it: zero width for 5 % more images."""

N_MULTIPLIERS = 2048
LEAST_OF_A_CLASS = 10
GUARD_SHARE = 0.1
"""Part of a look's error probability that goes to the bound on rare outcomes."""

LEAST_PRESENT = 0.5
"""A cell counts where at least this share of the images has a value."""

_ROWS = 256  # draws at a time, so that no second copy of all sums is made


def look_schedule(n_population: int, chunk_size: int = 1) -> tuple[int, ...]:
    """Return after how many images a sweep is looked at, ascending; the last is all of them.

    Parameters
    ----------
    n_population
        Number of images, N, at least 1.
    chunk_size
        Looks happen between whole chunks of that many images.

    Examples
    --------
    >>> look_schedule(1000, 16)
    (208, 272, 352, 448, 560, 704, 880, 1000)
    """
    if n_population < 1 or chunk_size < 1:
        raise InputError(f"expected at least 1 image and chunks of at least 1, got {n_population} and {chunk_size}")
    found: list[int] = []
    wanted = max(FIRST_LOOK, n_population // FIRST_SHARE)
    while True:
        n = -(-wanted // chunk_size) * chunk_size
        if n > LAST_SHARE * n_population:
            return (*found, n_population)
        found.append(n)
        wanted = math.ceil(n * RATIO)


@dataclass(frozen=True)
class Look:
    """What is known after some images.

    Attributes
    ----------
    n_images, n_population
        Images measured, and images there are.
    half_width
        In points, or in the metric's own unit: with the run's confidence, and at all looks together, each cell's mean
        over the whole population is at most this far from its mean over the images measured. 0 when these are all.
    """

    n_images: int
    n_population: int
    half_width: float

    def images_for(self, half_width: float, looks: tuple[int, ...]) -> int:
        """The look at which `half_width` may be expected, from the width here: a guess, for a progress bar."""
        ratio = min((half_width / self.half_width) ** 2, 1.0) if self.half_width > 0 else 1.0
        rest = 1 / self.n_images - 1 / self.n_population
        needed = 1 / (1 / self.n_population + ratio * rest)
        return next((n for n in looks if n >= max(needed - 1e-6, self.n_images)), self.n_population)


def random_signs(positions: NDArray[np.int64], n_draws: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a table of signs, -1 or 1, shape (image, draw): a row depends on an image's position and the seed alone.

    Parameters
    ----------
    positions
        Of the images in their source, at least 0.
    n_draws
        A multiple of 256.
    seed
        Key of the Philox generator; an image of position p has the p-th piece of its stream.
    """
    n_words = n_draws // 64
    generator, at = np.random.Philox(key=seed), 0
    words = np.empty((len(positions), n_words), np.dtype("<u8"))
    for row, position in zip(words, positions.tolist(), strict=True):
        # The generator counts in steps of four numbers, and round in a circle.
        start = position * n_words // 4
        generator.advance((start - at) % 2**256)
        row[:] = generator.random_raw(n_words)
        at = start + n_words // 4
    bits = np.unpackbits(words.view(np.uint8), axis=1).view(np.int8)
    bits *= 2
    bits -= 1
    return bits.astype(np.float32)


class RunningBand:
    """Sums over the images measured so far, from which each look's half-width is made.

    The sums of a share are whole numbers, so they do not depend on how the images were cut into chunks, on the number
    of threads or on the machine; those of a number are float64, whose last digits the rounding of the half-width hides.
    Memory is `n_draws` x cells x 4 bytes (35 MB for 65 x 65 shifts), twice that for numbers, and another 4 bytes where
    values may be missing, however many images there are.

    Parameters
    ----------
    labels
        Class of every image of the population, (N,), in the order of measurement.
    positions
        Position of every image in its source, (N,): the signs belong to it.
    n_cells
        Cells of the map.
    looks
        See `look_schedule`.
    bounds
        Of a number: what a value can be, infinite where it has no bound. None for a share.
    optional
        Whether values may be missing (NaN).
    factor
        What a half-width is multiplied by: 100 for points.
    level
        Confidence of all cells and all looks together.
    n_draws
        Of the bootstrap, a multiple of 256; at least enough for the level of a single look.
    seed
        Of the bootstrap.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        positions: NDArray[np.int64],
        n_cells: int,
        looks: tuple[int, ...],
        *,
        bounds: tuple[float, float] | None = None,
        optional: bool = False,
        factor: float = 100.0,
        level: float = CONFIDENCE,
        n_draws: int = N_MULTIPLIERS,
        seed: int = 0,
    ) -> None:
        n = len(labels)
        if len(positions) != n or n_cells < 1:
            raise InputError(f"expected {n} positions and at least 1 cell, got {len(positions)} and {n_cells}")
        if not looks or looks[-1] != n or any(a >= b for a, b in zip((0, *looks), looks, strict=False)):
            raise InputError(f"expected looks that ascend to {n} images, got {looks}")
        self.looks = looks
        self.n_population = n
        self.n_images = 0
        # The look at all images errs never, so it takes no part of the probability.
        alpha = (1 - level) / max(len(looks) - 1, 1)
        self._rank = int((1 - GUARD_SHARE) * alpha * (n_draws + 1))
        if n_draws % 256 or self._rank < 1:
            raise InputError(f"expected draws in multiples of 256, enough for an error of {alpha:.2g}, got {n_draws}")
        self._rare = math.log(2 * n_cells / (GUARD_SHARE * alpha))
        self._seed, self._factor = seed, factor
        low, high = bounds or (0.0, 1.0)
        self._span = high - low
        self._positions = positions
        # A ratio of two sums is not centred by class: its residuals over all classes add up to nothing.
        self._codes = np.zeros(n, np.int64) if optional else np.unique(labels, return_inverse=True)[1]
        self._sizes = np.bincount(self._codes)
        n_classes = len(self._sizes)
        # float32 holds whole numbers below 2^24 exactly, whatever the order of summation.
        self._signed = np.zeros((n_draws, n_cells), np.float32 if bounds is None else np.float64)
        self._signs = np.zeros((n_draws, n_classes), np.float64)
        self._sums = np.zeros((n_classes, n_cells), np.int64 if bounds is None else np.float64)
        self._seen = np.zeros(n_classes, np.int64)
        self._signed_present = np.zeros((n_draws, n_cells), np.float32) if optional else None
        self._present = np.zeros(n_cells, np.int64)
        self._lowest, self._highest = math.inf, -math.inf

    def add(self, values: NDArray[np.bool_] | NDArray[np.floating[Any]]) -> None:
        """Take in the next images of the order, in whatever portions.

        Parameters
        ----------
        values
            (image, cell), of a share whether the prediction is the label; NaN where a number is missing.
        """
        start, stop = self.n_images, self.n_images + len(values)
        if values.ndim != 2 or values.shape[1] != self._sums.shape[1] or stop > self.n_population:
            raise InputError(
                f"expected up to {self.n_population - start} more images of {self._sums.shape[1]} cells, "
                f"got {values.shape}"
            )
        signs = random_signs(self._positions[start:stop], len(self._signed), self._seed)
        codes, values = self._codes[start:stop], values.astype(self._signed.dtype)
        if self._signed_present is not None:
            there = ~np.isnan(values)
            self._present += there.sum(axis=0)
            self._add_signed(self._signed_present, signs, there.astype(np.float32))
            values = np.where(there, values, 0)
        self._add_signed(self._signed, signs, values)
        for k in np.unique(codes):
            self._sums[k] += values[codes == k].sum(axis=0, dtype=self._sums.dtype)
            self._signs[:, k] += signs[codes == k].sum(axis=0, dtype=np.float64)
        self._seen += np.bincount(codes, minlength=len(self._seen))
        self._lowest = min(self._lowest, float(values.min(initial=math.inf)))
        self._highest = max(self._highest, float(values.max(initial=-math.inf)))
        self.n_images = stop

    @staticmethod
    def _add_signed(sums: NDArray[Any], signs: NDArray[np.float32], values: NDArray[Any]) -> None:
        for rows in range(0, len(sums), _ROWS):
            sums[rows : rows + _ROWS] += signs[:, rows : rows + _ROWS].T @ values

    def look(self) -> Look:
        """Return the half-width after the images taken in so far.

        Raises
        ------
        InputError
            Their number is not on the schedule: the band holds at the declared looks only.
        """
        n, n_all = self.n_images, self.n_population
        if n not in self.looks:
            raise InputError(f"expected a look after one of {self.looks} images, got one after {n}")
        if n == n_all:
            return Look(n, n_all, 0.0)
        unseen = 1 - n / n_all
        # Images with a value in each cell that counts.
        present = np.full(1, n) if self._signed_present is None else self._present[self._counted]
        if not len(present):
            return Look(n, n_all, math.inf)
        fewest = int(present.min())
        rare = self._rare / (n_all * -math.log(unseen)) * n / fewest
        span = self._span if math.isfinite(self._span) else self._highest - self._lowest
        half = max(self._largest_errors()[-self._rank] * math.sqrt(unseen), span * rare) + self._disproportion()
        # All that is not seen may have a value, at the other end of the bounds.
        most = unseen if fewest == n else (n_all - n) / (n_all - n + fewest)
        half = min(float(half), self._span * most)
        # Upwards in the sixth digit: which kernel a processor takes for the means moves the last ones.
        step = 1e6 if self._factor == 100 or not half else 10.0 ** (5 - math.floor(math.log10(half)))
        return Look(n, n_all, math.ceil(step * self._factor * half) / step)

    @property
    def _counted(self) -> NDArray[np.bool_]:
        """The cells where enough images have a value."""
        return self._present >= max(LEAST_PRESENT * self.n_images, 1)

    def _largest_errors(self) -> FloatArray:
        """The largest error over the cells in each draw, as in an infinite population; ascending, in the values' unit.

        For a mean over the images that have a value: of the sums of signed residuals, divided by the share of those.
        """
        n, seen = self.n_images, self._seen
        if seen.min() >= LEAST_OF_A_CLASS and self._signed_present is None:
            means, signs, n_means = self._sums / seen[:, None], self._signs, len(seen)
        else:
            means, signs, n_means = self._sums.sum(axis=0)[None] / n, self._signs.sum(axis=1)[:, None], 1
        largest = np.empty(len(self._signed))
        for rows in range(0, len(largest), _ROWS):
            part = slice(rows, rows + _ROWS)
            if self._signed_present is None:
                errors = self._signed[part] - signs[part] @ means
            else:
                chosen = self._counted
                ratio, share = self._sums[0, chosen] / self._present[chosen], self._present[chosen] / n
                errors = (self._signed[part][:, chosen] - self._signed_present[part][:, chosen] * ratio) / share
            largest[part] = np.abs(errors, out=errors).max(axis=1)
        largest.sort()
        scaled: FloatArray = largest / math.sqrt(n * (n - n_means))
        return scaled

    def _disproportion(self) -> float:
        """By how much the classes' shares in the sample move the mean of any cell, at most; in the values' unit."""
        seen, share = self._seen, self._sizes / self.n_population
        excess = np.where(seen > 0, seen / self.n_images - share, 0.0)
        means = self._sums / np.maximum(seen, 1)[:, None]
        missing = float(share[seen == 0].sum())
        span = self._span if math.isfinite(self._span) else self._highest - self._lowest
        return float(np.abs(excess @ means).max()) + (span * missing if missing else 0.0)
