"""A Gymnasium environment as the learner sees it: spaces, units, episode ends, bad returns."""

from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import small_worlds
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from skillbank.config import resolve
from skillbank.errors import UnsupportedEnvironment
from skillbank.task import Task, layout_of

Box = gymnasium.spaces.Box
ONE = Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (gymnasium.spaces.Dict({"x": ONE}), ONE, "FlattenObservation"),
        (gymnasium.spaces.Discrete(4), ONE, "one-dimensional Box"),
        (Box(-1, 1, (0,), np.float32), ONE, "one-dimensional Box of some numbers"),
        (ONE, Box(-1, 1, (0,), np.float32), "of real numbers"),
        (Box(0, 1, (8, 8), np.float32), ONE, "one-dimensional Box"),
        (ONE, gymnasium.spaces.Discrete(4), "of real numbers, as in Pendulum-v1"),
        (ONE, Box(0, 3, (2,), np.int64), "of real numbers"),
        (ONE, Box(np.float32([0, 0]), np.float32([1, 0])), "a component whose bounds are equal"),
        (ONE, Box(-np.inf, np.inf, (2,), np.float32), "unbounded actions.*TransformAction"),
    ],
)
def test_spaces_that_cannot_be_learned_on_are_refused(
    observation_space, action_space, message, monkeypatch
):
    closed = []

    def close(self):
        closed.append(self)

    monkeypatch.setattr(small_worlds.Strange, "close", close)
    spaces = {"observation_space": observation_space, "action_space": action_space}
    with pytest.raises(UnsupportedEnvironment, match=message):
        Task("SmallWorld/Strange-v0", 2, **spaces)
    assert len(closed) == 2


class NextStep(SyncVectorEnv):
    """Points whose episodes begin anew a step after they ended, as Gymnasium's own do."""

    def __init__(self, num_envs, **kwargs):
        super().__init__([lambda: small_worlds.Point(2)] * num_envs)


def test_what_is_vectorised_to_reset_a_step_later_is_made_copy_by_copy():
    gymnasium.register(
        "SmallWorld/NextStep-v0",
        entry_point=lambda: small_worlds.Point(2),
        vector_entry_point=NextStep,
        max_episode_steps=3,
        disable_env_checker=True,
    )
    assert NextStep(1).metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    task = Task("SmallWorld/NextStep-v0", 2)
    task.reset(seed=0)
    ends = [task.step(np.zeros((2, 2), np.float32)).ended.all() for _ in range(6)]
    assert ends == [False, False, True] * 2
    task.close()


def test_the_length_of_an_episode_is_what_it_was_made_with():
    for env_id, made, length in (
        ("PointMassRun", {}, 100),
        ("PointMassRun", {"max_episode_steps": 30}, 30),
        ("SmallWorld/Plane-v0", {}, 20),
    ):
        task = Task(env_id, 1, **made)
        assert task.max_episode_steps == length
        task.close()


def test_a_known_task_is_found_by_its_bare_name():
    full = "skillbank/QuadrupedRun-v0"
    assert {resolve(name) for name in ("QuadrupedRun", "QuadrupedRun-v0", full)} == {full}
    assert resolve("Pendulum-v1") == "Pendulum-v1"


def test_an_unknown_task_names_the_nearest_and_all_of_ours():
    with pytest.raises(UnsupportedEnvironment) as error:
        resolve("skillbank/QuadrupedRum-v0")
    assert "Did you mean 'QuadrupedRun'?" in str(error.value)
    assert "QuadrupedUMaze" in str(error.value)
    with pytest.raises(UnsupportedEnvironment, match="Did you mean 'Pendulum-v1'"):
        resolve("Pendulm-v1")


@pytest.mark.parametrize("task", [None, 3, SimpleNamespace()])
def test_what_is_no_task_says_what_is_one(task):
    with pytest.raises(UnsupportedEnvironment, match="a task is a Gymnasium id or environment"):
        layout_of(task)


