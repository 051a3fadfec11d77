import subprocess
import sys
import textwrap

import pytest
import torch

from protenix_eba.core.errors import UserError
from protenix_eba.training.ema import Ema

DECAY = 0.9


def small_module(dtype=torch.float32):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)).to(dtype)
    module[1].bias.requires_grad_(False)
    return module


def fill(module, value):
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.fill_(value)


def test_the_average_of_constant_weights_is_these_weights_exactly():
    module = small_module()
    ema = Ema(module.named_parameters(), DECAY)
    for _ in range(100):
        ema.update()
    state = module.state_dict()
    assert all(torch.equal(average, state[name]) for name, average in ema.averages.items())


def test_after_a_jump_what_is_left_of_the_start_decays_geometrically():
    module = small_module()
    fill(module, 1.0)
    ema = Ema(module.named_parameters(), DECAY)
    fill(module, 0.0)
    for step in range(1, 30):
        ema.update()
        for average in ema.averages.values():
            torch.testing.assert_close(average, torch.full_like(average, DECAY**step))


def test_weights_that_grow_by_one_are_followed_at_a_constant_distance():
    # a_n = d a_{n-1} + (1 - d) n from a_0 = 0 is n - d (1 - d^n) / (1 - d).
    module = small_module()
    fill(module, 0.0)
    ema = Ema(module.named_parameters(), DECAY)
    for step in range(1, 50):
        fill(module, float(step))
        ema.update()
    expected = step - DECAY * (1 - DECAY**step) / (1 - DECAY)
    for average in ema.averages.values():
        torch.testing.assert_close(average, torch.full_like(average, expected))


def test_only_what_is_trained_is_averaged():
    ema = Ema(small_module().named_parameters(), DECAY)
    assert set(ema.averages) == {"0.weight", "0.bias", "1.weight"}


def test_averages_of_half_precision_weights_are_kept_in_float32():
    # A step of 2^-10 is below the spacing of bfloat16 at 1 and not of float32.
    module = small_module(torch.bfloat16)
    fill(module, 1.0)
    ema = Ema(module.named_parameters(), 1 - 2**-10)
    fill(module, 2.0)
    ema.update()
    for average in ema.averages.values():
        assert average.dtype == torch.float32
        torch.testing.assert_close(average, torch.full_like(average, 1 + 2**-10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_back_bit_for_bit_in_the_same_memory(dtype):
    module = small_module(dtype)
    ema = Ema(module.named_parameters(), DECAY)
    fill(module, 0.3)
    ema.update()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    memory = [p.data_ptr() for p in module.parameters()]
    with ema.applied():
        for name, average in ema.averages.items():
            assert torch.equal(module.state_dict()[name], average.to(dtype))
        assert torch.equal(module.state_dict()["1.bias"], before["1.bias"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [p.data_ptr() for p in module.parameters()] == memory


def test_weights_are_back_after_an_error():
    module = small_module()
    ema = Ema(module.named_parameters(), DECAY)
    fill(module, 0.3)
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert torch.equal(module[0].weight, torch.full((2, 3), 0.3))


def test_a_captured_average_is_that_of_a_new_one():
    module = small_module()
    ema = Ema(module.named_parameters(), DECAY)
    fill(module, 0.3)
    ema.capture()
    fill(module, 0.7)
    new = Ema(small_module().named_parameters(), DECAY).averages
    assert all(torch.equal(a, torch.full_like(new[k], 0.3)) for k, a in ema.averages.items())


@pytest.mark.parametrize("decay", [-1.0, 0.0, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(UserError, match="ema_decay"):
        Ema(small_module().named_parameters(), decay)


# A network under ZeRO stage 3 on two processes, against averages computed from whole weights.
ZERO_3 = """
    import torch
    from protenix_eba.cli.train import leave
    from protenix_eba.training.ema import Ema
    from protenix_eba.training.engine import start_distributed
    from protenix_eba.host.lora import adapters_off, add_adapters, merged_state

    start_distributed(torch.device("cpu"))
    import deepspeed

    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.GELU(), torch.nn.Linear(7, 6))

    module = network()
    if LORA:
        add_adapters(module, ["*"], 2, 4.0, torch.Generator().manual_seed(1))
    average = {k: v.clone() for k, v in module.state_dict().items()}
    sizes = {k: v.numel() for k, v in average.items()}
    x = torch.randn(4, 5)
    at_start = module(x).detach()
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": THRESHOLD},
        "zero_allow_untested_optimizer": True,
    }
    trained = [p for p in module.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=torch.optim.Adam(trained, lr=0.1), config=settings
    )

    def whole(state):
        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            return {k: v.clone() for k, v in state(module).items()}

    def step():
        with torch.no_grad(), adapters_off(module):
            reference = module(x)
        assert not LORA or torch.equal(reference, at_start)
        engine.backward(engine(x).square().mean())
        engine.step()

    ema = Ema(module.named_parameters(), 0.5)
    for _ in range(3):
        step()
        ema.update()
        weights = whole(torch.nn.Module.state_dict)
        average = {name: a.lerp(weights[name], 0.5) for name, a in average.items()}
    out = engine(x).detach()
    with ema.applied():
        inside, merged = whole(torch.nn.Module.state_dict), whole(merged_state)
        averaged = engine(x).detach()
    torch.testing.assert_close(inside, average)
    plain = network()
    plain.load_state_dict(merged)
    torch.testing.assert_close(averaged, plain(x).detach())
    assert (averaged - out).abs().max() > 0.01
    after = whole(torch.nn.Module.state_dict)
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert torch.equal(engine(x), out)
    step()
    assert all(v.numel() == (sizes[k] + 1) // 2 for k, v in ema.averages.items())
    torch.distributed.barrier()
    print("done")
    leave(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lora", "threshold"), [(False, 10**5), (True, 0)], ids=["kept_gathered", "sharded_lora"]
)
def test_shards_are_averaged_under_zero_stage_3(tmp_path, lora, threshold):
    program = tmp_path / "program.py"
    head = f"LORA, THRESHOLD = {lora}, {threshold}\n"
    program.write_text(head + textwrap.dedent(ZERO_3), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ended = subprocess.run(
        [*launcher, "--nproc_per_node=2", str(program)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("done") == 2
