"""Lists and folders of shots."""

import json

import pytest

from histream_core.farm.shots import Shot, read_shots, shots_in


def test_a_line_is_a_shot_with_the_name_that_it_says_or_its_number(tmp_path):
    path = tmp_path / "shots.jsonl"
    path.write_text('{"prompt": "a cat", "seed": null}\n\n{"name": "dog 2", "prompt": "a dog", "size": [64, 32]}\n')
    one, other = read_shots(path)
    assert one == Shot("shot-0001", {"prompt": "a cat"})
    assert other == Shot("dog 2", {"prompt": "a dog", "size": [64, 32]})
    assert (one.place, other.place, one.folder) == ("line 1", "line 3", tmp_path)


def test_lines_of_a_txt_may_be_prompts(tmp_path):
    path = tmp_path / "night.TXT"
    path.write_text('a cat\n{"prompt": "a dog", "seed": 3}\n')
    assert read_shots(path) == [
        Shot("shot-0001", {"prompt": "a cat"}),
        Shot("shot-0002", {"prompt": "a dog", "seed": 3}),
    ]


@pytest.mark.parametrize("text", ["[0:00] a cat\n[0:04, scene] a dog", "a cow\n  [00:02.5, cut] a dog"])
def test_a_timeline_among_lines_of_prompts_is_refused_with_the_way_to_write_it(tmp_path, text):
    """It was a shot for each of its lines."""
    place = "line 2" if text.startswith("a cow") else "line 1"
    with pytest.raises(ValueError, match=f"{place}: it is a line of a timeline, .*: write ") as said:
        shots_in(text, tmp_path)
    assert "timeline" in json.loads(str(said.value).partition(": write ")[2])
    assert shots_in("[a cat] in the rain", tmp_path)[0].options == {"prompt": "[a cat] in the rain"}


def test_a_folder_has_a_file_for_each_shot_in_the_order_of_its_numbers(tmp_path):
    files = {
        "10.txt": "a cat\n",
        "9.TXT": "[0:00] a dog\n[0:02, scene] a cow",
        "2.json": '{"prompt": "a cow", "seed": 3}',
        "cow.png": "",
        ".hidden.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert read_shots(tmp_path) == [
        Shot("2", {"prompt": "a cow", "seed": 3}),
        Shot("9", {"timeline": files["9.TXT"]}),
        Shot("10", {"prompt": "a cat"}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n", "no line holds anything: write a line like"),
        ('{"prompt": "a"}\na cat', r"line 2: it is no JSON .*: write it like \{"),
        ("[1]", "line 1: it is no JSON object"),
        ('{"seed": 1, "seed": 2}', "line 1: it is no JSON .the JSON has a name twice"),
        (r'{"prompt": "a", "first-frame": "C:\shots\a.png"}', r"line 1: it is no JSON .*: write / or \\\\ in paths"),
        (r'{"prompt": "a", "first-frame": "C:\users\a.png"}', r"line 1: it is no JSON .*: write / or \\\\ in paths"),
        ('{"name": "a"}\n{"name": "A"}', 'line 2: line 1 has the name "A" too'),
        ('{"name": "shot-0002"}\n{}', 'line 2: line 1 has the name "shot-0002" too'),
        ('{"name": "../a"}', "line 1: '../a' cannot be the name of a shot"),
        ('{"name": "a:b"}', "line 1: the name 'a:b' has ':' in it"),
        ('{"name": 3}', "line 1: '3' cannot be the name of a shot"),
    ],
)
def test_a_list_that_cannot_be_read_says_which_line(tmp_path, text, said):
    path = tmp_path / "shots.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_shots(path)
