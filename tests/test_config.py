"""The presets, held to the paper's table, and what a configuration refuses."""

import pytest
from pydantic import ValidationError

from skillbank.config import (
    Architecture,
    FinetuneConfig,
    PretrainConfig,
    bare_name,
    finetune_recipe,
    recipe,
    shortened,
)
from skillbank.errors import InvalidArgument, UnsupportedEnvironment

# Appendix D.1, in its order.
APPENDIX_D1 = {
    "critic_learning_rate": 0.001,
    "sampler_learning_rate": 0.0001,
    "replay_capacity": 1_000_000,
    "learning_starts": 10_000,
    "batch_size": 64,
    "steps_per_update": 1,  # trained at every time step
    "num_envs": 1,
    "noise_theta": 0.15,
    "noise_sigma": 0.3,
    "target_period": 1_000,
    "target_rate": 1.0,
    "particles": 32,  # K = M
    "value_samples": 50,  # K_V
    "n_step": 1,
    "objective": "stein",
}
EPOCH = 10_000


def held(config, table):
    return {key: getattr(config, key) for key in table}


@pytest.mark.parametrize("env_id", ["QuadrupedRun", "Ant-v5", "skillbank/PointMassUMaze-v0"])
def test_paper_preset_is_appendix_d1(env_id):
    config = recipe(env_id, "paper")
    assert held(config, APPENDIX_D1) == APPENDIX_D1
    assert config.temperature == 0.1
    assert config.total_steps == 500 * EPOCH
    assert not config.symmetry
    assert not config.level_critics
    network = config.architecture
    assert network.critic_hidden == network.sampler_hidden == (200, 200)
    assert (network.critics, network.layer_norm, network.sampler) == (1, False, "noise")


def test_paper_preset_of_multi_goal_has_its_own_particles_epochs_and_temperature():
    config = recipe("skillbank/MultiGoal-v0", "paper")
    assert held(config, APPENDIX_D1) == APPENDIX_D1 | {"particles": 100}
    assert config.total_steps == 100 * EPOCH
    # alpha 10 for the unscaled reward
    assert config.temperature / config.reward_scale == pytest.approx(10.0)


def test_paper_preset_of_fine_tuning_is_appendix_d1():
    config = finetune_recipe("skillbank/QuadrupedHallwayNarrow-v0", "paper")
    assert held(config, APPENDIX_D1) == APPENDIX_D1
    assert config.schedule == "paper"
    assert config.temperature is None  # from the skill's own alpha ...
    assert config.final_temperature == 0.001  # ... log-linearly to this
    assert config.anneal_steps == config.shrink_steps == 20 * EPOCH
    assert config.shrink_start == 0
    assert config.total_steps == 200 * EPOCH
    assert config.frozen_updates == 0


def test_a_recipe_takes_the_schedule_it_is_told():
    for schedule in ("anchored", "paper"):
        assert finetune_recipe("QuadrupedUMaze", "default", schedule).schedule == schedule
        assert finetune_recipe("QuadrupedUMaze", "paper", schedule).schedule == schedule


def test_recipes_know_a_task_by_any_of_its_names():
    assert bare_name("skillbank/MultiGoal-v0") == bare_name("MultiGoal") == "MultiGoal"
    assert recipe("MultiGoal") == recipe("skillbank/MultiGoal-v0") != recipe("Pendulum-v1")
    assert finetune_recipe("QuadrupedUMaze") == finetune_recipe("skillbank/QuadrupedUMaze-v0")


@pytest.mark.parametrize("make", [recipe, finetune_recipe])
def test_a_typo_in_a_task_or_preset_is_no_recipe(make):
    with pytest.raises(UnsupportedEnvironment, match="Did you mean 'PointMassRun'"):
        make("PointMasRun")
    with pytest.raises(InvalidArgument, match="no preset 'Paper'; there is: default, paper"):
        make("PointMassRun", "Paper")


def test_multi_goal_is_solved_by_the_sampler_and_not_by_its_symmetry():
    assert not recipe("MultiGoal").symmetry


