import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import check_place
from protenix_eba.core.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.claim({"lr": 0.1, "iters_to_accumulate": 2, "eba": {"checkpoint_keep": 2}})
    return run


def test_two_processes_do_not_train_in_one_folder(folder):
    with pytest.raises(UserError, match="another process is training"):
        RunFolder(folder.path).claim({})


def test_a_damaged_file_is_named(folder):
    (folder.path / "start.json").write_text("{")
    with pytest.raises(UserError, match=r"start.json is damaged"):
        folder.pin({"trunk": "a"})


def test_a_copy_of_a_checkpoint_is_none(folder):
    (folder.checkpoints / "step_old").mkdir()
    (folder.checkpoints / "step_old/complete.json").write_text("{}")
    assert folder.complete_steps() == []


def test_a_run_without_a_step_takes_any_configuration(folder):
    folder.pin({"trunk": "a"})
    folder.temperature.write_text("{}")
    folder.claim({"lr": 0.2})
    folder.pin({"trunk": "b"})
    assert not folder.temperature.exists()


def test_what_may_change_between_starts_changes(folder):
    folder.append_row(folder.log, {"step": 1})
    folder.claim({"lr": 0.1, "iters_to_accumulate": 1, "eba": {"checkpoint_keep": 5}})
    with pytest.raises(UserError, match="different are: lr"):
        folder.claim({"lr": 0.2, "iters_to_accumulate": 1, "eba": {"checkpoint_keep": 5}})


def test_what_is_pinned_may_not(folder):
    folder.pin({"trunk": "a", "global batch": 4})
    folder.pin({"trunk": "a", "global batch": 4})
    with pytest.raises(UserError, match="another global batch: expected 4, found 8"):
        folder.pin({"trunk": "a", "global batch": 8})


def test_a_run_is_finished_at_its_own_number_of_steps_only(folder):
    assert not folder.is_finished(6)
    folder.finish(6)
    assert folder.is_finished(6) and not folder.is_finished(8)


def test_the_best_validation_is_the_lowest_and_a_repeated_one_counts_again(folder):
    assert folder.is_best(0, 2.0)
    folder.mark_best(0, 2.0)
    assert not folder.is_best(2, 2.0) and folder.is_best(4, 1.9)
    assert not folder.is_best(4, float("nan"))
    folder.mark_best(4, 1.9)
    # A run resumed at step 2 meets steps 2 and 4 again.
    assert folder.is_best(2, 2.0)


def test_only_the_newest_checkpoints_stay_and_rewritten_ones_go(folder):
    for step in (2, 4, 6):
        (folder.checkpoints / folder.tag(step)).mkdir()
        (folder.checkpoints / f"{folder.tag(step)}_universal").mkdir()
        folder.mark_complete(step, keep=2, world_size=3)
    assert folder.complete_steps() == [6, 4]
    assert folder.world_size(6) == 3
    assert not list(folder.checkpoints.glob("*_universal"))


def test_a_checkpoint_set_aside_counts_no_more_and_stays(folder):
    (folder.checkpoints / folder.tag(2)).mkdir()
    folder.mark_complete(2, keep=1, world_size=1)
    folder.set_aside([2])
    assert folder.complete_steps() == []
    assert (folder.checkpoints / "unreadable_step_0000002").is_dir()


def test_a_resumed_run_forgets_the_lines_after_its_step(folder):
    for step in range(1, 5):
        folder.append_row(folder.log, {"step": step, "loss": 1.0 / step})
        folder.append_row(folder.validation, {"step": step, "loss": 1.0})
    folder.truncate_logs(3)
    steps = [line.split(",")[0] for line in folder.log.read_text().split()]
    assert steps == ["step", "1", "2", "3"]
    # The validation of step 3 comes before its training step, and is made again.
    assert folder.validation.read_text().count("\n") == 3


def test_a_run_from_before_some_keys_existed_goes_on(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim({"lr": 0.1, "eba": {}, "ebmfold": {}})
    folder.append_row(folder.log, {"step": 1, "drift": 0.5, "accuracy": 0.25})
    head = {"weights": "a.safetensors", "sampler": "hybrid"}
    folder.claim({"lr": 0.1, "eba": {"dataset": "atlas"}, "ebmfold": head})
    folder.append_row(folder.log, {"step": 2, "drift": 1.0, "leak": 9.0, "accuracy": 0.5})
    assert folder.log.read_text().splitlines() == ["step,drift,accuracy", "1,0.5,0.25", "2,1,0.5"]
    with pytest.raises(UserError, match=r"eba.dataset \(atlas then, mine now\)"):
        folder.claim({"lr": 0.1, "eba": {"dataset": "mine"}, "ebmfold": head})


def test_a_place_for_a_run_is_checked_without_being_made(tmp_path):
    check_place(tmp_path / "not" / "there")
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: it is a file"):
        check_place(tmp_path / "file" / "run")