def test_arguments_that_an_environment_does_not_know_are_refused():
    with pytest.raises(UnsupportedEnvironment, match=r"SmallWorld/Line-v0 cannot be made.*wings"):
        Task("SmallWorld/Line-v0", 1, wings=2)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "known"),
    [
        (
            "PointMassReach",
            {"goal": ["left"]},
            "no 'goal'. Did you mean 'goals'? There is: goals, max_episode_steps",
        ),
        ("QuadrupedRunToward", {"speed": 1}, "no 'speed'. There is: direction, max_episode_steps"),
        ("Pendulum-v1", {"gravity": 1}, "no 'gravity'. There is: g, max_episode_steps"),
        ("SmallWorld/Wrapped-v0", {"x": 1}, "no 'x'. There is: max_episode_steps, wrapper"),
    ],
)
def test_the_arguments_of_an_environment_are_listed(env_id, kwargs, known):
    with pytest.raises(UnsupportedEnvironment) as error:
        Task(env_id, 1, **kwargs)
    assert known in str(error.value)


class PassesOn(gymnasium.Wrapper):
    """Makes the environment inside, with all keywords but its own."""

    def __init__(self, *, colour="red", **kwargs):
        super().__init__(gymnasium.envs.classic_control.PendulumEnv(**kwargs))
        if colour == "none":
            len(3)


gymnasium.register("SmallWorld/PassesOn-v0", PassesOn, max_episode_steps=9)


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"g": 3.0, "y": 1}, "PendulumEnv.__init__() got an unexpected keyword argument 'y'"),
        ({"colour": "none"}, "object of type 'int' has no len()"),
        ({"render_mode": "none", "colour": "none"}, "with render_mode='none', colour='none': "),
    ],
)
def test_an_error_inside_an_environment_is_told_as_it_is(kwargs, told):
    with pytest.raises(UnsupportedEnvironment) as error:
        Task("SmallWorld/PassesOn-v0", 1, **kwargs)
    assert told in str(error.value)
    assert "There is" not in str(error.value)


def test_an_entry_point_that_fails_is_told():
    def fails():
        raise TypeError("a module of theirs: 'int' object is not callable")

    gymnasium.register("SmallWorld/Fails-v0", fails)
    with pytest.raises(UnsupportedEnvironment, match=r"cannot be made.*a module of theirs"):
        Task("SmallWorld/Fails-v0", 1)


def test_actions_reach_the_environment_in_its_units_and_within_its_bounds():
    """The environment asserts that they do; -0.1 + (0.3 + 0.1) is above 0.3 in float64."""
    task = Task("SmallWorld/Lopsided-v0", 3)
    task.reset(seed=0)
    low, high = small_worlds.Lopsided.LOW, small_worlds.Lopsided.HIGH
    np.testing.assert_array_equal(task.unscale(np.ones((3, 2), np.float32))[0], high)
    np.testing.assert_array_equal(task.unscale(-np.ones((3, 2), np.float32))[0], low)
    np.testing.assert_allclose(task.unscale(np.zeros((3, 2)))[0], (low + high) / 2)
    for action in (-1.0, 0.0, 1.0):
        step = task.step(np.full((3, 2), action, np.float32))
    assert step.reward.tolist() == pytest.approx([0.3 - 0.5] * 3)
    task.close()


def test_tensors_have_the_shapes_and_type_that_the_learner_expects():
    task = Task("SmallWorld/Plane-v0", 3)
    obs = task.reset(seed=0)
    step = task.step(np.zeros((3, 2), np.float32))
    assert obs.shape == step.obs.shape == step.next_obs.shape == (3, 2)
    assert step.reward.shape == step.terminated.shape == step.ended.shape == (3,)
    assert {obs.dtype, step.reward.dtype, step.terminated.dtype} == {torch.float32}
    assert [(block.name, block.size) for block in task.observation_blocks] == [("observation", 2)]
    task.close()


@pytest.mark.parametrize("env_id", ["SmallWorld/Plane-v0", "skillbank/MultiGoal-v0"])
def test_a_truncated_episode_shows_its_true_end_and_the_next_start(env_id):
    task = Task(env_id, 2)
    task.reset(seed=0)
    action = np.full((2, 2), 0.01, np.float32)
    for _ in range(19):
        step = task.step(action)
        assert not step.ended.any()
        assert torch.equal(step.obs, step.next_obs)
    before = step.obs
    step = task.step(action)
    assert step.ended.all()
    assert step.terminated.tolist() == [0.0, 0.0]
    assert (step.next_obs - before).abs().max() < 0.02  # where a small action leads
    assert (step.obs - step.next_obs).abs().max() > 0.02  # somewhere else: a new episode
    task.close()


def test_what_an_environment_declares_is_known():
    task = Task("MultiGoal", 2)
    assert [(block.name, block.size) for block in task.observation_blocks] == [("position", 2)]
    assert len(task.symmetries) == 8
    task.close()


