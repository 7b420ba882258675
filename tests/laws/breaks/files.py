# ruff: noqa: E501
"""Breaks of `histream_core/files`: file, what stands there, what it is broken to, test file, part of the test's name."""

BREAKS = [
    ("files/disk.py", "    if folder.is_symlink():\n", "    if False:\n", "video/test_strangers.py", "no_link"),
    ("files/disk.py", "        return File(partial_name(path))", "        return File(path)", "cli/test_own_files.py", "overwrite"),
    ("files/disk.py", "file = File(partial_name(path), exclusive=True)", "file = File(partial_name(path))",
     "cli/test_own_files.py", "twenty_at_once"),
    ("files/disk.py", "            ours = False  # from now on", "            pass  # from now on", "cli/test_own_files.py",
     "next_one_begins"),
    ("files/disk.py", "    if not overwrite and path != partial and os.path.lexists(path):", "    if False:",
     "cli/test_own_files.py", "appears_meanwhile"),
    ("files/disk.py", "            if _is_in(name, one):", "            if name == path and _is_in(name, one):",
     "files/test_disk.py", "that_is_read"),
    ("files/disk.py", "                check_unused(path)\n", "", "cli/test_own_files.py", "never_mix"),
    ("files/disk.py", "        if error.errno not in NO_SYNC:\n            raise", "        raise", "files/test_disk.py", "cannot_wait"),
    ("files/disk.py", "    check_length(path)\n", "", "files/test_disk.py", "too_long"),
    ("files/disk.py", "if letter in FORBIDDEN or not letter.isprintable()", "if not letter.isprintable()", "files/test_disk.py",
     "not_every_system"),
    ("files/reading.py", "decode(encoding or _unmarked(data))", 'decode("utf-8")', "files/test_reading.py", "editors"),
    ("files/tensors.py", "length > min(MAX_HEADER, size - 8)", "length > size - 8",
     "files/test_tensors.py", "strangers_file"),
    ("files/tensors.py", "len(entries) > MAX_TENSORS", "False", "files/test_tensors.py", "strangers_file"),
    ("files/tensors.py", "if start < end:", "if start < 0:", "files/test_tensors.py", "strangers_file"),
    ("files/tensors.py", "if dtype not in sizes:", "if dtype is None:", "files/test_tensors.py", "strangers_file"),
    ("files/tensors.py", " > _MAX_VALUES:", " < 0:", "files/test_tensors.py", "strangers_file"),
    ("files/tensors.py", "(-item[1][0].itemsize, item[0])", "-item[1][0].itemsize", "files/test_tensors.py", "librarys_but_for"),
    ("files/tensors.py", "numel() * dtype.itemsize", "numel()", "files/test_tensors.py", "wide_elements"),
]  # fmt: skip
