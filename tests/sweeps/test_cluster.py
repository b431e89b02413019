"""What is asked of a cluster, and what travels to it; the cluster itself is in the slow tests beside."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import shiftlens
from shiftlens.cluster import ray_session as raysession
from shiftlens.cluster import remote
from shiftlens.cluster.pools import Cores, Gpus, pool_of
from shiftlens.cluster.ray_session import parse_cluster
from shiftlens.cluster.ray_workers import Cluster, _packed
from shiftlens.data.imageset import ImageSet
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.loading import load_model
from shiftlens.models.wrapping import wrap
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeping import sweep
from shiftlens.tasks.task import OBJECT, Task, Variable

GRID = ShiftGrid(1)


def darkest(x: torch.Tensor) -> torch.Tensor:
    return -x.mean(dim=(2, 3))


def pictures(n: int = 4) -> ImageSet:
    return ImageSet(np.random.default_rng(0).integers(0, 256, (n, 3, 6, 6), dtype=np.uint8), np.arange(n) % 3)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("local", ("local", None)),
        ("local:3", ("local", 3)),
        ("auto", ("auto", None)),
        ("192.0.2.1:6379", ("192.0.2.1:6379", None)),
        ("head.example:6379", ("head.example:6379", None)),
        ("[2001:db8::1]:6379", ("[2001:db8::1]:6379", None)),
    ],
)
def test_a_cluster_is_named(text: str, parsed: tuple[str, int | None]) -> None:
    assert parse_cluster(text) == parsed


@pytest.mark.parametrize("text", ["", "here", "local:0", "local:x", "ray://head:10001", "head", "head:", "a b:1", "-1"])
def test_another_form_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"cluster must be local, local:N .* auto, or HOST:PORT .* got") as caught:
        parse_cluster(text)
    assert "\n" not in str(caught.value)


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raysession.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs Ray.*pip install 'shiftlens\[cluster\]'"):
        sweep(wrap(darkest, mean=0.5, std=0.5), pictures(), GRID, out=tmp_path / "s.zarr", cluster="local")
    assert not (tmp_path / "s.zarr").exists()


def test_a_device_that_no_worker_has_is_refused(tmp_path: Path) -> None:
    model, out = wrap(darkest, mean=0, std=1), tmp_path / "s.zarr"
    with pytest.raises(InputError, match="expected device auto, cpu or cuda, got cuda:1"):
        sweep(model, pictures(), GRID, out=out, cluster="local", device="cuda:1")
    with pytest.raises(InputError, match="expected device auto, cpu or cuda, got mps"):
        sweep(model, pictures(), GRID, out=out, cluster="192.0.2.1:6379", device="mps")
    with pytest.raises(InputError, match="expected device auto or cpu, got cuda"):
        raysession.device_on_cluster("cuda")  # of a study


def test_gpus_of_this_machine_are_counted_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = wrap(darkest, mean=0, std=1), tmp_path / "s.zarr"
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda' was asked for, but torch sees no such GPU"):
            sweep(model, pictures(), GRID, out=out, cluster="local", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="local:3 asks for a GPU for each worker, this machine has 2 GPUs"):
        raysession.device_on_cluster("cuda", "local:3", gpus=True)
    for cluster in ("local", "local:2", "auto", "192.0.2.1:6379"):
        assert raysession.device_on_cluster("cuda", cluster, gpus=True) == "cuda"
        assert raysession.device_on_cluster("auto", cluster, gpus=True) == "cpu"


class Actor:
    """Stands in for a Ray actor; its answers have numbers, and its greeting is what it finds wrong with its GPU."""

    def __init__(self, greeting: str | Exception) -> None:
        self.greeting, self.n_asked = greeting, 0
        self.evaluate = SimpleNamespace(remote=self._evaluate)
        self.greet = SimpleNamespace(remote=lambda: ("greeting", self))

    def _evaluate(self, *question: Any) -> tuple[int, int]:
        self.n_asked += 1
        return id(self), self.n_asked


class NoRay:
    """Stands in for Ray: actors greet as they are told to, those that are `late` not at all."""

    exceptions = SimpleNamespace(RayError=KeyError)

    def __init__(self, *greetings: str | Exception, late: int = 0) -> None:
        self.greetings, self.late = list(greetings), late
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []

    def remote(self, **options: Any) -> Any:
        assert (options["num_gpus"], options["max_restarts"]) == (1, 0)
        return lambda worker: SimpleNamespace(remote=self._start)

    def _start(self) -> Actor:
        self.actors.append(Actor(self.greetings.pop(0) if self.greetings else ""))
        return self.actors[-1]

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        there = [each for each in references if each[1] not in self.actors[len(self.actors) - self.late :]]
        return there[:num_returns], []

    def get(self, reference: Any) -> str:
        if isinstance(reference[1].greeting, Exception):
            raise reference[1].greeting
        return str(reference[1].greeting)

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)


def filled(pool: Gpus, n_members: int) -> list[Any]:
    sent: list[Any] = []
    while pool.has_room(len(sent), n_members):
        sent.append(pool.send())
    return sent


def test_each_gpu_has_one_worker_which_has_a_chunk_and_the_next() -> None:
    ray = NoRay()
    pool = Gpus(ray)
    sent = filled(pool, 2)
    assert [actor.n_asked for actor in ray.actors] == [2, 2]
    pool.answered(sent[0])
    assert pool.send()[0] == sent[0][0], "to the one that has least to do"
    assert not pool.has_room(4, 2)
    pool.end()
    assert ray.killed == ray.actors
    assert pool_of("cuda") is Gpus
    assert pool_of("cpu") is Cores


def test_a_worker_that_is_not_there_yet_gets_no_chunk() -> None:
    """Its GPU is used by others, or its node has no core left."""
    ray = NoRay(late=1)
    pool = Gpus(ray)
    assert len(filled(pool, 2)) == 2
    assert [actor.n_asked for actor in ray.actors] == [2, 0]
    ray.late = 0
    assert pool.has_room(2, 2)


def test_a_worker_that_dies_is_replaced_and_only_what_it_computed_is_blamed() -> None:
    ray = NoRay()
    pool = Gpus(ray)
    first, second = filled(pool, 1)
    pool.answered(first)
    third = pool.send()
    assert [pool.lost(third), pool.lost(second)] == [False, True], "in any order: the second was being computed"
    assert ray.killed == ray.actors, "it may only be out of reach, and keep its GPU"
    assert filled(pool, 1)[0][0] == id(ray.actors[1])
    assert len(ray.actors) == 2


def test_a_broken_gpu_is_kept_from_others_and_none_left_is_said() -> None:
    ray = NoRay("no driver", KeyError("died on the way"))
    pool = Gpus(ray)
    assert not pool.has_room(0, 2)
    sent = filled(pool, 2)
    assert {actor for actor, _ in sent} == {id(ray.actors[2])}, "the second died and was called again"
    assert ray.killed == [ray.actors[1]]
    with pytest.raises(StoreError, match="no GPU of the cluster can be used: no driver"):
        Gpus(NoRay("no driver", "no driver")).wait(2, 0)
    Gpus(NoRay()).wait(0, 0.01)


def test_a_worker_says_what_is_wrong_with_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = remote.GpuWorker()
    if not torch.cuda.is_available():
        assert "torch sees no such GPU" in worker.greet()
    monkeypatch.setattr(remote, "resolve_device", lambda name: torch.device("cpu"))
    assert worker.greet() == ""


def test_a_worker_whose_gpu_failed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its chunk is computed by another one; where the GPU is well, the error is the net's."""
    ended: list[int] = []
    monkeypatch.setattr(remote.os, "_exit", ended.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(remote, "evaluate", lambda *question: remote.Trouble("model", "the model raised"))
    assert isinstance(remote.GpuWorker().evaluate(), remote.Trouble)
    assert not ended

    def gone(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "synchronize", gone)
    remote.GpuWorker().evaluate()
    monkeypatch.setattr(remote, "evaluate", gone)
    with pytest.raises(RuntimeError, match="launch failure"):
        remote.GpuWorker().evaluate()
    assert ended == [1, 1]


def test_a_model_by_name_needs_no_gpu_in_the_process_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("shiftlens.models.loading.load_model", lambda *_, device, **__: loaded.append(device))
    with pytest.raises(AttributeError):  # of what stands for a model here
        sweep("torchvision:resnet18", pictures(), GRID, out=tmp_path / "s.zarr", cluster="auto", device="cuda")
    assert loaded == ["cpu"]


def test_nobody_at_the_address_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raysession, "connect", None)
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127\.0\.0\.1:9: .*ray start --head --port=9"):
        raysession._knock("127.0.0.1:9")


