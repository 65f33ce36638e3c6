"""Event logs: what is written comes back, through whoever's writer, whatever happened."""

from __future__ import annotations

import logging
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from gradwatch.errors import InvalidInput, NothingToJudge, UnreadableLog
from gradwatch.log import writer as eventlog_module
from gradwatch.log.summaries import pack_layer_set, unpack_layer_set
from gradwatch.log.writer import EventLog, read_runs
from gradwatch.records import LayerSet
from tests.display.samples import (
    HOSTILE_NAMES,
    make_layer_set,
    make_named_set,
    make_record,
    with_histogram,
)


@pytest.fixture
def clock(monkeypatch):
    """Wall time under the test's hand: distinguishes resumed runs from simultaneous ones."""

    class Clock:
        now = 1000.0

        def time(self) -> float:
            self.now += 0.001
            return self.now

    clock = Clock()
    monkeypatch.setattr(eventlog_module, "time", clock)
    return clock


def write_steps(logdir, steps, layer_set=None, value: float = 1.0) -> None:
    layer_set = layer_set or make_layer_set()
    log = EventLog(logdir)
    for step in steps:
        log.write_record(make_record(step, layer_set, value))
    log.close()


def read_only_run(logdir):
    (run,) = read_runs(logdir)
    return run


def steps_and_values(run) -> list[tuple[int, float]]:
    return [(record.global_step, record.step_values[0]) for record in run.records()]


