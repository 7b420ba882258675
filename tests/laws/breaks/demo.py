# ruff: noqa: E501
"""Breaks of `histream_core/demo`: file, what stands there, what it is broken to, test file, part of the test's name."""

BREAKS = [
    ("demo/painter.py", "SPEED = 1 / 64", "SPEED = 1 / 63.9", "demo/test_painter.py", "has_not_changed"),
    ("demo/scene_painter.py", "        grid[..., 0] *= -1", "        pass", "demo/test_scenes.py", "looks_where_it_moves"),
    ("demo/scene_painter.py", "    if training and scene.held_out:", "    if False:", "demo/test_scenes.py", "every_pair_of_words"),
    ("demo/scenes.py", "zip((1, 2, 3), numbers, strict=True)", "zip((0, 1, 4), numbers, strict=True)",
     "demo/test_scenes.py", "every_pair_of_words"),
    ("demo/scenes.py", "if word not in COLOURS or after not in (*PAINTED, *SHAPES)]", "]", "demo/test_trained.py", "scenes_nor_of_shapes"),
    ("demo/sentence.py", "parts[place - 1], parts[2 if place == 1 else 0]", "parts[0], parts[2]", "demo/test_sentence.py", "every_caption"),
    ("demo/sentence.py", "for known in (THINGS, painted or BACKGROUNDS, MOTIONS)", "for known in (THINGS, PLACES, MOTIONS)",
     "demo/test_sentence.py", "caption_of_a_scene"),
    ("demo/sentence.py", "len(shapes) != 1 or ", "", "demo/test_sentence.py", "refused_in_one"),
    ("demo/sentence.py", "if said <= {*one}", "", "demo/test_sentence.py", "what_a_sentence_says"),
    ("demo/trained.py", "            if other not in fitting:", "            if False:", "demo/test_trained.py", "by_what_was"),
    ("demo/trained.py", "if word not in trained(of, kind)]", "if False]", "demo/test_trained.py", "pair_of_colours or by_what_was"),
    ("demo/words.py", "if coloured or word not in vocabulary", "if word not in vocabulary", "demo/test_sentence.py", "ball_is_a_thing"),
    ("demo/words.py", "if coloured or word not in vocabulary", "if True", "demo/test_sentence.py", "caption_of_a_scene"),
]  # fmt: skip
