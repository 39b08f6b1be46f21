"""Data sets as plain arrays: flat float32 inputs in 0 … 1, integer labels, and a fixed split in three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.errors import RecipeError, ToolError
from compiler.train import fashion, letters, mnist, own_data

__all__ = ["DATASETS", "Dataset", "Source", "Split", "is_own", "load"]

# The test set, and which training samples validate, must not move with a recipe's seed: figures of different
# seeds would not be comparable.
_SPLIT_SEED = 20160618


@dataclass(frozen=True)
class Split:
    """Samples: inputs float32 (n, in) in 0 … 1, labels int64 (n,)."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.intp] | slice) -> Split:
        """The samples at `index`, in that order."""
        return Split(self.inputs[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A data set in three parts. Choices are made on `validation`; `test` is only ever reported.

    shape : (channels, height, width) of a sample, or that of the user's own samples; inputs are flat.
    refit : whether `train` holds the samples of `validation` as well: all choices are made, none follow from it.
    """

    name: str
    classes: int
    shape: tuple[int, ...]
    train: Split
    validation: Split
    test: Split
    refit: bool = False

    @property
    def features(self) -> int:
        """Values of one sample."""
        return int(self.train.inputs.shape[1])


@dataclass(frozen=True)
class Source:
    """A data set that recipes can name.

    Attributes
    ----------
    read : gives training and test samples, from a folder if one is given.
    shape : (channels, height, width); classes: how many.
    """

    read: Callable[[Path | None], tuple[Split, Split]]
    shape: tuple[int, ...]
    classes: int


def load(
    name: str, validation: float, folder: Path | None = None, samples: int | None = None, refit: bool = False
) -> Dataset:
    """Load a data set by name and split it; the same arguments always give the same samples.

    Parameters
    ----------
    name : one of `DATASETS`, or ``module:function`` of the user's own code, which is run: see `own_data`.
    validation : share of the training samples that is held back, 0 < validation < 1.
    folder : where the files of the data set lie; for data sets that are files.
    samples : how many of the training samples are used (the first of a fixed random order, validation ones
        included); None for all.
    refit : train on the held-back samples too.

    Raises
    ------
    RecipeError
        There is no such data set, or the split would leave a part empty.
    ToolError
        The data is not there, and something must be installed to get it.
    InputError
        A file is damaged or is not what its name says; the user's own function is not there, fails, or returns
        something else.
    """
    if is_own(name):
        own = own_data.read(name)
        training, test, shape, classes = Split(*own.train), Split(*own.test), own.shape, own.classes
    elif name in DATASETS:
        training, test = DATASETS[name].read(folder)
        shape, classes = DATASETS[name].shape, DATASETS[name].classes
    else:
        raise RecipeError(f"data.name is {name!r}; expected one of {', '.join(DATASETS)}, or module:function")
    order = _permutation(len(training))
    if samples is not None:
        if samples > len(training):
            raise RecipeError(f"data.samples is {samples}; {name} has {len(training)} training samples")
        order = order[:samples]
    held = round(len(order) * validation)
    if not 0 < held < len(order):
        raise RecipeError(f"data.validation is {validation!r}, which is {held} of {len(order)} samples; expected some")
    return Dataset(
        name=name,
        classes=classes,
        shape=shape,
        train=training.take(np.sort(order if refit else order[held:])),
        validation=training.take(np.sort(order[:held])),
        test=test,
        refit=refit,
    )


def is_own(name: str) -> bool:
    """Whether a name in a recipe stands for the user's own code."""
    return ":" in name


def _permutation(count: int) -> NDArray[np.intp]:
    # NumPy promises the stream of the legacy generator for ever; that of the new one may change.
    return np.random.RandomState(_SPLIT_SEED).permutation(count)


def _digits(folder: Path | None) -> tuple[Split, Split]:
    """Scikit-learn's 1,797 handwritten digits, 8x8 pixels of 0 … 16; one in five is for testing."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ToolError(
            "the digits come with scikit-learn, which is not installed; pip install 'eie-kit[torch]'"
        ) from error
    bunch = load_digits()
    samples = Split((bunch.data / 16.0).astype(np.float32), bunch.target.astype(np.int64))
    order = _permutation(len(samples))
    cut = len(samples) // 5
    return samples.take(np.sort(order[cut:])), samples.take(np.sort(order[:cut]))


def _mnist(folder: Path | None) -> tuple[Split, Split]:
    return _splits(mnist.load(folder))


def _fashion(folder: Path | None) -> tuple[Split, Split]:
    return _splits(fashion.load(folder))


def _next_letter(folder: Path | None) -> tuple[Split, Split]:
    train, test = letters.load()
    return Split(*train), Split(*test)


def _splits(files: mnist.Mnist) -> tuple[Split, Split]:
    return (
        Split(_pixels(files.train_images), files.train_labels.astype(np.int64)),
        Split(_pixels(files.test_images), files.test_labels.astype(np.int64)),
    )


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


DATASETS: dict[str, Source] = {
    "digits": Source(_digits, (1, 8, 8), 10),
    "mnist": Source(_mnist, (1, 28, 28), 10),
    "fashion-mnist": Source(_fashion, (1, 28, 28), 10),
    "next-letter": Source(_next_letter, (1, letters.STEPS, len(letters.LETTERS)), len(letters.LETTERS)),
}
"""Name → where it comes from."""
