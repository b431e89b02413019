"""When what happens: hand-computed schedules, and the fit to a time budget."""

import pytest

from shiftlens.errors import InputError
from shiftlens.training import Recipe, Stage, TrainSettings
from shiftlens.training.learning_rate import Schedule, batch_size, plan, steps_within

HALVES = (Stage(1, 0.5), Stage(1, 1))


def schedule(n_steps=10, per_epoch=4, warmup=0.2):
    return Schedule(8, n_steps, per_epoch, ((0, (16, 16)), (5, (32, 32))), warmup)


def test_rate_rises_and_falls_in_straight_lines():
    factors = [schedule().factor(step) for step in range(10)]
    assert factors[:2] == pytest.approx([0.25, 0.75])
    assert factors[2:] == pytest.approx([(10 - k - 0.5) / 8 for k in range(2, 10)])


def test_rate_without_warmup_starts_at_the_top():
    assert schedule(warmup=0.0).factor(0) == pytest.approx(0.95)


def test_sizes_change_at_their_step():
    assert [schedule().size(step) for step in (0, 4, 5, 9)] == [(16, 16), (16, 16), (32, 32), (32, 32)]


def test_last_epoch_takes_what_is_left():
    s = schedule()
    assert s.n_epochs == 3
    assert [list(s.steps_of(epoch)) for epoch in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_schedule_survives_json():
    assert Schedule.from_dict(schedule().to_dict()) == schedule()


@pytest.mark.parametrize(("n", "expected"), [(46_000, 500), (1_400, 100), (20, 1), (1, 1)])
def test_small_sets_take_small_batches(n, expected):
    assert batch_size(Recipe(batch=500, min_steps_per_epoch=14), n) == expected


def test_plan_counts_epochs_and_puts_the_stages_in_place():
    settings = TrainSettings(epochs=3, recipe=Recipe(batch=10, min_steps_per_epoch=2, stages=HALVES))
    found = plan(settings, 47)
    assert (found.batch, found.steps_per_epoch, found.n_steps) == (10, 4, 12)
    assert found.sizes == ((0, (16, 16)), (6, (32, 32)))


def test_small_sets_get_at_least_min_steps():
    settings = TrainSettings(recipe=Recipe(batch=10, min_steps_per_epoch=2, min_steps=50, default_epochs=3))
    assert plan(settings, 40).n_steps == 52


@pytest.mark.parametrize("changes", [{"head": "flatten"}, {"size": (20, 20)}])
def test_stage_that_the_net_cannot_take_is_trained_at_full_size(changes):
    settings = TrainSettings(recipe=Recipe(stages=HALVES), **changes)
    assert plan(settings, 1000).sizes == ((0, settings.size),)


def test_budget_is_spent_on_steps_and_what_follows_each_epoch():
    settings = TrainSettings(minutes=1, recipe=Recipe(batch=10, min_steps_per_epoch=1, stages=HALVES))
    # 5 steps of (0.1 + 0.3)/2 s and 1 s after each epoch: 0.4 s a step.
    assert steps_within(40, {(16, 16): 0.1, (32, 32): 0.3}, 1.0, settings, 50) == int(40 * 0.96 / 0.4)


def test_budget_too_short_for_an_epoch_says_what_one_takes():
    settings = TrainSettings(minutes=0.5, recipe=Recipe(batch=10, min_steps_per_epoch=1, stages=HALVES))
    with pytest.raises(InputError, match=r"budget of 0\.5 minutes is too short for one epoch: 5 steps of 10 images"):
        steps_within(1.0, {(16, 16): 0.1, (32, 32): 0.3}, 1.0, settings, 50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainSettings(arch="vgg9"), "vgg9"),
        (lambda: TrainSettings(padding="mirror"), "mirror"),
        (lambda: TrainSettings(epochs=2, minutes=1.0), "exclude each other"),
        (lambda: TrainSettings(epochs=0), "epochs must be at least 1"),
        (lambda: TrainSettings(minutes=float("nan")), "minutes must be above 0"),
        (lambda: Recipe(flip="sometimes"), "sometimes"),
        (lambda: Recipe(stages=(Stage(1, 0.5),)), "end at scale 1"),
        (lambda: Recipe(momentum=1.0), "momentum must be from 0 to below 1"),
        (lambda: Recipe(batch=0), "batch must be at least 1"),
        (lambda: Recipe(crop=-1), "crop must be at least 0"),
        (lambda: Recipe(cutout=-1), "cutout must be at least 0"),
        (lambda: Recipe(cutmix=1.5), "cutmix must be a share from 0 to 1"),
    ],
)
def test_settings_refuse_what_makes_no_sense(make, message):
    with pytest.raises(InputError, match=message):
        make()