def test_a_finished_sweep_needs_no_cluster(tmp_path: Path) -> None:
    model = wrap(darkest, mean=0.5, std=0.5)
    sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", cluster="127.0.0.1:9").complete


# ---- what travels


@pytest.fixture
def ref(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What stands for Ray in this process: a package travels in its own hand."""
    import ray

    monkeypatch.setattr(ray, "get", lambda package: package)
    monkeypatch.setattr(remote, "_prepared", None)
    # Nothing that a worker sets for good may stay in the process of the tests.
    monkeypatch.setattr(remote, "_one_core", lambda: None)


def _question(net: Any = darkest) -> tuple[remote.Question, ImageSet]:
    model, images = wrap(net, mean=0.5, std=0.5), pictures()
    model = model.at((6, 6))
    plan = make_plan(model, images.batch(range(4)), GRID, Fill.parse("black"), n_images=4)
    return remote.Question(model, plan, GRID, Fill.parse("black"), 3), images


def _asked(package: remote.Package, images: ImageSet) -> Any:
    batch = images.batch(range(len(images)))
    return remote.evaluate([package], package.digest, batch, remote.digest_of(batch), images.labels, None)


@pytest.mark.usefixtures("ref")
def test_a_worker_gives_what_is_computed_here() -> None:
    question, images = _question()
    answer = _asked(_packed(question), images)
    right = prepare(question.model, question.plan, GRID, question.fill)(images.batch(range(4)), images.labels.copy())
    for name in ("prediction", "loss", "confidence"):
        np.testing.assert_array_equal(answer[name], right[name])


class Brightest(Task):
    """A task that no worker has installed."""

    name = "brightest"
    variables = (
        Variable("channel", "uint8"),
        Variable("range", "float32", "nats", "higher", "number"),
        Variable("of_object", "float32", dims=OBJECT),
    )

    def n_objects(self, targets: np.ndarray) -> np.ndarray:
        return targets

    def prepare(self, reference: None, targets: torch.Tensor) -> torch.Tensor:
        return targets[:, None].repeat(1, int(targets.max()))

    def outcome(self, outputs: torch.Tensor, shifts: torch.Tensor | None, state: Any) -> dict[str, torch.Tensor]:
        spread = outputs.amax(1) - outputs.amin(1)
        return {"channel": outputs.argmax(1), "range": spread, "of_object": outputs[:, : state.shape[1]] * state}


@pytest.mark.usefixtures("ref")
def test_a_task_travels_with_its_code() -> None:
    question, images = _question()
    answer = _asked(_packed(replace(question, task=Brightest())), images)
    batch, labels = images.batch(range(4)), images.labels.copy()
    right = prepare(question.model, question.plan, GRID, question.fill)(batch, labels, task=Brightest())
    assert list(answer) == list(right) == ["channel", "range", "of_object"]
    for name in right:
        np.testing.assert_array_equal(answer[name], right[name])
    assert answer["of_object"].shape == (4, 2, 3, 3)


@pytest.mark.usefixtures("ref")
def test_numbers_that_a_worker_must_not_give_name_the_image() -> None:
    class Infinite(Brightest):
        def outcome(self, outputs: torch.Tensor, shifts: torch.Tensor | None, state: Any) -> dict[str, torch.Tensor]:
            rows = super().outcome(outputs, shifts, state)
            return rows | {"of_object": torch.where(state == 2, torch.inf, rows["of_object"])}

    question, images = _question()
    answer = _asked(_packed(replace(question, task=Infinite())), images)
    assert (answer.kind, answer.message, answer.positions) == ("model", "the of_object is not finite", (2,))


@pytest.mark.usefixtures("ref")
def test_a_net_is_prepared_once_for_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    question, images = _question()
    package, n_prepared = _packed(question), []
    real = remote.prepare
    monkeypatch.setattr(remote, "prepare", lambda *args: n_prepared.append(1) or real(*args))
    for _ in range(3):
        _asked(package, images)
    assert len(n_prepared) == 1
    other, _ = _question(lambda x: x.mean(dim=(2, 3)))
    _asked(_packed(other), images)
    assert len(n_prepared) == 2


@pytest.mark.usefixtures("ref")
def test_what_changed_on_the_way_is_refused() -> None:
    question, images = _question()
    package = _packed(question)
    torn = remote.Package(package.content[:-1] + b"x", package.digest, package.versions)
    answer = _asked(torn, images)
    assert isinstance(answer.error(), StoreError)
    assert "the model changed on the way" in answer.message
    batch = images.batch(range(4))
    answer = remote.evaluate([package], package.digest, batch + 1, remote.digest_of(batch), images.labels, None)
    assert isinstance(answer, remote.Trouble)
    assert "the pictures of a chunk changed on the way" in answer.message


@pytest.mark.usefixtures("ref")
def test_a_worker_of_another_version_or_machine_is_refused() -> None:
    question, images = _question()
    package = _packed(question)
    other = remote.Package(package.content, package.digest, package.versions | {"torch": "1.0.0"})
    answer = _asked(other, images)
    assert isinstance(answer.error(), StoreError)
    assert "1.0.0 where the sweep is written" in answer.message
    from dataclasses import replace

    elsewhere = replace(question, plan=replace(question.plan, machine="cpu Z80"))
    answer = _asked(_packed(elsewhere), images)
    assert "made for 'cpu Z80'" in answer.message
    assert answer.message.startswith("worker on ")


@pytest.mark.usefixtures("ref")
def test_a_model_that_raises_is_told_with_its_images() -> None:
    def nan(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.amax(dim=(1, 2, 3), keepdim=True)[:, 0, 0] > 0.999, torch.nan, x.mean(dim=(2, 3)))

    question, images = _question()
    from dataclasses import replace

    question = replace(question, model=wrap(nan, mean=0.0, std=1.0))
    dark = ImageSet(np.minimum(images.batch(range(4)), 200), images.labels)
    bright = dark.batch(range(4))
    bright[2, :, 3, 3] = 255
    package = _packed(question)
    answer = remote.evaluate([package], package.digest, bright, remote.digest_of(bright), images.labels, None)
    error = answer.error()
    assert isinstance(error, ModelOutputError)
    assert error.positions == (2,)
    assert pickle.loads(pickle.dumps(answer)) == answer


def test_a_plan_made_on_a_worker_is_the_engines(monkeypatch: pytest.MonkeyPatch, ref: Any) -> None:
    question, images = _question()
    package = _packed((question.model, GRID, question.fill))
    options = {"n_images": 4, "dtype": "float32", "device": "cpu"}
    assert remote.choose_plan([package], images.batch(range(4)), options) == question.plan
    answer = remote.choose_plan([package], images.batch(range(4)), options | {"dtype": "float64"})
    assert isinstance(answer, remote.Trouble)
    assert "plain callable" in answer.message


def test_code_that_only_this_machine_has_travels_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom helper import twice\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.head = torch.nn.Linear(3, 3)\n\n"
        "    def forward(self, x):\n        return self.head(twice(x.mean(dim=(2, 3))))\n"
    )
    model = load_model(f"{tmp_path / 'net.py'}:Net", mean=0.5, std=0.5, input_size=6)
    content = _packed(model).content
    (tmp_path / "packed").write_bytes(content)
    # Another process, without the folder.
    code = (
        "import pickle, sys, torch\n"
        "model = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "print(model.module(torch.ones(1, 3, 6, 6)).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "packed")],
        env=os.environ | {"PYTHONPATH": str(Path(shiftlens.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model.module(torch.ones(1, 3, 6, 6)).tolist())
    from ray import cloudpickle

    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_a_model_that_cannot_travel_is_one_line() -> None:
    lock = torch.Generator()

    def holds_a_generator(x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) + (0 if lock else (k for k in ()))  # type: ignore[operator]

    holds_a_generator.state = (k for k in range(3))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"cannot be sent to a cluster .*TypeError.* generators out") as caught:
        _packed(wrap(holds_a_generator, mean=0.5, std=0.5))
    assert "\n" not in str(caught.value)


def test_a_lost_worker_is_announced_and_too_many_end_it(tmp_path: Path) -> None:
    import small_sweeps as small

    from shiftlens.cluster import ray_workers as cluster
    from shiftlens.sweeps.jobs import Job

    said: list[str] = []
    job = Job(small.create(tmp_path / "s.zarr", controls=("flip",)).group("flip"), 1)
    machines = Cluster("local", said.append)
    for n in range(1, cluster.LOST_AT_MOST + 1):
        machines._tell_loss(job, n, RuntimeError("killed\nmore about it"))
    assert (
        said
        == ["chunk 1 of control flip (images 3 to 5) lost its worker (RuntimeError: killed): it is computed again"]
        * cluster.LOST_AT_MOST
    )
    with pytest.raises(StoreError, match=r"chunk 1 .* has lost 5 workers one after the other, .* stay in .*s\.zarr"):
        machines._tell_loss(job, cluster.LOST_AT_MOST + 1, RuntimeError("killed"))