class Slanted(gymnasium.Wrapper):
    """The goals' plane, with a reward that its symmetries change."""

    def step(self, action):
        obs, reward, *rest = self.env.step(action)
        return obs, reward + float(obs[0]), *rest


class Level(Slanted):
    """As if its reward were symmetric."""

    @property
    def symmetries(self):
        return self.env.unwrapped.symmetries


class Longer(Level):
    """One number more than its symmetries know."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-9, 9, (3,), np.float32)


def wrapped(wrapper=None):
    env = gymnasium.make("skillbank/MultiGoal-v0")
    return env if wrapper is None else wrapper(env)


gymnasium.register("SmallWorld/Wrapped-v0", wrapped, max_episode_steps=9)


@pytest.mark.parametrize(("wrapper", "known"), [(None, 8), (Slanted, 0), (Level, 8)])
def test_a_wrapper_has_the_symmetries_that_it_declares(wrapper, known):
    task = Task("SmallWorld/Wrapped-v0", 2, wrapper=wrapper)
    assert len(task.symmetries) == known
    assert [block.name for block in task.observation_blocks] == ["position"]
    assert task.max_episode_steps == 9
    assert Task("SmallWorld/Wrapped-v0", 2, max_episode_steps=5).max_episode_steps == 5


@pytest.mark.parametrize(
    "change",
    [
        {"observation_sign": np.array([1, 0])},
        {"action_sign": [1, 0.5]},
        {"observation_index": np.array([0, 9])},
        {"action_sign": [1]},
        {"action_index": None},
    ],
)
def test_symmetries_that_are_none_are_refused(change):
    declared = symmetry("identity", [0, 1], [1, 1]), symmetry("mirror", [1, 0], [-1, -1])
    assert declaring(*declared).symmetries[1].obs_sign == (-1, -1)
    wrong = SimpleNamespace(**vars(declared[1]) | change)
    with pytest.raises(UnsupportedEnvironment, match="declares invalid symmetries"):
        declaring(declared[0], wrong)


def symmetry(name, index, sign):
    """Of a place in the plane, and likewise of a move."""
    both = {"observation_index": index, "observation_sign": sign}
    both |= {"action_index": np.array(index), "action_sign": sign}
    return SimpleNamespace(name=name, **both)


def declaring(*symmetries, **others):
    def wrapper(env):
        made = Slanted(env)
        for name, value in {"symmetries": symmetries, **others}.items():
            setattr(made, name, value)
        return made

    return Task("SmallWorld/Wrapped-v0", 1, wrapper=wrapper)


def test_symmetries_are_a_group():
    same, turn = symmetry("identity", [0, 1], [1, 1]), symmetry("turn", [1, 0], [1, -1])
    back, half = symmetry("back", [1, 0], [-1, 1]), symmetry("half", [0, 1], [-1, -1])
    assert len(declaring(same, turn, half, back).symmetries) == 4
    for some, missing in [
        ((turn,), "'turn' twice"),
        ((half,), "'half' twice, which may be the identity,"),
        ((same, turn, back), "'turn' twice"),
        ((same, half, turn), "'half' and then 'turn'"),
    ]:
        with pytest.raises(UnsupportedEnvironment, match=f"are no group: {missing}"):
            declaring(*some)


def test_symmetries_map_the_bounds_of_the_actions_to_themselves():
    same, half = symmetry("identity", [0, 1], [1, 1]), symmetry("half", [0, 1], [-1, -1])
    swap = symmetry("swap", [1, 0], [1, 1])
    one_sided = gymnasium.spaces.Box(np.float32([0, 0]), np.float32([2, 2]))
    assert len(declaring(same, swap, action_space=one_sided).symmetries) == 2
    text = r"'half', which maps the actions' bounds to \[\[-2.0, -2.0\], \[-?0.0, -?0.0\]\]; they"
    with pytest.raises(UnsupportedEnvironment, match=text):
        declaring(same, half, action_space=one_sided)
    oblong = gymnasium.spaces.Box(np.float32([-1, -2]), np.float32([1, 2]))
    assert len(declaring(same, half, action_space=oblong).symmetries) == 2
    with pytest.raises(UnsupportedEnvironment, match="'swap', which maps the actions' bounds"):
        declaring(same, swap, action_space=oblong)


def test_symmetries_of_another_size_are_refused():
    with pytest.raises(UnsupportedEnvironment, match="of 2 observed numbers and 2 actions; it has"):
        Task("SmallWorld/Wrapped-v0", 2, wrapper=Longer)


def normalised(env, *, inside):
    made = gymnasium.wrappers.NormalizeObservation(env)
    return gymnasium.wrappers.FlattenObservation(made) if inside else made


def frozen(env):
    made = gymnasium.wrappers.NormalizeObservation(env)
    made.update_running_mean = False
    return made


class Behind(gymnasium.vector.VectorWrapper):
    """Copies that observe by running statistics, behind a wrapper of all."""

    def __init__(self, num_envs):
        copy = partial(normalised, small_worlds.Point(2), inside=False)
        how = {"autoreset_mode": AutoresetMode.SAME_STEP}
        super().__init__(SyncVectorEnv([copy] * num_envs, **how))


gymnasium.register("SmallWorld/Behind-v0", vector_entry_point=Behind)


def test_statistics_that_no_skill_file_holds_are_refused():
    message = "NormalizeObservation, whose running statistics are not in a skill file"
    for inside in (False, True):
        with pytest.raises(UnsupportedEnvironment, match=message):
            Task("SmallWorld/Wrapped-v0", 2, wrapper=partial(normalised, inside=inside))
    with pytest.raises(UnsupportedEnvironment, match=message):
        Task("SmallWorld/Behind-v0", 2)
    assert Task("SmallWorld/Wrapped-v0", 2, wrapper=frozen).observation_size == 2


def test_an_environment_without_a_vector_entry_point_declares_for_itself():
    task = Task("SmallWorld/Errand-v0", 2, length=3, weather=True, model_hash="ab" * 32)
    named = [(block.name, block.size) for block in task.observation_blocks]
    assert named == [("clock", 1), ("weather", 1)]
    assert task.model_hash == "ab" * 32
    one = gymnasium.make("SmallWorld/Errand-v0", length=3, weather=True)
    assert layout_of(one).observation_blocks == task.observation_blocks
    assert layout_of(task.envs).observation_blocks == task.observation_blocks
    longer = gymnasium.wrappers.FlattenObservation(gymnasium.wrappers.TimeAwareObservation(one))
    assert [(b.name, b.size) for b in layout_of(longer).observation_blocks] == [("observation", 3)]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, r"cannot be made: .*length"),
        ({"length": 0}, r"cannot be made with length=0: length must be at least 1"),
        ({"length": 2, "num_envs": 3}, r"cannot be made with length=2, num_envs=3"),
        ({"length": 2, "declared": (("clock", 2),)}, r"\(\('clock', 2\),\); its obs.* 1 numbers"),
        ({"length": 2, "declared": {"clock": 1}}, r"pairs of a name and a size"),
        ({"length": 2, "weather": True, "declared": (("a", 1), ("a", 1))}, r"a name of its own"),
        ({"length": 2, "declared": (("the clock", 1),)}, r"the clock.*names consist of letters"),
        ({"length": 2, "model_hash": "v1"}, r"model_hash 'v1'.* SHA-256"),
        ({"length": 1, "max_episode_steps": "ten"}, r"ten"),
    ],
)
def test_what_makes_no_sense_of_an_environment_is_told(made, message):
    with pytest.raises(UnsupportedEnvironment, match=message):
        Task("SmallWorld/Errand-v0", 2, **made).reset(seed=0)


MISBEHAVIOUR = {
    "nan_obs": "copy 1 is not finite",
    "inf_reward": "the reward of copy 1 is not finite",
    "wrong_shape": r"copy 1 returned an observation of shape \(3,\), its space says \(1,\)",
    "crash": r"\.py:\d+: RuntimeError: the wire came off",
}


@pytest.mark.parametrize("what", MISBEHAVIOUR)
def test_a_bad_step_names_the_copy_and_the_step(what):
    task = Task("SmallWorld/Broken-v0", 3, what=what, seed=8, good_steps=5)
    task.reset(seed=7)  # copy i is seeded with 7 + i
    for _ in range(5):
        task.step(np.zeros((3, 1), np.float32))
    with pytest.raises(UnsupportedEnvironment, match=MISBEHAVIOUR[what]) as error:
        task.step(np.zeros((3, 1), np.float32))
    assert "SmallWorld/Broken-v0, step 6" in str(error.value)
    task.close()


def test_only_an_environment_that_says_so_is_stepped_in_another_thread():
    told = [Task(name, 1).any_thread for name in ("SmallWorld/Plane-v0", "PointMassRun")]
    assert told == [False, True]