class TestRoundTrip:
    def test_every_number_and_name_comes_back(self, tmp_path) -> None:
        written = make_record(7)
        log = EventLog(tmp_path / "runs" / "exp")
        log.write_record(written)
        log.close()
        (read,) = read_only_run(tmp_path / "runs").records()
        assert read.global_step == 7
        assert read.layer_set == written.layer_set
        for name in ("layer_values", "param_values", "step_values"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))

    def test_histograms_come_back_on_their_steps_only(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        log.write_record(make_record(0))
        written = with_histogram(make_record(1), **{"net.2": [1, 2, 3], "net.0": [4, 5, 6]})
        log.write_record(written)
        first, second = read_only_run(tmp_path).records()
        assert first.histograms == {}
        assert {key: histogram.tolist() for key, histogram in second.histograms.items()} == {
            "net.2": [1, 2, 3],
            "net.0": [4, 5, 6],
        }

    def test_hostile_layer_names_come_back_whole(self, tmp_path) -> None:
        layer_set = make_named_set(HOSTILE_NAMES)
        write_steps(tmp_path, [0], layer_set)
        (read,) = read_only_run(tmp_path).records()
        assert tuple(layer.fqn for layer in read.layer_set.layers) == HOSTILE_NAMES

    def test_a_changed_layer_set_continues_the_run(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        log.write_record(make_record(0, make_layer_set(3)))
        log.write_record(make_record(1, make_layer_set(5)))
        assert [len(record.layer_set.layers) for record in read_only_run(tmp_path).records()] == [
            3,
            5,
        ]

    def test_layer_names_are_written_once(self, tmp_path) -> None:
        layer_set = make_layer_set(50)
        write_steps(tmp_path / "one", [0], layer_set)
        write_steps(tmp_path / "many", range(10), layer_set)
        single, many = (
            sum(f.stat().st_size for f in (tmp_path / d).iterdir()) for d in ("one", "many")
        )
        n_numbers = make_record(0, layer_set).to_vector().size
        assert (many - single) / 9 < 4 * n_numbers + 160

    def test_texts_come_back_in_order(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        log.write_scalars(3, {"gradwatch/attenuation": 0.5})
        log.write_text(3, "gradwatch/findings", "# schlecht ✗")
        log.write_text(9, "gradwatch/findings", "x" * 5000)
        texts = read_only_run(tmp_path).texts
        assert [(text.global_step, text.tag) for text in texts] == [
            (3, "gradwatch/findings"),
            (9, "gradwatch/findings"),
        ]
        assert texts[0].markdown == "# schlecht ✗"
        assert texts[1].markdown == "x" * 5000

    def test_an_unmeasured_scalar_is_left_out(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        before = log._file.path.stat().st_size
        log.write_scalars(0, {"gradwatch/attenuation": float("nan")})
        assert log._file.path.stat().st_size == before

    @pytest.mark.parametrize("step", [0, 1, 127, 128, 10**9, 2**40])
    def test_any_step_number(self, tmp_path, step: int) -> None:
        write_steps(tmp_path, [step])
        run = read_only_run(tmp_path)
        assert (run.first_step, run.last_step, len(run)) == (step, step, 1)
        assert [record.global_step for record in run.records()] == [step]


class TestLogdir:
    def test_home_and_non_ascii_and_spaces(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write_steps("~/läufe/実験 1", [0])
        assert [run.name for run in read_runs("~/läufe")] == ["実験 1"]
        assert (tmp_path / "läufe" / "実験 1").is_dir()

    def test_a_file_in_the_way(self, tmp_path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(InvalidInput, match=r"Expected a logdir.*got .*file.*Choose another"):
            EventLog(tmp_path / "file" / "run")

    @pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
    def test_a_directory_without_permission(self, tmp_path) -> None:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            if os.access(tmp_path, os.W_OK):
                pytest.skip("this user may write everywhere")
            with pytest.raises(InvalidInput, match="permissions"):
                EventLog(tmp_path / "run")
        finally:
            tmp_path.chmod(stat.S_IRWXU)

    def test_a_name_the_system_refuses(self) -> None:
        with pytest.raises(InvalidInput, match="Expected a logdir"):
            EventLog("run\0name")

    def test_an_address_of_a_store(self) -> None:
        with pytest.raises(InvalidInput, match="that fsspec can open"):
            EventLog("nowhere://bucket/run")


class TestSharedWriter:
    def test_summary_writer_is_shared_and_stays_open(self, tmp_path) -> None:
        tensorboard = pytest.importorskip("torch.utils.tensorboard")
        writer = tensorboard.SummaryWriter(tmp_path)
        log = EventLog(writer=writer)
        log.write_record(make_record(3))
        log.write_text(3, "gradwatch/findings", "text")
        log.close()
        writer.add_scalar("loss", 1.0, 4)
        assert len(list(tmp_path.iterdir())) == 1
        assert [record.global_step for record in read_only_run(tmp_path).records()] == [3]
        assert len(read_only_run(tmp_path).texts) == 1
        writer.close()

    def test_a_summary_writer_that_was_closed_between(self, tmp_path) -> None:
        tensorboard = pytest.importorskip("torch.utils.tensorboard")
        writer = tensorboard.SummaryWriter(tmp_path)
        log = EventLog(writer=writer)
        log.write_record(make_record(0))
        writer.close()
        log.write_record(make_record(1))
        writer.close()
        assert [record.global_step for record in read_only_run(tmp_path).records()] == [0, 1]

    def test_tensorboards_event_file_writer(self, tmp_path) -> None:
        writer = EventFileWriter(str(tmp_path))
        log = EventLog(writer=writer)
        log.write_record(make_record(2))
        log.flush()
        assert [record.global_step for record in read_only_run(tmp_path).records()] == [2]
        writer.close()

    def test_a_writer_that_takes_summaries_only(self, tmp_path) -> None:
        class OnlySummaries:
            seen: tuple = ()

            def add_summary(self, summary, global_step) -> None:
                self.seen = (*self.seen, (summary.value[0].tag, global_step))

        writer = OnlySummaries()
        record = make_record(5)
        EventLog(writer=writer).write_record(record)
        assert writer.seen == ((f"gradwatch/record/{record.layer_set.digest}", 5),)

    def test_lightnings_logger_and_its_dummies(self, tmp_path) -> None:
        loggers = pytest.importorskip("lightning.pytorch.loggers")
        logger_module = pytest.importorskip("lightning.pytorch.loggers.logger")
        logger = loggers.TensorBoardLogger(tmp_path)
        for writer in (
            logger,
            logger.experiment,
            logger_module.DummyLogger(),
            logger_module.DummyLogger().experiment,
        ):
            log = EventLog(writer=writer)
            log.write_record(make_record(0))
            log.close()
        assert len(list(tmp_path.rglob("*tfevents*"))) == 1
        assert len(read_only_run(tmp_path)) == 1
        logger.experiment.close()

    def test_nothing_at_all_swallows_everything(self) -> None:
        log = EventLog()
        log.write_record(make_record(0))
        log.write_scalars(0, {"gradwatch/attenuation": 1.0})
        log.close()

    @pytest.mark.parametrize("writer", [object(), "runs/exp", 3])
    def test_what_cannot_write_is_refused(self, writer) -> None:
        with pytest.raises(InvalidInput, match=r"Expected a writer.*got.*Pass logdir"):
            EventLog(writer=writer)

    def test_a_logger_of_another_kind_is_refused(self, tmp_path) -> None:
        loggers = pytest.importorskip("lightning.pytorch.loggers")
        with pytest.raises(InvalidInput, match="CSVLogger"):
            EventLog(writer=loggers.CSVLogger(tmp_path))


class TestResume:
    def test_later_written_steps_win_and_the_rest_is_dropped(self, tmp_path) -> None:
        write_steps(tmp_path, [0, 10, 20, 30], value=1.0)
        write_steps(tmp_path, [10, 15], value=2.0)
        assert steps_and_values(read_only_run(tmp_path)) == [(0, 1.0), (10, 2.0), (15, 2.0)]

    def test_beginning_again_replaces_the_run(self, tmp_path) -> None:
        write_steps(tmp_path, [0, 10], value=1.0)
        write_steps(tmp_path, [0], value=2.0)
        assert steps_and_values(read_only_run(tmp_path)) == [(0, 2.0)]

    def test_going_back_within_one_file(self, tmp_path) -> None:
        write_steps(tmp_path, [0, 1, 2, 1, 3])
        assert [step for step, _ in steps_and_values(read_only_run(tmp_path))] == [0, 1, 3]

    def test_names_survive_when_the_first_record_is_dropped(self, tmp_path) -> None:
        tensorboard = pytest.importorskip("torch.utils.tensorboard")
        writer = tensorboard.SummaryWriter(tmp_path)
        log = EventLog(writer=writer)
        for step in (0, 1, 0):
            log.write_record(make_record(step))
        writer.close()
        assert [record.global_step for record in read_only_run(tmp_path).records()] == [0]

    def test_two_models_at_the_same_time_are_two_runs(self, tmp_path, clock) -> None:
        generator, discriminator = EventLog(tmp_path), EventLog(tmp_path)
        for step in range(3):
            generator.write_record(make_record(step, make_layer_set(2, "generator")))
            discriminator.write_record(make_record(step, make_layer_set(3, "discriminator")))
        runs = read_runs(tmp_path)
        assert [run.name for run in runs] == [".", ".#2"]
        assert [len(run) for run in runs] == [3, 3]
        prefixes = [next(run.records()).layer_set.layers[0].fqn for run in runs]
        assert sorted(prefixes) == ["discriminator.0", "generator.0"]

    def test_two_models_through_one_writer_are_two_runs(self, tmp_path) -> None:
        writer = EventFileWriter(str(tmp_path))
        logs = EventLog(writer=writer), EventLog(writer=writer)
        for step in range(3):
            for n_layers, log in enumerate(logs, start=2):
                log.write_record(make_record(step, make_layer_set(n_layers)))
        writer.close()
        assert [len(run) for run in read_runs(tmp_path)] == [3, 3]

    def test_layer_sets_that_take_turns_stay_one_run(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        for step in range(6):
            log.write_record(make_record(step, make_layer_set(2 + step % 2)))
        assert [record.global_step for record in read_only_run(tmp_path).records()] == list(
            range(6)
        )


class TestDiscovery:
    def test_each_directory_with_event_files_is_a_run(self, tmp_path) -> None:
        for name in ("b", "a/deep/er", "."):
            write_steps(tmp_path / name, [0])
        (tmp_path / "empty").mkdir()
        (tmp_path / "b" / "checkpoint.pt").write_bytes(b"weights")
        assert [run.name for run in read_runs(tmp_path)] == [".", "a/deep/er", "b"]

    def test_no_directory(self, tmp_path) -> None:
        with pytest.raises(NothingToJudge, match="does not exist"):
            read_runs(tmp_path / "nowhere")

    def test_an_empty_directory(self, tmp_path) -> None:
        assert read_runs(tmp_path) == []

    def test_a_single_event_file(self, tmp_path) -> None:
        write_steps(tmp_path, [4])
        (path,) = tmp_path.iterdir()
        assert read_only_run(path).first_step == 4

    @pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
    def test_a_link_that_leads_back_up(self, tmp_path) -> None:
        write_steps(tmp_path / "run", [0])
        (tmp_path / "run" / "loop").symlink_to(tmp_path)
        assert [run.name for run in read_runs(tmp_path)] == ["run"]


class TestForeignAndDamaged:
    def test_someone_elses_events_are_a_run_without_records(self, tmp_path) -> None:
        writer = EventFileWriter(str(tmp_path))
        value = summary_pb2.Summary.Value(tag="loss", simple_value=1.0)
        writer.add_event(event_pb2.Event(step=1, summary=summary_pb2.Summary(value=[value])))
        writer.close()
        run = read_only_run(tmp_path)
        assert (len(run), run.first_step, run.last_step, run.damage) == (0, None, None, ())
        assert list(run.records()) == []

    def test_an_empty_event_file(self, tmp_path) -> None:
        (tmp_path / "events.out.tfevents.1").touch()
        run = read_only_run(tmp_path)
        assert (len(run), run.damage) == (0, ())

    def test_garbage_is_damage(self, tmp_path) -> None:
        (tmp_path / "events.out.tfevents.1").write_bytes(b"not an event file at all")
        run = read_only_run(tmp_path)
        assert len(run) == 0
        assert "damaged at byte 0" in run.damage[0]

    def test_a_truncated_last_record_is_left_out(self, tmp_path) -> None:
        write_steps(tmp_path, [0, 1, 2])
        (path,) = tmp_path.iterdir()
        os.truncate(path, path.stat().st_size - 10)
        run = read_only_run(tmp_path)
        assert ([record.global_step for record in run.records()], run.damage) == ([0, 1], ())

    def test_damage_in_the_middle_keeps_what_came_before(self, tmp_path) -> None:
        write_steps(tmp_path, range(5))
        (path,) = tmp_path.iterdir()
        third = read_only_run(tmp_path).entries[3]
        with path.open("r+b") as file:
            file.seek(third.offset - 12)
            file.write(struct.pack("<Q", 2**60))
        run = read_only_run(tmp_path)
        assert [record.global_step for record in run.records()] == [0, 1, 2]
        assert len(run.damage) == 1

    def test_a_record_of_the_wrong_length(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        record = make_record(0)
        log.write_record(record)
        log._latest = (wrong := make_layer_set(9), record.layer_set.digest)
        log.write_record(make_record(1, wrong))
        with pytest.raises(UnreadableLog, match="Expected a record of"):
            list(read_only_run(tmp_path).records())

    def test_records_without_their_names(self, tmp_path) -> None:
        log = EventLog(tmp_path)
        record = make_record(0)
        log._described.add(record.layer_set.digest)
        log.write_record(record)
        with pytest.raises(UnreadableLog, match="layer names"):
            list(read_only_run(tmp_path).records())

    @pytest.mark.parametrize("content", [b"", b"{}", b"\x78\x9cgarbage"])
    def test_a_layer_set_that_is_none(self, content: bytes) -> None:
        with pytest.raises(UnreadableLog):
            unpack_layer_set(content)

    def test_a_layer_set_that_would_inflate_without_end(self, monkeypatch) -> None:
        monkeypatch.setattr("gradwatch.log.summaries.MAX_LAYER_SET_BYTES", 100)
        with pytest.raises(UnreadableLog):
            unpack_layer_set(pack_layer_set(make_layer_set(50)))


def test_packed_layer_set_is_small_and_whole() -> None:
    layer_set = make_layer_set(1000)
    packed = pack_layer_set(layer_set)
    assert unpack_layer_set(packed) == layer_set
    assert len(packed) < len(layer_set.to_json()) / 5
    assert unpack_layer_set(pack_layer_set(LayerSet())) == LayerSet()


class TestTensorBoard:
    """What TensorBoard itself makes of a log: all tags visible, with their metadata."""

    @pytest.fixture
    def logdir(self, tmp_path) -> Path:
        log = EventLog(tmp_path / "run")
        for step in range(5):
            log.write_record(with_histogram(make_record(step), **{"net.0": [1, 2]}))
            log.write_scalars(step, {"gradwatch/attenuation": step / 4})
        log.write_text(4, "gradwatch/findings", "**bad**")
        log.close()
        return tmp_path

    def check(self, provider) -> None:
        from tensorboard.context import RequestContext

        context, place = RequestContext(), {"experiment_id": "", "plugin_name": "gradwatch"}
        (tensors,) = provider.list_tensors(context, **place).values()
        digest = make_layer_set().digest
        assert set(tensors) == {f"gradwatch/record/{digest}", f"gradwatch/units/{digest}"}
        series = tensors[f"gradwatch/record/{digest}"]
        assert unpack_layer_set(series.plugin_content) == make_layer_set()
        data = provider.read_tensors(context, **place, downsample=100)["run"]
        points = data[f"gradwatch/record/{digest}"]
        assert [point.step for point in points] == list(range(5))
        np.testing.assert_array_equal(points[4].numpy, make_record(4).to_vector())
        place["plugin_name"] = "scalars"
        assert list(provider.list_scalars(context, **place)["run"]) == ["gradwatch/attenuation"]
        points = provider.read_scalars(context, **place, downsample=100)["run"]
        assert [point.value for point in points["gradwatch/attenuation"]] == [0, 0.25, 0.5, 0.75, 1]
        place["plugin_name"] = "text"
        texts = provider.read_tensors(context, **place, downsample=100)["run"]
        assert texts["gradwatch/findings"][0].numpy.tolist() == [b"**bad**"]

    def test_python_loader(self, logdir) -> None:
        from tensorboard.backend.event_processing import data_provider
        from tensorboard.backend.event_processing import plugin_event_multiplexer as multiplexers

        multiplexer = multiplexers.EventMultiplexer(tensor_size_guidance={"gradwatch": 0})
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
        self.check(data_provider.MultiplexerDataProvider(multiplexer, str(logdir)))

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # TensorBoard leaves both behind
    def test_data_server(self, logdir) -> None:
        from tensorboard.data import server_ingester
        from tensorboard.util import grpc_util

        try:
            binary = server_ingester.get_server_binary()
        except server_ingester.NoDataServerError:
            pytest.skip("no TensorBoard data server on this platform")
        ingester = server_ingester.SubprocessServerDataIngester(
            server_binary=binary,
            logdir=str(logdir),
            reload_interval=0,
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
            samples_per_plugin={"gradwatch": 100},
        )
        ingester.start()
        try:
            self.check(ingester.data_provider)
        finally:
            ingester._stdin_handle.close()  # ends the server
