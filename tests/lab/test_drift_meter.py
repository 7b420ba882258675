"""The drift meter on videos with known changes, and with none."""

import json

import numpy as np
import pytest
import torch
from clips import shapes

from histream_core.cli import main
from histream_core.lab.charts.contact_sheet import GAP, LINE_HEIGHT
from histream_core.lab.charts.drift import HEIGHT, SCALE_WIDTH, WIDTH, drift_plot
from histream_core.lab.judge.drift_meter import describe_drift, meter
from histream_core.video.formats import find_format
from histream_core.video.pixels import to_uint8
from histream_core.video.writers import open_writer

STILL = shapes(1, 64, 96)[0]


def meter_of(change, seconds=3, fps=8):
    """Measure a video of one picture under `change(picture, part)`, `part` from 0 to 1 over the video."""
    frames = [change(STILL, index / (seconds * fps - 1)) for index in range(seconds * fps)]
    return meter(frames, fps)


def test_a_video_that_does_not_change_does_not_drift():
    for second in meter_of(lambda picture, part: picture):
        assert (second.colour, second.brightness, second.sharpness) == (0, 0, 1)


def test_brightness_is_no_change_of_colour():
    """Seen to fail with the change of the channels as they are."""
    last = meter_of(lambda picture, part: picture - 0.1 * part)[-1]
    assert last.brightness == pytest.approx(-0.066, abs=0.01)
    assert last.colour < 1e-6
    assert last.sharpness == pytest.approx(1, abs=1e-4)


def test_a_colour_cast_is_a_change_of_colour():
    """Red against green, so that the picture is as bright as before."""
    cast = torch.tensor([0.7152, -0.2126, 0.0]) * 0.1
    found = meter_of(lambda picture, part: picture + cast * part)
    assert abs(found[-1].brightness) < 1e-6
    assert 0.03 < found[-1].colour < 0.0716
    assert found[0].colour == 0
    assert found[1].colour < found[2].colour


def test_a_soft_picture_is_less_sharp():
    def blur(picture, part):
        soft = torch.nn.functional.avg_pool2d(picture.permute(2, 0, 1)[None], 5, 1, 2, count_include_pad=False)
        return torch.lerp(picture, soft[0].permute(1, 2, 0), part)

    found = meter_of(blur)
    assert found[-1].sharpness < 0.8
    assert found[-1].colour < 0.01


def test_seconds_are_those_of_the_rate():
    frames = [STILL] * 60
    assert [second.start for second in meter(frames, 16)] == [0, 1, 2, 3]
    assert [second.start for second in meter(frames, 23.976)] == [0, 1, 2]


@pytest.mark.parametrize(("frames", "fps", "said"), [(8, 8, "less than two seconds"), (9, 0, "use 16")])
def test_what_cannot_be_compared_is_refused(frames, fps, said):
    with pytest.raises(ValueError, match=said):
        meter([STILL] * frames, fps)


def test_the_summary_names_the_last_second_and_the_worst():
    found = meter_of(lambda picture, part: picture + torch.tensor([0.1, -0.03, 0]) * (1 if 0.4 < part < 0.6 else 0))
    assert describe_drift(found).startswith("in second 2: colour off by 0.0%, brightness by +0.0%, sharpness 100%")
    assert "off most in second 1" in describe_drift(found)


def test_the_plot_has_a_curve_for_each_and_it_goes_where_the_value_goes():
    """Seen to fail with a curve that is upside down."""
    calm = meter_of(lambda picture, part: picture)
    darker = meter_of(lambda picture, part: picture * (1 - 0.5 * part))
    one, other = drift_plot(calm), drift_plot(darker)
    assert one.shape == other.shape
    assert one.dtype == np.uint8
    top = GAP + (LINE_HEIGHT + HEIGHT + GAP) + LINE_HEIGHT  # of the panel of brightness
    blue = [np.argwhere((plot[top : top + HEIGHT] == (120, 190, 250)).all(-1)) for plot in (one, other)]
    middle, right = HEIGHT // 2, SCALE_WIDTH + WIDTH - 20
    assert np.abs(blue[0][:, 0] - middle).max() <= 1
    assert blue[1][blue[1][:, 1] > right, 0].min() > middle + 10
    assert drift_plot(calm, "a title").shape[0] > one.shape[0]


def test_the_command_line_reads_a_file_and_draws(tmp_path, capsys):
    frames = torch.stack([STILL * (1 - 0.3 * index / 47) for index in range(48)])
    video, plot = tmp_path / "a.mkv", tmp_path / "a.png"
    with open_writer(video, find_format("ffv1", None), size=(96, 64), fps=16) as writer:
        writer.write(frames)
    assert main(["drift", str(video), "--plot", str(plot), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = meter([torch.from_numpy(to_uint8(frames)[index] / np.float32(255)) for index in range(48)], 16)
    assert found["seconds"][-1]["brightness"] == pytest.approx(wanted[-1].brightness, abs=0.003)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(["drift", str(video), "--plot", str(tmp_path / "a.jpg")]) == 2
    assert "use a.png" in capsys.readouterr().err


def test_a_new_scene_is_called_so_and_not_drift():
    """Seen to fail with a sentence that calls the other picture of a new scene "off"."""
    cut = meter_of(lambda picture, part: picture if part < 0.34 else 1 - picture)
    said = describe_drift(cut)
    assert said.startswith("the picture changes at once in second 1: a new scene, which is no drift; within a scene")
    assert "moves by 0.0% at most" in said
    creeping = meter_of(lambda picture, part: picture + 0.15 * part * torch.tensor([1.0, 0, 0]))
    assert "scene" not in describe_drift(creeping)
