"""A farm: a list of shots, each a kept run of its own, made by workers on this computer or on a cluster.

All state is files in one folder: the list (`store`), a lease for each shot that a worker holds (`lease`), and a log for
each shot. A worker makes one shot (`work`) by the function of its caller, which makes or resumes the shot's run; the
driver hands shots out and starts those again whose worker died (`drive`). Workers are this process, or tasks of Ray
(`workers`). Whatever dies, the finished chunks of every run are there, and the next driver goes on from them.
"""