@pytest.mark.parametrize("model", [Architecture, PretrainConfig, FinetuneConfig])
def test_an_unknown_key_is_an_error(model):
    with pytest.raises(ValidationError, match="batchsize"):
        model(batchsize=64)


@pytest.mark.parametrize("model", [PretrainConfig, FinetuneConfig])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, "discount"),
        ({"discount": 0.0}, "discount"),
        ({"batch_size": 0}, "batch_size"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"reward_scale": float("inf")}, "reward_scale"),
        ({"target_rate": 1.5}, "target_rate"),
        ({"noise_sigma": -0.1}, "noise_sigma"),
        ({"objective": "likelihood"}, "objective"),
        ({"num_envs": "16"}, "num_envs"),  # strict: a string is no number
        ({"particles": 1.5}, "particles"),
        ({"batch_size": 64, "replay_capacity": 63}, "must not exceed replay_capacity"),
        (
            {"batch_size": 8, "num_envs": 16, "n_step": 4, "replay_capacity": 63},
            "num_envs .* must not exceed replay_capacity",
        ),
        ({"learning_starts": 100, "total_steps": 100}, "nothing would be learned"),
    ],
)
def test_values_that_make_no_sense_are_refused(model, change, message):
    with pytest.raises(ValidationError, match=message):
        model(**change)


def test_collapsing_to_a_maximum_of_q_would_ignore_the_prior():
    with pytest.raises(ValidationError, match="ignores the prior"):
        FinetuneConfig(objective="map", proposals="uniform")
    FinetuneConfig(schedule="paper", objective="map", proposals="uniform")


def test_a_network_without_a_density_cannot_learn_by_one():
    with pytest.raises(ValidationError, match="objective 'stein'"):
        PretrainConfig(architecture=Architecture(sampler="noise"), objective="divergence")


def test_widths_may_be_a_list_and_nothing_less_strict():
    assert Architecture(critic_hidden=[64, 32]) == Architecture(critic_hidden=(64, 32))
    for widths in ([], ["64"], [64.5], "64", [0]):
        with pytest.raises(ValidationError, match="critic_hidden"):
            Architecture(critic_hidden=widths)


def test_a_configuration_is_frozen_and_round_trips():
    config = recipe("QuadrupedRun")
    with pytest.raises(ValidationError, match="frozen"):
        config.discount = 0.5
    assert PretrainConfig.model_validate_json(config.model_dump_json()) == config


def test_a_changed_recipe_is_checked_as_a_new_one() -> None:
    config = recipe("QuadrupedRun").changed(total_steps=9_000, learning_starts=100)
    assert (config.total_steps, config.learning_starts) == (9_000, 100)
    assert config.changed(total_steps=325_000, learning_starts=5_000) == recipe("QuadrupedRun")
    with pytest.raises(ValueError, match="totl_steps"):
        config.changed(totl_steps=9_000)
    with pytest.raises(ValueError, match="learning_starts must be below total_steps"):
        config.changed(total_steps=100)


def test_a_shortened_recipe_keeps_its_proportions_and_everything_else() -> None:
    whole = finetune_recipe("QuadrupedUMaze")
    half = shortened(whole, whole.total_steps // 2)
    assert isinstance(half, FinetuneConfig)
    assert half.anneal_steps == pytest.approx(whole.anneal_steps / 2, abs=1)
    assert half.shrink_steps == pytest.approx(whole.shrink_steps / 2, abs=1)
    assert half.n_step_until == pytest.approx(whole.n_step_until / 2, abs=1)
    same = {"total_steps", "learning_starts", "n_step_until"}
    same |= {"anneal_steps", "shrink_start", "shrink_steps"}
    assert half.model_dump(exclude=same) == whole.model_dump(exclude=same)
    run = recipe("QuadrupedRun")
    assert shortened(run, run.total_steps) == run
    for steps in (1, 2, 7):  # every field is still one that can be
        assert shortened(whole, steps).total_steps == steps
